//! `Dialer` as a service, for clients that take their connections from one.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Uri;

use crate::conn::Conn;
use crate::dialer::Dialer;
use crate::error::DialError;

/// Dials for whatever URI: every one leads to the other side of the link. Pools that group connections by host see one
/// host for each name that the caller invents.
///
/// With the feature `hyper` it is what `hyper_util::client::legacy::Client` and tonic's `connect_with_connector` take:
///
/// ```
/// # #[cfg(feature = "hyper")]
/// # fn client(dialer: revdial::Dialer) {
/// use hyper_util::client::legacy::Client;
/// use hyper_util::rt::TokioExecutor;
///
/// let client: Client<_, String> = Client::builder(TokioExecutor::new()).build(dialer);
/// let response = client.get(http::Uri::from_static("http://machine/status"));
/// # }
/// ```
impl tower_service::Service<Uri> for Dialer {
    type Response = Conn;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Conn, DialError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move { dialer.dial().await })
    }
}
