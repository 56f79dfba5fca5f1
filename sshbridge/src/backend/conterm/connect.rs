//! From a stream to a protected one: who we are, who the machine is, and the layer.

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::auth::{Amount, Entropy, Handshake, Identity, Next, Party};
use super::error::ContermError;
use super::layer::{Opened, Opener, Sealer};
use super::tls::{Progress, TlsHandshake};
use super::{ContermDialer, ContermProtocol, Service, ssl};
use crate::backend::BackendError;
use crate::backend::ssh::Stream;

/// A protected stream to a machine.
pub(crate) struct Connection {
    pub(crate) stream: Box<dyn Stream>,
    /// What came and was not looked at yet.
    pub(crate) input: BytesMut,
    pub(crate) sealer: Sealer,
    pub(crate) opener: Opener,
}

/// A stream, and what came over it and was not asked for yet.
struct Wire {
    stream: Box<dyn Stream>,
    input: BytesMut,
}

/// Dials a machine, authenticates both sides and makes the layer.
pub(crate) async fn connect(
    dialer: &dyn ContermDialer,
    protocol: ContermProtocol,
    identity: &Identity,
    entropy: &mut dyn Entropy,
) -> Result<Connection, BackendError> {
    let mut machine = Wire::dial(dialer, Service::Machine).await?;
    if protocol == ContermProtocol::Cpu {
        machine.send(ENCRYPTION).await?;
        let answer = machine.read(Amount::Text(MAX_TEXT)).await?;
        refused_unless(answer == b"\0", &answer)?;
    }
    let secret = authenticate(dialer, &mut machine, identity, entropy).await?;
    Ok(match protocol {
        ContermProtocol::Cpu => protect_cpu(machine, &secret, entropy).await?,
        ContermProtocol::Rcpu => protect_rcpu(machine, &secret, entropy).await?,
    })
}

async fn authenticate(
    dialer: &dyn ContermDialer,
    machine: &mut Wire,
    identity: &Identity,
    entropy: &mut dyn Entropy,
) -> Result<zeroize::Zeroizing<Vec<u8>>, BackendError> {
    let mut handshake = Handshake::new(identity.clone());
    let mut server: Option<Wire> = None;
    let (mut party, mut amount) = handshake.begin();
    loop {
        let bytes = match (party, &mut server) {
            (Party::AuthServer, Some(server)) => server.read(amount).await?,
            (Party::AuthServer, None) => Vec::new(),
            (Party::Machine, _) => machine.read(amount).await?,
        };
        let step = handshake.handle(&bytes, entropy)?;
        for (party, bytes) in step.send {
            match party {
                Party::Machine => machine.send(&bytes).await?,
                Party::AuthServer => {
                    if server.is_none() {
                        server = Some(Wire::dial(dialer, Service::Auth).await?);
                    }
                    if let Some(server) = &mut server {
                        server.send(&bytes).await?;
                    }
                }
            }
        }
        match step.next {
            Next::Read(next, size) => (party, amount) = (next, size),
            Next::Done(secret) => return Ok(secret),
        }
    }
}

async fn protect_cpu(
    mut machine: Wire,
    secret: &[u8],
    entropy: &mut dyn Entropy,
) -> Result<Connection, ContermError> {
    let mut ours = [0; 4];
    entropy.fill(&mut ours);
    machine.send(&ours).await?;
    let theirs = machine.read(Amount::Exactly(4)).await?;
    let theirs = theirs.try_into().unwrap_or_default();
    let (from, to) = ssl::directions(secret, ours, theirs)
        .ok_or(ContermError::Protocol("a secret of the wrong size"))?;
    Ok(Connection {
        stream: machine.stream,
        input: machine.input,
        sealer: Sealer::Ssl(Box::new(to)),
        opener: Opener::Ssl(Box::new(from)),
    })
}

async fn protect_rcpu(
    mut machine: Wire,
    secret: &[u8],
    entropy: &mut dyn Entropy,
) -> Result<Connection, ContermError> {
    let mut random = [0; 32];
    entropy.fill(&mut random);
    let mut out = BytesMut::new();
    let mut handshake = TlsHandshake::new(secret, random, &mut out);
    let session = loop {
        machine.send(&out.split()).await?;
        match handshake.handle(&mut machine.input, &mut out)? {
            Progress::Done(session) => break session,
            Progress::Wait if out.is_empty() => machine.fill().await?,
            Progress::Wait => {}
        }
    };
    Ok(Connection {
        stream: machine.stream,
        input: machine.input,
        sealer: Sealer::Tls(session.client),
        opener: Opener::Tls(session.server),
    })
}

