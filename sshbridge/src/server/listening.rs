//! Where the machine listens for a client.

use tokio::sync::watch;

use crate::backend::ListenAddress;

/// The addresses that a client asked the machine to listen on, and has not cancelled.
#[derive(Debug)]
pub(super) struct Listening(watch::Sender<Addresses>);

#[derive(Debug, Default)]
struct Addresses {
    listening: Vec<ListenAddress>,
    /// Requests that the machine has not answered: what listens may be connected to before we know its port.
    asked: usize,
}

/// A request that the machine has not answered yet.
#[derive(Debug)]
pub(super) struct Asked<'a>(&'a Listening);

impl Listening {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(Addresses::default()))
    }

    /// Begins a request, unless there are `max` already.
    pub(super) fn ask(&self, max: usize) -> Option<Asked<'_>> {
        let admitted = self.0.send_if_modified(|addresses| {
            let admitted = addresses.listening.len() + addresses.asked < max;
            addresses.asked += usize::from(admitted);
            admitted
        });
        admitted.then(|| Asked(self))
    }

    /// Forgets an address. Whether it was there.
    pub(super) fn remove(&self, address: &ListenAddress) -> bool {
        self.0.send_if_modified(|addresses| {
            let place = addresses.listening.iter().position(|it| it == address);
            place
                .map(|place| addresses.listening.remove(place))
                .is_some()
        })
    }

    /// The address, as the client asked for it, that a connection at `address` is for. Where requests are unanswered it
    /// waits for the answer.
    pub(super) async fn find(&self, address: &ListenAddress) -> Option<ListenAddress> {
        let mut changes = self.0.subscribe();
        let settled =
            changes.wait_for(|addresses| addresses.asked == 0 || addresses.find(address).is_some());
        settled.await.ok()?.find(address)
    }
}

impl Asked<'_> {
    /// The machine listens at `address`.
    pub(super) fn granted(self, address: ListenAddress) {
        self.0
            .0
            .send_modify(|addresses| addresses.listening.push(address));
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|addresses| addresses.asked -= 1);
    }
}

impl Addresses {
    /// Servers differ in how they spell the host of the address, but a port that only one address has is enough.
    fn find(&self, wanted: &ListenAddress) -> Option<ListenAddress> {
        if self.listening.contains(wanted) {
            return Some(wanted.clone());
        }
        let port = wanted.port()?;
        let mut same = self.listening.iter().filter(|it| it.port() == Some(port));
        match (same.next(), same.next()) {
            (Some(address), None) => Some(address.clone()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> ListenAddress {
        let host = host.to_owned();
        ListenAddress::Tcp { host, port }
    }

    fn granted(addresses: &[ListenAddress]) -> Listening {
        let listening = Listening::new();
        for address in addresses {
            listening.ask(10).unwrap().granted(address.clone());
        }
        listening
    }

    #[tokio::test]
    async fn what_nobody_asked_for_is_not_found() {
        let listening = granted(&[tcp("localhost", 1)]);
        assert_eq!(listening.find(&tcp("localhost", 2)).await, None);
        let path = "/localhost".to_owned();
        assert_eq!(listening.find(&ListenAddress::Unix { path }).await, None);
        assert!(listening.remove(&tcp("localhost", 1)));
        assert_eq!(listening.find(&tcp("localhost", 1)).await, None);
        assert!(!listening.remove(&tcp("localhost", 1)));
    }

    #[tokio::test]
    async fn another_spelling_of_the_host_is_found_where_the_port_is_enough() {
        let listening = granted(&[tcp("localhost", 1)]);
        let found = listening.find(&tcp("127.0.0.1", 1)).await;
        assert_eq!(found, Some(tcp("localhost", 1)));
        let listening = granted(&[tcp("a", 1), tcp("b", 1)]);
        assert_eq!(listening.find(&tcp("127.0.0.1", 1)).await, None);
        assert_eq!(listening.find(&tcp("b", 1)).await, Some(tcp("b", 1)));
    }

    #[tokio::test]
    async fn a_connection_that_is_faster_than_the_answer_waits_for_it() {
        let listening = Listening::new();
        let asked = listening.ask(1).unwrap();
        let address = tcp("", 1);
        let (found, ()) = tokio::join!(listening.find(&address), async {
            asked.granted(tcp("", 1));
        });
        assert_eq!(found, Some(tcp("", 1)));
        let other = listening.ask(1);
        assert!(other.is_none(), "there is one already");
    }
}
