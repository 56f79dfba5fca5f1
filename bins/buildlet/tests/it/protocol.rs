//! What every handler has in common, and the small ones.

use super::support::Served;

#[tokio::test]
async fn each_method_error_has_its_text() {
    let served = Served::start().await;
    for (method, target, text) in [
        ("POST", "/status", "requires GET method\n"),
        ("POST", "/workdir", "requires GET method\n"),
        ("POST", "/ls", "requires GET method\n"),
        ("POST", "/tgz", "requires GET method\n"),
        ("GET", "/writetgz", "requires PUT or POST method\n"),
        ("POST", "/write?path=a&mode=420", "requires POST method\n"),
        ("GET", "/exec", "requires POST method\n"),
        ("GET", "/removeall", "requires POST method\n"),
        ("GET", "/halt", "requires POST method\n"),
        ("GET", "/connect-ssh", "requires POST method\n"),
        ("GET", "/connect-tcp", "requires POST method\n"),
    ] {
        let reply = served.ask(method, target, "").await;
        assert_eq!(
            (reply.status, reply.text().as_str()),
            (400, text),
            "{method} {target}"
        );
        assert_eq!(
            reply.header("content-type").as_deref(),
            Some("text/plain; charset=utf-8")
        );
        assert_eq!(
            reply.header("x-content-type-options").as_deref(),
            Some("nosniff")
        );
    }
}

#[tokio::test]
async fn parameters_are_checked() {
    let served = Served::start().await;
    for (method, target, body, text) in [
        ("GET", "/ls?dir=../x", "", "bogus dir\n"),
        ("GET", "/tgz?dir=/etc", "", "bogus dir\n"),
        ("PUT", "/writetgz?dir=..", "", "bogus dir\n"),
        ("PUT", "/write?path=../x&mode=420", "", "bad path\n"),
        ("PUT", "/write?path=.&mode=420", "", "bad path\n"),
        ("PUT", "/write?mode=420", "", "bad path\n"),
        ("PUT", "/write?path=x", "", "bad mode\n"),
        ("PUT", "/write?path=x&mode=rw", "", "bad mode\n"),
        ("PUT", "/write?path=x&mode=2147484141", "", "bad mode\n"),
        ("POST", "/exec", "mode=sys", "requires 'cmd' parameter\n"),
        ("POST", "/removeall", "", "requires 'path' parameter\n"),
        (
            "POST",
            "/removeall",
            "path=..",
            "bad 'path' parameter: \"..\"\n",
        ),
        (
            "POST",
            "/removeall",
            "path=a&path=x/../..",
            "bad 'path' parameter: \"x/../..\"\n",
        ),
        (
            "POST",
            "/connect-ssh",
            "x",
            "requires zero Content-Length\n",
        ),
        (
            "POST",
            "/connect-tcp",
            "x",
            "requires zero Content-Length\n",
        ),
        (
            "POST",
            "/connect-tcp",
            "",
            "requires X-Target-Port, the port to reach, from 1 to 65535\n",
        ),
    ] {
        let reply = served.ask(method, target, body).await;
        assert_eq!(
            (reply.status, reply.text().as_str()),
            (400, text),
            "{method} {target} {body}"
        );
    }
    assert_eq!(served.ask("GET", "/nothing", "").await.status, 404);
}

#[tokio::test]
async fn a_request_names_one_host() {
    let served = Served::start().await;
    for (head, status, text) in [
        ("GET / HTTP/1.1\r\n", 400, "missing required Host header\n"),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n",
            400,
            "too many Host headers\n",
        ),
        ("GET /healthz HTTP/1.1\r\nHost: \r\n", 200, "ok\n"),
        ("GET /healthz HTTP/1.0\r\n", 200, "ok\n"),
    ] {
        let request = format!("{head}Connection: close\r\n\r\n");
        let reply = served.send(request.as_bytes()).await;
        assert_eq!(
            (reply.status, reply.text().as_str()),
            (status, text),
            "{head}"
        );
    }
}

#[tokio::test]
async fn the_root_is_for_everybody_and_nothing_else() {
    let served = Served::start().await;
    let without = |target: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: \r\nConnection: close\r\n\r\n").into_bytes()
    };
    let root = served.send(&without("/")).await;
    assert_eq!(root.status, 200);
    assert!(root.text().starts_with("buildlet running on "), "{root:?}");
    assert_eq!(served.send(&without("/healthz")).await.text(), "ok\n");
    for target in ["/status", "/workdir", "/ls", "/nothing"] {
        let reply = served.send(&without(target)).await;
        assert_eq!(
            (reply.status, reply.text().as_str()),
            (403, "invalid password\n"),
            "{target}"
        );
    }
    for credentials in [
        "",
        "Basic",
        "Basic !",
        "Basic Z29tb3RlOnNlY3JldHg=",
        "Bearer Z29tb3RlOnNlY3JldA==",
    ] {
        let request = format!(
            "GET /status HTTP/1.1\r\nHost: \r\nConnection: close\r\nAuthorization: {credentials}\r\n\r\n"
        );
        assert_eq!(
            served.send(request.as_bytes()).await.status,
            403,
            "{credentials:?}"
        );
    }
}

#[tokio::test]
async fn status_and_workdir_are_as_go_clients_read_them() {
    let served = Served::start().await;
    let status = served.ask("GET", "/status", "").await;
    assert_eq!(status.text(), "{\"Version\":26}");
    assert_eq!(
        status.header("content-type").as_deref(),
        Some("application/json; charset=utf-8")
    );
    let work_dir = served.ask("GET", "/workdir", "").await.text();
    assert_eq!(work_dir, served.work().to_str().unwrap());
}

#[tokio::test]
async fn every_reply_has_an_id_of_its_own() {
    let served = Served::start().await;
    let mut ids = Vec::new();
    for target in ["/", "/status", "/nothing"] {
        ids.push(
            served
                .ask("GET", target, "")
                .await
                .header("x-request-id")
                .unwrap(),
        );
    }
    ids.dedup();
    assert_eq!(ids.len(), 3);
}

#[tokio::test]
async fn a_form_beyond_the_limit_is_refused() {
    let served = Served::start().await;
    let reply = served
        .ask("POST", "/removeall", vec![b'a'; (10 << 20) + 1])
        .await;
    assert_eq!(reply.status, 400);
}
