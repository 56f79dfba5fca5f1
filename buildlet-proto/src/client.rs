//! [`Buildlet`] to HTTP: the same trait again, over any byte stream.
//!
//! Each operation has a connection of its own, which lives as long as the operation: to drop a reply is to hang up, and
//! the other side abandons what it was doing. Where connections come from is the business of [`Connect`].
//!
//! While an operation may take long, `GET /status` is asked every ten seconds on a further connection, as Go's clients
//! do. Three failures in a row mean that the machine is gone, and the operation fails. Through a coordinator's proxy
//! these questions are also what renews the lease during a command that runs for hours.
//!
//! ```
//! use buildlet_proto::client::Client;
//! use buildlet_proto::{ApiError, Buildlet};
//! use tokio::net::TcpStream;
//!
//! async fn version() -> Result<u32, ApiError> {
//!     let buildlet = Client::new(|| TcpStream::connect("localhost:5936")).with_password("secret");
//!     Ok(buildlet.status().await?.version)
//! }
//! ```

pub(crate) mod exchange;
mod jobs;
mod output;
pub(crate) mod reply;

use std::fmt;
use std::future::Future;
use std::io;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, TE, UPGRADE};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio_util::task::AbortOnDropHandle;

use self::exchange::{Http, RequestBody, form, request, upload, urlencoded, with_query, within};
pub use self::output::{JobEvent, JobOutput};
use self::reply::{Reply, ReplyReader};
use crate::api::{
    ByteReader, ByteStream, Execution, Fetched, ListRequest, SshRequest, SshStream, Status,
};
use crate::exec::PROCESS_STATE;
use crate::jobs::{
    Job, JobId, JobRequest, OutputRequest, SignalRequest, StdinRequest, StdinTaken, TerminalSize,
};
use crate::{ApiError, Buildlet, ExecRequest, ProcessState, RelPath};

/// Where connections to one server come from. A closure that makes them is one, and a dialer can be.
pub trait Connect: Send + Sync + 'static {
    /// The connection.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// Opens a connection. It must fail by itself where nobody answers: not every operation limits its time.
    fn connect(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl<F, Connecting, Stream> Connect for F
where
    F: Fn() -> Connecting + Send + Sync + 'static,
    Connecting: Future<Output = io::Result<Stream>> + Send,
    Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Stream = Stream;

    fn connect(&self) -> impl Future<Output = io::Result<Stream>> + Send {
        self()
    }
}

/// A buildlet at the other end of connections that `C` opens.
///
/// Errors carry the status and the text of the server. Those that the client itself finds have
/// [`BAD_GATEWAY`](crate::ErrorStatus::BAD_GATEWAY), or [`GATEWAY_TIMEOUT`](crate::ErrorStatus::GATEWAY_TIMEOUT) where a reply did not
/// begin in time: 20 seconds for status, work directory, commands and halting; 15 for the SSH server and for a port.
///
/// # Cancel safety
///
/// As [`Buildlet`] promises: dropping a future or a stream closes its connection.
pub struct Client<C> {
    http: Http<C>,
}

impl<C: Connect> Client<C> {
    /// A client without credentials.
    pub fn new(connect: C) -> Self {
        Self::over(Http::new(connect))
    }

    pub(crate) fn over(http: Http<C>) -> Self {
        Self { http }
    }

    /// Names the server in the `Host` header; without it, the name is `buildlet`.
    #[must_use]
    pub fn with_host(self, authority: &Authority) -> Self {
        self.with_header(HOST, host(authority))
    }

    /// Presents the password that a listening buildlet asks for.
    #[must_use]
    pub fn with_password(self, password: &str) -> Self {
        self.with_header(AUTHORIZATION, basic(USER, password))
    }

