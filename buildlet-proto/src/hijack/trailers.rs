//! Responses with trailers, for clients that do not say that they want them.

use std::pin::{Pin, pin};

use bytes::{Buf, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::HijackedStream;

/// What of a request decides about trailers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    may_get_trailers: bool,
}

impl Asked {
    pub(super) fn new<B>(request: &Request<B>) -> Self {
        Self {
            may_get_trailers: request.version() == Version::HTTP_11
                && request.method() != Method::HEAD,
        }
    }

    pub(super) fn may_get_trailers(self) -> bool {
        self.may_get_trailers
    }
}

/// Gives the last head in `held`, which has status 101, its real status, and says that chunks and `trailer` follow: hyper
/// writes neither with a 101.
pub(super) fn rewrite_head(held: &mut Vec<u8>, status: StatusCode, trailer: &HeaderValue) {
    let start = held
        .windows(STATUS_LINE.len())
        .rposition(|window| window == STATUS_LINE);
    let Some(start) = start else { return };
    let reason = status.canonical_reason().unwrap_or("Unknown");
    let line = format!("HTTP/1.1 {} {reason}\r\n", status.as_str());
    held.splice(start..start + STATUS_LINE.len(), line.into_bytes());
    held.truncate(held.len() - b"\r\n".len());
    held.extend_from_slice(b"Trailer: ");
    held.extend_from_slice(trailer.as_bytes());
    held.extend_from_slice(b"\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
}

/// Sends `body` in chunks, each flushed, with its trailers, and ends the connection. A body that fails is cut: the client
/// does not see the last chunk. When the client goes away, or ends its side, the body is dropped.
pub(super) async fn send<B>(body: B, stream: HijackedStream)
where
    B: Body,
{
    let (read, write) = tokio::io::split(stream);
    tokio::select! {
        biased;
        () = client_gone(read) => tracing::debug!("the client left in the middle of a response"),
        sent = send_body(body, write) => if let Err(error) = sent {
            tracing::debug!(error = %error, "a response was cut");
        },
    }
}

async fn send_body<B>(body: B, mut write: impl AsyncWrite + Unpin) -> std::io::Result<()>
where
    B: Body,
{
    let mut body = pin!(body);
    let mut trailers = HeaderMap::new();
    while let Some(frame) = next_frame(&mut body).await? {
        match frame.into_data() {
            Ok(data) => send_chunk(data, &mut write).await?,
            Err(frame) => {
                if let Ok(more) = frame.into_trailers() {
                    trailers.extend(more);
                }
            }
        }
    }
    let mut end = BytesMut::from(&b"0\r\n"[..]);
    for (name, value) in &trailers {
        end.extend_from_slice(title_case(name.as_str()).as_bytes());
        end.extend_from_slice(b": ");
        end.extend_from_slice(value.as_bytes());
        end.extend_from_slice(b"\r\n");
    }
    end.extend_from_slice(b"\r\n");
    write.write_all(&end).await?;
    write.shutdown().await
}

async fn next_frame<B: Body>(body: &mut Pin<&mut B>) -> std::io::Result<Option<Frame<B::Data>>> {
    let frame = body.frame().await.transpose();
    frame.map_err(|_| std::io::Error::other("the body of the response failed"))
}

/// One chunk, in one write. An empty one would be the end of the body.
async fn send_chunk(data: impl Buf, write: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
    if !data.has_remaining() {
        return Ok(());
    }
    let mut chunk = BytesMut::from(format!("{:x}\r\n", data.remaining()).as_bytes());
    bytes::BufMut::put(&mut chunk, data);
    chunk.extend_from_slice(b"\r\n");
    write.write_all(&chunk).await?;
    write.flush().await
}

/// Waits for the client's end, discarding what it sends: after `Connection: close` nothing can count as a request.
async fn client_gone(mut read: impl AsyncRead + Unpin) {
    let mut discarded = [0; 1024];
    while matches!(read.read(&mut discarded).await, Ok(1..)) {}
}

fn title_case(name: &str) -> String {
    let mut at_start = true;
    let upper = |c: char| {
        let cased = if at_start { c.to_ascii_uppercase() } else { c };
        at_start = c == '-';
        cased
    };
    name.chars().map(upper).collect()
}

const STATUS_LINE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_head_is_rewritten() {
        let mut held =
            b"HTTP/1.1 200 OK\r\n\r\nbodyHTTP/1.1 101 Switching Protocols\r\nDate: x\r\n\r\n"
                .to_vec();
        let trailer = HeaderValue::from_static("Process-State");
        rewrite_head(&mut held, StatusCode::OK, &trailer);
        let want = "HTTP/1.1 200 OK\r\n\r\nbodyHTTP/1.1 200 OK\r\nDate: x\r\nTrailer: Process-State\r\n\
                    Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
        assert_eq!(String::from_utf8(held).unwrap(), want);
    }

    #[test]
    fn trailer_names_are_written_as_go_does() {
        assert_eq!(title_case("process-state"), "Process-State");
    }
}
