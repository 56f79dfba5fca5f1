//! A coordinator with two instances, whose machines do nothing but answer.

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use buildlet_proto::coordinator::Instance;
use buildlet_proto::jobs::{Job, JobAbout, JobCommand, JobId};
use buildlet_proto::tls::Pin;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Channel, Full};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

pub(crate) struct Coordinator {
    /// Told when a client hangs up on a command that hangs.
    pub(crate) hung_up: Arc<Notify>,
    seen: Arc<Seen>,
    dir: TempDir,
    _task: AbortOnDropHandle<()>,
}

type Seen = Mutex<Vec<(String, Vec<u8>)>>;
type Body = UnsyncBoxBody<Bytes, io::Error>;

impl Coordinator {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (pin, tls) = identity();
        let (seen, hung_up) = (Arc::new(Seen::default()), Arc::new(Notify::new()));
        let task = AbortOnDropHandle::new(tokio::spawn(accept(
            listener,
            tls,
            seen.clone(),
            hung_up.clone(),
        )));
        let dir = tempfile::tempdir().unwrap();
        let coordinator = Self {
            hung_up,
            seen,
            dir,
            _task: task,
        };
        let file = gomote::config::File {
            server: Some(format!("https://localhost:{port}")),
            pin: Some(pin.to_string()),
            user: Some("al".to_owned()),
            token: Some("token".to_owned()),
            ssh: Some("localhost:2022".to_owned()),
            ssh_host_key: Some("ssh-ed25519 AAAA".to_owned()),
            ssh_identity: None,
        };
        std::fs::write(coordinator.config(), file.to_toml()).unwrap();
        std::fs::set_permissions(coordinator.config(), std::fs::Permissions::from_mode(0o600))
            .unwrap();
        coordinator
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("config.toml")
    }

    /// The last request that came, with the key of a start, and its body.
    pub(crate) fn last(&self) -> (String, Vec<u8>) {
        self.seen.lock().unwrap().last().unwrap().clone()
    }

    /// Waits for a request for `path`.
    pub(crate) async fn saw(&self, path: &str) {
        let is_it = |(what, _): &(String, Vec<u8>)| what.starts_with(path);
        while !self.seen.lock().unwrap().iter().any(is_it) {
            tokio::task::yield_now().await;
        }
    }

    pub(crate) fn requests(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, seen: Arc<Seen>, hung_up: Arc<Notify>) {
    let mut connections = JoinSet::new();
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        connections.spawn(serve(tcp, tls.clone(), seen.clone(), hung_up.clone()));
    }
}

async fn serve(tcp: TcpStream, tls: TlsAcceptor, seen: Arc<Seen>, hung_up: Arc<Notify>) {
    let Ok(stream) = tls.accept(tcp).await else {
        return;
    };
    let service = service_fn(|request| {
        let (seen, hung_up) = (seen.clone(), hung_up.clone());
        async move { Ok::<_, Infallible>(answer(request, &seen, hung_up).await) }
    });
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // Some tests hang up on purpose, and some replies are cut on purpose.
    let _ = connection.await;
}

async fn answer(request: Request<Incoming>, seen: &Seen, hung_up: Arc<Notify>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let Ok(body) = body.collect().await else {
        return text(StatusCode::BAD_REQUEST, "cut");
    };
    let body = body.to_bytes();
    if head
        .headers
        .get("authorization")
        .is_none_or(|given| given != "Basic YWw6dG9rZW4=")
    {
        return text(StatusCode::UNAUTHORIZED, "bad username or password\n");
    }
    let key = head.headers.get("idempotency-key");
    let key = key.map_or(String::new(), |key| format!(" {}", key.to_str().unwrap()));
    let what = format!("{}{key}", head.uri);
    seen.lock().unwrap().push((what.clone(), body.to_vec()));
    let is_proxied = head
        .headers
        .get("x-buildlet-proxy")
        .is_some_and(|name| name == "user-al-linux-0");
    match (path.as_str(), is_proxied) {
        ("/buildlet/create", false) if body.ends_with(b"=linux") => create(),
        ("/buildlet/create", false) => text(
            StatusCode::BAD_REQUEST,
            "unknown builder type in 'builderType' parameter\n",
        ),
        ("/buildlet/list", false) => text(
            StatusCode::OK,
            &serde_json::to_string(&[instance("linux"), instance("openbsd")]).unwrap(),
        ),
        ("/buildlet/types", false) => text(
            StatusCode::OK,
            r#"[{"Name":"linux","HostType":"host-linux","Machines":2,"Idle":1,"Waiting":3}]"#,
        ),
        ("/status", true) => text(StatusCode::OK, "{\"Version\":15}"),
        ("/workdir", true) => text(StatusCode::OK, "/work"),
        ("/ls", true) => text(StatusCode::OK, "-rw-r--r--\tbin/x\n"),
        ("/tgz", true) if head.uri.query() == Some("dir=cut") => cut(),
        ("/tgz", true) => text(StatusCode::OK, "archive"),
        ("/write" | "/writetgz", true) => text(StatusCode::OK, "OK"),
        ("/removeall" | "/halt", true) => text(StatusCode::OK, ""),
        ("/exec", true) => exec(body, hung_up),
        ("/jobs", true) if body.windows(4).any(|word| word == b"slow") => slow(seen, &what).await,
        ("/jobs/0000000000/signal", true) => text(StatusCode::OK, &job()),
        // A buildlet of Go.
        ("/jobs", true) => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        _ => text(StatusCode::BAD_GATEWAY, "unknown or expired buildlet\n"),
    }
}