    /// Adds a header to every request, in the place of one of that name.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.http.set_header(name, value);
        self
    }

    /// Sends a request whose operation may take long, with a heartbeat beside it.
    async fn send_watched(&self, request: Request<RequestBody>) -> Result<ReplyReader, ApiError> {
        let mut heartbeat = AbortOnDropHandle::new(tokio::spawn(beat(self.clone())));
        let reply = tokio::select! {
            reply = self.http.send(request) => reply?,
            lost = &mut heartbeat => return Err(lost.unwrap_or_else(|_| ApiError::bad_gateway("the heartbeat ended"))),
        };
        Ok(reply.into_reader().with_heartbeat(heartbeat))
    }

    /// Sends a request whose success says nothing but that it is done.
    async fn send_and_finish(&self, request: Request<RequestBody>) -> Result<(), ApiError> {
        let mut reader = self.send_watched(request).await?;
        tokio::io::copy(&mut reader, &mut tokio::io::sink())
            .await
            .map_err(reply::cut)?;
        Ok(())
    }

    /// Asks for something small, all of it within the limit for replies to begin.
    async fn fetch(&self, path: &'static str) -> Result<Vec<u8>, ApiError> {
        let what = path.trim_start_matches('/');
        within(HEADER_TIME, what, async {
            let reply: Reply = self.http.send(request(Method::GET, path)).await?;
            reply.bytes(SMALL_REPLY).await
        })
        .await
    }
}

impl<C: Connect> Buildlet for Client<C> {
    async fn status(&self) -> Result<Status, ApiError> {
        let json = self.fetch("/status").await?;
        serde_json::from_slice(&json)
            .map_err(|error| ApiError::bad_gateway("the status is not as expected").because(error))
    }

    async fn work_dir(&self) -> Result<String, ApiError> {
        let text = self.fetch("/workdir").await?;
        String::from_utf8(text)
            .map_err(|error| ApiError::bad_gateway("the work directory is not text").because(error))
    }

    async fn list(&self, list: ListRequest) -> Result<ByteReader, ApiError> {
        let flags = [
            ("dir", list.dir.as_str()),
            ("recursive", bool_text(list.recursive)),
            ("digest", bool_text(list.digest)),
        ];
        let skips = list.skip.iter().map(|dir| ("skip", dir.as_str()));
        let path = with_query("/ls", flags.into_iter().chain(skips));
        let reader = self.send_watched(request(Method::GET, &path)).await?;
        Ok(Box::pin(reader))
    }

    async fn read_tgz(&self, dir: RelPath) -> Result<ByteReader, ApiError> {
        let path = with_query("/tgz", [("dir", dir.as_str())]);
        let reader = self.send_watched(request(Method::GET, &path)).await?;
        Ok(Box::pin(reader))
    }

    async fn read_single_tgz(&self, dir: RelPath) -> Result<ByteReader, ApiError> {
        let path = with_query("/tgz", [("dir", dir.as_str()), ("pargzip", "0")]);
        let reader = self.send_watched(request(Method::GET, &path)).await?;
        Ok(Box::pin(reader))
    }

    async fn write_tgz(&self, dir: RelPath, archive: ByteReader) -> Result<(), ApiError> {
        let path = with_query("/writetgz", [("dir", dir.as_str())]);
        self.send_and_finish(upload(Method::PUT, &path, archive))
            .await
    }

    async fn fetch_tgz(&self, dir: RelPath, url: String) -> Result<Fetched, ApiError> {
        let path = with_query("/writetgz", [("dir", dir.as_str())]);
        let request = form(&path, urlencoded([("url", url.as_str())]));
        let mut said = Vec::new();
        let mut reply = self.send_watched(request).await?.take(SMALL_REPLY as u64);
        reply.read_to_end(&mut said).await.map_err(reply::cut)?;
        Ok(match said.as_slice() {
            b"SKIP" => Fetched::AlreadyThere,
            _ => Fetched::Unpacked,
        })
    }

