//! `/exec`.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::files::wait_for;
use super::support::{Served, exec_request, form};

#[tokio::test]
async fn the_bytes_are_those_of_go() {
    let served = Served::start().await;
    let mut tcp = served.connect().await;
    tcp.write_all(&exec_request("echo hello")).await.unwrap();
    let mut reply = String::new();
    tcp.read_to_string(&mut reply).await.unwrap();
    let kept: Vec<_> = reply
        .split("\r\n")
        .filter(|line| !line.starts_with("Date: ") && !line.starts_with("X-Request-Id: "))
        .collect();
    assert_eq!(
        kept.join("\r\n"),
        "HTTP/1.1 200 OK\r\nTrailer: Process-State\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
         6\r\nhello\n\r\n0\r\nProcess-State: ok\r\n\r\n"
    );
}

#[tokio::test]
async fn ends_are_told_as_go_tells_them() {
    let served = Served::start().await;
    for (script, state) in [
        ("exit 0", "ok"),
        ("exit 2", "exit status 2"),
        ("kill -9 $$", "signal: killed"),
        ("kill -15 $$", "signal: terminated"),
        ("exec /nonesuch", "exit status 127"),
    ] {
        assert_eq!(
            served.sh(script).await.1.as_deref(),
            Some(state),
            "{script}"
        );
    }
    let (output, _) = served.sh("echo out; echo err >&2; cat").await;
    assert_eq!(output, "out\nerr\n", "both streams, and nothing to read");
}

#[tokio::test]
async fn what_cannot_start_is_told_in_the_trailer() {
    let served = Served::start().await;
    for (pairs, state) in [
        (
            &[("cmd", "nonesuch"), ("mode", "sys")][..],
            "exec: \"nonesuch\": executable file not found in $PATH",
        ),
        (&[("cmd", "bin/none")], "chdir "),
        (
            &[("cmd", "/nonesuch"), ("mode", "sys")],
            "fork/exec /nonesuch: no such file or directory",
        ),
        (&[("cmd", "sh"), ("mode", "sys"), ("dir", "gone")], "chdir "),
    ] {
        let reply = served.ask("POST", "/exec", form(pairs)).await;
        assert_eq!(reply.status, 200);
        let trailer = reply.trailer.unwrap();
        assert!(trailer.starts_with(state), "{pairs:?} {trailer}");
    }
    for pairs in [
        &[("cmd", "../x")][..],
        &[("cmd", "sh"), ("mode", "sys"), ("dir", "..")],
    ] {
        assert_eq!(
            served.ask("POST", "/exec", form(pairs)).await.status,
            400,
            "{pairs:?}"
        );
    }
}

#[tokio::test]
async fn commands_run_where_they_should() {
    let served = Served::start().await;
    served
        .ask(
            "PUT",
            "/write?path=bin/where&mode=493",
            "#!/bin/sh\npwd; echo $WORKDIR $PWD $TMPDIR $A; test -d $TMPDIR",
        )
        .await;
    let work = served.work().to_str().unwrap().to_owned();
    for (dir, mode, want) in [
        ("", "", format!("{work}/bin")),
        ("", "sys", work.clone()),
        (".", "", work.clone()),
        ("bin", "sys", format!("{work}/bin")),
    ] {
        let pairs = [
            ("cmd", "bin/where"),
            ("dir", dir),
            ("mode", mode),
            ("env", "A=1"),
            ("env", "A=2"),
        ];
        let reply = served.ask("POST", "/exec", form(&pairs)).await;
        assert_eq!(
            reply.text(),
            format!("{want}\n{work} {want} {work}/tmp 2\n"),
            "{dir:?} {mode:?}"
        );
        assert_eq!(reply.trailer.as_deref(), Some("ok"));
    }
}

#[tokio::test]
async fn debug_shows_what_is_run() {
    let served = Served::start().await;
    let pairs = [
        ("cmd", "/bin/echo"),
        ("mode", "sys"),
        ("cmdArg", "a b"),
        ("debug", "true"),
    ];
    let text = served.ask("POST", "/exec", form(&pairs)).await.text();
    assert!(
        text.starts_with(":: Running /bin/echo with args [\"/bin/echo\" \"a b\"] and env [\""),
        "{text}"
    );
    assert!(
        text.ends_with(&format!("in dir {}\n\na b\n", served.work().display())),
        "{text}"
    );
    assert!(
        text.contains(&format!("\"PWD={}\"", served.work().display())),
        "{text}"
    );
}

#[tokio::test]
async fn the_head_comes_before_the_output() {
    let served = Served::start().await;
    let mut tcp = served.connect().await;
    tcp.write_all(&exec_request("read x < fifo 2>/dev/null; sleep 60"))
        .await
        .unwrap();
    let mut head = [0; 15];
    tcp.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_whole_group() {
    let served = Served::start().await;
    let script = "sleep 987 & echo $! > child; echo $$ > leader; wait";
    let mut tcp = served.connect().await;
    tcp.write_all(&exec_request(script)).await.unwrap();
    // A pipelined request must not hide that the client is gone.
    tcp.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let pid = |name: &str| std::fs::read_to_string(served.work().join(name)).unwrap_or_default();
    wait_for("the command runs", || {
        pid("leader").ends_with('\n') && pid("child").ends_with('\n')
    })
    .await;
    let alive = |name: &str| {
        let stat =
            std::fs::read_to_string(format!("/proc/{}/stat", pid(name).trim())).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z")
    };
    assert!(alive("leader") && alive("child"));
    drop(tcp);
    wait_for("the leader is gone", || !alive("leader")).await;
    wait_for("its child is gone", || !alive("child")).await;
}

#[tokio::test]
async fn a_holder_of_the_output_does_not_hang_the_reply() {
    let served = Served::start().await;
    let began = Instant::now();
    let (output, state) = served.sh("sleep 300 & echo $!; exit 3").await;
    assert_eq!(state.as_deref(), Some("exit status 3"));
    assert!(began.elapsed() < Duration::from_secs(15));
    let pid = output
        .trim()
        .parse()
        .ok()
        .and_then(rustix::process::Pid::from_raw)
        .unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn much_output_arrives_whole() {
    let served = Served::start().await;
    let pairs = [
        ("cmd", "/bin/sh"),
        ("mode", "sys"),
        ("cmdArg", "-c"),
        ("cmdArg", "head -c 20000000 /dev/zero; exit 7"),
    ];
    let reply = served.ask("POST", "/exec", form(&pairs)).await;
    assert_eq!(reply.body.len(), 20_000_000);
    assert_eq!(reply.trailer.as_deref(), Some("exit status 7"));
}
