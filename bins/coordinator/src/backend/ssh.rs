//! Streams to the SSH server of a machine.

use async_trait::async_trait;
use buildlet_proto::Buildlet;
use buildlet_proto::api::{SshRequest, SshStream};
use sshbridge::backend::BackendError;
use sshbridge::backend::ssh::{SshDialer, SshTarget};

use super::Target;
use super::route::in_time;

/// Opens streams to a machine's SSH server.
pub(super) struct Dialer {
    target: Target,
    user: String,
}

impl Dialer {
    /// Opens a stream to `target`'s SSH server for a user who logs in there with `authorized_key`, as `user` where the
    /// machine cares.
    pub(super) async fn dial_for(
        target: &Target,
        user: &str,
        authorized_key: &str,
    ) -> Result<SshStream, BackendError> {
        let link = target.link()?;
        let request = SshRequest::new(user, authorized_key);
        in_time(link.buildlet().connect_ssh(request)).await
    }

    /// Logs in to `target` as `user`.
    pub(super) fn new(target: Target, user: &str) -> Self {
        Self {
            target,
            user: user.to_owned(),
        }
    }
}

#[async_trait]
impl SshDialer for Dialer {
    async fn dial(&self, authorized_key: &str) -> Result<SshTarget, BackendError> {
        let reply = Self::dial_for(&self.target, &self.user, authorized_key).await?;
        let target = SshTarget::new(reply.stream, &self.user);
        Ok(match reply.host_key {
            Some(line) => target.with_host_key(line),
            // A buildlet of Go tells no host key. The stream leads to that machine and nowhere else.
            None => target,
        })
    }
}
