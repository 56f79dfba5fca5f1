//! `Retry-After`: when the server wants us again ([RFC 9110, 10.2.3](https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3)).

use std::time::{Duration, SystemTime};

use http::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};

/// Reads seconds or a date.
///
/// A date means what it says on the server's clock. Where the reply has a `Date` the difference is taken from that, so
/// that a machine whose own clock is wrong waits as long as it was told.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let asked = text(headers, &RETRY_AFTER)?;
    if let Ok(seconds) = asked.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(asked).ok()?;
    let now = text(headers, &DATE)
        .and_then(|date| httpdate::parse_http_date(date).ok())
        .unwrap_or(now);
    Some(until.duration_since(now).unwrap_or_default())
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn asked(retry_after: &'static str, date: Option<&'static str>) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_static(retry_after));
        if let Some(date) = date {
            headers.insert(DATE, HeaderValue::from_static(date));
        }
        super::retry_after(&headers, at(NOON))
    }

    fn at(date: &str) -> SystemTime {
        httpdate::parse_http_date(date).unwrap()
    }

    const NOON: &str = "Wed, 25 Nov 2026 12:00:00 GMT";

    #[test]
    fn seconds_are_seconds() {
        assert_eq!(asked("120", None), Some(Duration::from_secs(120)));
        assert_eq!(asked(" 0 ", None), Some(Duration::ZERO));
    }

    #[test]
    fn a_date_is_compared_with_the_clock_of_whoever_sent_it() {
        let later = "Wed, 25 Nov 2026 12:01:30 GMT";
        assert_eq!(asked(later, None), Some(Duration::from_secs(90)));
        let minute_before = Some("Wed, 25 Nov 2026 12:00:30 GMT");
        assert_eq!(asked(later, minute_before), Some(Duration::from_secs(60)));
        let no_date = Some("soon");
        assert_eq!(asked(later, no_date), Some(Duration::from_secs(90)));
    }

    #[test]
    fn a_date_that_has_passed_means_now() {
        let earlier = "Sunday, 06-Nov-94 08:49:37 GMT";
        assert_eq!(asked(earlier, None), Some(Duration::ZERO));
    }

    #[test]
    fn what_is_neither_is_nothing() {
        for text in [
            "",
            "soon",
            "-1",
            "1.5",
            "99999999999999999999999",
            "Wed, 25",
        ] {
            assert_eq!(asked(text, None), None, "{text}");
        }
    }
}
