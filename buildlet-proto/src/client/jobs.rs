//! Jobs over HTTP.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Method, Request};
use serde::de::DeserializeOwned;
use tokio::io::AsyncReadExt;

use super::exchange::{
    RequestBody, form, request, send_as, upload, urlencoded, with_query, within,
};
use super::reply::{Reply, ReplyReader, cut};
use super::{Client, Connect, HEADER_TIME, JobOutput, bool_text};
use crate::ApiError;
use crate::api::ByteReader;
use crate::jobs::{
    Job, JobId, JobRequest, OutputRequest, SignalRequest, SignalTarget, StdinRequest, StdinTaken,
    TerminalSize,
};

impl<C: Connect> Client<C> {
    /// Reads a job's output from `from` on, across any break of the connection, to the end of the job.
    pub fn follow_job(&self, id: JobId, from: OutputRequest) -> JobOutput<C> {
        JobOutput::new(self.clone(), id, from)
    }

    /// Lists all jobs in the order of their start.
    ///
    /// # Errors
    ///
    /// As [`Buildlet::jobs`](crate::Buildlet::jobs), and where the list is longer than any machine's.
    pub async fn list_jobs(&self) -> Result<Vec<Job>, ApiError> {
        let mut list = Vec::new();
        let reader = self.send_watched(request(Method::GET, "/jobs")).await?;
        let mut reader = reader.take(LIST_LIMIT);
        reader.read_to_end(&mut list).await.map_err(cut)?;
        parse(&list)
    }

    pub(super) async fn post_job(
        &self,
        job: &JobRequest,
        key: Option<&str>,
    ) -> Result<Job, ApiError> {
        let body = serde_json::to_vec(job)
            .map_err(|error| ApiError::bad_request("the job is no JSON").because(error))?;
        let mut request = send_as(Method::POST, "/jobs", RequestBody::Whole(Some(body.into())));
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(key) = key {
            let key = HeaderValue::from_str(key)
                .map_err(|_| ApiError::bad_request("the key of a job is one line of text"))?;
            headers.insert(HeaderName::from_static("idempotency-key"), key);
        }
        self.ask("job", request).await
    }

    pub(super) async fn get_job(&self, id: JobId) -> Result<Job, ApiError> {
        self.ask("job", request(Method::GET, &path(id, ""))).await
    }

    pub(super) async fn open_job_output(
        &self,
        id: JobId,
        from: OutputRequest,
    ) -> Result<ReplyReader, ApiError> {
        let (stdout, stderr) = (from.stdout.to_string(), from.stderr.to_string());
        let query = [
            ("stdout", stdout.as_str()),
            ("stderr", stderr.as_str()),
            ("follow", bool_text(from.follow)),
        ];
        let path = with_query(&path(id, "/output"), query);
        let sent = self.send_watched(request(Method::GET, &path));
        within(HEADER_TIME, "output", Box::pin(sent)).await
    }

    pub(super) async fn post_stdin(
        &self,
        id: JobId,
        place: StdinRequest,
        content: ByteReader,
    ) -> Result<StdinTaken, ApiError> {
        let offset = place.offset.map(|offset| offset.to_string());
        let offset = offset.as_deref().map(|offset| ("offset", offset));
        let close = ("close", bool_text(place.close));
        let path = with_query(&path(id, "/stdin"), offset.into_iter().chain([close]));
        let mut reader = self
            .send_watched(upload(Method::POST, &path, content))
            .await?
            .take(SMALL);
        let mut reply = Vec::new();
        reader.read_to_end(&mut reply).await.map_err(cut)?;
        parse(&reply)
    }

    pub(super) async fn post_signal(
        &self,
        id: JobId,
        signal: SignalRequest,
    ) -> Result<Job, ApiError> {
        let whole = match signal.target {
            SignalTarget::Group => "0",
            SignalTarget::Tree => "1",
        };
        let pairs = [("signal", signal.signal.as_str()), ("whole", whole)];
        self.ask("signal", form(&path(id, "/signal"), urlencoded(pairs)))
            .await
    }

    pub(super) async fn post_size(&self, id: JobId, size: TerminalSize) -> Result<Job, ApiError> {
        let (rows, columns) = (size.rows.to_string(), size.columns.to_string());
        let pairs = [("rows", rows.as_str()), ("columns", columns.as_str())];
        self.ask("resize", form(&path(id, "/resize"), urlencoded(pairs)))
            .await
    }

    pub(super) async fn delete(&self, id: JobId) -> Result<Job, ApiError> {
        self.ask("delete", request(Method::DELETE, &path(id, "")))
            .await
    }

    /// Asks for something small, all of it within the limit for replies to begin.
    async fn ask<T: DeserializeOwned>(
        &self,
        what: &str,
        request: Request<RequestBody>,
    ) -> Result<T, ApiError> {
        let asked = async {
            let reply: Reply = self.http.send(request).await?;
            reply.bytes(crate::jobs::frame::MAX_END).await
        };
        parse(&within(HEADER_TIME, what, Box::pin(asked)).await?)
    }
}

/// Reads the JSON of a job, as it ends its output.
pub(super) fn job_of(json: &Bytes) -> Result<Job, ApiError> {
    parse(json)
}

fn path(id: JobId, matter: &str) -> String {
    format!("/jobs/{id}{matter}")
}

fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(json)
        .map_err(|error| ApiError::bad_gateway("the reply is not as expected").because(error))
}

/// Ten thousand jobs of the longest kind are less.
const LIST_LIMIT: u64 = 1 << 30;
const SMALL: u64 = 4096;
