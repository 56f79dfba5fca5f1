//! Process trees: killed whole, whatever a process does to get out of them.

use std::time::{Duration, Instant};

use buildlet_proto::jobs::JobState;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::files::wait_for;
use super::jobs::{path, processes, wait_for_output};
use super::support::{Served, exec_request};

/// Starts a daemon as daemons start: in a session of its own, twice removed from whoever has started it. `N` tells it
/// from those of other tests.
fn daemon(n: u32) -> String {
    format!("setsid sh -c '(setsid sleep {n} </dev/null >/dev/null 2>&1 &) ' & wait; echo up; ")
}

async fn wait_for_daemon(n: u32) {
    let command = format!("sleep {n}");
    wait_for("the daemon runs", || processes(&command) == 1).await;
}

#[tokio::test]
async fn a_daemon_dies_with_its_job() {
    let served = Served::start().await;
    let script = format!("{} exec sleep 9101", daemon(9102));
    let job = served.job(json!({"shell": script})).await;
    wait_for_output(&served, &job, 3).await;
    wait_for_daemon(9102).await;
    let target = path(&job, "/signal");
    let reply = served.ask("POST", &target, "signal=KILL&whole=1").await;
    assert_eq!(reply.status, 200);
    // When the reply is there, so is the end.
    assert_eq!((processes("sleep 9101"), processes("sleep 9102")), (0, 0));
    let told = served.tell(&job).await;
    assert_eq!((told.state, told.alive), (JobState::Ended, false));
    assert!(told.survivors.is_empty());
}

#[tokio::test]
async fn a_daemon_outlives_its_command_and_dies_when_the_job_is_deleted() {
    let served = Served::start().await;
    let job = served.job(json!({"shell": daemon(9112)})).await;
    let (stdout, _, end) = served.output(&job).await;
    assert_eq!(stdout, "up\n");
    assert_eq!(end.state, JobState::Ended);
    assert!(served.tell(&job).await.alive);
    wait_for_daemon(9112).await;
    served.ask("DELETE", &path(&job, ""), "").await;
    assert_eq!(processes("sleep 9112"), 0);
}

#[tokio::test]
async fn a_daemon_dies_when_the_client_of_exec_leaves() {
    let served = Served::start().await;
    let script = format!("{} touch up; exec sleep 9121", daemon(9122));
    let mut tcp = served.connect().await;
    tcp.write_all(&exec_request(&script)).await.unwrap();
    wait_for("the daemon runs", || served.work().join("up").exists()).await;
    wait_for_daemon(9122).await;
    drop(tcp);
    wait_for("all are gone", || {
        processes("sleep 9121") + processes("sleep 9122") == 0
    })
    .await;
}

#[tokio::test]
async fn the_time_limit_ends_daemons_too() {
    let served = Served::start().await;
    let script = format!("{} exec sleep 9131", daemon(9132));
    let limits = json!({"shell": script, "time_limit_ms": 1500, "grace_ms": 100});
    let job = served.job(limits).await;
    wait_for_daemon(9132).await;
    served.output(&job).await;
    assert_eq!((processes("sleep 9131"), processes("sleep 9132")), (0, 0));
}

#[tokio::test]
async fn the_end_at_a_time_limit_is_that_of_the_whole_tree() {
    let served = Served::start().await;
    let deaf = "setsid sh -c \"trap '' TERM; while :; do sleep 0.01; done\" 9133 >/dev/null 2>&1 &";
    let script = format!("{deaf} exec sleep 9134");
    let limits = json!({"shell": script, "time_limit_ms": 1000, "grace_ms": 500});
    let job = served.job(limits).await;
    let (_, _, end) = served.output(&job).await;
    let end = serde_json::to_value(end).unwrap();
    assert_eq!(end["process_state"], "signal: terminated");
    assert_eq!(
        (&end["reason"], &end["alive"]),
        (&json!("time limit"), &json!(false))
    );
}

#[tokio::test]
async fn nothing_outlives_the_machine() {
    let served = Served::start().await;
    let script = format!("{} exec sleep 9141", daemon(9142));
    let job = served.job(json!({"shell": script})).await;
    wait_for_output(&served, &job, 3).await;
    wait_for_daemon(9142).await;
    drop(served);
    wait_for("all are gone", || {
        processes("sleep 9141") + processes("sleep 9142") == 0
    })
    .await;
}

#[tokio::test]
async fn a_supervisor_that_is_killed_is_told_of() {
    let served = Served::start().await;
    let job = served
        .job(json!({"shell": "echo $PPID; exec sleep 9151"}))
        .await;
    wait_for_output(&served, &job, 2).await;
    let output = super::jobs::frames(&served.ask("GET", &path(&job, "/output"), "").await);
    let supervisor = output.stdout().trim().parse().unwrap();
    let supervisor = rustix::process::Pid::from_raw(supervisor).unwrap();
    rustix::process::kill_process(supervisor, rustix::process::Signal::KILL).unwrap();
    let (_, _, end) = served.output(&job).await;
    let end = serde_json::to_value(end).unwrap();
    assert_eq!(end["reason"], "supervisor lost");
    assert_eq!((&end["state"], end.get("code")), (&json!("ended"), None));
    wait_for("the command is gone", || processes("sleep 9151") == 0).await;
}

#[tokio::test]
async fn holders_of_the_output_do_not_hang_a_job() {
    let served = Served::start().await;
    let began = Instant::now();
    let job = served
        .job(json!({"shell": "sleep 9161 & echo x; exit 3"}))
        .await;
    let (stdout, _, end) = served.output(&job).await;
    assert_eq!(stdout, "x\n");
    assert_eq!(end.end.unwrap().code, Some(3));
    assert!(began.elapsed() < Duration::from_secs(15));
    served.ask("DELETE", &path(&job, ""), "").await;
    assert_eq!(processes("sleep 9161"), 0);
}

#[tokio::test]
async fn a_tree_that_grows_while_it_is_killed_is_killed() {
    let served = Served::start().await;
    // Each child starts the next and ends, so that the tree is never twice the same.
    let script =
        "cat >chain <<'E'\nsetsid sh chain 9171 & exit\nE\necho up; sh chain; exec sleep 9172";
    let job = served.job(json!({"shell": script})).await;
    wait_for_output(&served, &job, 3).await;
    let reply = served.ask("DELETE", &path(&job, ""), "").await;
    let reply: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(reply["alive"], false, "{reply}");
    assert_eq!(processes("sh chain 9171") + processes("sleep 9172"), 0);
}

#[tokio::test]
async fn a_supervisor_that_was_stopped_still_kills() {
    let served = Served::start().await;
    let script = "kill -STOP $PPID; exec sleep 9601";
    let job = served.job(json!({"shell": script})).await;
    wait_for("it runs", || processes("sleep 9601") == 1).await;
    let reply = served.ask("DELETE", &path(&job, ""), "").await;
    assert_eq!(reply.status, 200);
    assert_eq!(processes("sleep 9601"), 0);
}
