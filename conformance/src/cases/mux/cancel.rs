use std::task::Poll;
use std::time::Duration;

use tokio::io::AsyncReadExt;

use crate::context::{Cx, ensure, receive, send};
use crate::fault::Delay;
use crate::pair::{End, pipe};
use crate::report::{Expecting, Failure};
use crate::step::Step;

pub(super) async fn open(cx: Cx) -> Result<(), Failure> {
    let session = cx.session().await?;
    for _ in 0..20 {
        // Ready or pending: the stream or the future is dropped.
        drop(Step::new(session.client.open()).poll());
        cx.settle().await;
    }
    cx.step("opening after opens that were dropped");
    let mut a = super::open(&*session.client).await?;
    let word = async {
        send(&mut a, b"kept").await?;
        receive(&mut a, b"heard").await
    };
    let find = async {
        // Dropped streams may have been announced; they carry nothing.
        let (mut end, others) = word_bearer(&*session.server).await?;
        send(&mut end, b"heard").await?;
        Ok((end, others))
    };
    tokio::try_join!(word, find).map(drop)
}

pub(super) async fn accept(cx: Cx) -> Result<(), Failure> {
    let session = cx.session().await?;
    let mut kept = Vec::new();
    for i in 0..20_u8 {
        cx.step(format!(
            "accepting stream {i} after accepts that were dropped"
        ));
        drop(Step::new(session.server.accept()).poll());
        let mut a = super::open(&*session.client).await?;
        send(&mut a, &[i]).await?;
        cx.settle().await;
        let early = Step::new(session.server.accept()).poll();
        let mut b = match early {
            Poll::Ready(accepted) => accepted
                .expecting("a stream to accept")?
                .ok_or_else(|| Failure::new("a stream", "the end of the session"))?,
            Poll::Pending => super::accept(&*session.server).await?,
        };
        receive(&mut b, &[i]).await?;
        kept.push((a, b));
    }
    Ok(())
}

/// Gives up an open whose answer takes 20 ms, then opens another and says a word on it.
pub(super) async fn dial(cx: Cx) -> Result<(), Failure> {
    let (a, b) = pipe();
    let a = Delay::new(a, Duration::from_millis(20));
    let session = cx.session_over(Box::new(a), b).await?;
    for round in 0..5 {
        cx.step(format!("giving an open up in round {round}"));
        // Ready or pending: the stream or the future is dropped.
        drop(Step::new(session.client.open()).poll());
        cx.step(format!("opening another in round {round}"));
        let word = async {
            let mut end = super::open(&*session.client).await?;
            send(&mut end, b"kept").await?;
            Ok(end)
        };
        let (mut kept, others) = tokio::try_join!(word, word_bearer(&*session.server))?;
        let (mut bearer, abandoned) = others;
        tokio::try_join!(send(&mut bearer, b"heard"), receive(&mut kept, b"heard"))?;
        cx.step(format!(
            "the open that was given up ending in round {round}"
        ));
        let rest = drain(&cx, &*session.server).await?;
        for mut end in abandoned.into_iter().chain(rest) {
            let mut byte = [0];
            let read = cx.within("an open that was given up to end", end.read(&mut byte));
            let read = read.await?;
            ensure(
                matches!(read, Ok(0) | Err(_)),
                "nothing on a stream that was given up",
                "a byte",
            )?;
        }
    }
    Ok(())
}

/// Accepts streams up to the one that carries a word; returns it and those before it.
async fn word_bearer(mux: &dyn crate::mux::Mux) -> Result<(End, Vec<End>), Failure> {
    let mut abandoned = Vec::new();
    loop {
        let mut end = super::accept(mux).await?;
        let mut word = [0; 4];
        let read = tokio::time::timeout(Duration::from_millis(200), end.read_exact(&mut word));
        match read.await {
            Ok(Ok(_)) => return Ok((end, abandoned)),
            Ok(Err(_)) | Err(_) => abandoned.push(end),
        }
    }
}

/// Accepts what comes without a wait.
async fn drain(cx: &Cx, mux: &dyn crate::mux::Mux) -> Result<Vec<End>, Failure> {
    let mut ends = Vec::new();
    cx.settle().await;
    while let Poll::Ready(accepted) = Step::new(mux.accept()).poll() {
        ends.extend(accepted.expecting("a stream or none")?);
    }
    Ok(ends)
}
