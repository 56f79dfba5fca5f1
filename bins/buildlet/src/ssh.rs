//! The SSH server behind `/connect-ssh`.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use anyhow::Context as _;
use buildlet_proto::api::{SshRequest, SshStream};
use buildlet_proto::{ApiError, ErrorStatus};
use sshbridge::hostkey::HostKeys;
use sshbridge::machine::{LocalSettings, MachineServer, Sshd};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::exec::machine_variables;
use crate::strays::MARK;
use crate::workdir::WorkDir;

/// Which server there is.
#[derive(Debug)]
pub(crate) enum Ssh {
    Builtin(Builtin),
    Off,
    System(Sshd),
}

/// The server in this program.
#[derive(Debug)]
pub(crate) struct Builtin {
    server: Box<MachineServer>,
    sessions: Sessions,
}

/// All connections to a server, to be cut at once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sessions(Arc<Mutex<CancellationToken>>);

impl Sessions {
    /// Cancelled when those that are there now are cut.
    fn token(&self) -> CancellationToken {
        let token = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        token.clone()
    }

    /// Cuts all that are there. Later ones are not concerned.
    pub(crate) fn cut(&self) {
        let mut token = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *token).cancel();
    }
}

impl Ssh {
    /// The connections to the server in this program; those to another are processes.
    pub(crate) fn sessions(&self) -> Sessions {
        match self {
            Self::Builtin(builtin) => builtin.sessions.clone(),
            Self::Off | Self::System(_) => Sessions::default(),
        }
    }

    /// The server in this program; its host key is kept beside the work directory.
    pub(crate) fn builtin(work_dir: &WorkDir) -> anyhow::Result<Self> {
        let keys = HostKeys::load_or_create(work_dir.state_dir())
            .context("cannot prepare the SSH server's host key")?;
        let mut settings = LocalSettings::new(work_dir.path());
        for (name, value) in machine_variables(work_dir.path()) {
            settings.env.retain(|(other, _)| other != name);
            settings
                .env
                .push((name.to_owned(), value.to_string_lossy().into_owned()));
        }
        let mark = (MARK.to_owned(), work_dir.mark().to_owned());
        settings.env.push(mark);
        Ok(Self::Builtin(Builtin {
            server: Box::new(MachineServer::new(keys, settings)),
            sessions: Sessions::default(),
        }))
    }

    /// The sshd at `path`.
    pub(crate) fn system(path: &Path) -> Self {
        Self::System(Sshd::new(path))
    }

    /// Opens a stream on which the key of the request may log in, and nobody else.
    pub(crate) async fn connect(&self, request: &SshRequest) -> Result<SshStream, ApiError> {
        let key = || {
            request.authorized_key.as_deref().ok_or_else(|| {
                ApiError::bad_request(
                    "requires X-Go-Authorized-Key, the public key that may log in",
                )
            })
        };
        match self {
            Self::Builtin(builtin) => Ok(builtin.connect(key()?)),
            Self::Off => Err(ApiError::new(
                ErrorStatus::NOT_FOUND,
                "this machine offers no SSH server",
            )),
            Self::System(sshd) => {
                let user = request.user.as_deref().ok_or_else(|| {
                    ApiError::bad_request("requires X-Go-Ssh-User, the account to log in to")
                })?;
                let conn = sshd.connect(user, key()?).await.map_err(refused)?;
                Ok(SshStream::new(conn.stream, Some(conn.host_key_line)))
            }
        }
    }
}

impl Builtin {
    fn connect(&self, key: &str) -> SshStream {
        let (client, machine) = duplex(PIPE);
        let (server, key) = (self.server.clone(), key.to_owned());
        let cut = self.sessions.token();
        let serving = AbortOnDropHandle::new(tokio::spawn(async move {
            let served = tokio::select! {
                served = server.serve(machine, &key) => served,
                () = cut.cancelled() => return,
            };
            if let Err(error) = served {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, "an SSH connection ended");
            }
        }));
        let stream = Served {
            io: client,
            _serving: serving,
        };
        SshStream::new(stream, Some(self.server.host_key_line()))
    }
}

fn refused(error: io::Error) -> ApiError {
    if error.kind() == io::ErrorKind::InvalidInput {
        return ApiError::bad_request(error.to_string());
    }
    ApiError::bad_gateway(format!("cannot start sshd: {error}")).because(error)
}

/// A stream to the server that is ended with it.
struct Served {
    io: DuplexStream,
    _serving: AbortOnDropHandle<()>,
}

impl AsyncRead for Served {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Served {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// What may wait in the pipe to the server, each way.
const PIPE: usize = 64 * 1024;
