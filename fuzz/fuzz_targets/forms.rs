//! What a request says: a query, a form or JSON of any bytes asks for something that keeps the protocol's promises, or for
//! nothing. The first byte chooses how the rest is read.

#![no_main]

use std::cell::RefCell;
use std::future::{Future, ready};

use buildlet_proto::api::{
    ByteReader, ByteStream, Execution, Fetched, ListRequest, SshRequest, SshStream, Status,
};
use buildlet_proto::hijack::Hijack;
use buildlet_proto::jobs::{
    Job, JobId, JobRequest, OutputRequest, SignalRequest, StdinRequest, StdinTaken, TerminalSize,
};
use buildlet_proto::server::{Auth, Server};
use buildlet_proto::{ApiError, Buildlet, Entry, ExecRequest, ProcessState, RelPath};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use libfuzzer_sys::fuzz_target;
use tokio::runtime::Runtime;

thread_local! {
    static RUNTIME: RefCell<Runtime> =
        RefCell::new(tokio::runtime::Builder::new_current_thread().build().expect("a runtime"));
}

fuzz_target!(|input: &[u8]| {
    let Some((&first, rest)) = input.split_first() else {
        return;
    };
    match first % 4 {
        0 => exec(rest),
        1 => job(rest),
        2 => entry(rest),
        _ => request(first / 4, rest),
    }
});

fn exec(form: &[u8]) {
    let Ok(request) = ExecRequest::from_form(form) else {
        return;
    };
    assert!(!request.command.is_empty());
    let again = ExecRequest::from_form(request.to_form().as_bytes()).expect("a form of our own");
    assert_eq!(again, request);
}

fn job(json: &[u8]) {
    let Ok(request) = serde_json::from_slice::<JobRequest>(json) else {
        return;
    };
    let again = serde_json::to_vec(&request).expect("a request can be written");
    let again: JobRequest = serde_json::from_slice(&again).expect("JSON of our own");
    assert_eq!(again, request);
}

fn entry(line: &[u8]) {
    let Ok(line) = std::str::from_utf8(line) else {
        return;
    };
    if let Ok(entry) = line.parse::<Entry>() {
        let again: Entry = entry.to_string().parse().expect("a line of our own");
        assert_eq!(again, entry);
    }
}

/// A request whose query or body are the input.
fn request(which: u8, input: &[u8]) {
    const PATHS: [(&str, &str); 14] = [
        ("GET", "/ls"),
        ("GET", "/tgz"),
        ("PUT", "/write"),
        ("PUT", "/writetgz"),
        ("POST", "/writetgz"),
        ("POST", "/exec"),
        ("POST", "/removeall"),
        ("POST", "/jobs"),
        ("GET", "/jobs/0000000000/output"),
        ("POST", "/jobs/0000000000/signal"),
        ("POST", "/jobs/0000000000/resize"),
        ("POST", "/jobs/0000000000/stdin"),
        ("DELETE", "/jobs/"),
        ("POST", "/connect-tcp"),
    ];
    let (method, path) = PATHS[usize::from(which) % PATHS.len()];
    let (query, body) = match input.iter().position(|&byte| byte == 0) {
        Some(end) => (&input[..end], &input[end + 1..]),
        None => (input, input),
    };
    // The path itself may be anything, too.
    let target = match query.strip_prefix(b"/") {
        Some(_) => query.to_vec(),
        None => [path.as_bytes(), b"?", query].concat(),
    };
    let Ok(uri) = http::Uri::try_from(target) else {
        return;
    };
    let mut request = Request::new(Full::new(Bytes::copy_from_slice(body)));
    *request.method_mut() = method.parse().expect("a method");
    *request.uri_mut() = uri;
    if let Ok(port) = http::HeaderValue::from_bytes(body) {
        request.headers_mut().insert("x-target-port", port);
    }
    request.extensions_mut().insert(Hijack::default());
    let server = Server::new(Wary, Auth::open());
    let status = RUNTIME.with_borrow(|runtime| {
        let response = runtime.block_on(server.handle(request));
        assert!(response.headers().contains_key("x-request-id"));
        response.status()
    });
    assert_ne!(status, http::StatusCode::INTERNAL_SERVER_ERROR);
}

/// A machine that does nothing, and checks what it is asked.
struct Wary;

fn nothing<T>() -> impl Future<Output = Result<T, ApiError>> + Send
where
    T: Send,
{
    ready(Err(ApiError::bad_request("this machine does nothing")))
}

