//! What a request says beside its path: the query, and a urlencoded body.

use bytes::Bytes;
use http::Request;
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::ApiError;

/// Keys and values in the order in which they were given.
#[derive(Debug)]
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    pub(super) fn of_query<R>(request: &Request<R>) -> Self {
        Self::of_form(request.uri().query().unwrap_or_default().as_bytes())
    }

    pub(super) fn of_form(form: &[u8]) -> Self {
        let mut fields = Self(Vec::new());
        fields.extend(form);
        fields
    }

    pub(super) fn extend(&mut self, form: &[u8]) {
        self.0.extend(form_urlencoded::parse(form).into_owned());
    }

    pub(super) fn first(&self, key: &str) -> Option<&str> {
        self.all(key).next()
    }

    pub(super) fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(name, _)| name == key)
            .map(|(_, value)| value.as_str())
    }
}

/// Reads a body that is a form, up to what Go's servers accept.
pub(super) async fn collect<R>(body: R) -> Result<Bytes, ApiError>
where
    R: Body<Data = Bytes>,
    R::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    collect_up_to(MAX_FORM, body)
        .await
        .map_err(|why| match why {
            Uncollected::TooLong => ApiError::bad_request("the form is larger than 10 MiB"),
            Uncollected::Cut(error) => {
                ApiError::bad_request("the form was cut short").because(error)
            }
        })
}

/// Reads a body of at most `limit` bytes.
pub(super) async fn collect_up_to<R>(limit: usize, body: R) -> Result<Bytes, Uncollected>
where
    R: Body<Data = Bytes>,
    R::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match Box::pin(Limited::new(body, limit).collect()).await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Uncollected::TooLong),
        Err(error) => Err(Uncollected::Cut(error)),
    }
}

/// Why a body is not there.
pub(super) enum Uncollected {
    Cut(Box<dyn std::error::Error + Send + Sync>),
    TooLong,
}

/// Reads the permission bits from a decimal Go `os.FileMode` (0644 is `420`); `None` unless it is that of a regular file.
pub(super) fn regular_file_mode(value: &str) -> Option<u32> {
    let mode: u32 = value.parse().ok()?;
    (mode & GO_MODE_TYPE == 0).then_some(mode & 0o777)
}

/// Go caps urlencoded bodies at 10 MiB (`net/http`, `Request.ParseForm`).
const MAX_FORM: usize = 10 << 20;

/// Go's `os.ModeType`: directory, symbolic link, pipe, socket, device, character device, irregular.
const GO_MODE_TYPE: u32 = 1 << 31 | 1 << 27 | 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 19;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_decimal_and_regular() {
        assert_eq!(regular_file_mode("420"), Some(0o644));
        assert_eq!(regular_file_mode("493"), Some(0o755));
        assert_eq!(regular_file_mode(&(1_u32 << 31 | 0o755).to_string()), None);
        for bad in ["", "-1", "0x1", "rw", "4294967296"] {
            assert_eq!(regular_file_mode(bad), None, "{bad:?}");
        }
    }
}
