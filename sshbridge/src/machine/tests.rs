use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::{LocalBackend, LocalSettings};
use crate::backend::{
    Backend as _, BackendChannel, BackendConn, BackendError, ChannelControl, ChannelEvent,
    ChannelRequest, ChannelSink, ChannelSource, PtyRequest, WindowSize,
};

#[tokio::test]
async fn every_exit_status_arrives() {
    within(async {
        for status in 0..=255 {
            let outcome = run(&format!("exit {status}")).await;
            assert_eq!(outcome.exit, ChannelEvent::ExitStatus(status));
        }
    })
    .await;
}

#[tokio::test]
async fn a_signal_that_ends_a_command_is_named() {
    within(async {
        for name in ["HUP", "INT", "KILL", "TERM", "USR1", "USR2", "PIPE", "ALRM"] {
            let outcome = run(&format!("kill -{name} $$; sleep 60")).await;
            assert_eq!(outcome.exit, ended_by(name), "{name}");
        }
        let outcome = run("ulimit -c 0; kill -SYS $$; sleep 60").await;
        let ChannelEvent::ExitSignal {
            signal, message, ..
        } = outcome.exit
        else {
            panic!("{:?}", outcome.exit)
        };
        assert_eq!(signal, "SIG@openssh.com");
        assert!(message.starts_with("ended by signal "), "{message}");
    })
    .await;
}

#[tokio::test]
async fn error_output_is_kept_apart() {
    within(async {
        let outcome = run("echo out; echo err >&2; exit 3").await;
        assert_eq!(outcome.stdout, b"out\n");
        assert_eq!(outcome.stderr, b"err\n");
        assert_eq!(outcome.exit, ChannelEvent::ExitStatus(3));
    })
    .await;
}

#[tokio::test]
async fn the_end_of_input_reaches_the_command() {
    within(async {
        let mut session = Session::exec("cat; echo end").await;
        session.sink.data(Bytes::from("one\n")).await.unwrap();
        session.sink.eof().await.unwrap();
        assert!(matches!(
            session.sink.data(Bytes::from("late")).await,
            Err(BackendError::Closed)
        ));
        assert_eq!(session.outcome().await.stdout, b"one\nend\n");
    })
    .await;
}

#[tokio::test]
async fn input_waits_for_a_reader_and_arrives_whole() {
    within(async {
        let session = Session::exec("cat").await;
        let Session {
            mut sink,
            mut source,
            ..
        } = session;
        let sent: Vec<u8> = (0..8 << 20_u32)
            .map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let input = Bytes::from(sent.clone());
        let taken = std::sync::atomic::AtomicUsize::new(0);
        let mut write = Box::pin(async {
            for start in (0..input.len()).step_by(CHUNK) {
                sink.data(input.slice(start..start + CHUNK)).await.unwrap();
                taken.fetch_add(CHUNK, std::sync::atomic::Ordering::Relaxed);
            }
            sink.eof().await.unwrap();
        });
        // Nobody reads: the writer must come to a halt, with no more taken than pipes hold.
        timeout(Duration::from_millis(200), &mut write)
            .await
            .unwrap_err();
        assert!(taken.load(std::sync::atomic::Ordering::Relaxed) < 1 << 20);
        let (outcome, ()) = tokio::join!(collect(&mut *source), write);
        assert!(outcome.stdout == sent);
    })
    .await;
}

#[tokio::test]
async fn waiting_for_output_can_be_cancelled() {
    within(async {
        let mut session =
            Session::exec("for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.01; done").await;
        let mut seen = Vec::new();
        loop {
            match timeout(Duration::from_millis(1), session.source.next()).await {
                Err(_) => {}
                Ok(Some(ChannelEvent::Data(data))) => seen.extend_from_slice(&data),
                Ok(Some(_)) => {}
                Ok(None) => break,
            }
        }
        assert_eq!(seen, b"1\n2\n3\n4\n5\n6\n7\n8\n");
    })
    .await;
}

