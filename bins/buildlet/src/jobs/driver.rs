//! The task that moves a job: from its start to the moment when nothing of it lives.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use buildlet_proto::jobs::JobReason;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Killed;
use super::job::{Command, Job, Phase, end_of};
use super::output::{self, Source};
use super::store::Writer;
use crate::exec::refused;
use crate::platform::Group;
use crate::supervisor::{Orders, Report, Reports, Spec, Supervised, Supervisor};

/// What a driver starts, and with what.
pub(super) struct Launch {
    pub(super) supervisor: Supervisor,
    pub(super) spec: Spec,
    pub(super) stdio: [OwnedFd; 3],
    /// What is kept of what it writes.
    pub(super) outputs: Vec<(Source, Writer)>,
    pub(super) time_limit: Option<TimeLimit>,
}

/// How long a job may take, and what then.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeLimit {
    pub(super) limit: Duration,
    /// The number of the first signal.
    pub(super) signal: i32,
    /// How long it has to end by that.
    pub(super) grace: Duration,
}

/// Starts a command and stays with it until nothing lives of it and its output has ended.
pub(super) async fn drive(job: Arc<Job>, launch: Launch, commands: mpsc::Receiver<Command>) {
    let started = start(&launch).await;
    // With it goes our own hold on the command's ends.
    drop(launch.stdio);
    let (supervised, pid) = match started {
        Ok(started) => started,
        Err(why) => {
            job.not_started(&why);
            return job.release().await;
        }
    };
    job.progress
        .send_modify(|progress| progress.phase = Phase::Running);
    tracing::debug!(job = %job.id, pid, "started");
    let mut outputs = Vec::new();
    for (source, writer) in launch.outputs {
        outputs.push(output::keep(source, writer, job.clone()));
    }
    let output = async move {
        let mut outputs = outputs.into_iter();
        match (outputs.next(), outputs.next()) {
            (Some(first), Some(second)) => drop(tokio::join!(first, second)),
            (Some(only), None) => only.await,
            (None, _) => {}
        }
    };
    let mut run = Run {
        leader: Group::led_by(pid),
        orders: supervised.orders,
        reports: supervised.reports,
        commands,
        kills: Vec::new(),
        reason: None,
        was_signalled: false,
        is_killing: false,
        kill_deadline: None,
        is_gone: false,
        output: Some(Box::pin(output)),
        output_deadline: None,
        alarm: launch.time_limit.map(Alarm::new),
        job,
    };
    run.finish().await;
    run.job.release().await;
    tracing::debug!(job = %run.job.id, "gone");
}

async fn start(launch: &Launch) -> Result<(Supervised, u32), String> {
    let supervised = launch.supervisor.start(&launch.spec, &launch.stdio).await;
    let mut supervised =
        supervised.map_err(|error| format!("the supervisor cannot be started: {error}"))?;
    match supervised.reports.first().await {
        Ok(Some(Report::Started(pid))) => Ok((supervised, pid)),
        Ok(Some(Report::NotStarted(reason))) => Err(refused(
            &launch.spec.program,
            &io::Error::from_raw_os_error(reason),
        )),
        Ok(_) => Err("the supervisor ended before it had started the command".to_owned()),
        Err(error) => Err(format!("the command does not start: {error}")),
    }
}

/// A command that runs, or has left something behind.
struct Run {
    job: Arc<Job>,
    leader: Option<Group>,
    orders: Orders,
    reports: Reports,
    commands: mpsc::Receiver<Command>,
    /// Who waits for the end of a kill.
    kills: Vec<Killed>,
    /// Why it is going to end.
    reason: Option<JobReason>,
    /// Whether somebody has asked for a signal.
    was_signalled: bool,
    /// Whether the tree is being killed, and nobody knows yet how that ends.
    is_killing: bool,
    /// When a supervisor that was told to kill is not waited for any longer.
    kill_deadline: Option<Instant>,
    /// Whether no process is left.
    is_gone: bool,
    /// `None` when it is complete.
    output: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// When those who still hold the output are not waited for any longer.
    output_deadline: Option<Instant>,
    alarm: Option<Alarm>,
}

/// What is due next at the time limit.
#[derive(Clone, Copy)]
enum Alarm {
    Signal(Instant, TimeLimit),
    Kill(Instant),
}

impl Alarm {
    fn new(limit: TimeLimit) -> Self {
        Self::Signal(far(limit.limit), limit)
    }

    fn at(self) -> Instant {
        match self {
            Self::Signal(at, _) | Self::Kill(at) => at,
        }
    }
}

impl Run {
    async fn finish(&mut self) {
        let unwanted = self.job.unwanted.clone();
        let mut may_be_unwanted = true;
        while !self.is_gone || self.output.is_some() {
            tokio::select! {
                report = self.reports.next(), if !self.is_gone => {
                    self.handle_report(report);
                    // What came together is told together: most commands leave nothing behind.
                    while let Some(report) = self.reports.next_received() {
                        self.handle_report(Some(report));
                    }
                }
                Some(command) = self.commands.recv() => self.obey(command).await,
                () = unwanted.cancelled(), if may_be_unwanted => {
                    may_be_unwanted = false;
                    self.kill(JobReason::Request).await;
                }
                () = complete(&mut self.output) => self.output = None,
                () = until(self.output_deadline) => self.output = None,
                () = until(self.alarm.map(Alarm::at)) => self.ring().await,
                () = until(self.kill_deadline) => {
                    self.kill_deadline = None;
                    tracing::warn!(job = %self.job.id, "a supervisor does not kill, and is killed itself");
                    self.reports.kill_supervisor();
                }
            }
            self.tell_the_end();
        }
        self.answer_kills();
    }

