//! What sessions leave behind in the program that runs them. A test of its own process: it counts.

#![cfg(all(feature = "machine", target_os = "linux"))]
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

use std::fs;
use std::time::Duration;

use bytes::Bytes;
use sshbridge::backend::{
    Backend as _, BackendConn, ChannelEvent, ChannelRequest, PtyRequest, WindowSize,
};
use sshbridge::machine::{LocalBackend, LocalSettings};

#[tokio::test]
async fn two_hundred_sessions_leave_no_process_and_no_descriptor() {
    let test = async {
        let mut settings = LocalSettings::new("/");
        settings.shell = Some("/bin/sh".into());
        settings.grace = Duration::from_millis(200);
        let backend = LocalBackend::new(settings);
        let conn = backend.connect().await.unwrap();
        // The runtime opens its own descriptors with the first.
        complete(&*conn, false).await;
        let before = descriptors();
        for round in 0..100 {
            complete(&*conn, round % 2 == 0).await;
            cut(&*conn, round % 2 == 0).await;
        }
        // Cut sessions are ended and reaped behind the channel's back.
        while children() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(descriptors(), before);
    };
    let limit = Duration::from_secs(60);
    tokio::time::timeout(limit, test)
        .await
        .expect("all processes are reaped in time");
}

/// Runs a command to its end.
async fn complete(conn: &dyn BackendConn, on_terminal: bool) {
    let mut channel = conn.open_session().await.unwrap();
    if on_terminal {
        channel.control.request(terminal()).await.unwrap();
    }
    channel
        .control
        .request(exec("echo x; exit 3"))
        .await
        .unwrap();
    let mut exit = None;
    while let Some(event) = channel.source.next().await {
        if let ChannelEvent::ExitStatus(status) = event {
            exit = Some(status);
        }
    }
    assert_eq!(exit, Some(3));
}

/// Runs a command that is cut while it runs.
async fn cut(conn: &dyn BackendConn, on_terminal: bool) {
    let mut channel = conn.open_session().await.unwrap();
    if on_terminal {
        channel.control.request(terminal()).await.unwrap();
    }
    channel
        .control
        .request(exec("echo x; sleep 60"))
        .await
        .unwrap();
    assert!(channel.source.next().await.is_some());
}

fn exec(line: &'static str) -> ChannelRequest {
    ChannelRequest::Exec(Bytes::from_static(line.as_bytes()))
}

fn terminal() -> ChannelRequest {
    ChannelRequest::Pty(PtyRequest::new("xterm", WindowSize::default()))
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Running children and zombies.
fn children() -> usize {
    fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok())
        .map(|children| children.split_whitespace().count())
        .sum()
}