    async fn write(&self, path: RelPath, mode: u32, content: ByteReader) -> Result<(), ApiError> {
        // Go's os.FileMode, whose lowest nine bits are those of Unix.
        let mode = (mode & 0o777).to_string();
        let path = with_query("/write", [("path", path.as_str()), ("mode", &mode)]);
        self.send_and_finish(upload(Method::PUT, &path, content))
            .await
    }

    async fn exec(&self, exec: ExecRequest) -> Result<Execution, ApiError> {
        let mut request = form("/exec", exec.to_form());
        // Some servers, and proxies, keep trailers to themselves unless they are asked for (RFC 9110 §6.5.1).
        let trailers = HeaderValue::from_static("trailers");
        request.headers_mut().insert(TE, trailers);
        let sent = self.send_watched(request);
        let mut output = within(HEADER_TIME, "exec", Box::pin(sent)).await?;
        let (end, hang_up) = (output.on_end(), output.cut_on_drop());
        let state = async move {
            let _hang_up = hang_up;
            let unread = |_| Err(ApiError::bad_gateway("the output was not read to its end"));
            process_state(&end.await.unwrap_or_else(unread)?)
        };
        Ok(Execution::new(output, state))
    }

    async fn remove_all(&self, paths: Vec<RelPath>) -> Result<(), ApiError> {
        let pairs = urlencoded(paths.iter().map(|path| ("path", path.as_str())));
        self.send_and_finish(form("/removeall", pairs)).await
    }

    async fn halt(&self) -> Result<(), ApiError> {
        let halt = form("/halt", String::new());
        within(HEADER_TIME, "halt", self.http.send(halt)).await?;
        Ok(())
    }

    async fn connect_ssh(&self, ssh: SshRequest) -> Result<SshStream, ApiError> {
        let opening = self.http.open_stream(ssh_request(&ssh)?);
        let (headers, stream) = within(STREAM_TIME, "connect-ssh", Box::pin(opening)).await?;
        let host_key = headers.get(X_SSH_HOST_KEY);
        let host_key = host_key.and_then(|key| key.to_str().ok().map(str::to_owned));
        Ok(SshStream { stream, host_key })
    }

    async fn connect_tcp(&self, port: u16) -> Result<Box<dyn ByteStream>, ApiError> {
        let mut request = stream_request("/connect-tcp", "tcp");
        request
            .headers_mut()
            .insert(X_TARGET_PORT, HeaderValue::from(port));
        let opening = self.http.open_stream(request);
        let (_, stream) = within(STREAM_TIME, "connect-tcp", Box::pin(opening)).await?;
        Ok(stream)
    }

    async fn start_job(&self, request: JobRequest, key: Option<String>) -> Result<Job, ApiError> {
        self.post_job(&request, key.as_deref()).await
    }

    async fn jobs(&self) -> Result<ByteReader, ApiError> {
        let reader = self.send_watched(request(Method::GET, "/jobs")).await?;
        Ok(Box::pin(reader))
    }

    async fn job(&self, id: JobId) -> Result<Job, ApiError> {
        self.get_job(id).await
    }

    async fn job_output(&self, id: JobId, from: OutputRequest) -> Result<ByteReader, ApiError> {
        Ok(Box::pin(self.open_job_output(id, from).await?))
    }

    async fn write_job_stdin(
        &self,
        id: JobId,
        place: StdinRequest,
        content: ByteReader,
    ) -> Result<StdinTaken, ApiError> {
        self.post_stdin(id, place, content).await
    }

    async fn signal_job(&self, id: JobId, signal: SignalRequest) -> Result<Job, ApiError> {
        self.post_signal(id, signal).await
    }

    async fn resize_job(&self, id: JobId, size: TerminalSize) -> Result<Job, ApiError> {
        self.post_size(id, size).await
    }

    async fn delete_job(&self, id: JobId) -> Result<Job, ApiError> {
        self.delete(id).await
    }

    async fn delete_jobs(&self) -> Result<(), ApiError> {
        self.send_and_finish(request(Method::DELETE, "/jobs")).await
    }
}

