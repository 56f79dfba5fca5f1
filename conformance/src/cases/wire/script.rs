use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};

use crate::caps::Cap;
use crate::context::{Cx, ensure, same};
use crate::pair::{End, Pair};
use crate::reference::reference;
use crate::report::Failure;
use crate::rng::Rng;

/// Plays the same random scripts on a pair of the transport and on a reference pair.
pub(super) async fn same_as_reference(cx: Cx) -> Result<(), Failure> {
    let mut rng = cx.rng();
    let drops = cx.caps().has(Cap::ResetVisible);
    for round in 0..SCRIPTS {
        let script = Script::random(&mut rng, drops);
        let seen = script.play(&cx, cx.pair().await?).await;
        let expected = script.play(&cx, reference()).await;
        for (side, name) in ["the first end", "the second end"].into_iter().enumerate() {
            let sent = &script.parts[1 - side].bytes;
            compare(expected[side].as_ref(), seen[side].as_ref(), sent).map_err(|failure| {
                failure.at(format!("at {name}, in script {round}: {:?}", script.parts))
            })?;
        }
    }
    Ok(())
}

/// What one end heard must be a prefix of what the other said, whole where the ending is clean, and end as it did on the
/// reference.
fn compare(expected: Option<&Heard>, seen: Option<&Heard>, sent: &[u8]) -> Result<(), Failure> {
    let (Some(expected), Some(seen)) = (expected, seen) else {
        return Ok(());
    };
    ensure(
        expected.ending == seen.ending,
        format!("the ending {:?}", expected.ending),
        format!("{:?} after {} bytes", seen.ending, seen.bytes.len()),
    )?;
    match seen.ending {
        Ending::Clean => same(sent, &seen.bytes, 0),
        Ending::Broken => {
            let most = sent.len().min(seen.bytes.len());
            same(&sent[..most], &seen.bytes, 0)
        }
    }
}

/// What both ends do, each in a task of its own.
struct Script {
    parts: [Part; 2],
}

struct Part {
    acts: Vec<Act>,
    bytes: Vec<u8>,
    read_size: usize,
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.acts).finish()
    }
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Act {
    Drop,
    Finish,
    Flush,
    Pause,
    Write(usize),
}

/// Short, as a script has many: a number is a write of so many bytes.
impl std::fmt::Debug for Act {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Drop => f.write_str("drop"),
            Self::Finish => f.write_str("end"),
            Self::Flush => f.write_str("flush"),
            Self::Pause => f.write_str("pause"),
            Self::Write(size) => write!(f, "{size}"),
        }
    }
}

/// What one end read.
struct Heard {
    bytes: Vec<u8>,
    ending: Ending,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ending {
    Broken,
    Clean,
}

impl Script {
    fn random(rng: &mut Rng, drops: bool) -> Self {
        let mut parts = [Part::random(rng), Part::random(rng)];
        let dropped = drops && rng.one_in(3);
        let last = if dropped { Act::Drop } else { Act::Finish };
        let dropper = usize::from(rng.one_in(2));
        parts[dropper].acts.push(last);
        parts[1 - dropper].acts.push(Act::Finish);
        Self { parts }
    }

    async fn play(&self, cx: &Cx, pair: Pair) -> [Option<Heard>; 2] {
        cx.step(format!("playing the script {:?}", self.parts));
        let Pair { a, b, stop } = pair;
        let (a, b) = tokio::join!(self.parts[0].play(cx, a), self.parts[1].play(cx, b));
        let heard = [a, b].map(|(heard, end)| {
            drop(end);
            heard
        });
        drop(stop);
        heard
    }
}

impl Part {
    fn random(rng: &mut Rng) -> Self {
        let mut acts = Vec::new();
        let mut total = 0;
        for _ in 0..rng.size(12) {
            let most = [16, 300, 5000, 20_000][rng.size(4) - 1];
            let size = rng.size(most);
            total += size;
            acts.push(Act::Write(size));
            if rng.one_in(3) {
                acts.push(Act::Flush);
            }
            if rng.one_in(4) {
                acts.push(Act::Pause);
            }
        }
        let sizes = [1, 7, 1000, 64 * 1024];
        Self {
            acts,
            bytes: rng.bytes(total),
            read_size: sizes[rng.size(4) - 1],
        }
    }

    /// Acts and listens at the same time. Hears nothing where it drops its end; otherwise the end is returned, to be kept
    /// until the other part is over.
    async fn play(&self, cx: &Cx, end: End) -> (Option<Heard>, Option<End>) {
        let (mut reader, mut writer) = split(end);
        let acting = self.act(cx, &mut writer);
        let listening = listen(&mut reader, self.read_size);
        if self.acts.contains(&Act::Drop) {
            // Listens as long as it acts.
            tokio::select! {
                () = acting => {}
                // What comes after the end is nothing.
                () = async { drop(listening.await); std::future::pending().await } => {}
            }
            return (None, None);
        }
        let ((), heard) = tokio::join!(acting, listening);
        (Some(heard), Some(reader.unsplit(writer)))
    }

    async fn act(&self, cx: &Cx, writer: &mut WriteHalf<End>) {
        let mut rest = self.bytes.as_slice();
        for act in &self.acts {
            // Where the other end was dropped, writes may fail; what it heard is what counts.
            match *act {
                Act::Drop => return,
                Act::Finish => drop(writer.shutdown().await),
                Act::Flush => drop(writer.flush().await),
                Act::Pause => cx.settle().await,
                Act::Write(size) => {
                    let (piece, more) = rest.split_at(size);
                    rest = more;
                    drop(writer.write_all(piece).await);
                }
            }
        }
    }
}

async fn listen(reader: &mut ReadHalf<End>, size: usize) -> Heard {
    let mut bytes = Vec::new();
    let mut buf = vec![0; size];
    loop {
        match reader.read(&mut buf).await {
            Ok(0) => {
                let ending = Ending::Clean;
                return Heard { bytes, ending };
            }
            Ok(n) => bytes.extend_from_slice(&buf[..n]),
            Err(_) => {
                let ending = Ending::Broken;
                return Heard { bytes, ending };
            }
        }
    }
}

/// How many scripts one run plays.
const SCRIPTS: usize = 20;
