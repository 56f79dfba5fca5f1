//! What goes wrong, as a status and a line of text.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use buildlet_proto::ApiError;

use crate::access::NotAUser;
use crate::instances::InstanceError;

/// A failed request. The texts and codes are those of Go's coordinator where it has them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct WebError {
    status: StatusCode,
    message: String,
}

impl WebError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// The line for the caller, without a line break.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "404 page not found")
    }
}

impl IntoResponse for WebError {
    fn into_response(self) -> Response {
        let mut response = (self.status, format!("{}\n", self.message)).into_response();
        response.headers_mut().insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        response
    }
}

impl From<ApiError> for WebError {
    fn from(error: ApiError) -> Self {
        Self::new(error.status().status(), error.message())
    }
}

impl From<InstanceError> for WebError {
    fn from(error: InstanceError) -> Self {
        let status = match error {
            InstanceError::NotYours => StatusCode::UNAUTHORIZED,
            InstanceError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
            InstanceError::Away { .. } | InstanceError::NoBuildlet | InstanceError::Unknown => {
                StatusCode::BAD_GATEWAY
            }
        };
        Self::new(status, error.to_string())
    }
}

impl From<NotAUser> for WebError {
    fn from(error: NotAUser) -> Self {
        let status = match error {
            NotAUser::Missing => StatusCode::BAD_REQUEST,
            NotAUser::Wrong => StatusCode::UNAUTHORIZED,
        };
        Self::new(status, error.to_string())
    }
}