/// A job that starts, of which only those hear who ask again with the same key.
async fn slow(seen: &Seen, what: &str) -> Response<Body> {
    let is_again = {
        let seen = seen.lock().unwrap();
        seen.iter().filter(|(other, _)| other == what).count() > 1
    };
    if !is_again {
        std::future::pending::<()>().await;
    }
    text(StatusCode::CREATED, &job())
}

fn job() -> String {
    let command = JobCommand::Argv(vec!["slow".to_owned()]);
    let about = JobAbout::new(command, "/work", SystemTime::now());
    serde_json::to_string(&Job::new(JobId::from_bits(0), about)).unwrap()
}

fn create() -> Response<Body> {
    let instance = serde_json::to_string(&instance("linux")).unwrap();
    let lines =
        format!("{{\"status\":{{\"message\":\"\",\"ahead\":1}}}}\n{{\"buildlet\":{instance}}}\n");
    let mut response = text(StatusCode::OK, &lines);
    response
        .headers_mut()
        .insert("x-supported-version", "20191119".parse().unwrap());
    response
}

/// Echoes the form, and ends as the command's name says.
fn exec(form: Bytes, hung_up: Arc<Notify>) -> Response<Body> {
    let command = form
        .split(|byte| *byte == b'&')
        .next()
        .and_then(|pair| pair.strip_prefix(b"cmd="))
        .unwrap()
        .to_vec();
    let (mut sender, body) = Channel::<Bytes, io::Error>::new(1);
    tokio::spawn(async move {
        let state = match command.as_slice() {
            b"exit" => "exit status 42",
            b"killed" => "signal: killed",
            b"nonesuch" => "exec: \"nonesuch\": executable file not found in $PATH",
            b"cut" => return sender.abort(io::ErrorKind::ConnectionReset.into()),
            b"hang" => {
                sender
                    .send_data(Bytes::from_static(b"before"))
                    .await
                    .unwrap();
                // Whoever waits for more is served by nobody; the channel closes when the client hangs up.
                while sender.send_data(Bytes::from_static(b"")).await.is_ok() {
                    tokio::task::yield_now().await;
                }
                return hung_up.notify_one();
            }
            _ => {
                while sender
                    .send_data(Bytes::from_static(b"and on and on\n"))
                    .await
                    .is_ok()
                {}
                return;
            }
        };
        let trailers =
            HeaderMap::from_iter([("process-state".parse().unwrap(), state.parse().unwrap())]);
        sender.send_data(form).await.unwrap();
        sender.send(Frame::trailers(trailers)).await.unwrap();
    });
    Response::builder()
        .header("trailer", "Process-State")
        .body(body.boxed_unsync())
        .unwrap()
}

/// A reply that ends before it is through.
fn cut() -> Response<Body> {
    let (mut sender, body) = Channel::<Bytes, io::Error>::new(1);
    tokio::spawn(async move {
        sender.send_data(Bytes::from_static(b"half")).await.unwrap();
        sender.abort(io::ErrorKind::ConnectionReset.into());
    });
    Response::new(body.boxed_unsync())
}

fn text(status: StatusCode, text: &str) -> Response<Body> {
    let body = Full::new(Bytes::copy_from_slice(text.as_bytes())).map_err(|never| match never {});
    Response::builder()
        .status(status)
        .body(body.boxed_unsync())
        .unwrap()
}

/// The machine of `openbsd` was started anew two minutes ago.
fn instance(builder_type: &str) -> Instance {
    let now = SystemTime::now();
    let (name, host_type) = (
        format!("user-al-{builder_type}-0"),
        format!("host-{builder_type}"),
    );
    Instance::new(
        "user-al",
        name,
        host_type,
        builder_type,
        now,
        now + Duration::from_secs(30 * 60),
    )
    .with_restart((builder_type == "openbsd").then(|| now - Duration::from_secs(120)))
}

fn identity() -> (Pin, TlsAcceptor) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let (authority_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let root: CertificateDer<'static> = authority.self_signed(&authority_key).unwrap().into();
    let leaf = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let leaf = leaf
        .signed_by(&key, &Issuer::from_params(&authority, &authority_key))
        .unwrap();
    let pin = Pin::of_certificate(&root).unwrap();
    let config =
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.into(), root],
                key.serialize_der().try_into().unwrap(),
            )
            .unwrap();
    (pin, TlsAcceptor::from(Arc::new(config)))
}
