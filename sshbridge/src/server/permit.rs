//! What becomes of a session's requests under what the user was granted.

use bytes::Bytes;

use crate::auth::{Grant, Permission};
use crate::backend::ChannelRequest;

/// A request as it goes to the machine.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Permitted {
    pub(super) request: ChannelRequest,
    /// What the user asked to run, where something else runs.
    pub(super) original: Option<ChannelRequest>,
}

/// Applies `grant` to a request; `None` where it is refused.
pub(super) fn permit(grant: &Grant, request: ChannelRequest) -> Option<Permitted> {
    if matches!(request, ChannelRequest::Pty(_)) && grant.terminal == Permission::Refused {
        return None;
    }
    let asked = match &request {
        ChannelRequest::Exec(command) => String::from_utf8_lossy(command).into_owned(),
        ChannelRequest::Subsystem(name) => name.clone(),
        ChannelRequest::Shell => String::new(),
        ChannelRequest::Agent
        | ChannelRequest::Env { .. }
        | ChannelRequest::Pty(_)
        | ChannelRequest::Signal(_)
        | ChannelRequest::WindowChange(_) => {
            let original = None;
            return Some(Permitted { request, original });
        }
    };
    let Some(command) = &grant.command else {
        let original = None;
        return Some(Permitted { request, original });
    };
    // As sshd, which sets no variable where a shell was asked for.
    let is_told = !asked.is_empty() && !asked.contains('\0');
    let original = is_told.then(|| ChannelRequest::Env {
        name: "SSH_ORIGINAL_COMMAND".to_owned(),
        value: asked,
    });
    Some(Permitted {
        request: ChannelRequest::Exec(Bytes::from(command.clone())),
        original,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::PtyRequest;

    fn exec(command: &'static str) -> ChannelRequest {
        ChannelRequest::Exec(Bytes::from_static(command.as_bytes()))
    }

    #[test]
    fn a_forced_command_runs_whatever_is_asked_for() {
        let mut grant = Grant::new("anna", "user-anna-linux-0");
        grant.command = Some("forced".to_owned());
        for (request, original) in [
            (exec("mine"), Some("mine")),
            (ChannelRequest::Subsystem("sftp".to_owned()), Some("sftp")),
            (ChannelRequest::Shell, None),
            (exec("nul\0"), None),
        ] {
            let permitted = permit(&grant, request).unwrap();
            assert_eq!(permitted.request, exec("forced"));
            let original = original.map(|command: &str| ChannelRequest::Env {
                name: "SSH_ORIGINAL_COMMAND".to_owned(),
                value: command.to_owned(),
            });
            assert_eq!(permitted.original, original);
        }
    }

    #[test]
    fn a_terminal_is_refused_where_it_is_not_granted() {
        let mut grant = Grant::new("anna", "user-anna-linux-0");
        let pty = || ChannelRequest::Pty(PtyRequest::default());
        assert!(permit(&grant, pty()).is_some());
        grant.terminal = Permission::Refused;
        assert_eq!(permit(&grant, pty()), None);
        let permitted = permit(&grant, exec("mine")).unwrap();
        assert_eq!(
            (permitted.request, permitted.original),
            (exec("mine"), None)
        );
    }
}
