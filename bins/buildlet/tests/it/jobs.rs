//! `/jobs`, handler by handler, with good and bad input.

use std::time::Duration;

use buildlet_proto::jobs::{Job, JobState};
use serde_json::{Value, json};

use super::files::wait_for;
use super::support::{AUTHORIZATION, Reply, Served};

impl Served {
    /// Starts a job, which has to be one.
    pub(crate) async fn job(&self, request: Value) -> Job {
        let reply = self.ask("POST", "/jobs", request.to_string()).await;
        assert_eq!(reply.status, 201, "{request}: {}", reply.text());
        let job: Job = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(reply.header("location"), Some(format!("/jobs/{}", job.id)));
        job
    }

    /// Tells about a job.
    pub(crate) async fn tell(&self, job: &Job) -> Job {
        let reply = self.ask("GET", &path(job, ""), "").await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        serde_json::from_slice(&reply.body).unwrap()
    }

    /// Follows the output to its end; gives both streams and the job.
    pub(crate) async fn output(&self, job: &Job) -> (String, String, Job) {
        let reply = self.ask("GET", &path(job, "/output?follow=1"), "").await;
        let frames = frames(&reply);
        (frames.stdout(), frames.stderr(), frames.end.unwrap())
    }

    async fn list(&self) -> Vec<Job> {
        let reply = self.ask("GET", "/jobs", "").await;
        assert!(reply.complete);
        serde_json::from_slice(&reply.body).unwrap()
    }
}

pub(crate) fn path(job: &Job, matter: &str) -> String {
    format!("/jobs/{}{matter}", job.id)
}

/// What came as frames. Of bytes that are gone a tilde each is left.
#[derive(Default)]
pub(crate) struct Frames {
    streams: [Vec<u8>; 2],
    pub(crate) end: Option<Job>,
}

impl Frames {
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8(self.streams[0].clone()).unwrap()
    }

    fn stderr(&self) -> String {
        String::from_utf8(self.streams[1].clone()).unwrap()
    }
}

pub(crate) fn frames(reply: &Reply) -> Frames {
    use buildlet_proto::jobs::frame::Frame;

    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(
        reply.header("content-type").as_deref(),
        Some("application/octet-stream")
    );
    let mut input = bytes::BytesMut::from(&reply.body[..]);
    let mut frames = Frames::default();
    while let Some(frame) = Frame::decode(&mut input).unwrap() {
        match frame {
            Frame::Data { stream, bytes, .. } => frames.streams[stream as usize].extend(bytes),
            Frame::Gap {
                stream,
                offset,
                end,
            } => {
                let gone = usize::try_from(end - offset).unwrap();
                frames.streams[stream as usize].extend(vec![b'~'; gone]);
            }
            Frame::End { job } => frames.end = Some(serde_json::from_slice(&job).unwrap()),
            Frame::Heartbeat | _ => {}
        }
    }
    assert!(input.is_empty(), "the last frame is whole");
    frames
}

#[tokio::test]
async fn a_job_has_an_id_both_streams_and_an_end() {
    let served = Served::start().await;
    let job = served
        .job(json!({"shell": "echo out; echo err >&2; exit 3"}))
        .await;
    assert_eq!(job.about.cwd, served.work().to_str().unwrap());
    let (stdout, stderr, end) = served.output(&job).await;
    assert_eq!((stdout.as_str(), stderr.as_str()), ("out\n", "err\n"));
    assert_eq!(end.state, JobState::Ended);
    assert_eq!((end.stdout.end, end.stderr.end), (4, 4));
    let told = end.end.unwrap();
    assert_eq!(told.process_state.as_str(), "exit status 3");
    assert_eq!((told.code, told.signal, told.reason), (Some(3), None, None));
    assert!(told.ended >= job.about.started);
    assert_eq!(served.list().await.len(), 1);
}

