use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::connection::{Opened, State};
use super::events;
use super::notice::Notices;
use super::permit::Permitted;
use super::protocol::{ClientChannel, Opening};
use crate::audit::{AuditKind, Outcome};
use crate::auth::{Machine, Permission, Refusal};
use crate::backend::{
    BackendError, ChannelControl, ChannelEvent, ChannelRequest, ChannelSink, ChannelSource,
};
use crate::flow::{Gone, Inbox, Link};
use crate::server::AcceptEnv;

/// A session channel of a client: what came from the client, and the machine's side of it.
///
/// The SSH library's callbacks fill the inbox and make the requests; one task of the channel pumps both directions.
pub(super) struct Channel {
    id: u32,
    link: Arc<Link>,
    pub(super) inbox: Arc<Inbox>,
    /// Cancelled when the channel is closed, by either side.
    pub(super) gone: CancellationToken,
    state: Mutex<ChannelState>,
    greeting: OnceLock<Bytes>,
    /// Something was started, or there is a greeting to write.
    started: Notify,
    /// Cancelled when something was started on a terminal.
    interactive: CancellationToken,
}

#[derive(Default)]
struct ChannelState {
    machine: Attached,
    terminal: bool,
    /// A shell, a command or a subsystem was started.
    started: bool,
    variables: usize,
}

/// What answers the requests of a channel.
#[derive(Default)]
enum Attached {
    /// A channel on a machine.
    Machine(Arc<dyn ChannelControl>, Machine),
    /// Nothing: the channel is being opened, or it is closed.
    #[default]
    Nothing,
    /// The refusal that the user reads as soon as something is started.
    Refusal,
}

/// How the machine's side of a channel came to its end.
enum Output {
    /// It just ended.
    Lost,
    /// It reported how the command ended.
    Reported,
}

impl Channel {
    pub(super) fn new(id: u32, link: &Arc<Link>) -> Self {
        Self {
            id,
            link: link.clone(),
            inbox: link.inbox(),
            gone: link.gone().child_token(),
            state: Mutex::default(),
            greeting: OnceLock::new(),
            started: Notify::new(),
            interactive: CancellationToken::new(),
        }
    }

    /// Opens the machine's side, accepts the client's, and pumps until one of them ends. The machine is first, so that
    /// nothing it says can come too early.
    pub(super) async fn serve(self: Arc<Self>, opening: Opening, connection: Arc<State>) {
        let _open = connection.count_channel();
        let Some(opened) = self.link.unless_gone(connection.open()).await else {
            return;
        };
        match opened {
            Ok(opened) => self.bridge(opening, &connection, opened).await,
            Err(refusal) => self.refuse(opening, &connection, &refusal).await,
        }
        self.gone.cancel();
        self.inbox.discard();
        self.state().machine = Attached::Nothing;
    }

    /// Makes a request of the machine. Whether it was granted.
    pub(super) async fn request(&self, request: ChannelRequest, connection: &State) -> bool {
        let config = &connection.shared.config;
        let Some(Permitted { request, original }) = connection.permit(request) else {
            return false;
        };
        if !self.admit(&request, config.accept_env) {
            return false;
        }
        if let Some(original) = original
            && let Ok(control) = self.control(&original)
        {
            // The machine may not take the variable; the command runs all the same.
            self.ask(&*control, original, config.request_timeout).await;
        }
        let program = events::program(&request);
        let is_terminal = matches!(request, ChannelRequest::Pty(_));
        if program.is_some() {
            self.state().started = true;
        }
        let granted = match self.control(&request) {
            Ok(control) => self.ask(&*control, request, config.request_timeout).await,
            Err(granted) => granted,
        };
        if let Some(program) = program {
            let terminal = {
                let mut state = self.state();
                state.started = granted;
                state.terminal
            };
            connection.tell(|| AuditKind::Started {
                channel: self.id,
                program,
                terminal,
                outcome: Outcome::done_if(granted),
            });
            if granted && terminal {
                self.interactive.cancel();
            }
            self.started.notify_one();
        }
        if is_terminal {
            self.state().terminal = granted;
        }
        granted
    }

    /// Forwards the user's agent to what is started next, where the user may. Whether it is.
    pub(super) async fn forward_agent(&self, connection: &State) -> bool {
        if connection.forwarding().agent == Permission::Refused {
            return false;
        }
        // The machine may have something to ask as soon as it answers.
        connection.agent_forwarded();
        self.request(ChannelRequest::Agent, connection).await
    }

