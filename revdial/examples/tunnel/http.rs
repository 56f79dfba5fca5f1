//! The server's side of the upgrade: one request, read by hand.

use anyhow::{Context, ensure};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Reads a request. The client sends nothing behind it until it is answered.
pub(crate) async fn read_request(
    transport: &mut (impl AsyncRead + Unpin),
) -> anyhow::Result<Request<()>> {
    let mut head = Vec::new();
    loop {
        ensure!(head.len() < HEAD_MAX, "the request's head is too long");
        let mut limited = (&mut *transport).take((HEAD_MAX - head.len()) as u64);
        ensure!(
            limited.read_buf(&mut head).await? > 0,
            "the client left before it had asked"
        );
        if let Some(request) = parse(&head)? {
            return Ok(request);
        }
    }
}

fn parse(head: &[u8]) -> anyhow::Result<Option<Request<()>>> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut parsed = httparse::Request::new(&mut fields);
    let status = parsed.parse(head).context("not an HTTP request")?;
    if status.is_partial() {
        return Ok(None);
    }
    let mut request = Request::builder()
        .method(parsed.method.unwrap_or_default())
        .uri(parsed.path.unwrap_or_default())
        .body(())?;
    for field in parsed.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes())?;
        let value = HeaderValue::from_bytes(field.value)?;
        request.headers_mut().append(name, value);
    }
    Ok(Some(request))
}

/// Hands the connection over to the link.
pub(crate) async fn switch(transport: &mut (impl AsyncWrite + Unpin)) -> anyhow::Result<()> {
    let reply =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: revdial\r\n\r\n";
    transport.write_all(reply.as_bytes()).await?;
    Ok(transport.flush().await?)
}

/// Says no, and why.
pub(crate) async fn refuse(
    transport: &mut (impl AsyncWrite + Unpin),
    status: StatusCode,
    why: &str,
) -> anyhow::Result<()> {
    let length = why.len() + 1;
    let reply = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{why}\n"
    );
    transport.write_all(reply.as_bytes()).await?;
    Ok(transport.shutdown().await?)
}

/// The header for a token.
pub(crate) fn bearer(token: &str) -> anyhow::Result<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}"))
        .context("the token is not one line of text")?;
    value.set_sensitive(true);
    Ok(value)
}

/// Reads a token from its file.
pub(crate) fn read_token(file: Option<&std::path::Path>) -> anyhow::Result<Option<HeaderValue>> {
    let Some(file) = file else {
        return Ok(None);
    };
    let reading = || format!("reading the token from {}", file.display());
    let token = std::fs::read_to_string(file).with_context(reading)?;
    Ok(Some(bearer(token.trim())?))
}

/// Says whether a client knows the word, without telling by the time it takes how much of it was right.
pub(crate) fn knows(headers: &HeaderMap, token: &HeaderValue) -> bool {
    let digest = |value: &HeaderValue| {
        let digest = ring::digest::digest(&ring::digest::SHA256, value.as_bytes());
        digest.as_ref().to_owned()
    };
    headers
        .get(header::AUTHORIZATION)
        .is_some_and(|given| digest(given) == digest(token))
}

/// Where the client registers.
pub(crate) const PATH: &str = "/tunnel";
/// Where it brings the connections of dialect v2.
pub(crate) const PICK_UP_PATH: &str = "/tunnel/pick-up";

const HEAD_MAX: usize = 8 * 1024;
