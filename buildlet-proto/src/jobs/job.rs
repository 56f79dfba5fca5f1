//! What a machine tells about a job.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{JobCommand, JobId};
use crate::{ProcessState, rfc3339};

/// A job as it is at a moment. As JSON, one object; what is not known yet is left out.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Job {
    /// Its name on this machine.
    pub id: JobId,
    /// What does not change.
    #[serde(flatten)]
    pub about: JobAbout,
    /// Where it is in its life.
    pub state: JobState,
    /// How it ended, or why it did not start.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub end: Option<JobEnd>,
    /// Its standard output so far.
    pub stdout: Kept,
    /// Its standard error so far; nothing where it runs on a terminal.
    pub stderr: Kept,
    /// Whether any of its processes lives: also one that the command has left behind in the background.
    pub alive: bool,
    /// Processes that a kill of the whole tree did not end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub survivors: Vec<u32>,
}

impl Job {
    /// A job that has just begun.
    pub fn new(id: JobId, about: JobAbout) -> Self {
        Self {
            id,
            about,
            state: JobState::Running,
            end: None,
            stdout: Kept::default(),
            stderr: Kept::default(),
            alive: true,
            survivors: Vec::new(),
        }
    }
}

/// What of a job does not change.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct JobAbout {
    /// What it runs. Of a long command only the beginning is kept, with a `…` behind it.
    #[serde(flatten)]
    pub command: JobCommand,
    /// Where it runs, as an absolute path.
    pub cwd: String,
    /// Whether it runs on a terminal.
    pub pty: bool,
    /// Whether it is killed, and forgotten, with the connection that started it, as the commands of `/exec` are.
    pub attached: bool,
    /// When it was asked for.
    #[serde(with = "rfc3339")]
    pub started: SystemTime,
}

impl JobAbout {
    /// A job without a terminal that goes on by itself.
    pub fn new(command: JobCommand, cwd: impl Into<String>, started: SystemTime) -> Self {
        Self {
            command,
            cwd: cwd.into(),
            pty: false,
            attached: false,
            started,
        }
    }
}

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum JobState {
    /// Its command runs, or its output is not complete.
    Running,
    /// Its command has ended, and its output is complete.
    Ended,
    /// Its command could not be started.
    #[serde(rename = "not started")]
    NotStarted,
}

/// How a job ended.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct JobEnd {
    /// In the words of Go.
    pub process_state: ProcessState,
    /// The status with which the command ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// The signal that ended the command: a name without `SIG`, or a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Why it ended, where it was not by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<JobReason>,
    /// When.
    #[serde(with = "rfc3339")]
    pub ended: SystemTime,
}

impl JobEnd {
    /// An end by itself.
    pub fn new(process_state: ProcessState, ended: SystemTime) -> Self {
        Self {
            code: process_state.exit_code(),
            process_state,
            signal: None,
            reason: None,
            ended,
        }
    }
}

/// Why a job was ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub enum JobReason {
    /// Somebody asked for it.
    #[serde(rename = "killed by request")]
    Request,
    /// What watches over the job was itself killed, and how the command ended is not known.
    #[serde(rename = "supervisor lost")]
    SupervisorLost,
    /// It took too long.
    #[serde(rename = "time limit")]
    TimeLimit,
    /// A reason that this program does not know.
    #[serde(other, rename = "other")]
    Other,
}

/// What is kept of a stream.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Kept {
    /// How many bytes were written to it.
    pub end: u64,
    /// Which of them are gone: the first byte, and the first behind them; in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<(u64, u64)>,
}

impl Kept {
    /// `end` bytes without `gaps`.
    pub fn new(end: u64, gaps: Vec<(u64, u64)>) -> Self {
        Self { end, gaps }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_json_is_as_documented() {
        let started = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_468_176_500);
        let command = JobCommand::Argv(vec!["make".to_owned(), "test".to_owned()]);
        let mut job = Job::new(
            JobId::from_bits(7),
            JobAbout::new(command, "/work", started),
        );
        assert_eq!(
            serde_json::to_string(&job).unwrap(),
            r#"{"id":"0000000007","argv":["make","test"],"cwd":"/work","pty":false,"attached":false,"started":"2026-11-23T21:09:36.5Z","state":"running","stdout":{"end":0},"stderr":{"end":0},"alive":true}"#
        );
        job.state = JobState::Ended;
        job.alive = false;
        job.stdout = Kept::new(100, vec![(10, 50)]);
        job.survivors = vec![42];
        let mut end = JobEnd::new(ProcessState::signaled("killed"), started);
        end.signal = Some("KILL".to_owned());
        end.reason = Some(JobReason::TimeLimit);
        job.end = Some(end);
        let json = serde_json::to_string(&job).unwrap();
        assert_eq!(
            json,
            r#"{"id":"0000000007","argv":["make","test"],"cwd":"/work","pty":false,"attached":false,"started":"2026-11-23T21:09:36.5Z","state":"ended","process_state":"signal: killed","signal":"KILL","reason":"time limit","ended":"2026-11-23T21:09:36.5Z","stdout":{"end":100,"gaps":[[10,50]]},"stderr":{"end":0},"alive":false,"survivors":[42]}"#
        );
        assert_eq!(serde_json::from_str::<Job>(&json).unwrap(), job);
    }

    #[test]
    fn reasons_of_later_programs_are_read() {
        let reason: JobReason = serde_json::from_str(r#""cosmic ray""#).unwrap();
        assert_eq!(reason, JobReason::Other);
    }
}