    fn handle_report(&mut self, report: Option<Report>) {
        match report {
            Some(Report::Ended(status)) => {
                let mut end = end_of(status);
                let by_request = self.was_signalled && end.signal.is_some();
                end.reason = self
                    .reason
                    .or_else(|| by_request.then_some(JobReason::Request));
                self.command_ended();
                self.job.command_ended(end);
            }
            Some(Report::Killed(survivors)) if !survivors.is_empty() => {
                tracing::warn!(job = %self.job.id, ?survivors, "processes survive a kill");
                self.job
                    .progress
                    .send_modify(|progress| progress.survivors = survivors);
                (self.is_killing, self.kill_deadline) = (false, None);
                self.answer_kills();
            }
            Some(Report::Gone) => self.gone(),
            Some(_) => {}
            None => {
                self.gone();
                if self.job.progress.borrow().end.is_none() {
                    tracing::warn!(job = %self.job.id, "a supervisor was killed");
                    // The command went with it; what is left of its group does so here.
                    if let Some(group) = self.leader {
                        group.kill();
                    }
                    self.command_ended();
                    self.job.lost();
                }
            }
        }
    }

    fn gone(&mut self) {
        self.is_gone = true;
        (self.is_killing, self.kill_deadline) = (false, None);
        self.job.progress.send_modify(|progress| {
            progress.alive = false;
            progress.survivors.clear();
        });
    }

    /// From here on its output has to end, and unless the time was up the clock does not count any more.
    fn command_ended(&mut self) {
        self.output_deadline = Some(far(HOLDERS));
        if matches!(self.alarm, Some(Alarm::Signal(..))) {
            self.alarm = None;
        }
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Kill(killed) => {
                self.kills.push(killed);
                self.kill(JobReason::Request).await;
            }
            Command::SignalGroup(number) => {
                self.was_signalled = true;
                let terminal = self.job.terminal();
                match terminal.and_then(|terminal| Group::in_foreground(&terminal)) {
                    Some(group) => group.signal(number),
                    None => self.orders.signal_group(number).await,
                }
            }
            Command::SignalTree(number) => {
                self.was_signalled = true;
                self.orders.signal_tree(number).await;
            }
        }
    }

    async fn kill(&mut self, reason: JobReason) {
        if self.job.progress.borrow().end.is_none() {
            self.reason.get_or_insert(reason);
        }
        self.alarm = None;
        self.is_killing = !self.is_gone;
        if self.is_killing {
            self.kill_deadline = Some(far(KILL_LIMIT));
        }
        self.reports.wake_supervisor();
        self.orders.kill().await;
    }

    async fn ring(&mut self) {
        match self.alarm.take() {
            Some(Alarm::Signal(_, limit)) if !limit.grace.is_zero() => {
                self.reason.get_or_insert(JobReason::TimeLimit);
                self.orders.signal_tree(limit.signal).await;
                self.alarm = Some(Alarm::Kill(far(limit.grace)));
            }
            Some(_) => self.kill(JobReason::TimeLimit).await,
            None => {}
        }
    }

    /// Tells the end when both are there: that of the command, and that of its output. Who reads it then also reads what
    /// has become of a kill.
    fn tell_the_end(&self) {
        // After the first signal of the time limit the rest of the tree has its grace, and then a kill.
        let kill_is_due = matches!(self.alarm, Some(Alarm::Kill(_))) && !self.is_gone;
        if self.output.is_some() || self.is_killing || kill_is_due {
            return;
        }
        self.job.progress.send_if_modified(|progress| {
            let is_over = progress.end.is_some() && progress.phase == Phase::Running;
            if is_over {
                progress.phase = Phase::Ended;
            }
            is_over
        });
    }

    fn answer_kills(&mut self) {
        for killed in self.kills.drain(..) {
            // Whoever has asked may have left.
            let _ = killed.send(());
        }
    }
}

/// Resolves when the output is complete; never when it was so before.
async fn complete(output: &mut Option<Pin<Box<dyn Future<Output = ()> + Send>>>) {
    match output {
        Some(output) => output.await,
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// In so long, or in thirty years.
fn far(time: Duration) -> Instant {
    Instant::now() + time.min(Duration::from_secs(30 * 365 * 24 * 60 * 60))
}

/// A supervisor gives up after ten seconds.
const KILL_LIMIT: Duration = Duration::from_secs(15);

/// How long those whom a command has left behind, or has given it to, may hold its output open: long enough for a
/// background process that is about to end (Go's buildlets wait for ever), short enough that one that is not holds no
/// lease.
pub(super) const HOLDERS: Duration = Duration::from_secs(5);