    /// Whether the request makes sense at this point of the channel (RFC 4254 §6), and is one that we pass on.
    fn admit(&self, request: &ChannelRequest, accept_env: AcceptEnv) -> bool {
        let mut state = self.state();
        match request {
            ChannelRequest::Signal(_) | ChannelRequest::WindowChange(_) => true,
            ChannelRequest::Agent
            | ChannelRequest::Exec(_)
            | ChannelRequest::Pty(_)
            | ChannelRequest::Shell
            | ChannelRequest::Subsystem(_) => !state.started,
            ChannelRequest::Env { name, value } => {
                state.variables += 1;
                !state.started
                    && state.variables <= MAX_VARIABLES
                    && (accept_env == AcceptEnv::Any || is_passed_on(name))
                    && !value.contains('\0')
                    && value.len() <= MAX_VALUE
            }
        }
    }

    /// What answers `request`, or else whether it is granted.
    fn control(&self, request: &ChannelRequest) -> Result<Arc<dyn ChannelControl>, bool> {
        let state = self.state();
        match &state.machine {
            Attached::Nothing => Err(false),
            Attached::Refusal => Err(true),
            Attached::Machine(control, machine) => {
                if matches!(request, ChannelRequest::Shell)
                    && state.terminal
                    && !machine.greeting.is_empty()
                {
                    let _ = self.greeting.set(terminal_lines(&machine.greeting));
                    self.started.notify_one();
                }
                Ok(control.clone())
            }
        }
    }

    async fn ask(
        &self,
        control: &dyn ChannelControl,
        request: ChannelRequest,
        timeout: Duration,
    ) -> bool {
        let answer = tokio::select! {
            // The answer comes first even where the command is over by now, and the channel with it.
            biased;
            answer = tokio::time::timeout(timeout, control.request(request)) => {
                answer.unwrap_or(Err(BackendError::TimedOut))
            }
            () = self.gone.cancelled() => Err(BackendError::Closed),
        };
        if let Err(error) = &answer {
            tracing::debug!(%error, "a request was not granted");
        }
        answer.is_ok()
    }

    async fn refuse(&self, opening: Opening, connection: &State, refusal: &Refusal) {
        self.state().machine = Attached::Refusal;
        let client = opening.accept().await;
        let told = async {
            while !self.state().started {
                self.started.notified().await;
            }
            self.end_with(&client, &refusal.message).await;
        };
        tokio::select! {
            () = told => {}
            () = self.discard_input() => {}
            () = connection.ending().cancelled() => {}
            () = self.gone.cancelled() => {}
        }
    }

    async fn bridge(&self, opening: Opening, connection: &State, opened: Opened) {
        let Opened { machine, channel } = opened;
        let control: Arc<dyn ChannelControl> = Arc::from(channel.control);
        let variables = machine.env.iter().map(|(name, value)| {
            let (name, value) = (name.clone(), value.clone());
            self.ask(
                &*control,
                ChannelRequest::Env { name, value },
                connection.shared.config.request_timeout,
            )
        });
        futures_util::future::join_all(variables).await;
        let notices = connection.notices(&machine);
        self.state().machine = Attached::Machine(control, machine);
        let client = opening.accept().await;
        connection.tell(|| AuditKind::SessionOpened { channel: self.id });
        tokio::select! {
            () = self.gone.cancelled() => {}
            () = self.inbox.cut().cancelled() => {
                self.end_with(&client, "the session was closed: it took no input").await;
            }
            () = connection.ending().cancelled() => {
                self.end_with(&client, &connection.farewell()).await;
            }
            output = self.pump(&client, channel.sink, channel.source, connection) => {
                self.close(&client, output, connection).await;
            }
            () = self.give_notice(&client, notices, connection) => {}
        }
    }

    async fn pump(
        &self,
        client: &ClientChannel,
        sink: Box<dyn ChannelSink>,
        source: Box<dyn ChannelSource>,
        connection: &State,
    ) -> Result<Output, Gone> {
        let input = async {
            self.pump_in(sink).await;
            std::future::pending().await
        };
        tokio::select! {
            output = self.pump_out(client, source, connection) => output,
            // The end of the client's input is not the end of the channel.
            never = input => never,
        }
    }

    /// Client to machine.
    async fn pump_in(&self, mut sink: Box<dyn ChannelSink>) {
        while let Some(event) = self.inbox.take().await {
            let taken = match event {
                ChannelEvent::Data(data) => sink.data(data).await,
                ChannelEvent::Eof => sink.eof().await,
                ChannelEvent::ExitSignal { .. }
                | ChannelEvent::ExitStatus(_)
                | ChannelEvent::Stderr(_) => Ok(()),
            };
            if let Err(error) = taken {
                // A command may close its input and run on; the client must not stand still for it.
                tracing::debug!(%error, "the machine takes no more input");
                drop(sink);
                return self.discard_input().await;
            }
        }
    }

