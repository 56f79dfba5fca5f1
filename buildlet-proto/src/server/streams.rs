//! `/connect-ssh` and `/connect-tcp`: requests that become a byte stream to something on the machine.

use std::io;
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::body::ReplyBody;
use crate::api::{ByteStream, SshRequest};
use crate::hijack::{self, Hijack, HijackedStream};
use crate::{ApiError, Buildlet};

/// A stream to the machine's SSH server.
pub(super) async fn connect_ssh<B: Buildlet, R: Body>(
    buildlet: &B,
    request: &Request<R>,
) -> Result<Response<ReplyBody>, ApiError> {
    let opening = Opening::of(request)?;
    let ssh = SshRequest {
        user: header_text(request, USER),
        authorized_key: header_text(request, AUTHORIZED_KEY),
    };
    let ssh = buildlet.connect_ssh(ssh).await?;
    let mut response = opening.join("ssh", ssh.stream);
    let host_key = ssh
        .host_key
        .and_then(|key| HeaderValue::from_str(&key).ok());
    if let Some(key) = host_key {
        response.headers_mut().insert(HOST_KEY, key);
    }
    Ok(response)
}

/// A stream to a port of the machine.
pub(super) async fn connect_tcp<B: Buildlet, R: Body>(
    buildlet: &B,
    request: &Request<R>,
) -> Result<Response<ReplyBody>, ApiError> {
    let opening = Opening::of(request)?;
    let port = header_text(request, TARGET_PORT).and_then(|port| port.parse().ok());
    let port = port.filter(|&port| port != 0).ok_or_else(|| {
        ApiError::bad_request("requires X-Target-Port, the port to reach, from 1 to 65535")
    })?;
    let stream = buildlet.connect_tcp(port).await?;
    Ok(opening.join("tcp", stream))
}

/// A request that is about to become a stream.
struct Opening<'a> {
    hijack: &'a Hijack,
    first_word: FirstWord,
}

impl<'a> Opening<'a> {
    fn of<R: Body>(request: &'a Request<R>) -> Result<Self, ApiError> {
        super::require(request, &Method::POST)?;
        if request.body().size_hint().exact() != Some(0) {
            return Err(ApiError::bad_request("requires zero Content-Length"));
        }
        let hijack = request.extensions().get::<Hijack>();
        Ok(Self {
            hijack: hijack
                .ok_or_else(|| ApiError::internal("this connection cannot be taken over"))?,
            first_word: FirstWord::of(request),
        })
    }

    /// Answers with a 101, and joins `stream` to the connection behind it until both directions have ended.
    fn join(self, protocol: &'static str, stream: Box<dyn ByteStream>) -> Response<ReplyBody> {
        let mut response = Response::new(ReplyBody::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::UPGRADE, HeaderValue::from_static(protocol));
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        let first_word = self.first_word;
        self.hijack.take_over(move |client| async move {
            if let Err(error) = join(client, stream, first_word).await {
                tracing::debug!(%error, protocol, "a stream was cut");
            }
        });
        response
    }
}

/// Who speaks first on the stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum FirstWord {
    Anybody,
    Client,
}

impl FirstWord {
    /// Go's client forgets what it read together with the 101, so its server must not be quick; every other client keeps
    /// it.
    fn of<R>(request: &Request<R>) -> Self {
        let agent = request.headers().get(header::USER_AGENT);
        match agent {
            Some(agent) if agent.as_bytes().starts_with(b"Go-http-client") => Self::Client,
            _ => Self::Anybody,
        }
    }
}

async fn join(
    mut client: HijackedStream,
    mut server: Box<dyn ByteStream>,
    first_word: FirstWord,
) -> io::Result<()> {
    if first_word == FirstWord::Client {
        let mut first = [0; 1024];
        if let Ok(read) = tokio::time::timeout(FIRST_WORD, client.read(&mut first)).await {
            match read? {
                0 => server.shutdown().await?,
                length => server.write_all(&first[..length]).await?,
            }
        }
    }
    hijack::join(client, server).await
}

fn header_text<R>(request: &Request<R>, name: &str) -> Option<String> {
    let value = request.headers().get(name)?.to_str().ok()?.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

const AUTHORIZED_KEY: &str = "x-go-authorized-key";
const HOST_KEY: &str = "x-ssh-host-key";
const TARGET_PORT: &str = "x-target-port";
const USER: &str = "x-go-ssh-user";

/// How long the server's first bytes are kept from a client that speaks second: long enough for Go's client to have taken
/// the 101 on its own.
const FIRST_WORD: Duration = Duration::from_millis(250);
