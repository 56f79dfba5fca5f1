//! Archives that the machine fetches by their URL, for `POST /writetgz`.

mod download;
mod url;

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use buildlet_proto::ApiError;
use buildlet_proto::api::ByteReader;
use buildlet_proto::tls;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, HOST, LOCATION, USER_AGENT};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use revdial::Connector;
use revdial::connector::Proxies;
use rustls::ClientConfig;
use tokio_util::task::AbortOnDropHandle;

use self::download::{Download, Failure, NoBody};
use self::url::Url;

/// Fetches by http and https, through the proxies that lead out.
///
/// Whoever may ask for this may run commands here, and so could fetch the same with a command. What is limited is how long
/// it takes, how much it is, and where a redirect leads.
#[derive(Debug, Default)]
pub(crate) struct Fetcher {
    proxies: Proxies,
    /// The authorities that the system trusts, read when they are needed first.
    tls: Mutex<Option<Arc<ClientConfig>>>,
}

impl Fetcher {
    pub(crate) fn new(proxies: Proxies) -> Self {
        Self {
            proxies,
            tls: Mutex::new(None),
        }
    }

    /// Has `unpack` read what is at `url`. The texts are those of Go's buildlets, whose status is always 500.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cuts the download, so that `unpack` reads an error.
    pub(crate) async fn fetch<F, Fut>(&self, url: &str, unpack: F) -> Result<(), ApiError>
    where
        F: FnOnce(ByteReader) -> Fut,
        Fut: Future<Output = Result<(), ApiError>>,
    {
        let fetching = async {
            let (response, _connection) = self.open(url).await?;
            let failure = Failure::default();
            let download = Download::new(response.into_body(), failure.clone());
            let unpacked = unpack(Box::pin(download)).await;
            // An archive that was cut is not at fault itself.
            match failure.take() {
                Some(why) if unpacked.is_err() => Err(failed(url, why)),
                _ => unpacked,
            }
        };
        let limit = TOTAL_TIME.as_secs() / 60;
        tokio::time::timeout(TOTAL_TIME, fetching)
            .await
            .unwrap_or_else(|_| Err(failed(url, format!("it took more than {limit} minutes"))))
    }

    /// Asks for `url`, and for where that is redirected to, until there is content.
    async fn open(
        &self,
        url: &str,
    ) -> Result<(Response<Incoming>, AbortOnDropHandle<()>), ApiError> {
        let because = |error: anyhow::Error| failed(url, format!("{error:#}"));
        let mut target = Url::parse(url).map_err(because)?;
        for _ in 0..=MAX_REDIRECTS {
            let asked = tokio::time::timeout(HEAD_TIME, Box::pin(self.get(&target)));
            let late = |_| failed(url, format!("no answer within {} s", HEAD_TIME.as_secs()));
            let (response, connection) = asked.await.map_err(late)?.map_err(because)?;
            match response.status() {
                StatusCode::OK => return Ok((response, connection)),
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => {
                    target = redirected(&target, &response).map_err(because)?;
                }
                status => {
                    let url = url::shown(url);
                    return Err(ApiError::internal(format!(
                        "writetgz: fetching provided URL {url:?}: {status}"
                    )));
                }
            }
        }
        Err(failed(
            url,
            format!("stopped after {MAX_REDIRECTS} redirects"),
        ))
    }

    /// Makes one request, and gives what has to be kept while its body is read.
    async fn get(&self, url: &Url) -> anyhow::Result<(Response<Incoming>, AbortOnDropHandle<()>)> {
        let connector = if url.is_https() {
            let tls = self.tls()?;
            Connector::with_tls(url.uri(), tls.clone())?.proxy_tls(tls)
        } else {
            Connector::new(url.uri())?
        };
        let io = connector.proxies(self.proxies.clone()).dial().await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(io)).await?;
        let connection = AbortOnDropHandle::new(tokio::spawn(async move {
            // What ends the connection shows in the reply as well.
            let _ = connection.await;
        }));
        let response = sender.send_request(request(url)?).await?;
        Ok((response, connection))
    }

    fn tls(&self) -> anyhow::Result<Arc<ClientConfig>> {
        let mut tls = self.tls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tls) = tls.as_ref() {
            return Ok(tls.clone());
        }
        let config = tls::client_config(None)?;
        *tls = Some(config.clone());
        Ok(config)
    }
}

fn request(url: &Url) -> anyhow::Result<Request<NoBody>> {
    let mut request = Request::new(NoBody);
    *request.uri_mut() = url.path().parse()?;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_str(url.authority())?);
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    // The archive as it is: servers that label its gzip as an encoding are not to be given a reason to.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    if let Some(credentials) = url.credentials() {
        headers.insert(AUTHORIZATION, credentials.clone());
    }
    Ok(request)
}

fn redirected(from: &Url, response: &Response<Incoming>) -> anyhow::Result<Url> {
    let location = response.headers().get(LOCATION);
    let location = location.context("a redirect without Location")?;
    let to = from.join(location.to_str().context("a Location that is no URL")?)?;
    if from.is_https() && !to.is_https() {
        bail!("a redirect from https to http, where anybody on the way could change the archive");
    }
    Ok(to)
}

fn failed(url: &str, why: impl std::fmt::Display) -> ApiError {
    ApiError::internal(format!("fetching URL {}: {why}", url::shown(url)))
}

const AGENT: &str = concat!("buildlet/", env!("CARGO_PKG_VERSION"));
/// As Go's client follows.
const MAX_REDIRECTS: usize = 10;
/// To connect and be answered, once for each redirect. A mirror that makes an archive first takes seconds.
const HEAD_TIME: Duration = Duration::from_secs(60);
/// For all of it: 16 GiB at 5 MB/s. It is there to end, not to hurry.
const TOTAL_TIME: Duration = Duration::from_secs(60 * 60);
