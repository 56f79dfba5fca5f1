//! A proxy's tunnel: `CONNECT` ([RFC 9110, 9.3.6](https://www.rfc-editor.org/rfc/rfc9110#section-9.3.6)).

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderValue, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::connector::endpoint::Endpoint;
use crate::connector::error::ProxyError;

/// Asks the proxy at the other end of `transport` for a tunnel to `server`; returns what came behind its answer.
pub(super) async fn open<T>(
    transport: &mut T,
    server: &Endpoint,
    authorization: Option<&HeaderValue>,
) -> Result<Bytes, ProxyError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    transport.write_all(&request(server, authorization)).await?;
    transport.flush().await?;
    let given = match authorization {
        Some(_) => Credentials::Given,
        None => Credentials::None,
    };
    let mut reply = Reply::new(given);
    loop {
        let mut chunk = BytesMut::with_capacity(reply.room());
        let mut limited = (&mut *transport).take(reply.room() as u64);
        if limited.read_buf(&mut chunk).await? == 0 {
            return Err(ProxyError::Cut);
        }
        if let Some(leftover) = reply.handle_input(&chunk)? {
            return Ok(leftover);
        }
    }
}

/// The bytes of the request.
fn request(server: &Endpoint, authorization: Option<&HeaderValue>) -> Vec<u8> {
    let target = server.authority();
    let mut head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
    if let Some(value) = authorization {
        head.extend_from_slice(b"Proxy-Authorization: ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// Says whether the request had credentials, for a better error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Credentials {
    Given,
    None,
}

/// A proxy's answer as it arrives: a parser without I/O.
#[derive(Debug)]
struct Reply {
    given: Credentials,
    received: BytesMut,
}

impl Reply {
    fn new(given: Credentials) -> Self {
        Self {
            given,
            received: BytesMut::new(),
        }
    }

    /// Bytes that may be read at once.
    fn room(&self) -> usize {
        (HEAD_MAX + 1).saturating_sub(self.received.len()).max(1)
    }

    /// Takes the next bytes; when the head is whole, gives those behind it, which belong to the tunnel.
    fn handle_input(&mut self, bytes: &[u8]) -> Result<Option<Bytes>, ProxyError> {
        self.received.extend_from_slice(bytes);
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Response::new(&mut headers);
        let length = match parsed.parse(&self.received) {
            Ok(httparse::Status::Complete(length)) if length <= HEAD_MAX => length,
            Ok(httparse::Status::Partial) if self.received.len() <= HEAD_MAX => return Ok(None),
            Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(ProxyError::HeadTooLong),
            Err(error) => return Err(ProxyError::NotHttp(error)),
        };
        let status = StatusCode::from_u16(parsed.code.unwrap_or_default())
            .map_err(|_| ProxyError::NotHttp(httparse::Error::Status))?;
        if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            return Err(self.unauthorized(parsed.headers));
        }
        if !status.is_success() {
            return Err(ProxyError::Refused(status));
        }
        self.received.advance(length);
        Ok(Some(self.received.split().freeze()))
    }

    fn unauthorized(&self, headers: &[httparse::Header<'_>]) -> ProxyError {
        let mut schemes = headers
            .iter()
            .filter(|header| header.name.eq_ignore_ascii_case("Proxy-Authenticate"))
            .peekable();
        let some_offer = schemes.peek().is_some();
        let offers_basic = schemes.any(|header| offers_basic(header.value));
        match self.given {
            _ if some_offer && !offers_basic => ProxyError::NoBasic,
            Credentials::Given => ProxyError::CredentialsRefused,
            Credentials::None => ProxyError::CredentialsMissing,
        }
    }
}

/// Finds `Basic` among the challenges, which commas separate, as well as their parameters.
fn offers_basic(challenges: &[u8]) -> bool {
    challenges.split(|byte| *byte == b',').any(|challenge| {
        let scheme = challenge.trim_ascii_start();
        let scheme = scheme.split(u8::is_ascii_whitespace).next();
        scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"Basic"))
    })
}

