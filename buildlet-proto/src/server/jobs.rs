//! `/jobs`: requests about jobs.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;

use super::body::{self, ReplyBody};
use super::form::{self, Fields, Uncollected};
use super::{JSON, json, streamed};
use crate::exec::parse_bool;
use crate::jobs::{
    JobId, JobRequest, OutputRequest, SignalRequest, SignalTarget, StdinRequest, TerminalSize,
};
use crate::{ApiError, Buildlet, ErrorStatus};

/// Answers a request whose path is `/jobs` or begins with `/jobs/`.
pub(super) async fn answer<B, R>(
    buildlet: &B,
    request: Request<R>,
) -> Result<Response<ReplyBody>, ApiError>
where
    B: Buildlet,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let path = request.uri().path().to_owned();
    let mut elements = path.split('/').skip(2);
    let Some(id) = elements.next() else {
        return all(buildlet, request).await;
    };
    let id: JobId = id
        .parse()
        .map_err(|error| ApiError::new(ErrorStatus::NOT_FOUND, format!("no such job: {error}")))?;
    let matter = elements.next();
    if elements.next().is_some() {
        return Err(not_found());
    }
    match matter {
        None => one(buildlet, &request, id).await,
        Some("output") => output(buildlet, &request, id).await,
        Some("resize") => resize(buildlet, request, id).await,
        Some("signal") => signal(buildlet, request, id).await,
        Some("stdin") => stdin(buildlet, request, id).await,
        Some(_) => Err(not_found()),
    }
}

async fn all<B, R>(buildlet: &B, request: Request<R>) -> Result<Response<ReplyBody>, ApiError>
where
    B: Buildlet,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match *request.method() {
        Method::DELETE => {
            buildlet.delete_jobs().await?;
            Ok(Response::new(ReplyBody::empty()))
        }
        Method::GET => Ok(streamed(JSON, ReplyBody::stream(buildlet.jobs().await?))),
        Method::POST => start(buildlet, request).await,
        _ => Err(ApiError::bad_request("requires DELETE, GET or POST method")),
    }
}

async fn start<B, R>(buildlet: &B, request: Request<R>) -> Result<Response<ReplyBody>, ApiError>
where
    B: Buildlet,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let key = idempotency_key(&request)?;
    let body = form::collect_up_to(MAX_REQUEST, request.into_body());
    let body = body.await.map_err(|why| match why {
        Uncollected::TooLong => {
            ApiError::new(ErrorStatus::TOO_LARGE, "the request is larger than 1 MiB")
        }
        Uncollected::Cut(error) => {
            ApiError::bad_request("the request was cut short").because(error)
        }
    })?;
    let job: JobRequest = serde_json::from_slice(&body)
        .map_err(|error| ApiError::bad_request(format!("the request is no job: {error}")))?;
    let job = buildlet.start_job(job, key).await?;
    let mut response = json(&job)?;
    *response.status_mut() = StatusCode::CREATED;
    let location = HeaderValue::try_from(format!("/jobs/{}", job.id))
        .map_err(|error| ApiError::internal("the id is no path").because(error))?;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

fn idempotency_key<R>(request: &Request<R>) -> Result<Option<String>, ApiError> {
    let Some(key) = request.headers().get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    match key.to_str() {
        Ok(key) if (1..=MAX_KEY).contains(&key.len()) => Ok(Some(key.to_owned())),
        _ => Err(ApiError::bad_request(
            "Idempotency-Key: 1 to 64 visible characters",
        )),
    }
}

async fn one<B: Buildlet, R>(
    buildlet: &B,
    request: &Request<R>,
    id: JobId,
) -> Result<Response<ReplyBody>, ApiError> {
    match *request.method() {
        Method::DELETE => json(&buildlet.delete_job(id).await?),
        Method::GET => json(&buildlet.job(id).await?),
        _ => Err(ApiError::bad_request("requires DELETE or GET method")),
    }
}

async fn output<B: Buildlet, R>(
    buildlet: &B,
    request: &Request<R>,
    id: JobId,
) -> Result<Response<ReplyBody>, ApiError> {
    super::require(request, &Method::GET)?;
    let fields = Fields::of_query(request);
    let from = OutputRequest {
        stdout: number(&fields, "stdout")?.unwrap_or(0),
        stderr: number(&fields, "stderr")?.unwrap_or(0),
        follow: fields.first("follow").is_some_and(parse_bool),
    };
    let frames = buildlet.job_output(id, from).await?;
    Ok(streamed(BINARY, ReplyBody::stream(frames)))
}

async fn stdin<B, R>(
    buildlet: &B,
    request: Request<R>,
    id: JobId,
) -> Result<Response<ReplyBody>, ApiError>
where
    B: Buildlet,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    super::require(&request, &Method::POST)?;
    let fields = Fields::of_query(&request);
    let place = StdinRequest {
        offset: number(&fields, "offset")?,
        close: fields.first("close").is_some_and(parse_bool),
    };
    let content = body::reader(request.into_body());
    json(&buildlet.write_job_stdin(id, place, content).await?)
}

async fn signal<B, R>(
    buildlet: &B,
    request: Request<R>,
    id: JobId,
) -> Result<Response<ReplyBody>, ApiError>
where
    B: Buildlet,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let fields = posted(request).await?;
    let name = fields.first("signal");
    let name = name.ok_or_else(|| ApiError::bad_request("requires 'signal' parameter"))?;
    let signal = name
        .parse()
        .map_err(|error| ApiError::bad_request(format!("bad 'signal' parameter: {error}")))?;
    let target = if fields.first("whole").is_some_and(parse_bool) {
        SignalTarget::Tree
    } else {
        SignalTarget::Group
    };
    let request = SignalRequest { signal, target };
    json(&buildlet.signal_job(id, request).await?)
}

async fn resize<B, R>(
    buildlet: &B,
    request: Request<R>,
    id: JobId,
) -> Result<Response<ReplyBody>, ApiError>
where
    B: Buildlet,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let fields = posted(request).await?;
    let side = |name| {
        let side = fields.first(name).and_then(|side| side.parse().ok());
        side.ok_or_else(|| {
            ApiError::bad_request(format!("requires '{name}' parameter, from 0 to 65535"))
        })
    };
    let size = TerminalSize {
        rows: side("rows")?,
        columns: side("columns")?,
    };
    json(&buildlet.resize_job(id, size).await?)
}

/// The fields of a query and of a form.
async fn posted<R>(request: Request<R>) -> Result<Fields, ApiError>
where
    R: Body<Data = Bytes>,
    R::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    super::require(&request, &Method::POST)?;
    let mut fields = Fields::of_query(&request);
    fields.extend(&form::collect(request.into_body()).await?);
    Ok(fields)
}

fn number(fields: &Fields, name: &str) -> Result<Option<u64>, ApiError> {
    let parse = |text: &str| {
        text.parse().map_err(|_| {
            ApiError::bad_request(format!("bad '{name}' parameter: a number of bytes"))
        })
    };
    fields.first(name).map(parse).transpose()
}

fn not_found() -> ApiError {
    ApiError::new(ErrorStatus::NOT_FOUND, "404 page not found")
}

const BINARY: &str = "application/octet-stream";
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Room for a random number in any writing.
const MAX_KEY: usize = 64;
/// Half of what Linux takes for the arguments and the environment of a program with a stack of 8 MiB.
const MAX_REQUEST: usize = 1 << 20;
