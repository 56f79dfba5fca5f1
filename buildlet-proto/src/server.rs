//! [`Buildlet`] over HTTP.
//!
//! A [`Server`] decodes a request, calls one method of the trait, and encodes its answer, with the paths, texts and codes
//! of Go's buildlets. Errors of the trait become their status and sentence; what caused them goes to the log, under the id
//! that the client finds in `X-Request-Id`.

mod body;
mod form;
mod jobs;
mod streams;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, Version, header};
use http_body::Body;
use subtle::ConstantTimeEq;
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::Instrument;

pub use self::body::ReplyBody;
use self::form::Fields;
use crate::api::{Fetched, ListRequest};
use crate::exec::{PROCESS_STATE, parse_bool};
use crate::hijack::{ConnectionError, Limits, serve_connection, service};
use crate::{ApiError, Buildlet, ErrorStatus, ExecRequest, RelPath};

/// A [`Buildlet`] that answers HTTP requests. Cloning is cheap; clones share the buildlet.
pub struct Server<B> {
    shared: Arc<Shared<B>>,
}

struct Shared<B> {
    buildlet: B,
    auth: Auth,
    ids: RequestIds,
}

impl<B: Buildlet> Server<B> {
    /// Serves `buildlet` to those whom `auth` lets in.
    pub fn new(buildlet: B, auth: Auth) -> Self {
        let ids = RequestIds::new();
        Self {
            shared: Arc::new(Shared {
                buildlet,
                auth,
                ids,
            }),
        }
    }

