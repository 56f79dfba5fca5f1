//! The one error of every operation.

use http::StatusCode;

/// A failed operation: a status and a sentence for the caller, and a cause that stays in our log.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    status: ErrorStatus,
    message: String,
    #[source]
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl ApiError {
    /// Fails with `status` and a sentence that the caller may read.
    pub fn new(status: ErrorStatus, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            cause: None,
        }
    }

    /// Fails because the request was wrong: 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(ErrorStatus::BAD_REQUEST, message)
    }

    /// Fails because the machine could not do it: 500.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorStatus::INTERNAL, message)
    }

    /// Fails because something behind us could not be reached, or answered nonsense: 502.
    pub fn bad_gateway(message: impl Into<String>) -> Self {
        Self::new(ErrorStatus::BAD_GATEWAY, message)
    }

    /// Keeps the reason for our log; the caller does not see it.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// The status that the caller sees.
    pub fn status(&self) -> ErrorStatus {
        self.status
    }

    /// The sentence that the caller reads, without a final line break.
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// A status that cannot be a success.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ErrorStatus(StatusCode);

impl ErrorStatus {
    /// 400: the request was wrong.
    pub const BAD_REQUEST: Self = Self(StatusCode::BAD_REQUEST);
    /// 401: the caller did not prove who it is.
    pub const UNAUTHORIZED: Self = Self(StatusCode::UNAUTHORIZED);
    /// 403: the caller may not.
    pub const FORBIDDEN: Self = Self(StatusCode::FORBIDDEN);
    /// 404: there is no such thing.
    pub const NOT_FOUND: Self = Self(StatusCode::NOT_FOUND);
    /// 409: it does not fit to what there is.
    pub const CONFLICT: Self = Self(StatusCode::CONFLICT);
    /// 413: more than is taken.
    pub const TOO_LARGE: Self = Self(StatusCode::PAYLOAD_TOO_LARGE);
    /// 422: understood, but it cannot be done.
    pub const UNPROCESSABLE: Self = Self(StatusCode::UNPROCESSABLE_ENTITY);
    /// 500: our fault.
    pub const INTERNAL: Self = Self(StatusCode::INTERNAL_SERVER_ERROR);
    /// 501: the protocol has it, this program does not.
    pub const NOT_IMPLEMENTED: Self = Self(StatusCode::NOT_IMPLEMENTED);
    /// 502: the fault of something behind us.
    pub const BAD_GATEWAY: Self = Self(StatusCode::BAD_GATEWAY);
    /// 503: not for the moment.
    pub const UNAVAILABLE: Self = Self(StatusCode::SERVICE_UNAVAILABLE);
    /// 504: something behind us did not answer in time.
    pub const GATEWAY_TIMEOUT: Self = Self(StatusCode::GATEWAY_TIMEOUT);
    /// 507: the disk is full, or nearly so.
    pub const INSUFFICIENT_STORAGE: Self = Self(StatusCode::INSUFFICIENT_STORAGE);

    /// Takes a status from the wire; `None` unless it is 4xx or 5xx.
    pub fn from_status(status: StatusCode) -> Option<Self> {
        (status.is_client_error() || status.is_server_error()).then_some(Self(status))
    }

    /// The status for the wire.
    pub fn status(self) -> StatusCode {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_is_no_error_status() {
        assert_eq!(ErrorStatus::from_status(StatusCode::OK), None);
        assert_eq!(
            ErrorStatus::from_status(StatusCode::SWITCHING_PROTOCOLS),
            None
        );
        assert_eq!(
            ErrorStatus::from_status(StatusCode::BAD_GATEWAY),
            Some(ErrorStatus::BAD_GATEWAY)
        );
    }

    #[test]
    fn the_cause_is_not_in_the_public_sentence() {
        let error = ApiError::internal("cannot write the file").because("disk /dev/secret is full");
        assert_eq!(error.to_string(), "cannot write the file");
    }
}
