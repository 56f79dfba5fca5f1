//! What a user asks a coordinator for: instances, and the buildlets of instances behind its proxy.
//!
//! These are the `/buildlet/create` and `/buildlet/list` of Go's coordinators, from 2017 to 2022, and a `/buildlet/types` beside
//! them. Any request that
//! names an instance in [`X_BUILDLET_PROXY`] goes to the machine of that instance, so that a [`Client`] with this one
//! header more is the [`Buildlet`](crate::Buildlet) of the instance. `POST /halt` there ends the lease.

mod builder_type;
mod create;
mod instance;

use std::fmt;
use std::time::Duration;

use http::header::{AUTHORIZATION, HOST};
use http::uri::Authority;
use http::{HeaderName, HeaderValue, Method};
use serde::de::DeserializeOwned;

use crate::ApiError;
use crate::client::exchange::{Http, form, request, urlencoded, within};
use crate::client::{Client, Connect, basic, host};

pub use builder_type::BuilderType;
pub use create::Waiting;
pub use instance::Instance;

/// A coordinator at the other end of connections that `C` opens, as one user sees it.
///
/// Errors carry the status and the text of the coordinator, or are those of a [`Client`].
pub struct CoordinatorClient<C> {
    http: Http<C>,
}

impl<C: Connect> CoordinatorClient<C> {
    /// A client of `user`, who is known by `token`, for the coordinator at `authority`.
    pub fn new(connect: C, authority: &Authority, user: &str, token: &str) -> Self {
        let mut http = Http::new(connect);
        http.set_header(HOST, host(authority));
        http.set_header(AUTHORIZATION, basic(user, token));
        Self { http }
    }

    /// Leases a machine of `builder_type`. Where none is idle this waits, and `on_wait` is told, every few seconds and
    /// by coordinators of 2019 and later, how long the queue is.
    ///
    /// # Errors
    ///
    /// [`BAD_GATEWAY`](crate::ErrorStatus::BAD_GATEWAY) also where a coordinator that reports the queue falls silent for
    /// a minute, [`UNAVAILABLE`](crate::ErrorStatus::UNAVAILABLE) where it gives up in the middle.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the queue. An instance that was just leased may stay; it is in the list.
    pub async fn create(
        &self,
        builder_type: &str,
        on_wait: impl FnMut(Waiting) + Send,
    ) -> Result<Instance, ApiError> {
        let pairs = [("version", VERSION), ("builderType", builder_type)];
        let request = form("/buildlet/create", urlencoded(pairs));
        let reply = self.http.send(request).await?;
        create::read(reply, on_wait).await
    }

    /// Lists the user's instances, by name.
    ///
    /// # Errors
    ///
    /// As for the client as a whole.
    pub async fn list(&self) -> Result<Vec<Instance>, ApiError> {
        self.read_list("/buildlet/list", "list", "instances").await
    }

    /// Lists what can be leased, by name.
    ///
    /// # Errors
    ///
    /// [`NOT_FOUND`](crate::ErrorStatus::NOT_FOUND) from coordinators that cannot tell, such as Go's.
    pub async fn types(&self) -> Result<Vec<BuilderType>, ApiError> {
        self.read_list("/buildlet/types", "types", "builder types")
            .await
    }

    async fn read_list<T: DeserializeOwned>(
        &self,
        path: &'static str,
        operation: &'static str,
        of: &str,
    ) -> Result<Vec<T>, ApiError> {
        let json = within(LIST_TIME, operation, async {
            let reply = self.http.send(request(Method::GET, path)).await?;
            reply.bytes(LIST_LIMIT).await
        })
        .await?;
        serde_json::from_slice(&json).map_err(|error| {
            ApiError::bad_gateway(format!("the list of {of} is not as expected")).because(error)
        })
    }

    /// The buildlet of the instance `name`. Nothing is asked yet.
    ///
    /// # Errors
    ///
    /// [`NOT_FOUND`](crate::ErrorStatus::NOT_FOUND) for a name that no instance can have.
    pub fn instance(&self, name: &str) -> Result<Client<C>, ApiError> {
        let value = HeaderValue::from_str(name)
            .ok()
            .filter(|value| !value.is_empty())
            .ok_or_else(|| {
                ApiError::new(
                    crate::ErrorStatus::NOT_FOUND,
                    format!("no instance is named {name:?}"),
                )
            })?;
        let name = HeaderName::from_static(X_BUILDLET_PROXY);
        Ok(Client::over(self.http.clone()).with_header(name, value))
    }
}

impl<C> fmt::Debug for CoordinatorClient<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoordinatorClient").finish_non_exhaustive()
    }
}

/// What a coordinator says, with a 502, about an instance that there is not, or no more; Go's text.
pub const EXPIRED: &str = "unknown or expired buildlet";
/// The header whose value, an instance's name, sends a request on to that instance's machine.
pub const X_BUILDLET_PROXY: &str = "x-buildlet-proxy";
/// The header of a reply to `/buildlet/create` that comes line by line.
pub const X_SUPPORTED_VERSION: &str = "x-supported-version";
/// The version of the protocol that the client speaks, compared as text: from this one on, `/buildlet/create` is
/// answered line by line. Coordinators of 2016 and later accept it.
pub const VERSION: &str = "20191119";

/// Ten thousand instances.
const LIST_LIMIT: usize = 4 * 1024 * 1024;
const LIST_TIME: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests;
