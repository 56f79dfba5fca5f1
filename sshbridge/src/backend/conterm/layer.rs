//! The layer that protects a session: one of two, with the same three verbs.

use bytes::BytesMut;

use super::error::ContermError;
use super::ssl::SslDirection;
use super::tls::{Content, TlsDirection};

/// The direction to the machine.
pub(crate) enum Sealer {
    Ssl(Box<SslDirection>),
    Tls(TlsDirection),
}

/// The direction from the machine.
pub(crate) enum Opener {
    Ssl(Box<SslDirection>),
    Tls(TlsDirection),
}

/// What came from the machine.
#[derive(Debug)]
pub(crate) enum Opened {
    Data(BytesMut),
    /// The machine has ended the stream.
    End,
    /// Nothing, until there is more input.
    Wait,
}

impl Sealer {
    /// Appends what carries `data` to `out`.
    pub(crate) fn seal(&mut self, data: &[u8], out: &mut BytesMut) {
        match self {
            Self::Ssl(direction) => direction.seal(data, out),
            Self::Tls(direction) => direction.seal(data, out),
        }
    }

    /// Appends what ends the stream, where there is such a thing.
    pub(crate) fn close(&mut self, out: &mut BytesMut) {
        if let Self::Tls(direction) = self {
            direction.close(out);
        }
    }
}

impl Opener {
    /// Takes what is whole from `input`.
    pub(crate) fn open(&mut self, input: &mut BytesMut) -> Result<Opened, ContermError> {
        let opened = match self {
            Self::Ssl(direction) => direction.open(input)?.map(Opened::Data),
            Self::Tls(direction) => match direction.open(input)? {
                None => None,
                Some((Content::Data, data)) => Some(Opened::Data(data)),
                Some((Content::Alert, alert)) if alert[..] == [1, 0] => Some(Opened::End),
                Some((Content::Alert, _)) => {
                    return Err(ContermError::Protocol("a TLS alert"));
                }
                Some((Content::ChangeCipherSpec | Content::Handshake, _)) => {
                    return Err(ContermError::Protocol("a second TLS handshake"));
                }
            },
        };
        Ok(opened.unwrap_or(Opened::Wait))
    }
}