    /// Serves one connection until it ends.
    ///
    /// # Errors
    ///
    /// As [`serve_connection`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cuts the connection and abandons what was asked on it: a command is killed.
    pub async fn serve<IO>(&self, io: IO) -> Result<(), ConnectionError>
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let handle = service(|request| self.handle(request));
        serve_connection(io, handle, Limits::with_header_timeout(IDLE_TIMEOUT)).await
    }

    /// Answers one request.
    ///
    /// `/connect-ssh` and `/connect-tcp` need a [`Hijack`](crate::hijack::Hijack) in the request's extensions, and a
    /// response that declares a `Trailer` a server that sends it to everyone; [`Server::serve`] gives both.
    pub async fn handle<R>(&self, request: Request<R>) -> Response<ReplyBody>
    where
        R: Body<Data = Bytes> + Send + 'static,
        R::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let id = self.shared.ids.next();
        let span = tracing::info_span!("request", id, path = request.uri().path());
        let answer = Box::pin(self.route(request)).instrument(span.clone()).await;
        let mut response = span.in_scope(|| answer.unwrap_or_else(|error| error_reply(&error)));
        if let Ok(id) = HeaderValue::from_str(&id) {
            response.headers_mut().insert("x-request-id", id);
        }
        response
    }

    async fn route<R>(&self, request: Request<R>) -> Result<Response<ReplyBody>, ApiError>
    where
        R: Body<Data = Bytes> + Send + 'static,
        R::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let path = request.uri().path().to_owned();
        tracing::debug!(method = %request.method(), "asked");
        require_host(&request)?;
        match path.as_str() {
            "/" => return Ok(text(format!("buildlet running on {}\n", platform()))),
            "/healthz" => return self.health().await,
            _ => self.shared.auth.check(&request)?,
        }
        match path.as_str() {
            "/status" => self.status(&request).await,
            "/workdir" => self.work_dir(&request).await,
            "/ls" => self.list(&request).await,
            "/tgz" => self.read_tgz(&request).await,
            "/writetgz" => self.write_tgz(request).await,
            "/write" => self.write(request).await,
            "/exec" => self.exec(request).await,
            "/removeall" => self.remove_all(request).await,
            "/halt" => self.halt(&request).await,
            "/connect-ssh" => streams::connect_ssh(&self.shared.buildlet, &request).await,
            "/connect-tcp" => streams::connect_tcp(&self.shared.buildlet, &request).await,
            jobs if jobs == "/jobs" || jobs.starts_with("/jobs/") => {
                jobs::answer(&self.shared.buildlet, request).await
            }
            _ => Err(ApiError::new(ErrorStatus::NOT_FOUND, "404 page not found")),
        }
    }

    async fn status<R>(&self, request: &Request<R>) -> Result<Response<ReplyBody>, ApiError> {
        require(request, &Method::GET)?;
        let status = self.shared.buildlet.status().await?;
        json(&status)
    }

    /// For watchdogs, which know no password.
    async fn health(&self) -> Result<Response<ReplyBody>, ApiError> {
        match self.shared.buildlet.status().await?.unhealthy {
            None => Ok(text("ok\n")),
            Some(why) => Err(ApiError::new(ErrorStatus::UNAVAILABLE, why.to_string())),
        }
    }

    async fn work_dir<R>(&self, request: &Request<R>) -> Result<Response<ReplyBody>, ApiError> {
        require(request, &Method::GET)?;
        Ok(text(self.shared.buildlet.work_dir().await?))
    }

    async fn list<R>(&self, request: &Request<R>) -> Result<Response<ReplyBody>, ApiError> {
        require(request, &Method::GET)?;
        let fields = Fields::of_query(request);
        let mut list = ListRequest::new(dir_of(&fields)?);
        list.recursive = fields.first("recursive").is_some_and(parse_bool);
        list.digest = fields.first("digest").is_some_and(parse_bool);
        list.skip = fields.all("skip").map(str::to_owned).collect();
        let lines = self.shared.buildlet.list(list).await?;
        let lines = ReplyBody::started(lines)
            .await
            .map_err(|error| ApiError::internal(format!("Walk error: {error}")))?;
        Ok(streamed(TEXT, lines))
    }

    async fn read_tgz<R>(&self, request: &Request<R>) -> Result<Response<ReplyBody>, ApiError> {
        require(request, &Method::GET)?;
        let fields = Fields::of_query(request);
        let (dir, buildlet) = (dir_of(&fields)?, &self.shared.buildlet);
        // Go's buildlets look for exactly this value.
        let archive = match fields.first("pargzip") {
            Some("0") => buildlet.read_single_tgz(dir).await?,
            _ => buildlet.read_tgz(dir).await?,
        };
        let archive = ReplyBody::started(archive)
            .await
            .map_err(|error| ApiError::internal(format!("cannot read the directory: {error}")))?;
        Ok(streamed("application/x-gzip", archive))
    }

    async fn write_tgz<R>(&self, request: Request<R>) -> Result<Response<ReplyBody>, ApiError>
    where
        R: Body<Data = Bytes> + Send + 'static,
        R::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let dir = dir_of(&Fields::of_query(&request))?;
        match *request.method() {
            Method::PUT => {}
            Method::POST => return self.fetch_tgz(dir, request).await,
            _ => return Err(ApiError::bad_request("requires PUT or POST method")),
        }
        let archive = body::reader(request.into_body());
        self.shared.buildlet.write_tgz(dir, archive).await?;
        Ok(text("OK"))
    }

    /// The other way to write an archive: the machine fetches it from where the form says.
    async fn fetch_tgz<R>(
        &self,
        dir: RelPath,
        request: Request<R>,
    ) -> Result<Response<ReplyBody>, ApiError>
    where
        R: Body<Data = Bytes> + Send + 'static,
        R::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let query = request.uri().query().unwrap_or_default().to_owned();
        // As with Go, the form comes before the query.
        let mut fields = Fields::of_form(&form::collect(request.into_body()).await?);
        fields.extend(query.as_bytes());
        let url = fields.first("url").filter(|url| !url.is_empty());
        let url = url.ok_or_else(|| ApiError::bad_request("missing url POST param"))?;
        let fetched = self.shared.buildlet.fetch_tgz(dir, url.to_owned()).await?;
        Ok(text(match fetched {
            Fetched::AlreadyThere => "SKIP",
            Fetched::Unpacked => "OK",
        }))
    }

    async fn write<R>(&self, request: Request<R>) -> Result<Response<ReplyBody>, ApiError>
    where
        R: Body<Data = Bytes> + Send + 'static,
        R::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if request.method() != Method::PUT {
            // Go's text, kept although it names the wrong method.
            return Err(ApiError::bad_request("requires POST method"));
        }
        let fields = Fields::of_query(&request);
        let path = RelPath::new(fields.first("path").unwrap_or_default())
            .ok()
            .filter(|path| !path.is_root())
            .ok_or_else(|| ApiError::bad_request("bad path"))?;
        let mode = fields.first("mode").and_then(form::regular_file_mode);
        let mode = mode.ok_or_else(|| ApiError::bad_request("bad mode"))?;
        let content = body::reader(request.into_body());
        self.shared.buildlet.write(path, mode, content).await?;
        Ok(text("OK"))
    }

    async fn exec<R>(&self, request: Request<R>) -> Result<Response<ReplyBody>, ApiError>
    where
        R: Body<Data = Bytes> + Send + 'static,
        R::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        require(&request, &Method::POST)?;
        if request.version() < Version::HTTP_11 {
            return Err(ApiError::bad_request("HTTP/1.1 or higher required"));
        }
        let form = form::collect(request.into_body()).await?;
        let command = ExecRequest::from_form(&form)?;
        let execution = self.shared.buildlet.exec(command).await?;
        let mut response = Response::new(ReplyBody::execution(execution));
        response
            .headers_mut()
            .insert(header::TRAILER, HeaderValue::from_static(PROCESS_STATE));
        Ok(response)
    }

    async fn remove_all<R>(&self, request: Request<R>) -> Result<Response<ReplyBody>, ApiError>
    where
        R: Body<Data = Bytes> + Send + 'static,
        R::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        require(&request, &Method::POST)?;
        let mut fields = Fields::of_query(&request);
        fields.extend(&form::collect(request.into_body()).await?);
        let mut paths = Vec::new();
        for path in fields.all("path") {
            let bad = |_| ApiError::bad_request(format!("bad 'path' parameter: {path:?}"));
            if path.is_empty() {
                return Err(ApiError::bad_request("bad 'path' parameter: \"\""));
            }
            paths.push(RelPath::new(path).map_err(bad)?);
        }
        if paths.is_empty() {
            return Err(ApiError::bad_request("requires 'path' parameter"));
        }
        self.shared.buildlet.remove_all(paths).await?;
        Ok(Response::new(ReplyBody::empty()))
    }

    async fn halt<R>(&self, request: &Request<R>) -> Result<Response<ReplyBody>, ApiError> {
        require(request, &Method::POST)?;
        self.shared.buildlet.halt().await?;
        Ok(Response::new(ReplyBody::empty()))
    }
}

