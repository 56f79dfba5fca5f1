//! What a client of v3 says of its windows, so that the server need not wait for the first answer.

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::config::Config;
use crate::frame::INITIAL_WINDOW;
use crate::handshake::header;

impl Config {
    /// The header in which a client of v3 says what it gives to each connection that is opened to it, in bytes.
    pub const WINDOW_HEADER: HeaderName = HeaderName::from_static("x-revdial-window");

    /// Says in the request for an upgrade to v3 what this side gives to each connection that the server opens:
    /// [`initial_stream_window`](Self::initial_stream_window). What the wire gives anyhow is not said.
    /// [`Connector`](crate::Connector) does it.
    ///
    /// The [`Listener`](crate::Listener) must then be made with this configuration, as the server will count on it. One that
    /// does not know the header loses nothing but a round trip.
    pub fn announce_window(&self, request: &mut HeaderMap) {
        let window = self.first_window();
        if window > INITIAL_WINDOW {
            request.insert(Self::WINDOW_HEADER, HeaderValue::from(window));
        }
    }

    /// Takes what the client's request says, for the [`Dialer`](crate::Dialer) of its link: the first
    /// [`peer_stream_window`](Self::peer_stream_window) bytes of a connection need not wait for the client's answer.
    ///
    /// A request that does not say it, or not as a number of bytes, leaves what is there. A client that says too much harms
    /// itself alone: what it does not take ends its link.
    pub fn heed_window(&mut self, request: &HeaderMap) {
        if let Some(window) = header(request, &Self::WINDOW_HEADER) {
            self.peer_stream_window = window;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(value: &str) -> u32 {
        let mut request = HeaderMap::new();
        let value = HeaderValue::from_str(value).unwrap();
        request.insert(Config::WINDOW_HEADER, value);
        let mut config = Config::default();
        config.heed_window(&request);
        config.first_credit()
    }

    #[test]
    fn what_is_announced_is_heeded() {
        let config = Config {
            initial_stream_window: 1 << 20,
            max_stream_window: 1 << 19,
            ..Config::default()
        };
        let mut request = HeaderMap::new();
        config.announce_window(&mut request);
        assert_eq!(request[Config::WINDOW_HEADER], "1048576");
        let mut heeding = Config::default();
        heeding.heed_window(&request);
        assert_eq!(heeding.peer_stream_window, 1 << 20);
    }

    #[test]
    fn what_the_wire_gives_is_not_announced() {
        for initial_stream_window in [0, 1000, 256 * 1024] {
            let config = Config {
                initial_stream_window,
                ..Config::default()
            };
            let mut request = HeaderMap::new();
            config.announce_window(&mut request);
            assert!(request.is_empty());
        }
    }

    #[test]
    fn what_is_no_window_changes_nothing() {
        let wire = 256 * 1024;
        for value in [
            "",
            "-1",
            "1 MiB",
            "0x100000",
            "4294967296",
            "300000, 400000",
        ] {
            assert_eq!(heard(value), wire, "{value:?}");
        }
        for less in ["0", "1000"] {
            assert_eq!(heard(less), wire, "{less:?}");
        }
        assert_eq!(heard(" 1000000 "), 1_000_000);
        assert_eq!(heard("4294967295"), 1 << 30);
        let mut config = Config::default();
        config.heed_window(&HeaderMap::new());
        assert_eq!(config, Config::default());
    }
}
