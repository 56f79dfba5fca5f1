//! The HTTP handler of the pick-up path.

use std::error::Error;
use std::fmt;
use std::io;

use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};

use super::pickup::{PickUps, Tls};

/// Answers pick-up requests, for any HTTP server that can give a connection away.
///
/// `upgrade` takes a request, and is a future of its connection, which comes about after the 101 was sent. With hyper's own
/// upgrade, on connections that are served `with_upgrades`, it is this:
///
/// ```
/// use hyper_util::rt::TokioIo;
/// use revdial::v2::{PickUpHandler, PickUps, Tls};
///
/// let pick_ups = PickUps::new();
/// let handler = PickUpHandler::new(pick_ups, Tls::Present, |request| async {
///     hyper::upgrade::on(request).await.map(TokioIo::new)
/// });
/// # let _ = handler.answer(http::Request::new(String::new()));
/// ```
///
/// That serves the [`Listener`](crate::Listener) of this crate. Go's does not ask for an upgrade, it sends a bare GET, and
/// hyper gives no connection away that was not asked for: there the server has to take the connection from hyper by
/// another way, for example by `without_shutdown`.
///
/// It is a `tower::Service` with the feature `tower`, and never fails.
#[derive(Clone)]
pub struct PickUpHandler<U> {
    pick_ups: PickUps,
    tls: Tls,
    upgrade: U,
}

impl<U> PickUpHandler<U> {
    /// Serves these dials.
    pub fn new(pick_ups: PickUps, tls: Tls, upgrade: U) -> Self {
        Self {
            pick_ups,
            tls,
            upgrade,
        }
    }

    /// Answers a request: 101, and the dial goes on, or with an error and its text.
    pub fn answer<B, F, T, E>(&self, request: Request<B>) -> Response<String>
    where
        U: Fn(Request<B>) -> F,
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: AsyncRead + AsyncWrite + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        match self.pick_ups.begin_request(&request, self.tls) {
            Ok(pick_up) => {
                let response = pick_up.response();
                let upgrade = (self.upgrade)(request);
                pick_up.complete_after(async { upgrade.await.map_err(io::Error::other) });
                response
            }
            Err(refusal) => refusal.response(),
        }
    }
}

impl<U> fmt::Debug for PickUpHandler<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PickUpHandler")
            .field("pick_ups", &self.pick_ups)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

#[cfg(feature = "tower")]
impl<U, B, F, T, E> tower_service::Service<Request<B>> for PickUpHandler<U>
where
    U: Fn(Request<B>) -> F,
    F: Future<Output = Result<T, E>> + Send + 'static,
    T: AsyncRead + AsyncWrite + Send + 'static,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    type Response = Response<String>;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Response<String>, std::convert::Infallible>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        std::future::ready(Ok(self.answer(request)))
    }
}