impl<B> Clone for Server<B> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
        }
    }
}

impl<B> fmt::Debug for Server<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

/// Whom a [`Server`] lets in. `/` and `/healthz` are for everybody.
#[derive(Clone)]
pub struct Auth(Option<Arc<str>>);

impl Auth {
    /// Everybody: right where the transport itself has authenticated the peer, as in reverse mode.
    pub fn open() -> Self {
        Self(None)
    }

    /// Whoever gives `password` by HTTP Basic authentication; the user name is ignored.
    pub fn password(password: impl Into<Arc<str>>) -> Self {
        Self(Some(password.into()))
    }

    fn check<R>(&self, request: &Request<R>) -> Result<(), ApiError> {
        let Some(password) = &self.0 else {
            return Ok(());
        };
        let given = basic_password(request).unwrap_or_default();
        if bool::from(password.as_bytes().ct_eq(&given)) {
            return Ok(());
        }
        Err(ApiError::new(ErrorStatus::FORBIDDEN, "invalid password"))
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "Auth(password)"
        } else {
            "Auth(open)"
        })
    }
}

fn basic_password<R>(request: &Request<R>) -> Option<Vec<u8>> {
    let value = request.headers().get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, credentials) = value.split_at_checked(b"Basic ".len())?;
    if !scheme.eq_ignore_ascii_case(b"Basic ") {
        return None;
    }
    let pair = base64::engine::general_purpose::STANDARD
        .decode(credentials)
        .ok()?;
    let colon = pair.iter().position(|&byte| byte == b':')?;
    pair.get(colon + 1..).map(<[u8]>::to_vec)
}

/// Numbers requests so that a line in our log can be found from a user's error, and nothing can be guessed from it.
struct RequestIds {
    seed: RandomState,
    count: AtomicU64,
}

impl RequestIds {
    fn new() -> Self {
        Self {
            seed: RandomState::new(),
            count: AtomicU64::new(0),
        }
    }

    fn next(&self) -> String {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        format!("{:016x}", self.seed.hash_one(count))
    }
}

fn require<R>(request: &Request<R>, method: &Method) -> Result<(), ApiError> {
    if request.method() == method {
        return Ok(());
    }
    Err(ApiError::bad_request(format!("requires {method} method")))
}

/// One `Host`, if an empty one, as RFC 9112 §3.2 has it.
fn require_host<R>(request: &Request<R>) -> Result<(), ApiError> {
    match request.headers().get_all(header::HOST).iter().count() {
        0 if request.version() < Version::HTTP_11 => Ok(()),
        0 => Err(ApiError::bad_request("missing required Host header")),
        1 => Ok(()),
        _ => Err(ApiError::bad_request("too many Host headers")),
    }
}

fn dir_of(fields: &Fields) -> Result<RelPath, ApiError> {
    RelPath::new(fields.first("dir").unwrap_or_default())
        .map_err(|_| ApiError::bad_request("bogus dir"))
}

fn text(text: impl Into<Bytes>) -> Response<ReplyBody> {
    reply(TEXT, text)
}

fn reply(content_type: &'static str, content: impl Into<Bytes>) -> Response<ReplyBody> {
    streamed(content_type, ReplyBody::full(content.into()))
}

fn json(value: &impl serde::Serialize) -> Result<Response<ReplyBody>, ApiError> {
    let json = serde_json::to_vec(value)
        .map_err(|error| ApiError::internal("cannot encode the reply").because(error))?;
    Ok(reply(JSON, json))
}

fn streamed(content_type: &'static str, body: ReplyBody) -> Response<ReplyBody> {
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The one place where an error becomes a response.
fn error_reply(error: &ApiError) -> Response<ReplyBody> {
    let status = error.status().status();
    let cause = std::error::Error::source(error).map(tracing::field::display);
    if status.is_server_error() {
        tracing::warn!(
            status = status.as_u16(),
            message = error.message(),
            cause,
            "failed"
        );
    } else {
        tracing::debug!(
            status = status.as_u16(),
            message = error.message(),
            cause,
            "refused"
        );
    }
    let mut response = text(format!("{}\n", error.message()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// The system as Go names it: `linux-amd64`.
fn platform() -> String {
    let os = match std::env::consts::OS {
        "macos" => "darwin",
        other => other,
    };
    let arch = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        "powerpc64" => "ppc64",
        "x86" => "386",
        "x86_64" => "amd64",
        other => other,
    };
    format!("{os}-{arch}")
}

const JSON: &str = "application/json; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// Three heartbeats of Go's clients (one each ten seconds): their connections are not closed between two of them.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