#[tokio::test]
async fn programs_directories_and_environments_are_those_of_exec() {
    let served = Served::start().await;
    served
        .ask(
            "PUT",
            "/write?path=bin/where&mode=493",
            "#!/bin/sh\necho $PWD $A $1",
        )
        .await;
    let work = served.work().to_str().unwrap().to_owned();
    for (request, want) in [
        (json!({"argv": ["bin/where", "x"]}), format!("{work} x\n")),
        (
            json!({"argv": ["bin/where"], "cwd": "bin", "env": ["A=1", "A=2"]}),
            format!("{work}/bin 2\n"),
        ),
        (json!({"argv": ["/bin/pwd"], "cwd": "/"}), "/\n".to_owned()),
        (
            json!({"shell": "where", "path": ["$WORKDIR/bin", "$PATH"]}),
            format!("{work}\n"),
        ),
    ] {
        let job = served.job(request.clone()).await;
        let (stdout, ..) = served.output(&job).await;
        assert_eq!(stdout, want, "{request}");
    }
}

#[tokio::test]
async fn what_cannot_start_is_a_job_that_says_why() {
    let served = Served::start().await;
    for (request, why) in [
        (
            json!({"argv": ["nonesuch"]}),
            "exec: \"nonesuch\": executable file not found in $PATH",
        ),
        (
            json!({"argv": ["/nonesuch"]}),
            "fork/exec /nonesuch: no such file or directory",
        ),
        (
            json!({"argv": ["/etc/passwd"]}),
            "fork/exec /etc/passwd: permission denied",
        ),
        (
            json!({"argv": ["true"], "cwd": "/none"}),
            "chdir /none: no such file or directory",
        ),
    ] {
        let job = served.job(request.clone()).await;
        assert_eq!(job.state, JobState::NotStarted, "{request}");
        assert!(!job.alive);
        let end = job.end.clone().unwrap();
        assert_eq!((end.process_state.as_str(), end.code), (why, None));
        let (stdout, _, end) = served.output(&job).await;
        assert_eq!((stdout.as_str(), end), ("", job));
    }
}

#[tokio::test]
async fn what_a_job_says_of_itself_is_short_whatever_it_was_asked() {
    let served = Served::start().await;
    let name = "\u{1}".repeat(50_000);
    let job = served.job(json!({"argv": [name, name]})).await;
    let (.., end) = served.output(&job).await;
    assert_eq!(end.state, JobState::NotStarted);
    assert!(end.end.unwrap().process_state.as_str().len() < 3000);
}

#[tokio::test]
async fn jobs_that_have_ended_hold_no_descriptors() {
    let served = Served::start().await;
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    for request in [
        json!({"argv": ["true"], "stdin": "pipe"}),
        json!({"argv": ["true"], "pty": {}, "stdin": "pipe"}),
    ] {
        for _ in 0..20 {
            let job = served.job(request.clone()).await;
            served.output(&job).await;
        }
    }
    // Other tests run in the same process, and theirs come and go.
    eventually("they are closed", async || {
        (open() < before + 30).then_some(())
    })
    .await;
    assert_eq!(served.list().await.len(), 40);
}