#[tokio::test]
async fn a_terminal_has_the_size_the_client_has() {
    within(async {
        let mut session = Session::open().await;
        session.ask(pty("xterm", 80, 24)).await.unwrap();
        session
            .exec_here(
                "stty -echo; stty size; read line; stty size; echo $TERM; tty; echo $SSH_TTY",
            )
            .await;
        session.until("24 80").await;
        session
            .ask(ChannelRequest::WindowChange(size(132, 50)))
            .await
            .unwrap();
        session.sink.data(Bytes::from("go\n")).await.unwrap();
        let outcome = session.outcome().await;
        let text = String::from_utf8(outcome.stdout).unwrap();
        let lines: Vec<_> = text.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!(lines[..2], ["50 132", "xterm"], "{text}");
        assert!(
            lines[2].starts_with("/dev/") && lines[2] == lines[3],
            "{text}"
        );
        assert_eq!(outcome.exit, ChannelEvent::ExitStatus(0));
    })
    .await;
}

#[tokio::test]
async fn a_size_that_no_terminal_has_is_cut_to_the_largest() {
    within(async {
        let session = Session::open().await;
        session.ask(pty("xterm", u32::MAX, 70_000)).await.unwrap();
        session.exec_here("stty size").await;
        assert_eq!(session.outcome().await.stdout, b"65535 65535\r\n");
    })
    .await;
}