fn check(path: &RelPath) {
    let text = path.as_str();
    assert!(!text.starts_with('/') && !text.contains(['\\', '\0']));
    assert!(
        path.is_root()
            || path
                .elements()
                .all(|element| !["", ".", ".."].contains(&element))
    );
}

impl Buildlet for Wary {
    fn status(&self) -> impl Future<Output = Result<Status, ApiError>> + Send {
        nothing()
    }

    fn work_dir(&self) -> impl Future<Output = Result<String, ApiError>> + Send {
        nothing()
    }

    fn list(&self, list: ListRequest) -> impl Future<Output = Result<ByteReader, ApiError>> + Send {
        check(&list.dir);
        nothing()
    }

    fn read_tgz(&self, dir: RelPath) -> impl Future<Output = Result<ByteReader, ApiError>> + Send {
        check(&dir);
        nothing()
    }

    fn read_single_tgz(
        &self,
        dir: RelPath,
    ) -> impl Future<Output = Result<ByteReader, ApiError>> + Send {
        check(&dir);
        nothing()
    }

    fn write_tgz(
        &self,
        dir: RelPath,
        _: ByteReader,
    ) -> impl Future<Output = Result<(), ApiError>> + Send {
        check(&dir);
        nothing()
    }

    fn fetch_tgz(
        &self,
        dir: RelPath,
        url: String,
    ) -> impl Future<Output = Result<Fetched, ApiError>> + Send {
        check(&dir);
        assert!(!url.is_empty());
        nothing()
    }

    fn write(
        &self,
        path: RelPath,
        mode: u32,
        _: ByteReader,
    ) -> impl Future<Output = Result<(), ApiError>> + Send {
        check(&path);
        assert!(!path.is_root() && mode <= 0o777);
        nothing()
    }

    fn exec(
        &self,
        request: ExecRequest,
    ) -> impl Future<Output = Result<Execution, ApiError>> + Send {
        assert!(!request.command.is_empty());
        let state = ready(Ok(ProcessState::exited(0)));
        ready(Ok(Execution::new(tokio::io::empty(), state)))
    }

    fn remove_all(&self, paths: Vec<RelPath>) -> impl Future<Output = Result<(), ApiError>> + Send {
        assert!(!paths.is_empty());
        paths.iter().for_each(check);
        nothing()
    }

    fn halt(&self) -> impl Future<Output = Result<(), ApiError>> + Send {
        nothing()
    }

    fn connect_ssh(
        &self,
        _: SshRequest,
    ) -> impl Future<Output = Result<SshStream, ApiError>> + Send {
        nothing()
    }

    fn connect_tcp(
        &self,
        port: u16,
    ) -> impl Future<Output = Result<Box<dyn ByteStream>, ApiError>> + Send {
        assert_ne!(port, 0);
        nothing()
    }

    fn start_job(
        &self,
        _: JobRequest,
        key: Option<String>,
    ) -> impl Future<Output = Result<Job, ApiError>> + Send {
        assert!(key.is_none_or(|key| (1..=64).contains(&key.len())));
        nothing()
    }

    fn jobs(&self) -> impl Future<Output = Result<ByteReader, ApiError>> + Send {
        nothing()
    }

    fn job(&self, _: JobId) -> impl Future<Output = Result<Job, ApiError>> + Send {
        nothing()
    }

    fn job_output(
        &self,
        _: JobId,
        _: OutputRequest,
    ) -> impl Future<Output = Result<ByteReader, ApiError>> + Send {
        nothing()
    }

    fn write_job_stdin(
        &self,
        _: JobId,
        _: StdinRequest,
        _: ByteReader,
    ) -> impl Future<Output = Result<StdinTaken, ApiError>> + Send {
        nothing()
    }

    fn signal_job(
        &self,
        _: JobId,
        _: SignalRequest,
    ) -> impl Future<Output = Result<Job, ApiError>> + Send {
        nothing()
    }

    fn resize_job(
        &self,
        _: JobId,
        _: TerminalSize,
    ) -> impl Future<Output = Result<Job, ApiError>> + Send {
        nothing()
    }

    fn delete_job(&self, _: JobId) -> impl Future<Output = Result<Job, ApiError>> + Send {
        nothing()
    }

    fn delete_jobs(&self) -> impl Future<Output = Result<(), ApiError>> + Send {
        nothing()
    }
}
