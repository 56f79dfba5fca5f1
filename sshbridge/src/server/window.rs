//! What a client may send on a channel, which the SSH library lets it exceed.

use crate::flow::WINDOW;

/// The account of one channel's window.
#[derive(Debug)]
pub(super) struct WindowAccount {
    left: u32,
    granted: Option<u32>,
    exceeded: usize,
}

impl WindowAccount {
    pub(super) fn new() -> Self {
        Self {
            left: WINDOW,
            granted: None,
            exceeded: 0,
        }
    }

    /// Notes a grant. The library grants before it passes the data on that made it do so.
    pub(super) fn grant(&mut self, window: u32) {
        self.granted = Some(window);
    }

    /// Counts what came; whether the client has kept to its windows well enough.
    pub(super) fn receive(&mut self, bytes: usize) -> Result<(), Flood> {
        let left = self.left as usize;
        self.exceeded += bytes.saturating_sub(left);
        let left = u32::try_from(left.saturating_sub(bytes)).unwrap_or(0);
        self.left = self.granted.take().unwrap_or(left);
        if self.exceeded > EXCESS {
            Err(Flood)
        } else {
            Ok(())
        }
    }
}

/// The client sends more than its windows allow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Flood;

/// How far a client may exceed its windows before it is cut off: an eighth of one, as OpenSSH tolerates.
const EXCESS: usize = WINDOW as usize / 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_that_is_used_and_granted_again_is_not_exceeded() {
        let mut account = WindowAccount::new();
        for _ in 0..1000 {
            let half = WINDOW as usize / 2 + 1;
            account.receive(half).unwrap();
            account.grant(WINDOW);
            account.receive(10).unwrap();
            assert_eq!((account.left, account.exceeded), (WINDOW, 0));
        }
    }

    #[test]
    fn what_exceeds_the_windows_adds_up() {
        let mut account = WindowAccount::new();
        account.receive(WINDOW as usize).unwrap();
        account.receive(100).unwrap();
        account.grant(2);
        account.receive(0).unwrap();
        account.receive(5).unwrap();
        assert_eq!(account.exceeded, 103);
        let packet = 32 << 10;
        let packets = (0..).take_while(|_| account.receive(packet).is_ok());
        assert_eq!(packets.count(), EXCESS / packet - 1);
    }
}