impl<C> Clone for Client<C> {
    fn clone(&self) -> Self {
        Self {
            http: self.http.clone(),
        }
    }
}

impl<C> fmt::Debug for Client<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// The value of an `Authorization` header for Basic credentials, marked as not to be shown.
pub(crate) fn basic(user: &str, password: &str) -> HeaderValue {
    let value = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
    let mut value = HeaderValue::try_from(value).expect("base64 is visible ASCII");
    value.set_sensitive(true);
    value
}

pub(crate) fn host(authority: &Authority) -> HeaderValue {
    HeaderValue::from_str(authority.as_str()).expect("an authority is visible ASCII")
}

/// Asks for the status over and over; ends with the reason for which the buildlet is taken for dead.
async fn beat<C: Connect>(client: Client<C>) -> ApiError {
    let mut failures = 0;
    loop {
        tokio::time::sleep(HEARTBEAT_INTERVAL).await;
        let Err(error) = client.status().await else {
            failures = 0;
            continue;
        };
        failures += 1;
        if failures == HEARTBEAT_STRIKES {
            let message = format!(
                "the machine is gone: {HEARTBEAT_STRIKES} heartbeats in a row failed, the last with: {error}"
            );
            return ApiError::bad_gateway(message).because(error);
        }
    }
}

fn process_state(trailers: &HeaderMap) -> Result<ProcessState, ApiError> {
    let missing = || {
        ApiError::bad_gateway(
            "missing Process-State trailer: how the command ended is not known, as the buildlet or a proxy on the way \
             does not pass trailers on",
        )
    };
    let value = trailers.get(PROCESS_STATE).ok_or_else(missing)?;
    Ok(ProcessState::from_trailer(&String::from_utf8_lossy(
        value.as_bytes(),
    )))
}

fn ssh_request(ssh: &SshRequest) -> Result<Request<RequestBody>, ApiError> {
    let mut request = stream_request("/connect-ssh", "ssh");
    let headers = request.headers_mut();
    let given = [
        (X_GO_SSH_USER, &ssh.user),
        (X_GO_AUTHORIZED_KEY, &ssh.authorized_key),
    ];
    for (name, value) in given {
        let Some(value) = value else { continue };
        let value = HeaderValue::from_str(value.trim())
            .map_err(|_| ApiError::bad_request(format!("{name} must be one line of text")))?;
        headers.insert(name, value);
    }
    Ok(request)
}

/// A request for the connection to become a stream.
fn stream_request(path: &str, protocol: &'static str) -> Request<RequestBody> {
    let mut request = request(Method::POST, path);
    let headers = request.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(protocol));
    request
}

fn bool_text(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

/// The header of a `/connect-ssh` request with the one key to admit, as an `authorized_keys` line.
pub const X_GO_AUTHORIZED_KEY: &str = "x-go-authorized-key";
/// The header of a `/connect-ssh` request with the account to log in to.
pub const X_GO_SSH_USER: &str = "x-go-ssh-user";
/// The header of a `/connect-ssh` reply with the host key that the SSH server will show.
pub const X_SSH_HOST_KEY: &str = "x-ssh-host-key";
/// The header of a `/connect-tcp` request with the port to reach, in decimal.
pub const X_TARGET_PORT: &str = "x-target-port";

/// As Go's clients of 2022 wait; those of 2017 waited 10 seconds.
const HEADER_TIME: Duration = Duration::from_secs(20);
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);
const HEARTBEAT_STRIKES: u32 = 3;
/// A path is at most 4 KiB, a status much less; more is not what was asked for.
const SMALL_REPLY: usize = 64 * 1024;
/// As Go's clients allow for the connection and the exchange together.
const STREAM_TIME: Duration = Duration::from_secs(15);
/// The user name of Go's clients; buildlets look at the password alone.
const USER: &str = "gomote";

#[cfg(test)]
mod tests;
