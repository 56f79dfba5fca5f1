//! The real program, as its users run it.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot start its program has failed"
)]

use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn conformance(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_conformance"))
        .args(args)
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(args: &[&str]) -> Value {
    serde_json::from_slice(&conformance(args).stdout).unwrap()
}

#[test]
fn list_shows_every_case_with_its_alias() {
    let listed = text(&conformance(&["list"]));
    assert!(listed.contains("io.bulk") && listed.contains("nettest.BasicIO"));
    let cases = json(&["list", "--format", "json"]);
    assert!(cases.as_array().unwrap().len() >= 100);
}

#[test]
fn a_sound_transport_exits_with_success() {
    let output = conformance(&["run", "--on", "duplex", "--only", "io.*", "--seed", "7"]);
    assert!(output.status.success());
    assert!(text(&output).contains("0 failed") && text(&output).contains("seed 7"));
}

#[test]
fn a_broken_promise_exits_with_1_and_says_how_to_see_it_again() {
    let args = ["run", "--on", "yamux", "--only", "drop.*", "--seed", "3"];
    let output = conformance(&args);
    assert_eq!(output.status.code(), Some(1));
    let again = "again:   conformance run --on yamux --only drop.half_closed_responder --seed 3";
    assert!(text(&output).contains(again), "{}", text(&output));
}

#[test]
fn an_unknown_transport_exits_with_2_and_names_the_known_ones() {
    let output = conformance(&["run", "--on", "pigeon"]);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("pigeon") && error.contains("tcp"), "{error}");
}

#[test]
fn a_pattern_without_a_case_exits_with_2() {
    let output = conformance(&["run", "--on", "tcp", "--only", "nothing.*"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn nettest_passes_on_tcp_as_in_go() {
    let report = json(&[
        "run",
        "--on",
        "tcp",
        "--only",
        "nettest.*",
        "--format",
        "json",
    ]);
    assert_eq!(report["passed"], 11, "{report:#}");
    assert_eq!(report["failed"], 0);
    assert_eq!(report["target"], "tcp");
}

#[test]
fn json_lists_what_is_skipped_and_why() {
    let report = json(&[
        "run", "--on", "unix", "--only", "addr.*", "--format", "json",
    ]);
    assert_eq!(report["skipped"], 1);
    let case = &report["cases"][0];
    assert_eq!(case["outcome"], "skipped");
    assert_eq!(case["detail"], "addresses is not claimed");
}

#[test]
fn junit_is_xml_with_a_case_for_each_test() {
    let output = conformance(&[
        "run", "--on", "duplex", "--only", "eof.*", "--format", "junit",
    ]);
    let xml = text(&output);
    assert!(
        xml.starts_with("<?xml") && xml.contains(r#"name="eof.sticky""#),
        "{xml}"
    );
    assert!(xml.trim_end().ends_with("</testsuite>"));
}

/// What a run of everything against yamux or tokio-yamux must show: defects that were found by other means.
#[test]
fn the_known_defects_of_others_show() {
    let failing = |target: &str, ids: &[&str]| {
        let report = json(&["run", "--on", target, "--jobs", "2", "--format", "json"]);
        let cases = report["cases"].as_array().unwrap();
        for id in ids {
            let case = cases.iter().find(|case| case["id"] == *id).unwrap();
            assert_eq!(case["outcome"], "failed", "{target} {id}");
        }
    };
    failing(
        "yamux",
        &[
            "close.local_session_close_wakes_streams",
            "cut.transport_is_error",
            "drop.behind_data_is_reset",
            "drop.half_closed_responder",
            "drop.without_shutdown_is_reset",
            "drop.write_after_peer_reset",
            "flush.one_write",
            "flush.pending_under_backpressure",
            "io.zero_read",
            "io.zero_write_silent",
            "mux.acceptor_speaks_first",
            "mux.fair",
            "mux.goaway_drains",
            "mux.max_streams_is_stream_error",
            "mux.unsolicited_pong",
            "peer_gone.writer_unblocks",
            "shutdown.one_fin",
            "write.after_shutdown",
        ],
    );
    failing(
        "tokio-yamux",
        &[
            "bp.slow_reader_isolated",
            "cut.transport_is_error",
            "flush.pending_under_backpressure",
            "half.read_after_own_shutdown",
            "io.zero_write_silent",
            "mux.latency_under_bulk",
            "peer_gone.writer_unblocks",
            "wake.write_only",
        ],
    );
}

#[test]
fn our_own_transports_keep_what_they_claim() {
    for target in ["revdial-v1", "revdial-v3", "connect-ssh"] {
        let output = conformance(&["run", "--on", target, "--only", "nettest.*"]);
        assert!(output.status.success(), "{}", text(&output));
    }
}

#[test]
fn a_closed_output_does_not_change_the_verdict() {
    let exit = |target: &str| {
        let mut running = Command::new(env!("CARGO_BIN_EXE_conformance"))
            .args(["run", "--on", target, "--only", "io.zero_read"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(running.stdout.take());
        let output = running.wait_with_output().unwrap();
        assert!(output.stderr.is_empty(), "{output:?}");
        output.status.code()
    };
    assert_eq!(exit("duplex"), Some(0));
    assert_eq!(exit("yamux"), Some(1));
}

#[test]
fn a_run_without_a_seed_draws_one_and_says_which() {
    let seed = |output: &Output| -> u64 {
        let text = text(output);
        let (_, seed) = text.rsplit_once("(seed ").unwrap();
        seed.trim_end().trim_end_matches(')').parse().unwrap()
    };
    let run = || seed(&conformance(&["run", "--on", "duplex", "--only", "eof.*"]));
    let seeds = [run(), run(), run()];
    assert!(seeds[0] != seeds[1] || seeds[1] != seeds[2], "{seeds:?}");
}
