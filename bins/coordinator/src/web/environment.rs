//! The environment of a builder type, given to every command that goes through the proxy.
//!
//! Go's gomote adds it itself, from a table that is compiled into it. Here the coordinator knows it, so that `gomote
//! run`, `ssh` and any other client see the same.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use axum::http::{Method, StatusCode};
use buildlet_proto::ExecRequest;
use buildlet_proto::jobs::JobRequest;

use super::error::WebError;

/// Puts `env` before the environment that a request to run a command asks for, whose own variables therefore win. Any
/// other request is left as it is, and so is one that the buildlet will refuse.
pub(super) async fn add(
    env: &BTreeMap<String, String>,
    request: Request,
) -> Result<Request, WebError> {
    let is_post = request.method() == Method::POST;
    let add: fn(&[u8], Vec<String>) -> Option<Vec<u8>> = match request.uri().path() {
        "/exec" if is_post && is_form(request.headers()) => add_to_form,
        "/jobs" if is_post => add_to_job,
        _ => return Ok(request),
    };
    if env.is_empty() {
        return Ok(request);
    }
    let (mut head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, MAX_FORM).await.map_err(|_| {
        WebError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the form was cut, or is larger than {MAX_FORM} bytes"),
        )
    })?;
    let builder = env.iter().map(|(name, value)| format!("{name}={value}"));
    let body = match add(&body, builder.collect()) {
        Some(added) => added.into(),
        None => body,
    };
    head.headers
        .insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    Ok(Request::from_parts(head, Body::from(body)))
}

fn add_to_form(form: &[u8], mut env: Vec<String>) -> Option<Vec<u8>> {
    let mut exec = ExecRequest::from_form(form).ok()?;
    env.append(&mut exec.env);
    exec.env = env;
    Some(exec.to_form().into_bytes())
}

fn add_to_job(json: &[u8], mut env: Vec<String>) -> Option<Vec<u8>> {
    let mut job: JobRequest = serde_json::from_slice(json).ok()?;
    env.append(&mut job.env);
    job.env = env;
    serde_json::to_vec(&job).ok()
}

fn is_form(headers: &HeaderMap) -> bool {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    value.split(';').next().is_some_and(|kind| {
        kind.trim()
            .eq_ignore_ascii_case("application/x-www-form-urlencoded")
    })
}

/// What Go's servers, and our buildlet, take of a form.
const MAX_FORM: usize = 10 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    async fn env_of(path: &str, kind: &str, form: &str) -> String {
        let request = Request::post(path)
            .header("content-type", kind)
            .body(Body::from(form.to_owned()))
            .unwrap();
        let env = BTreeMap::from([
            ("A".to_owned(), "host".to_owned()),
            ("B".to_owned(), "host".to_owned()),
        ]);
        let request = add(&env, request).await.unwrap();
        let bytes = axum::body::to_bytes(request.into_body(), MAX_FORM)
            .await
            .unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    const FORM: &str = "application/x-www-form-urlencoded";

    #[tokio::test]
    async fn what_the_user_sets_comes_last() {
        let form = env_of("/exec", FORM, "cmd=make&env=B%3Duser").await;
        let exec = ExecRequest::from_form(form.as_bytes()).unwrap();
        assert_eq!(exec.env, ["A=host", "B=host", "B=user"]);
    }

    #[tokio::test]
    async fn jobs_have_the_environment_as_well() {
        let job = env_of(
            "/jobs",
            "application/json",
            r#"{"shell":"make","env":["B=user"]}"#,
        )
        .await;
        assert_eq!(
            job,
            r#"{"shell":"make","env":["A=host","B=host","B=user"]}"#
        );
        let bad = r#"{"shell":"make","nonsense":1}"#;
        assert_eq!(env_of("/jobs", "application/json", bad).await, bad);
    }

    #[tokio::test]
    async fn all_else_is_left_alone() {
        assert_eq!(env_of("/write", FORM, "cmd=make").await, "cmd=make");
        assert_eq!(env_of("/exec", "text/plain", "cmd=make").await, "cmd=make");
        assert_eq!(env_of("/exec", FORM, "mode=sys").await, "mode=sys");
    }

    #[tokio::test]
    async fn a_form_without_bound_is_refused() {
        let body = Body::from(vec![b'a'; MAX_FORM + 1]);
        let request = Request::post("/exec")
            .header("content-type", FORM)
            .body(body)
            .unwrap();
        let env = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        assert!(add(&env, request).await.is_err());
    }
}