/// Bytes of an answer's head; a proxy that sends more wants to fill our memory.
const HEAD_MAX: usize = 16 * 1024;
/// Header lines of an answer.
const HEADERS_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds `bytes` in pieces of `size`; the outcome of the last piece that was taken.
    fn feed(given: Credentials, bytes: &[u8], size: usize) -> Result<Option<Bytes>, ProxyError> {
        let mut reply = Reply::new(given);
        let mut pieces = bytes.chunks(size);
        while let Some(piece) = pieces.next() {
            if let Some(leftover) = reply.handle_input(piece)? {
                let rest = pieces.flatten().copied();
                return Ok(Some(leftover.into_iter().chain(rest).collect()));
            }
        }
        Ok(None)
    }

    fn refusal(given: Credentials, reply: &[u8]) -> ProxyError {
        let error = feed(given, reply, reply.len()).unwrap_err();
        let bytewise = feed(given, reply, 1).unwrap_err();
        assert_eq!(error.to_string(), bytewise.to_string());
        error
    }

    fn server(authority: &str) -> Endpoint {
        Endpoint::parse(authority, 443).unwrap()
    }

    #[test]
    fn the_request_is_these_bytes() {
        let mut value = HeaderValue::from_static("Basic dXNlcjpzZWNyZXQ=");
        value.set_sensitive(true);
        assert_eq!(
            request(&server("farm.example"), Some(&value)),
            b"CONNECT farm.example:443 HTTP/1.1\r\nHost: farm.example:443\r\n\
              Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=\r\n\r\n"
        );
        assert_eq!(
            request(&server("[2001:db8::1]:8443"), None),
            b"CONNECT [2001:db8::1]:8443 HTTP/1.1\r\nHost: [2001:db8::1]:8443\r\n\r\n"
        );
    }

    #[test]
    fn a_tunnel_begins_behind_the_head_however_it_is_cut() {
        for head in [
            "HTTP/1.1 200 Connection established\r\n\r\n",
            "HTTP/1.0 200 OK\r\nProxy-Agent: x\r\nVia: y\r\n\r\n",
            "HTTP/1.1 204\r\n\r\n",
        ] {
            let bytes = [head.as_bytes(), b"SSH-2.0-x"].concat();
            for size in 1..bytes.len() {
                let leftover = feed(Credentials::None, &bytes, size).unwrap().unwrap();
                assert_eq!(leftover, b"SSH-2.0-x"[..], "{size}");
            }
            for length in 0..head.len() {
                let unfinished = feed(Credentials::None, &bytes[..length], 1).unwrap();
                assert_eq!(unfinished, None, "{length}");
            }
        }
    }

    #[test]
    fn a_407_says_what_is_to_be_done() {
        let basic = b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n";
        let error = refusal(Credentials::None, basic);
        assert!(matches!(error, ProxyError::CredentialsMissing), "{error:?}");
        let error = refusal(Credentials::Given, basic);
        assert!(matches!(error, ProxyError::CredentialsRefused), "{error:?}");
        let both = b"HTTP/1.1 407 x\r\nProxy-Authenticate: Negotiate, basic realm=x\r\n\r\n";
        let error = refusal(Credentials::None, both);
        assert!(matches!(error, ProxyError::CredentialsMissing), "{error:?}");
        let other = b"HTTP/1.1 407 x\r\nProxy-Authenticate: NTLM\r\nProxy-Authenticate: Digest a=Basic\r\n\r\n";
        let error = refusal(Credentials::Given, other);
        assert!(matches!(error, ProxyError::NoBasic), "{error:?}");
        let silent = b"HTTP/1.1 407 x\r\n\r\n";
        let error = refusal(Credentials::None, silent);
        assert!(matches!(error, ProxyError::CredentialsMissing), "{error:?}");
    }

    #[test]
    fn other_answers_are_refusals_with_their_status() {
        for status in [100, 199, 301, 403, 404, 502, 503] {
            let reply = format!("HTTP/1.1 {status} x\r\nContent-Length: 3\r\n\r\nno!");
            let error = refusal(Credentials::None, reply.as_bytes());
            assert!(
                matches!(error, ProxyError::Refused(got) if got.as_u16() == status),
                "{error:?}"
            );
        }
    }

    #[test]
    fn garbage_is_refused_as_soon_as_it_is_known() {
        for garbage in [
            &b"SSH-2.0-OpenSSH_9.2\r\n"[..],
            b"\x16\x03\x01\x02\x00\x01",
            b"HTTP/2.0 200 OK\r\n\r\n",
            b"HTTP/1.1 2000 OK\r\n\r\n",
            b"HTTP/1.1 20\x00 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            b"HTTP/1.1 000 OK\r\n\r\n",
        ] {
            let error = refusal(Credentials::None, garbage);
            assert!(matches!(error, ProxyError::NotHttp(_)), "{error:?}");
        }
    }

    #[test]
    fn a_head_without_end_is_refused_at_16_kib() {
        let mut long = b"HTTP/1.1 200 OK\r\nX: ".to_vec();
        long.resize(HEAD_MAX, b'x');
        assert!(matches!(feed(Credentials::None, &long, 100), Ok(None)));
        long.push(b'x');
        let error = refusal(Credentials::None, &long);
        assert!(matches!(error, ProxyError::HeadTooLong), "{error:?}");
        let mut many = b"HTTP/1.1 200 OK\r\n".to_vec();
        many.extend(b"a: b\r\n".repeat(HEADERS_MAX + 1));
        let error = refusal(Credentials::None, &many);
        assert!(matches!(error, ProxyError::HeadTooLong), "{error:?}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_pieces_do_not_matter(
            start in prop::sample::select(vec!["", "HTTP/1.1 ", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 407 x\r\nProxy-Authenticate: "]),
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            size in 1_usize..50,
        ) {
            let bytes = [start.as_bytes(), &bytes].concat();
            let whole = feed(Credentials::Given, &bytes, bytes.len().max(1));
            let pieces = feed(Credentials::Given, &bytes, size);
            prop_assert_eq!(format!("{whole:?}"), format!("{pieces:?}"));
        }
    }
}