    /// Machine to client, in the machine's order but for one thing: the end of the output waits for the report of how
    /// the command ended. A client whose input has ended answers an EOF with a close, russh answers that at once with its
    /// own, and the report would be lost.
    async fn pump_out(
        &self,
        client: &ClientChannel,
        mut source: Box<dyn ChannelSource>,
        connection: &State,
    ) -> Result<Output, Gone> {
        let mut reported = false;
        let mut greeted = false;
        loop {
            let event = tokio::select! {
                biased;
                () = self.started.notified(), if !greeted => None,
                event = source.next() => Some(event),
            };
            if !greeted && let Some(greeting) = self.greeting.get() {
                greeted = true;
                client.data(greeting.clone()).await?;
            }
            let Some(event) = event else { continue };
            if let Some(event) = &event {
                connection.tell_exit(self.id, event);
            }
            match event {
                Some(ChannelEvent::Data(data)) => client.data(data).await?,
                Some(ChannelEvent::Stderr(data)) => client.stderr(data).await?,
                Some(ChannelEvent::Eof) => {}
                Some(ChannelEvent::ExitStatus(status)) => {
                    reported = true;
                    client.exit_status(status).await?;
                }
                Some(ChannelEvent::ExitSignal {
                    signal,
                    core_dumped,
                    message,
                }) => {
                    reported = true;
                    client.exit_signal(signal, core_dumped, message).await?;
                }
                None if reported => return Ok(Output::Reported),
                None => return Ok(Output::Lost),
            }
        }
    }

    /// Tells whoever sits at a terminal that their time ends.
    async fn give_notice(&self, client: &ClientChannel, mut notices: Notices, connection: &State) {
        self.interactive.cancelled().await;
        loop {
            let sentence = connection.notice(notices.next().await);
            let line = Bytes::from(format!("\r\n{sentence}\r\n"));
            if client.stderr(line).await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    async fn close(
        &self,
        client: &ClientChannel,
        output: Result<Output, Gone>,
        connection: &State,
    ) {
        match output {
            Ok(Output::Lost) => {
                self.end_with(client, &connection.loss()).await;
            }
            Ok(Output::Reported) => {
                let _ = client.eof().await;
                let _ = client.close().await;
            }
            Err(Gone) => {}
        }
    }

    /// Tells the user a last sentence, and its program that it failed.
    async fn end_with(&self, client: &ClientChannel, sentence: &str) {
        let (started, terminal) = {
            let state = self.state();
            (state.started, state.terminal)
        };
        let last = async {
            if started {
                let line = if terminal { "\r\n" } else { "\n" };
                let line = Bytes::from(format!("{sentence}{line}"));
                let _ = tokio::time::timeout(LAST_SENTENCE, client.stderr(line)).await;
                client.exit_status(FAILED).await?;
            }
            client.eof().await?;
            client.close().await
        };
        tokio::select! {
            _ = last => {}
            () = self.gone.cancelled() => {}
        }
    }

    async fn discard_input(&self) {
        while self.inbox.take().await.is_some() {}
        std::future::pending::<()>().await;
    }

    fn state(&self) -> MutexGuard<'_, ChannelState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The variables that a client may set: what says how to talk to its user and its git, and nothing that a program loads
/// code by.
fn is_passed_on(name: &str) -> bool {
    matches!(name, "COLORTERM" | "GIT_PROTOCOL" | "LANG" | "TERM")
        || name.strip_prefix("LC_").is_some_and(|rest| {
            !rest.is_empty()
                && rest.len() < 64
                && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        })
}

/// A terminal in raw mode does not return its carriage at a line feed.
fn terminal_lines(text: &str) -> Bytes {
    Bytes::from(text.replace('\n', "\r\n"))
}

/// What `ssh` exits with when the connection fails.
const FAILED: u32 = 255;

/// How many variables a client may ask to set on a channel.
const MAX_VARIABLES: usize = 64;

/// The longest value of a variable.
const MAX_VALUE: usize = 4 << 10;

/// How long a client that reads nothing is waited for with the last sentence.
const LAST_SENTENCE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_harmless_variables_are_passed_on() {
        for name in [
            "LANG",
            "LC_ALL",
            "LC_CTYPE",
            "TERM",
            "GIT_PROTOCOL",
            "COLORTERM",
        ] {
            assert!(is_passed_on(name), "{name}");
        }
        for name in [
            "LD_PRELOAD",
            "PATH",
            "LC_",
            "LC_A=B",
            "LC_A\0",
            "BASH_ENV",
            "",
        ] {
            assert!(!is_passed_on(name), "{name}");
        }
    }
}