#[tokio::test]
async fn terminal_modes_are_applied_and_unknown_ones_left_out() {
    within(async {
        let session = Session::open().await;
        let mut request = PtyRequest::new("vt100", size(80, 24));
        // VINTR ^E, no VQUIT, ECHO off, a few that no system knows, speeds, CS8.
        request.modes = vec![
            (1, 5),
            (2, 255),
            (53, 0),
            (200, 7),
            (159, 1),
            (128, 38400),
            (129, 38400),
            (91, 1),
            (3, 4096),
        ];
        session.ask(ChannelRequest::Pty(request)).await.unwrap();
        session.exec_here("stty -a").await;
        let text = String::from_utf8(session.outcome().await.stdout).unwrap();
        for expected in [
            "intr = ^E",
            "quit = <undef>",
            "erase = <undef>",
            " -echo ",
            "38400 baud",
            "cs8",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_interrupt_character_interrupts() {
    within(async {
        let mut session = Session::open().await;
        session.ask(pty("xterm", 80, 24)).await.unwrap();
        session.exec_here("echo ready; exec sleep 60").await;
        session.until("ready").await;
        session
            .sink
            .data(Bytes::from_static(b"\x03"))
            .await
            .unwrap();
        assert_eq!(session.outcome().await.exit, ended_by("INT"));
    })
    .await;
}

#[tokio::test]
async fn a_slow_reader_of_a_terminal_loses_nothing() {
    within(async {
        let mut session = Session::open().await;
        session.ask(pty("xterm", 80, 24)).await.unwrap();
        session
            .exec_here("stty raw; head -c 200000 /dev/zero | tr '\\0' x; echo; exit 7")
            .await;
        let (mut length, mut ended) = (0, Vec::new());
        while let Some(event) = session.source.next().await {
            if let ChannelEvent::Data(data) = event {
                length += data.len();
            } else {
                ended.push(event);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(length, 200_001);
        assert_eq!(ended, [ChannelEvent::ExitStatus(7), ChannelEvent::Eof]);
    })
    .await;
}

#[tokio::test]
async fn a_shell_is_a_login_shell_in_the_work_directory() {
    within(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        let mut settings = settings(&path);
        settings.shell = Some("/bin/sh".into());
        let mut session = Session::of(settings).await;
        session.ask(ChannelRequest::Shell).await.unwrap();
        session
            .sink
            .data(Bytes::from("echo $0; pwd -P; exit 4\n"))
            .await
            .unwrap();
        let outcome = session.outcome().await;
        assert_eq!(
            String::from_utf8(outcome.stdout).unwrap(),
            format!("-sh\n{}\n", path.display())
        );
        assert_eq!(outcome.exit, ChannelEvent::ExitStatus(4));
    })
    .await;
}

#[tokio::test]
async fn the_environment_is_the_settings_then_the_client_s() {
    within(async {
        let mut settings = settings(Path::new("/"));
        settings
            .env
            .push(("FROM".to_owned(), "settings".to_owned()));
        settings
            .env
            .push(("ONLY".to_owned(), "settings".to_owned()));
        let session = Session::of(settings).await;
        session.ask(env("FROM", "client")).await.unwrap();
        session.ask(env("LC_ALL", "zażółć")).await.unwrap();
        let session = session.and_exec("env").await;
        let text = String::from_utf8(session.outcome().await.stdout).unwrap();
        for line in [
            "FROM=client",
            "ONLY=settings",
            "LC_ALL=zażółć",
            "SHELL=/bin/sh",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        assert!(!text.contains("CARGO"), "{text}");
    })
    .await;
}

#[tokio::test]
async fn names_and_values_that_no_environment_holds_are_refused() {
    within(async {
        let session = Session::open().await;
        for (name, value) in [("", "x"), ("A=B", "x"), ("A\0B", "x"), ("A", "x\0y")] {
            refused(session.ask(env(name, value)).await);
        }
        refused(session.ask(env("BIG", &"x".repeat(40_000))).await);
        let mut taken = 0;
        while session.ask(env("N", &"x".repeat(1000))).await.is_ok() {
            taken += 1;
            assert!(taken < 40);
        }
        for term in [
            "xt\0erm",
            "../../etc/passwd",
            "x=y",
            "\u{1b}[2J",
            "żółw",
            "a b",
        ] {
            refused(session.ask(pty(term, 80, 24)).await);
        }
        refused(
            session
                .ask(ChannelRequest::Exec(Bytes::from_static(b"echo \0")))
                .await,
        );
    })
    .await;
}

#[tokio::test]
async fn requests_out_of_their_order_are_refused() {
    within(async {
        let mut session = Session::open().await;
        refused(session.ask(ChannelRequest::Signal("TERM".to_owned())).await);
        refused(session.ask(ChannelRequest::WindowChange(size(1, 1))).await);
        assert!(matches!(
            session
                .ask(ChannelRequest::Subsystem("netconf".to_owned()))
                .await,
            Err(BackendError::Unsupported(_))
        ));
        session.ask(pty("xterm", 80, 24)).await.unwrap();
        refused(session.ask(pty("xterm", 80, 24)).await);
        session.exec_here("echo once; read line").await;
        session.until("once").await;
        refused(session.ask(ChannelRequest::Shell).await);
        refused(
            session
                .ask(ChannelRequest::Exec(Bytes::from_static(b"true")))
                .await,
        );
        refused(session.ask(env("A", "b")).await);
        refused(session.ask(pty("xterm", 80, 24)).await);
        refused(session.ask(ChannelRequest::Signal("NONE".to_owned())).await);
        session.sink.data(Bytes::from_static(b"\n")).await.unwrap();
        assert_eq!(session.outcome().await.exit, ChannelEvent::ExitStatus(0));
    })
    .await;
}

#[tokio::test]
async fn a_signal_request_reaches_the_whole_group() {
    within(async {
        let mut session = Session::exec("sh -c 'echo ready; exec sleep 60'; exit 9").await;
        session.until("ready").await;
        session
            .ask(ChannelRequest::Signal("TERM".to_owned()))
            .await
            .unwrap();
        assert_eq!(session.outcome().await.exit, ended_by("TERM"));
    })
    .await;
}

#[tokio::test]
async fn a_program_that_cannot_start_says_why() {
    within(async {
        let outcome = Session::of(settings(Path::new("/no/such/directory")))
            .await
            .and_exec("true")
            .await
            .outcome()
            .await;
        let text = String::from_utf8(outcome.stderr).unwrap();
        assert_eq!(
            text,
            "this machine has no work directory /no/such/directory; ask its owner to make it\n"
        );
        assert_eq!(outcome.exit, ChannelEvent::ExitStatus(126));

        let mut settings = settings(Path::new("/"));
        settings.shell = Some("/no/such/shell".into());
        let outcome = Session::of(settings)
            .await
            .and_exec("true")
            .await
            .outcome()
            .await;
        let text = String::from_utf8(outcome.stderr).unwrap();
        assert!(text.contains("/no/such/shell in /: No such file"), "{text}");
        assert_eq!(outcome.exit, ChannelEvent::ExitStatus(126));
    })
    .await;
}

#[tokio::test]
async fn a_background_process_does_not_hold_the_session() {
    within(async {
        let outcome = run("sleep 60 & echo $!; exit 5").await;
        assert_eq!(outcome.exit, ChannelEvent::ExitStatus(5));
        let background: i32 = String::from_utf8(outcome.stdout)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        // It lives on, as it does under sshd.
        let background = rustix::process::Pid::from_raw(background).unwrap();
        rustix::process::kill_process(background, rustix::process::Signal::KILL).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_background_process_that_never_stops_writing_does_not_hold_the_session() {
    within(async {
        let outcome = run("yes & exit 5").await;
        assert_eq!(outcome.exit, ChannelEvent::ExitStatus(5));
    })
    .await;
}

#[tokio::test]
async fn output_is_whole_although_its_reader_is_late() {
    within(async {
        let mut settings = settings(Path::new("/"));
        settings.hold = Duration::ZERO;
        for _ in 0..20 {
            let mut session = Session::of(settings.clone()).await;
            session
                .exec_here("head -c 60000 /dev/zero; head -c 60000 /dev/zero >&2; sleep 3 & exit 1")
                .await;
            let first = session.source.next().await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
            let outcome = session.outcome().await;
            let (ChannelEvent::Data(first) | ChannelEvent::Stderr(first)) = first else {
                panic!("{first:?}");
            };
            let rest = outcome.stdout.len() + outcome.stderr.len();
            assert_eq!(first.len() + rest, 120_000);
        }
    })
    .await;
}

#[tokio::test]
async fn output_on_a_terminal_is_whole_although_its_reader_is_late() {
    within(async {
        let mut settings = settings(Path::new("/"));
        settings.hold = Duration::ZERO;
        for _ in 0..20 {
            let mut session = Session::of(settings.clone()).await;
            session.ask(pty("xterm", 80, 24)).await.unwrap();
            session
                .exec_here("stty raw; echo; head -c 30000 /dev/zero")
                .await;
            let Some(ChannelEvent::Data(first)) = session.source.next().await else {
                panic!("no output");
            };
            tokio::time::sleep(Duration::from_millis(20)).await;
            let outcome = session.outcome().await;
            assert_eq!(first.len() + outcome.stdout.len(), 30_001);
            assert_eq!(outcome.exit, ChannelEvent::ExitStatus(0));
        }
    })
    .await;
}

#[tokio::test]
async fn a_shell_on_a_terminal_controls_its_jobs() {
    within(async {
        let mut session = Session::open().await;
        session.ask(pty("dumb", 80, 24)).await.unwrap();
        session.exec_here("exec /bin/sh -i").await;
        // A job in the foreground is interrupted, and its shell is not.
        session
            .sink
            .data(Bytes::from_static(b"sh -c 'echo up; exec sleep 60'\n"))
            .await
            .unwrap();
        session.until("up\r\n").await;
        session
            .sink
            .data(Bytes::from_static(b"\x03"))
            .await
            .unwrap();
        session.until("^C").await;
        session
            .sink
            .data(Bytes::from_static(b"echo status $?; exit 5\n"))
            .await
            .unwrap();
        let text = session.until("status 130").await;
        assert!(!text.contains("job control"), "{text}");
        assert_eq!(session.outcome().await.exit, ChannelEvent::ExitStatus(5));
    })
    .await;
}

#[tokio::test]
async fn a_command_that_closes_its_output_is_waited_for() {
    within(async {
        let outcome = run("exec >&- 2>&-; sleep 0.1; exit 6").await;
        assert_eq!(outcome.exit, ChannelEvent::ExitStatus(6));
    })
    .await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_dropped_channel_ends_the_group_even_where_it_ignores_the_hangup() {
    within(async {
        let mut session = Session::exec(FAMILY).await;
        let family = session.family().await;
        // One part keeps the channel open.
        drop((session.sink, session.control));
        assert!(family.iter().all(|id| lives(*id)));
        drop(session.source);
        gone(&family).await;
    })
    .await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_dropped_connection_ends_every_channel() {
    within(async {
        let mut session = Session::exec(FAMILY).await;
        let family = session.family().await;
        session.conn = None;
        assert_eq!(session.source.next().await, None);
        assert!(matches!(
            session.sink.data(Bytes::from_static(b"x")).await,
            Err(BackendError::Closed)
        ));
        assert!(matches!(
            session.ask(ChannelRequest::Shell).await,
            Err(BackendError::Closed)
        ));
        gone(&family).await;
    })
    .await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_dropped_terminal_ends_the_foreground_of_its_shell() {
    within(async {
        let mut session = Session::open().await;
        session.ask(pty("xterm", 80, 24)).await.unwrap();
        // A shell with job control gives each job a group of its own.
        session.exec_here("stty -echo; set -m; echo $$; sh -c \"trap '' HUP; echo \\$\\$; echo all; exec sleep 60\"; true").await;
        let family = session.family().await;
        assert_eq!(family.len(), 2);
        drop(session);
        gone(&family).await;
    })
    .await;
}

#[tokio::test]
async fn a_channel_without_a_program_just_closes() {
    within(async {
        let Session {
            mut sink,
            mut source,
            control,
            ..
        } = Session::open().await;
        drop(control);
        assert_eq!(source.next().await, None);
        assert!(matches!(sink.eof().await, Err(BackendError::Closed)));
    })
    .await;
}

#[tokio::test]
async fn the_subsystem_sftp_answers_and_ends_with_its_input() {
    within(async {
        for (input, answer, status) in [
            (&[0, 0, 0, 5, 1, 0, 0, 0, 3][..], &[2, 0, 0, 0, 3][..], 0),
            (b"not SFTP", b"", 255),
        ] {
            let mut session = Session::open().await;
            let request = ChannelRequest::Subsystem("sftp".to_owned());
            session.ask(request).await.unwrap();
            let input = Bytes::copy_from_slice(input);
            session.sink.data(input).await.unwrap();
            // A server that has ended takes no end of input.
            let _ = session.sink.eof().await;
            let mut output = Vec::new();
            let exit = loop {
                let event = session.source.next().await.unwrap();
                let ChannelEvent::Data(data) = event else {
                    break event;
                };
                output.extend_from_slice(&data);
            };
            assert!(output.get(4..).unwrap_or_default().starts_with(answer));
            assert_eq!(exit, ChannelEvent::ExitStatus(status));
        }
    })
    .await;
}

/// A session and the connection it is on.
struct Session {
    sink: Box<dyn ChannelSink>,
    source: Box<dyn ChannelSource>,
    control: Box<dyn ChannelControl>,
    conn: Option<Box<dyn BackendConn>>,
    _backend: LocalBackend,
}

impl Session {
    async fn of(settings: LocalSettings) -> Self {
        let backend = LocalBackend::new(settings);
        let conn = backend.connect().await.unwrap();
        let BackendChannel {
            sink,
            source,
            control,
        } = conn.open_session().await.unwrap();
        Self {
            sink,
            source,
            control,
            conn: Some(conn),
            _backend: backend,
        }
    }

    async fn open() -> Self {
        Self::of(settings(Path::new("/"))).await
    }

    async fn exec(line: &str) -> Self {
        Self::open().await.and_exec(line).await
    }

    async fn and_exec(self, line: &str) -> Self {
        self.exec_here(line).await;
        self
    }

    async fn exec_here(&self, line: &str) {
        let line = Bytes::copy_from_slice(line.as_bytes());
        self.ask(ChannelRequest::Exec(line)).await.unwrap();
    }

    async fn ask(&self, request: ChannelRequest) -> Result<(), BackendError> {
        self.control.request(request).await
    }

    /// Reads output until `text` was in it; returns all of it.
    async fn until(&mut self, text: &str) -> String {
        let mut seen = String::new();
        while !seen.contains(text) {
            match self.source.next().await {
                Some(ChannelEvent::Data(data)) => {
                    seen.push_str(std::str::from_utf8(&data).unwrap());
                }
                other => panic!("{other:?} after {seen:?}"),
            }
        }
        seen
    }

    /// The process ids that a command writes, up to a line that says that they are all.
    async fn family(&mut self) -> Vec<u32> {
        let text = self.until("all").await;
        text.lines()
            .filter_map(|line| line.trim().parse().ok())
            .collect()
    }

    async fn outcome(mut self) -> Outcome {
        collect(&mut *self.source).await
    }
}

struct Outcome {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    exit: ChannelEvent,
}

/// Reads a channel to its end, and checks the order: output, exit, end of output, end.
async fn collect(source: &mut dyn ChannelSource) -> Outcome {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let exit = loop {
        match source
            .next()
            .await
            .expect("a channel ends with its command's exit")
        {
            ChannelEvent::Data(data) => stdout.extend_from_slice(&data),
            ChannelEvent::Stderr(data) => stderr.extend_from_slice(&data),
            ChannelEvent::Eof => panic!("end of output before the exit"),
            exit @ (ChannelEvent::ExitStatus(_) | ChannelEvent::ExitSignal { .. }) => break exit,
        }
    };
    assert_eq!(source.next().await, Some(ChannelEvent::Eof));
    assert_eq!(source.next().await, None);
    assert_eq!(source.next().await, None);
    Outcome {
        stdout,
        stderr,
        exit,
    }
}

async fn run(line: &str) -> Outcome {
    Session::exec(line).await.outcome().await
}

fn settings(work_dir: &Path) -> LocalSettings {
    let mut settings = LocalSettings::new(work_dir);
    settings.shell = Some("/bin/sh".into());
    settings.hold = Duration::from_millis(100);
    settings.grace = Duration::from_millis(200);
    settings
}

fn pty(term: &str, columns: u32, rows: u32) -> ChannelRequest {
    ChannelRequest::Pty(PtyRequest::new(term, size(columns, rows)))
}

fn size(columns: u32, rows: u32) -> WindowSize {
    WindowSize {
        columns,
        rows,
        ..WindowSize::default()
    }
}

fn env(name: &str, value: &str) -> ChannelRequest {
    ChannelRequest::Env {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

fn ended_by(signal: &str) -> ChannelEvent {
    ChannelEvent::ExitSignal {
        signal: signal.to_owned(),
        core_dumped: false,
        message: String::new(),
    }
}

#[track_caller]
fn refused(answer: Result<(), BackendError>) {
    assert!(matches!(answer, Err(BackendError::Refused)), "{answer:?}");
}

/// Whether a process runs; one that waits to be reaped does not.
#[cfg(target_os = "linux")]
fn lives(id: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{id}/stat"))
        .ok()
        .and_then(|stat| {
            stat.rsplit_once(") ")
                .map(|(_, rest)| !rest.starts_with(['Z', 'X']))
        })
        .unwrap_or(false)
}

/// Waits until none of the processes runs.
#[cfg(target_os = "linux")]
async fn gone(family: &[u32]) {
    assert!(!family.is_empty());
    while family.iter().any(|id| lives(*id)) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn within<T>(test: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), test)
        .await
        .expect("the test ends in time")
}

/// A parent, a child, and a grandchild that ignores the hangup.
#[cfg(target_os = "linux")]
const FAMILY: &str =
    "echo $$; sleep 60 & echo $!; sh -c \"trap '' HUP; echo \\$\\$; echo all; sleep 60; sleep 60\"";

const CHUNK: usize = 32 * 1024;