impl Connection {
    /// Starts the script that the machine serves us by.
    pub(crate) async fn start(
        &mut self,
        protocol: ContermProtocol,
        script: &[u8],
    ) -> Result<(), ContermError> {
        match protocol {
            ContermProtocol::Rcpu => {
                let mut framed = format!("{:>7}\n", script.len()).into_bytes();
                framed.extend_from_slice(script);
                self.send(&framed).await
            }
            ContermProtocol::Cpu => self.start_cpu(RUN).await,
        }
    }

    /// The dialogue of `cpu`: a command and a directory, then the names of the file service and of its root.
    pub(crate) async fn start_cpu(&mut self, command: &[u8]) -> Result<(), ContermError> {
        self.send(&[b"!", command, b"\0"].concat()).await?;
        self.send(b"NO\0").await?;
        for expected in [b"FS\0".as_slice(), b"/\0"] {
            let text = self.text().await?;
            refused_unless(text == expected, &text)?;
        }
        self.send(b"OK").await
    }

    async fn send(&mut self, data: &[u8]) -> Result<(), ContermError> {
        let mut out = BytesMut::new();
        self.sealer.seal(data, &mut out);
        write(&mut self.stream, &out).await
    }

    /// A text, which has a record for itself or shares one with the next; what follows in the record is put back never,
    /// for a `cpu` server writes each text by itself.
    async fn text(&mut self) -> Result<BytesMut, ContermError> {
        let mut text = BytesMut::new();
        loop {
            match self.opener.open(&mut self.input)? {
                Opened::Data(data) => text.extend_from_slice(&data),
                Opened::End => return Err(ENDED),
                Opened::Wait => {
                    if self.stream.read_buf(&mut self.input).await.unwrap_or(0) == 0 {
                        return Err(ENDED);
                    }
                }
            }
            if text.last() == Some(&0) {
                return Ok(text);
            }
            if text.len() > MAX_TEXT {
                return Err(ContermError::Protocol("a long text"));
            }
        }
    }
}

impl Wire {
    async fn dial(dialer: &dyn ContermDialer, service: Service) -> Result<Self, BackendError> {
        Ok(Self {
            stream: dialer.dial(service).await?,
            input: BytesMut::new(),
        })
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), ContermError> {
        write(&mut self.stream, bytes).await
    }

    /// Reads some more.
    async fn fill(&mut self) -> Result<(), ContermError> {
        match self.stream.read_buf(&mut self.input).await {
            Ok(0) | Err(_) => Err(ENDED),
            Ok(_) => Ok(()),
        }
    }

    async fn read(&mut self, amount: Amount) -> Result<Vec<u8>, ContermError> {
        loop {
            let input = &mut self.input;
            let end = match amount {
                Amount::Exactly(size) => (input.len() >= size).then_some(size),
                Amount::Text(max) => {
                    let end = input.iter().position(|byte| *byte == 0).map(|at| at + 1);
                    if end.unwrap_or(input.len()) > max {
                        return Err(ContermError::Protocol("a long text"));
                    }
                    end
                }
            };
            if let Some(end) = end {
                let bytes = input[..end].to_vec();
                input.advance(end);
                return Ok(bytes);
            }
            self.fill().await?;
        }
    }
}

async fn write(stream: &mut Box<dyn Stream>, bytes: &[u8]) -> Result<(), ContermError> {
    let written = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    written.await.map_err(|_| ENDED)
}

/// Where the machine does not go on it sends a sentence, which is for the log: it may say anything.
fn refused_unless(goes_on: bool, text: &[u8]) -> Result<(), ContermError> {
    if goes_on {
        return Ok(());
    }
    let text = String::from_utf8_lossy(text);
    tracing::debug!(%text, "the machine refused the session");
    Err(ContermError::Refused)
}

const ENDED: ContermError = ContermError::Closed("the handshake");

/// The layer that `cpu` is asked for. There is a weaker one, none.
const ENCRYPTION: &[u8] = b"p9 rc4_256 sha1\0";

/// A command of `cpu` has 127 bytes at most, so ours is in a file.
const RUN: &[u8] = b". /mnt/term/env/run";

/// The longest text of a machine: those of Plan 9 have 128 bytes.
const MAX_TEXT: usize = 1024;
