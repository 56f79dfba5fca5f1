//! Two streams joined to one.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};

/// Copies between `a` and `b`, both ways, until both directions have ended: the end of one stream shuts down the other.
///
/// A stream that takes nothing any more may still have something to say: what a server says before it closes reaches a
/// client that was writing at the same time, as it would without us in between. That may take 5 s and no longer. A
/// stream that cannot be read ends it all, once what came before is written.
///
/// # Errors
///
/// What broke the direction that broke first. Dropped now, both streams are cut rather than ended.
///
/// # Cancel safety
///
/// Dropping the future loses what it had read and not yet written.
pub async fn join<A, B>(a: A, b: B) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (from_a, to_a) = split(a);
    let (from_b, to_b) = split(b);
    let mut there = std::pin::pin!(copy(from_a, to_b));
    let mut back = std::pin::pin!(copy(from_b, to_a));
    tokio::select! {
        ended = &mut there => settle(ended, back).await,
        ended = &mut back => settle(ended, there).await,
    }
}

/// What broke a direction.
enum Broken {
    Read(io::Error),
    Write(io::Error),
}

/// Waits for the `other` direction after the first has `ended`, where it can still do something.
async fn settle(
    ended: Result<(), Broken>,
    other: impl Future<Output = Result<(), Broken>>,
) -> io::Result<()> {
    match ended {
        Ok(()) => match other.await {
            Ok(()) => Ok(()),
            Err(Broken::Read(error) | Broken::Write(error)) => Err(error),
        },
        Err(Broken::Read(error)) => Err(error),
        Err(Broken::Write(error)) => {
            // Its own failure, or its delay, adds nothing to the first.
            let _ = tokio::time::timeout(LINGER, other).await;
            Err(error)
        }
    }
}

/// Copies one way, flushes whenever nothing is left to read at once, and shuts down at the end.
///
/// Tokio's own copy forgets what it holds where the reader breaks while the writer is slow.
async fn copy<R: AsyncRead, W: AsyncWrite>(reader: R, writer: W) -> Result<(), Broken> {
    let (mut reader, mut writer) = (std::pin::pin!(reader), std::pin::pin!(writer));
    let mut buffer = vec![0; CHUNK];
    let mut unflushed = false;
    loop {
        let read = tokio::select! {
            biased;
            read = reader.read(&mut buffer) => read,
            flushed = writer.flush(), if unflushed => {
                unflushed = false;
                flushed.map_err(Broken::Write)?;
                continue;
            }
        };
        match read {
            Ok(0) => return writer.shutdown().await.map_err(Broken::Write),
            Ok(length) => {
                let written = writer.write_all(&buffer[..length]).await;
                written.map_err(Broken::Write)?;
                unflushed = true;
            }
            Err(error) => {
                // That it cannot be flushed either, or not soon, adds nothing.
                let _ = tokio::time::timeout(LINGER, writer.flush()).await;
                return Err(Broken::Read(error));
            }
        }
    }
}

/// What is read at a time, in each direction.
const CHUNK: usize = 16 << 10;

/// How long last words may take.
const LINGER: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_test::io::Builder;

    fn reset() -> io::Error {
        io::ErrorKind::ConnectionReset.into()
    }

    #[tokio::test(start_paused = true)]
    async fn each_direction_ends_on_its_own() {
        let (mut client, a) = tokio::io::duplex(64);
        let (mut server, b) = tokio::io::duplex(64);
        let joined = tokio::spawn(join(a, b));
        client.write_all(b"request").await.unwrap();
        client.shutdown().await.unwrap();
        let mut got = Vec::new();
        server.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"request");
        server.write_all(b"reply").await.unwrap();
        drop(server);
        got.clear();
        client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"reply");
        joined.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn last_words_arrive_although_the_server_takes_nothing_any_more() {
        let (mut client, a) = tokio::io::duplex(64);
        let server = Builder::new()
            .write_error(reset())
            .wait(Duration::from_millis(20))
            .read(b"closed for maintenance")
            .read_error(reset())
            .build();
        let joined = tokio::spawn(join(a, server));
        client.write_all(b"hello").await.unwrap();
        let mut got = [0; 22];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"closed for maintenance");
        let error = joined.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_read_before_a_break_is_written_and_flushed() {
        let (mut client, a) = tokio::io::duplex(4);
        let server = Builder::new()
            .read(b"0123456789")
            .read_error(reset())
            .build();
        let joined = tokio::spawn(async move { join(tokio::io::BufStream::new(a), server).await });
        let mut got = [0; 10];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"0123456789");
        joined.await.unwrap().unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_cannot_be_read_ends_both_directions_at_once() {
        let (_client, a) = tokio::io::duplex(64);
        let server = Builder::new().read_error(reset()).build();
        let begun = tokio::time::Instant::now();
        join(a, server).await.unwrap_err();
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_takes_nothing_and_says_nothing_is_not_waited_for_long() {
        let (mut client, a) = tokio::io::duplex(64);
        let silence = Duration::from_secs(60);
        let server = Builder::new().write_error(reset()).wait(silence).build();
        client.write_all(b"hello").await.unwrap();
        let begun = tokio::time::Instant::now();
        join(a, server).await.unwrap_err();
        assert_eq!(begun.elapsed(), LINGER);
    }
}