#[tokio::test]
async fn bad_requests_start_nothing() {
    let served = Served::start().await;
    for (request, why) in [
        ("", "the request is no job: EOF"),
        ("{}", "is needed"),
        (r#"{"argv":["true"],"user":"root"}"#, "unknown field `user`"),
        (r#"{"argv":["../true"]}"#, "bad 'argv'"),
        (r#"{"argv":["true"],"cwd":"../.."}"#, "bad 'cwd'"),
        (
            r#"{"argv":["true"],"output_limit":1}"#,
            "bad 'output_limit'",
        ),
        (
            r#"{"argv":["true"],"output_limit":18446744073709551615}"#,
            "bad 'output_limit'",
        ),
    ] {
        let reply = served.ask("POST", "/jobs", request).await;
        assert_eq!(reply.status, 400, "{request}");
        assert!(reply.text().contains(why), "{request}: {}", reply.text());
    }
    let huge = format!(r#"{{"shell":"{}"}}"#, "x".repeat(1 << 20));
    assert_eq!(served.ask("POST", "/jobs", huge).await.status, 413);
    assert_eq!(served.ask("PUT", "/jobs", "").await.status, 400);
    assert!(served.list().await.is_empty());
}

#[tokio::test]
async fn paths_that_are_no_jobs_are_not_found() {
    let served = Served::start().await;
    let job = served.job(json!({"shell": "true"})).await;
    for (method, target, status) in [
        ("GET", "/jobs/0000000000".to_owned(), 404),
        ("GET", "/jobs/x".to_owned(), 404),
        ("GET", "/jobs/".to_owned(), 404),
        ("DELETE", "/jobs/0000000000".to_owned(), 404),
        ("GET", path(&job, "/nonesuch"), 404),
        ("GET", path(&job, "/output/more"), 404),
        ("POST", path(&job, ""), 400),
        ("POST", path(&job, "/output"), 400),
        ("GET", path(&job, "/output?stdout=1"), 400),
        ("GET", path(&job, "/output?stdout=-1"), 400),
        ("GET", path(&job, "/output?stderr=x"), 400),
        ("GET", path(&job, "/stdin"), 400),
        ("POST", path(&job, "/stdin"), 409),
        ("GET", path(&job, "/signal"), 400),
        ("POST", path(&job, "/signal"), 400),
        ("POST", path(&job, "/signal?signal=9"), 400),
        ("POST", path(&job, "/resize?rows=1"), 400),
        ("POST", path(&job, "/resize?rows=1&columns=65536"), 400),
        ("POST", path(&job, "/resize?rows=1&columns=1"), 409),
    ] {
        let reply = served.ask(method, &target, "").await;
        assert_eq!(reply.status, status, "{method} {target}: {}", reply.text());
        assert!(reply.text().ends_with('\n'));
    }
    let unknown = b"GET /jobs HTTP/1.1\r\nHost: \r\nConnection: close\r\n\r\n";
    assert_eq!(served.send(unknown).await.status, 403);
}

#[tokio::test]
async fn a_request_with_a_key_is_one_request() {
    let served = Served::start().await;
    let ask = async |key: &str, body: &str| {
        let head = format!(
            "POST /jobs HTTP/1.1\r\nHost: \r\nConnection: close\r\nContent-Length: {}\r\nIdempotency-Key: {key}\r\n\
             Authorization: Basic {AUTHORIZATION}\r\n\r\n{body}",
            body.len()
        );
        served.send(head.as_bytes()).await
    };
    let first = ask("k", r#"{"shell":"true"}"#).await.text();
    let first: Job = serde_json::from_str(&first).unwrap();
    let again = ask("k", r#"{"shell":"true"}"#).await.text();
    let again: Job = serde_json::from_str(&again).unwrap();
    assert_eq!(first.id, again.id);
    assert_eq!(ask("k", r#"{"shell":"false"}"#).await.status, 409);
    assert_eq!(
        ask(&"k".repeat(65), r#"{"shell":"true"}"#).await.status,
        400
    );
    assert_eq!(served.list().await.len(), 1);
    served.ask("DELETE", &path(&first, ""), "").await;
    let later = ask("k", r#"{"shell":"false"}"#).await.text();
    let later: Job = serde_json::from_str(&later).unwrap();
    assert_ne!(first.id, later.id, "what was forgotten holds no key");
}

#[tokio::test]
async fn what_is_not_followed_ends_at_once() {
    let served = Served::start().await;
    let job = served.job(json!({"shell": "echo a; exec sleep 987"})).await;
    let output = path(&job, "/output");
    wait_for_output(&served, &job, 2).await;
    let now = frames(&served.ask("GET", &output, "").await);
    assert_eq!(now.stdout(), "a\n");
    assert_eq!(now.end.unwrap().state, JobState::Running);
    let behind = frames(&served.ask("GET", &path(&job, "/output?stdout=1"), "").await);
    assert_eq!(behind.stdout(), "\n");
    let deleted = served.ask("DELETE", &path(&job, ""), "").await;
    let deleted: Job = serde_json::from_slice(&deleted.body).unwrap();
    assert_eq!(deleted.state, JobState::Ended);
    assert!(!deleted.alive);
    let end = deleted.end.unwrap();
    assert_eq!(end.process_state.as_str(), "signal: killed");
    assert_eq!(end.signal.as_deref(), Some("KILL"));
    assert_eq!(served.ask("GET", &output, "").await.status, 404);
    let kept = std::fs::read_dir(served.outside().join("jobs")).unwrap();
    assert_eq!(kept.count(), 0, "the output is gone with it");
}

#[tokio::test]
async fn a_job_outlives_the_connection_that_started_it() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let served = Served::start().await;
    let body = r#"{"shell":"while ! test -e go; do sleep 0.01; done; echo done"}"#;
    let request = format!(
        "POST /jobs HTTP/1.1\r\nHost: \r\nContent-Length: {}\r\nAuthorization: Basic {AUTHORIZATION}\r\n\r\n{body}",
        body.len()
    );
    let mut tcp = served.connect().await;
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    tcp.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 201");
    drop(tcp);
    let job = served.list().await.pop().unwrap();
    std::fs::write(served.work().join("go"), "").unwrap();
    let (stdout, _, end) = served.output(&job).await;
    assert_eq!(stdout, "done\n");
    assert!(end.end.unwrap().process_state.is_ok());
}

#[tokio::test]
async fn standard_input_is_taken_once_whatever_is_sent_again() {
    let served = Served::start().await;
    let job = served.job(json!({"argv": ["cat"], "stdin": "pipe"})).await;
    for (query, body, status, reply) in [
        ("", "abc", 200, "{\"taken\":3}"),
        ("?offset=1", "bcdef", 200, "{\"taken\":6}"),
        ("?offset=0", "abc", 200, "{\"taken\":6}"),
        (
            "?offset=7",
            "h",
            409,
            "the job was given 6 bytes; those at 7 would leave a hole\n",
        ),
        (
            "?offset=x",
            "h",
            400,
            "bad 'offset' parameter: a number of bytes\n",
        ),
        ("?offset=6&close=1", "g", 200, "{\"taken\":7}"),
        ("?offset=6&close=1", "g", 200, "{\"taken\":7}"),
    ] {
        let target = path(&job, &format!("/stdin{query}"));
        let answer = served.ask("POST", &target, body).await;
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (status, reply),
            "{query}"
        );
    }
    let (stdout, _, end) = served.output(&job).await;
    assert_eq!(stdout, "abcdefg");
    assert!(end.end.unwrap().process_state.is_ok());
    for (query, body, status) in [("?offset=6&close=1", "g", 200), ("?offset=7", "h", 409)] {
        let target = path(&job, &format!("/stdin{query}"));
        let late = served.ask("POST", &target, body).await;
        assert_eq!(late.status, status, "{query}: {}", late.text());
    }
}

#[tokio::test]
async fn a_job_that_does_not_read_holds_its_writer_and_the_next_one_takes_over() {
    use tokio::io::AsyncWriteExt;

    let served = Served::start().await;
    let job = served
        .job(json!({"shell": "while ! test -e go; do sleep 0.01; done; wc -c", "stdin": "pipe"}))
        .await;
    let mut stuck = served.connect().await;
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: \r\nContent-Length: 100000000\r\nAuthorization: Basic {AUTHORIZATION}\r\n\r\n",
        path(&job, "/stdin?offset=0")
    );
    stuck.write_all(head.as_bytes()).await.unwrap();
    let mut sent = 0_usize;
    let chunk = vec![b'x'; 64 * 1024];
    let half_second = Duration::from_millis(500);
    while tokio::time::timeout(half_second, stuck.write_all(&chunk))
        .await
        .is_ok()
    {
        sent += chunk.len();
        assert!(sent < 50_000_000, "nothing holds the writer back");
    }
    std::fs::write(served.work().join("go"), "").unwrap();
    let whole = vec![b'x'; 1_000_000];
    let target = path(&job, "/stdin?offset=0&close=1");
    let answer = served.ask("POST", &target, &whole).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let (stdout, ..) = served.output(&job).await;
    let taken: u64 = stdout.trim().parse().unwrap();
    assert_eq!(answer.text(), format!("{{\"taken\":{taken}}}"));
    assert!(taken >= 1_000_000);
}

#[tokio::test]
async fn signals_reach_the_group_and_say_who_asked() {
    let served = Served::start().await;
    let script = "trap 'echo usr1' USR1; echo ready; while :; do sleep 0.01; done";
    let job = served.job(json!({"shell": script})).await;
    wait_for_output(&served, &job, 6).await;
    let told = served
        .ask("POST", &path(&job, "/signal"), "signal=USR1")
        .await;
    assert_eq!(told.status, 200, "{}", told.text());
    wait_for_output(&served, &job, 11).await;
    served
        .ask("POST", &path(&job, "/signal?signal=TERM"), "")
        .await;
    let (stdout, _, end) = served.output(&job).await;
    assert_eq!(stdout, "ready\nusr1\n");
    let end = serde_json::to_value(end).unwrap();
    assert_eq!(end["process_state"], "signal: terminated");
    assert_eq!(
        (&end["signal"], &end["reason"]),
        (&json!("TERM"), &json!("killed by request"))
    );
}

#[tokio::test]
async fn a_terminal_has_a_size_a_kind_and_a_keyboard() {
    let served = Served::start().await;
    let script = "stty size; echo $TERM; test -t 0 && test -t 2 && echo tty; \
                  trap 'stty size; exit 0' WINCH; while :; do sleep 0.01; done";
    let pty = json!({"term": "vt100", "rows": 50, "columns": 132});
    let job = served.job(json!({"shell": script, "pty": pty})).await;
    wait_for_output(&served, &job, 20).await;
    let sized = served
        .ask("POST", &path(&job, "/resize"), "rows=10&columns=20")
        .await;
    assert_eq!(sized.status, 200, "{}", sized.text());
    let (stdout, stderr, end) = served.output(&job).await;
    assert_eq!(stdout, "50 132\r\nvt100\r\ntty\r\n10 20\r\n");
    assert_eq!(stderr, "");
    assert!(end.about.pty && end.end.unwrap().process_state.is_ok());

    let job = served
        .job(json!({"argv": ["cat"], "pty": {}, "stdin": "pipe"}))
        .await;
    served
        .ask("POST", &path(&job, "/stdin?close=1"), "typed\n")
        .await;
    let (stdout, _, end) = served.output(&job).await;
    assert_eq!(stdout, "typed\r\ntyped\r\n", "the echo, and the output");
    assert!(end.end.unwrap().process_state.is_ok());
}

#[tokio::test]
async fn signals_on_a_terminal_reach_the_foreground() {
    let served = Served::start().await;
    let job = served
        .job(json!({"argv": ["sh", "-i"], "pty": {}, "stdin": "pipe", "env": ["PS1=:"]}))
        .await;
    served
        .ask("POST", &path(&job, "/stdin"), "sleep 987; echo st=$?\n")
        .await;
    wait_for("the command is in the foreground", || {
        processes("sleep 987") == 1
    })
    .await;
    served
        .ask("POST", &path(&job, "/signal?signal=INT"), "")
        .await;
    served.ask("POST", &path(&job, "/stdin"), "exit 0\n").await;
    let (stdout, _, end) = served.output(&job).await;
    assert!(
        stdout.contains("st=130") || stdout.contains("\r\n:"),
        "{stdout}"
    );
    assert_eq!(serde_json::to_value(&end).unwrap()["state"], "ended");
    assert_eq!(processes("sleep 987"), 0);
}

#[tokio::test]
async fn the_time_limit_asks_first_and_then_kills() {
    let served = Served::start().await;
    let script = "trap 'echo asked; exit 7' TERM; while :; do sleep 0.01; done";
    let job = served
        .job(json!({"shell": script, "time_limit_ms": 200}))
        .await;
    let (stdout, _, end) = served.output(&job).await;
    assert_eq!(stdout, "asked\n");
    let end = serde_json::to_value(end).unwrap();
    assert_eq!(
        (&end["code"], &end["reason"]),
        (&json!(7), &json!("time limit"))
    );

    let script = "trap '' QUIT; echo deaf; while :; do sleep 0.01; done";
    let limits = json!({"shell": script, "time_limit_ms": 100, "grace_ms": 100, "signal": "QUIT"});
    let job = served.job(limits).await;
    let (_, _, end) = served.output(&job).await;
    let end = serde_json::to_value(end).unwrap();
    assert_eq!(end["process_state"], "signal: killed");
    assert_eq!(
        (&end["reason"], &end["alive"]),
        (&json!("time limit"), &json!(false))
    );
}

#[tokio::test]
async fn output_beyond_the_limit_loses_its_middle() {
    let served = Served::start().await;
    let script = "i=0; while test $i -lt 2000; do echo line $i; i=$((i+1)); done";
    let job = served
        .job(json!({"shell": script, "output_limit": 8192}))
        .await;
    let (stdout, _, end) = served.output(&job).await;
    let all: String = (0..2000).map(|i| format!("line {i}\n")).collect();
    assert_eq!(end.stdout.end, all.len() as u64);
    let again = frames(&served.ask("GET", &path(&job, "/output"), "").await);
    for read in [stdout, again.stdout()] {
        assert_eq!(read.len(), all.len());
        let kept = read.bytes().filter(|byte| *byte != b'~').count();
        assert!(kept >= 4096 + 4096 * 7 / 8, "{kept}");
        assert_eq!(read[..4096], all[..4096]);
        assert_eq!(read[all.len() - 3500..], all[all.len() - 3500..]);
    }
    let [(start, _)] = end.stdout.gaps[..] else {
        panic!("{:?}", end.stdout)
    };
    assert_eq!(start, 4096);
}

#[tokio::test]
async fn lists_are_in_the_order_of_start_and_ended_jobs_make_room() {
    let served = Served::start_with(|jobs| {
        jobs.limits.keep_jobs = 3;
        jobs.limits.max_jobs = 2;
    })
    .await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        let job = served.job(json!({"shell": "true"})).await;
        served.output(&job).await;
        ids.push(job.id);
    }
    let listed = async || {
        let list = served.list().await;
        list.iter().map(|job| job.id).collect::<Vec<_>>()
    };
    eventually("two made room", async || {
        (listed().await == ids[2..]).then_some(())
    })
    .await;

    let one = served.job(json!({"argv": ["sleep", "987"]})).await;
    let two = served.job(json!({"argv": ["sleep", "987"]})).await;
    let refused = served.ask("POST", "/jobs", r#"{"shell":"true"}"#).await;
    assert_eq!(refused.status, 503);
    assert_eq!(served.sh("true").await.1, None, "for /exec as well");
    served.ask("DELETE", &path(&one, ""), "").await;
    served.job(json!({"shell": "true"})).await;
    served.ask("DELETE", "/jobs", "").await;
    assert!(served.list().await.is_empty());
    assert_eq!(served.ask("GET", &path(&two, ""), "").await.status, 404);
}

#[tokio::test]
async fn output_of_ended_jobs_is_kept_within_a_bound() {
    let served = Served::start_with(|jobs| jobs.limits.keep_output = 10_000).await;
    for _ in 0..5 {
        let job = served
            .job(json!({"shell": "head -c 4000 /dev/zero", "output_limit": 10_000}))
            .await;
        served.output(&job).await;
    }
    eventually("the oldest made room", async || {
        (served.list().await.len() == 2).then_some(())
    })
    .await;
    let files = std::fs::read_dir(served.outside().join("jobs")).unwrap();
    let kept: u64 = files
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    assert_eq!(kept, 8000);
}

#[tokio::test]
async fn commands_of_exec_are_listed_while_they_run() {
    use tokio::io::AsyncWriteExt;

    let served = Served::start().await;
    let mut tcp = served.connect().await;
    tcp.write_all(&super::support::exec_request("exec sleep 987"))
        .await
        .unwrap();
    let job = eventually("it is listed", async || served.list().await.pop()).await;
    assert!(job.about.attached);
    assert_eq!(
        served.ask("GET", &path(&job, "/output"), "").await.status,
        409
    );
    drop(tcp);
    eventually("it is gone", async || {
        served.list().await.is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn emptying_the_machine_ends_its_jobs() {
    let served = Served::start().await;
    let job = served
        .job(json!({"shell": "setsid sleep 986 & echo secret; wait"}))
        .await;
    wait_for_output(&served, &job, 7).await;
    served.ask("POST", "/removeall", "path=tmp").await;
    assert_eq!(served.tell(&job).await.state, JobState::Running);
    served.ask("POST", "/removeall", "path=.").await;
    assert!(served.list().await.is_empty());
    assert_eq!(processes("sleep 986"), 0);
    let kept = std::fs::read_dir(served.outside().join("jobs")).unwrap();
    assert_eq!(kept.count(), 0);
}

pub(crate) async fn wait_for_output(served: &Served, job: &Job, bytes: u64) {
    eventually("the output comes", async || {
        (served.tell(job).await.stdout.end >= bytes).then_some(())
    })
    .await;
}

/// Waits until something is there, which nobody tells us of.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let poll = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), poll)
        .await
        .expect(what)
}

/// How many processes have this command line, or one that begins with it.
pub(crate) fn processes(command: &str) -> usize {
    let line = |entry: std::io::Result<std::fs::DirEntry>| {
        let line = std::fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        let line = line
            .split(|byte| *byte == 0)
            .collect::<Vec<_>>()
            .join(&b' ');
        String::from_utf8(line).ok()
    };
    let lines = std::fs::read_dir("/proc").unwrap().filter_map(line);
    lines.filter(|line| line.starts_with(command)).count()
}
