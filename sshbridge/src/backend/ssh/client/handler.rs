//! The callbacks.

use std::sync::Arc;

use russh::client::{ChannelOpenHandle, Msg, Session};
use russh::keys::{PublicKey, PublicKeyOrCertificate};
use russh::{Channel, ChannelId, ChannelOpenFailure, Sig};

use super::super::ports::Ports;
use super::channel::Pending;
use crate::backend::{ChannelEvent, Incoming, ListenAddress, Origin, Originator};
use crate::signal;

/// russh's callbacks of one connection.
pub(super) struct Handler {
    pub(super) host_key: Option<PublicKey>,
    pub(super) ports: Arc<Ports>,
}

impl Drop for Handler {
    /// russh drops the handler when the connection is over, however it ended.
    fn drop(&mut self) {
        self.ports.end();
    }
}

impl Handler {
    /// Offers a stream that the machine opened; whether it was asked for is seen where that is known.
    fn offer(&self, origin: Origin, channel: Channel<Msg>, reply: ChannelOpenHandle) {
        let id = channel.id().into();
        let (_, write) = channel.split();
        let pending = Pending {
            ports: self.ports.clone(),
            id,
            write,
            reply,
        };
        self.ports.offer(Incoming {
            origin,
            pending: Box::new(pending),
        });
    }
}

impl russh::client::Handler for Handler {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        offered: &PublicKeyOrCertificate,
    ) -> Result<bool, russh::Error> {
        Ok(match (&self.host_key, offered) {
            (None, _) => true,
            (Some(announced), PublicKeyOrCertificate::PublicKey { key, .. }) => {
                announced.key_data() == key.key_data()
            }
            (Some(_), PublicKeyOrCertificate::Certificate(_)) => false,
        })
    }

    async fn data(
        &mut self,
        id: ChannelId,
        data: &[u8],
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.ports.arrived(id.into()).inbox.push_data(data);
        Ok(())
    }

    async fn extended_data(
        &mut self,
        id: ChannelId,
        _code: u32,
        data: &[u8],
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.ports.arrived(id.into()).inbox.push_stderr(data);
        Ok(())
    }

    async fn exit_status(
        &mut self,
        id: ChannelId,
        status: u32,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        let event = ChannelEvent::ExitStatus(status);
        self.ports.arrived(id.into()).inbox.push_event(event);
        Ok(())
    }

    async fn exit_signal(
        &mut self,
        id: ChannelId,
        signal: Sig,
        core_dumped: bool,
        message: &str,
        _language: &str,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        let event = ChannelEvent::ExitSignal {
            signal: signal::name(signal),
            core_dumped,
            message: message.to_owned(),
        };
        self.ports.arrived(id.into()).inbox.push_event(event);
        Ok(())
    }

    async fn channel_eof(
        &mut self,
        id: ChannelId,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.ports
            .arrived(id.into())
            .inbox
            .push_event(ChannelEvent::Eof);
        Ok(())
    }

    async fn channel_close(
        &mut self,
        id: ChannelId,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.ports.close(id.into());
        Ok(())
    }

    async fn channel_success(
        &mut self,
        id: ChannelId,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.ports.arrived(id.into()).answer(true);
        Ok(())
    }

    async fn channel_failure(
        &mut self,
        id: ChannelId,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.ports.arrived(id.into()).answer(false);
        Ok(())
    }

    async fn channel_open_confirmation(
        &mut self,
        id: ChannelId,
        _max_packet_size: u32,
        _window_size: u32,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.ports.arrived(id.into());
        Ok(())
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<Msg>,
        address: &str,
        port: u32,
        originator_address: &str,
        originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        let Ok(port) = u16::try_from(port) else {
            return reject(reply).await;
        };
        let origin = Origin::Listener {
            address: ListenAddress::Tcp {
                host: address.to_owned(),
                port,
            },
            originator: Originator {
                address: originator_address.to_owned(),
                port: originator_port,
            },
        };
        self.offer(origin, channel, reply);
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        let path = path.to_owned();
        let origin = Origin::Listener {
            address: ListenAddress::Unix { path },
            originator: Originator::default(),
        };
        self.offer(origin, channel, reply);
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        if !self.ports.agent_asked() {
            return reject(reply).await;
        }
        self.offer(Origin::Agent, channel, reply);
        Ok(())
    }

    async fn server_channel_open_session(
        &mut self,
        _channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        reject(reply).await
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _channel: Channel<Msg>,
        _host: &str,
        _port: u32,
        _originator_address: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        reject(reply).await
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _channel: Channel<Msg>,
        _path: &str,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        reject(reply).await
    }

    async fn server_channel_open_x11(
        &mut self,
        _channel: Channel<Msg>,
        _originator_address: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        reject(reply).await
    }
}

/// What nobody asked for.
async fn reject(reply: ChannelOpenHandle) -> Result<(), russh::Error> {
    reply
        .reject(ChannelOpenFailure::AdministrativelyProhibited)
        .await;
    Ok(())
}
