//! `/connect-ssh`: a request that becomes a byte stream to the machine's SSH server.

use std::io;
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};

use super::body::ReplyBody;
use crate::api::{ByteStream, SshRequest};
use crate::hijack::{Hijack, HijackedStream};
use crate::{ApiError, Buildlet};

/// Opens the stream and, behind a 101, joins it to the connection until both directions have ended.
pub(super) async fn connect<B: Buildlet, R: Body>(
    buildlet: &B,
    request: &Request<R>,
) -> Result<Response<ReplyBody>, ApiError> {
    super::require(request, &Method::POST)?;
    if request.body().size_hint().exact() != Some(0) {
        return Err(ApiError::bad_request("requires zero Content-Length"));
    }
    let hijack = request
        .extensions()
        .get::<Hijack>()
        .ok_or_else(|| ApiError::internal("this connection cannot be taken over"))?;
    let ssh = buildlet
        .connect_ssh(SshRequest {
            user: header_text(request, USER),
            authorized_key: header_text(request, AUTHORIZED_KEY),
        })
        .await?;

    let mut response = Response::new(ReplyBody::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("ssh"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Some(key) = ssh
        .host_key
        .and_then(|key| HeaderValue::from_str(&key).ok())
    {
        headers.insert(HOST_KEY, key);
    }
    let first_word = FirstWord::of(request);
    hijack.take_over(move |stream| async move {
        if let Err(error) = join(stream, ssh.stream, first_word).await {
            tracing::debug!(%error, "an SSH stream was cut");
        }
    });
    Ok(response)
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
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

fn header_text<R>(request: &Request<R>, name: &str) -> Option<String> {
    let value = request.headers().get(name)?.to_str().ok()?.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

const AUTHORIZED_KEY: &str = "x-go-authorized-key";
const HOST_KEY: &str = "x-ssh-host-key";
const USER: &str = "x-go-ssh-user";

/// How long the server's version line is kept from a client that speaks second: long enough for Go's client to have taken
/// the 101 on its own.
const FIRST_WORD: Duration = Duration::from_millis(250);
