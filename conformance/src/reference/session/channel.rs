use std::io::{self, ErrorKind};
use std::task::{Context, Poll, Waker};

use tokio::io::ReadBuf;

use super::Flaw;
use super::state::{OUTBOX, State, WINDOW};
use crate::mux::{FrameKind, Side};
use crate::reference::yamux::encode;

/// Reading and writing streams.
impl State {
    pub(super) fn read(
        &mut self,
        id: u32,
        cx: &Context<'_>,
        buf: &mut ReadBuf<'_>,
        wakes: &mut Vec<Waker>,
    ) -> Poll<io::Result<()>> {
        let ended = self.ended;
        let Some(channel) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(ended.unwrap_or(ErrorKind::ConnectionReset).into()));
        };
        if channel.inbox.is_empty() && buf.remaining() > 0 {
            return match ended {
                _ if channel.peer_finished => Poll::Ready(Ok(())),
                _ if channel.reset => Poll::Ready(Err(ErrorKind::ConnectionReset.into())),
                Some(why) => Poll::Ready(Err(why.into())),
                None => {
                    channel.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
            };
        }
        let n = buf.remaining().min(channel.inbox.len());
        let (front, back) = channel.inbox.as_slices();
        let from_front = n.min(front.len());
        buf.put_slice(&front[..from_front]);
        buf.put_slice(&back[..n - from_front]);
        channel.inbox.drain(..n);
        channel.frames = 0;
        channel.consumed += n;
        if channel.consumed >= WINDOW / 2 && !channel.peer_finished {
            let granted = u32::try_from(channel.consumed).unwrap_or(0);
            channel.consumed = 0;
            self.control(&encode(FrameKind::Other, id, granted), wakes);
        } else if self.is_deaf_no_more() {
            wakes.extend(self.driver.take());
        }
        Poll::Ready(Ok(()))
    }

    fn is_deaf_no_more(&self) -> bool {
        self.flaw == Flaw::SharedInbox && !self.is_deaf()
    }

    pub(super) fn write(
        &mut self,
        id: u32,
        cx: &Context<'_>,
        bytes: &[u8],
        wakes: &mut Vec<Waker>,
    ) -> Poll<io::Result<usize>> {
        let ended = self.ended;
        let Some(channel) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(ended.unwrap_or(ErrorKind::ConnectionReset).into()));
        };
        match ended {
            _ if channel.finished => return Poll::Ready(Err(ErrorKind::BrokenPipe.into())),
            _ if channel.reset => return Poll::Ready(Err(ErrorKind::ConnectionReset.into())),
            Some(why) => return Poll::Ready(Err(why.into())),
            None => {}
        }
        let lazy = self.flaw == Flaw::LazyOpen && self.side == Side::Client;
        if lazy && !channel.announced {
            self.announce(id, wakes);
            return self.write(id, cx, bytes, wakes);
        }
        if bytes.is_empty() {
            if self.flaw == Flaw::EmptyWriteIsFrame {
                self.control(&encode(FrameKind::Data, id, 0), wakes);
            }
            return Poll::Ready(Ok(0));
        }
        let most = if self.flaw == Flaw::StagesAhead {
            16 * OUTBOX
        } else {
            OUTBOX
        };
        let n = bytes.len().min(most - channel.outbox.len());
        if n == 0 {
            channel.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        channel.outbox.extend(&bytes[..n]);
        if self.flaw == Flaw::FrameFair {
            channel.pieces.push_back(n);
        }
        self.enqueue(id, wakes);
        Poll::Ready(Ok(n))
    }

    /// Waits until the transport has what was written, and the end where it was asked for.
    pub(super) fn flush(&mut self, id: u32, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let Some(channel) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
        };
        let sent = channel.outbox.is_empty() && channel.finished == channel.end_sent;
        match self.ended {
            _ if sent && self.in_flight != Some(id) => Poll::Ready(Ok(())),
            _ if channel.reset => Poll::Ready(Err(ErrorKind::ConnectionReset.into())),
            Some(why) => Poll::Ready(Err(why.into())),
            None => {
                channel.writer = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Ends our direction.
    pub(super) fn finish(&mut self, id: u32, wakes: &mut Vec<Waker>) {
        if let Some(channel) = self.streams.get_mut(&id) {
            if !channel.finished && !channel.reset {
                channel.finished = true;
                self.enqueue(id, wakes);
            }
        }
    }

    /// Forgets a stream whose handle is gone, when it has said all that it had to say.
    pub(super) fn release(&mut self, id: u32, wakes: &mut Vec<Waker>) {
        if self.flaw == Flaw::RemembersStreams {
            self.remembered.push([u64::from(id); 8]);
        }
        let Some(channel) = self.streams.get_mut(&id) else {
            return;
        };
        if self.flaw == Flaw::AbandonedDialTakesAnswer && !channel.answered {
            self.abandoned.push_back(id);
            return;
        }
        (channel.reader, channel.writer) = (None, None);
        if channel.finished && !channel.end_sent && !channel.reset {
            channel.orphan = true;
            return;
        }
        let whole = channel.end_sent || channel.reset;
        self.streams.remove(&id);
        if !whole {
            self.control(&encode(FrameKind::Reset, id, 0), wakes);
        }
    }

    pub(super) fn enqueue(&mut self, id: u32, wakes: &mut Vec<Waker>) {
        if !self.turn.contains(&id) {
            self.turn.push_back(id);
        }
        wakes.extend(self.driver.take());
    }
}
