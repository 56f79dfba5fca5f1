//! The dialing side of a v2 link.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::PathAndQuery;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::coop;
use tokio::time::{Instant, timeout_at};

use crate::addr::Addr;
use crate::config::Config;
use crate::conn::Conn;
use crate::direct::{BoxTransport, Parts};
use crate::error::{CloseReason, DialError};
use crate::link::now;
use crate::v2::Numbers;
use crate::v2::control::{DialerControl, DialerEvent};
use crate::v2::driver::{Attend, Driver, Shared};
use crate::v2::id::PickUpId;
use crate::v2::pickup::{Outcome, PickUps};

/// Has connections picked up by the peer of a control connection.
#[derive(Debug)]
pub(crate) struct PickUpDialer {
    shared: Arc<Shared<DialerControl>>,
    pick_ups: PickUps,
    /// One for each dial that waits and each connection that is open.
    permits: Arc<Semaphore>,
    limit: usize,
    dial_timeout: Duration,
    close_timeout: Duration,
    numbers: Numbers,
}

impl PickUpDialer {
    pub(crate) fn spawn(
        control: BoxTransport,
        pick_ups: &PickUps,
        conn_path: PathAndQuery,
        config: &Config,
    ) -> Self {
        let limit = config.max_outbound_streams.min(Semaphore::MAX_PERMITS);
        let shared = Shared::new(DialerControl::new(conn_path, limit), config);
        let attendant = Attendant(pick_ups.clone());
        Driver::spawn(Arc::clone(&shared), control, attendant, config);
        Self {
            shared,
            pick_ups: pick_ups.clone(),
            permits: Arc::new(Semaphore::new(limit)),
            limit,
            dial_timeout: config.dial_timeout,
            close_timeout: config.close_timeout,
            numbers: Numbers::default(),
        }
    }

    pub(crate) fn shared(&self) -> &Shared<DialerControl> {
        &self.shared
    }

    /// Has the peer pick up a connection, and waits for it.
    pub(crate) async fn dial(&self) -> Result<Conn, DialError> {
        coop::consume_budget().await;
        let permit = Arc::clone(&self.permits)
            .try_acquire_owned()
            .map_err(|_| DialError::TooManyConnections(self.limit))?;
        let deadline = Instant::now() + self.dial_timeout;
        let dial = Dial {
            dialer: self,
            id: PickUpId::new(rand::random()),
        };
        let outcome = self.pick_ups.expect(dial.id, deadline);
        self.shared.with(|control| control.dial(dial.id))?;
        let handed_over = async {
            let picked_up = self.picked_up(outcome).await?;
            let transport = picked_up.transport.await.map_err(broken)?;
            Ok::<_, DialError>((transport, picked_up.addrs))
        };
        let (transport, addrs) = timeout_at(deadline, handed_over)
            .await
            .map_err(|_| DialError::TimedOut(self.dial_timeout))??;
        self.shared.with(|control| control.complete(dial.id));
        let number = self.numbers.next();
        let addr = |known: Option<_>, link: Addr| {
            let socket = known.or_else(|| link.socket());
            Addr::new(socket, Some(number))
        };
        Ok(Conn::direct(Parts {
            transport,
            number,
            local_addr: addr(addrs.local, self.shared.local_addr()),
            peer_addr: addr(addrs.peer, self.shared.peer_addr()),
            close_timeout: self.close_timeout,
            permit,
        }))
    }

    /// Waits until the peer has connected.
    async fn picked_up(&self, outcome: oneshot::Receiver<Outcome>) -> Outcome {
        let mut outcome = pin!(outcome);
        let mut closed = pin!(self.shared.closed());
        poll_fn(|cx| {
            if let Poll::Ready(outcome) = outcome.as_mut().poll(cx) {
                return Poll::Ready(outcome.unwrap_or_else(|_| Err(given_up())));
            }
            closed.as_mut().poll(cx).map(|reason| Err(reason.into()))
        })
        .await
    }
}

impl Drop for PickUpDialer {
    fn drop(&mut self) {
        self.shared.end(CloseReason::Local);
    }
}

/// A dial that waits; when it does so no more, its secret is worth nothing.
struct Dial<'a> {
    dialer: &'a PickUpDialer,
    id: PickUpId,
}

impl Drop for Dial<'_> {
    fn drop(&mut self) {
        self.dialer.pick_ups.forget(self.id);
        let id = self.id;
        // After `complete` there is nothing to withdraw.
        self.dialer
            .shared
            .with(|control| control.withdraw(id, now()));
    }
}

/// Passes failures on to the dials that they concern.
struct Attendant(PickUps);

impl Attend<DialerControl> for Attendant {
    fn handle(&mut self, event: DialerEvent, _: &Shared<DialerControl>) {
        let DialerEvent::Failed { id, err } = event;
        self.0.fail(id, DialError::PickUpFailed(err));
    }

    fn poll(&mut self, _: &mut Context<'_>, _: &Shared<DialerControl>) -> Poll<()> {
        Poll::Pending
    }
}

/// Whoever began the pick-up gave it up.
fn given_up() -> DialError {
    broken(io::ErrorKind::ConnectionAborted.into())
}

fn broken(error: io::Error) -> DialError {
    DialError::PickUpBroken(Arc::new(error))
}
