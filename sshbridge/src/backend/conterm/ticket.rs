//! Tickets and authenticators: the proofs that pass between a client, a service and the authentication server.
//!
//! Those of p9sk1 ("form 0") are DES, without an integrity check but a type byte and a challenge; those of dp9ik
//! ("form 1") are ChaCha20-Poly1305.

use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::des::{DES_KEY, DesKey, NAME};
use super::pak::{PakKey, derive};

/// What a form is for, in the first byte of form 0 and the last letters of the signature of form 1.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// An authenticator by the client.
    ClientAuthenticator,
    /// A ticket for the client.
    ClientTicket,
    /// An authenticator by the service.
    ServerAuthenticator,
    /// A ticket for the service.
    ServerTicket,
}

/// A challenge.
pub(crate) type Challenge = [u8; CHALLENGE];

/// What a ticket of form 0 carries.
pub(crate) struct DesTicket {
    pub(crate) challenge: Challenge,
    pub(crate) key: DesKey,
}

/// What a ticket of form 1 carries.
pub(crate) struct PakTicket {
    pub(crate) challenge: Challenge,
    pub(crate) key: Zeroizing<[u8; 32]>,
}

impl Kind {
    fn number(self) -> u8 {
        match self {
            Self::ClientAuthenticator => 67,
            Self::ClientTicket => 65,
            Self::ServerAuthenticator => 66,
            Self::ServerTicket => 64,
        }
    }

    fn signature(self) -> &'static [u8; 8] {
        match self {
            Self::ClientAuthenticator => b"form1 Ac",
            Self::ClientTicket => b"form1 Tc",
            Self::ServerAuthenticator => b"form1 As",
            Self::ServerTicket => b"form1 Ts",
        }
    }
}

impl DesTicket {
    /// Opens a ticket; with a wrong key there is nearly always a wrong type in it.
    pub(crate) fn open(kind: Kind, key: &DesKey, sealed: &[u8; DES_TICKET]) -> Option<Self> {
        let mut plain = Zeroizing::new(*sealed);
        key.decrypt(&mut *plain);
        let mut challenge = [0; CHALLENGE];
        challenge.copy_from_slice(&plain[1..1 + CHALLENGE]);
        let mut bytes = Zeroizing::new([0; DES_KEY]);
        bytes.copy_from_slice(&plain[DES_TICKET - DES_KEY..]);
        (plain[0] == kind.number()).then(|| Self {
            challenge,
            key: DesKey::new(*bytes),
        })
    }

    /// Makes a ticket that names `user` on both sides.
    pub(crate) fn seal(&self, kind: Kind, key: &DesKey, user: &str) -> [u8; DES_TICKET] {
        let mut out = [0; DES_TICKET];
        out[0] = kind.number();
        out[1..9].copy_from_slice(&self.challenge);
        put_name(&mut out[9..9 + NAME], user);
        put_name(&mut out[9 + NAME..9 + 2 * NAME], user);
        out[DES_TICKET - DES_KEY..].copy_from_slice(self.key.bytes());
        key.encrypt(&mut out);
        out
    }

    /// Makes an authenticator under the ticket's key.
    pub(crate) fn authenticator(&self, kind: Kind, challenge: &Challenge) -> [u8; DES_AUTH] {
        let mut out = [0; DES_AUTH];
        out[0] = kind.number();
        out[1..9].copy_from_slice(challenge);
        self.key.encrypt(&mut out);
        out
    }

    /// Whether an authenticator is of that kind and answers that challenge.
    pub(crate) fn verify(&self, kind: Kind, challenge: &Challenge, sealed: &[u8]) -> bool {
        bool::from(self.authenticator(kind, challenge).ct_eq(sealed))
    }

    /// The secret of the session.
    pub(crate) fn secret(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.key.with_parity().to_vec())
    }
}

impl PakTicket {
    /// Opens a ticket; it fails where the other side did not know the password.
    pub(crate) fn open(kind: Kind, key: &PakKey, sealed: &[u8]) -> Option<Self> {
        let plain = open(kind, key, sealed)?;
        let mut challenge = [0; CHALLENGE];
        let mut bytes = Zeroizing::new([0; 32]);
        challenge.copy_from_slice(plain.get(..CHALLENGE)?);
        bytes.copy_from_slice(plain.get(CHALLENGE + 2 * NAME..)?);
        Some(Self {
            challenge,
            key: bytes,
        })
    }

    /// Makes a ticket that names `user` on both sides.
    pub(crate) fn seal(&self, kind: Kind, key: &PakKey, user: &str, counter: u32) -> Vec<u8> {
        let mut plain = Zeroizing::new([0; CHALLENGE + 2 * NAME + 32]);
        plain[..CHALLENGE].copy_from_slice(&self.challenge);
        put_name(&mut plain[CHALLENGE..CHALLENGE + NAME], user);
        put_name(&mut plain[CHALLENGE + NAME..CHALLENGE + 2 * NAME], user);
        plain[CHALLENGE + 2 * NAME..].copy_from_slice(&*self.key);
        seal(kind, key, &*plain, counter)
    }

    /// Makes an authenticator under the ticket's key. A counter must not come twice under a key and for a kind.
    pub(crate) fn authenticator(
        &self,
        kind: Kind,
        challenge: &Challenge,
        random: &[u8; 32],
        counter: u32,
    ) -> Vec<u8> {
        let mut plain = [0; CHALLENGE + 32];
        plain[..CHALLENGE].copy_from_slice(challenge);
        plain[CHALLENGE..].copy_from_slice(random);
        seal(kind, &self.key, &plain, counter)
    }

    /// What the other side drew, where its authenticator is of that kind and answers that challenge.
    pub(crate) fn verify(
        &self,
        kind: Kind,
        challenge: &Challenge,
        sealed: &[u8],
    ) -> Option<[u8; 32]> {
        let plain = open(kind, &self.key, sealed)?;
        let answered = bool::from(plain.get(..CHALLENGE)?.ct_eq(challenge));
        let random = plain.get(CHALLENGE..)?.try_into().ok()?;
        answered.then_some(random)
    }

    /// The secret of the session, of what both sides drew.
    pub(crate) fn secret(&self, client: &[u8; 32], server: &[u8; 32]) -> Zeroizing<Vec<u8>> {
        let mut salt = [0; 64];
        salt[..32].copy_from_slice(client);
        salt[32..].copy_from_slice(server);
        let mut secret = Zeroizing::new(vec![0; SECRET]);
        derive(&salt, &*self.key, b"Plan 9 session secret", &mut secret);
        secret
    }
}

fn seal(kind: Kind, key: &[u8; 32], plain: &[u8], counter: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(plain.len() + FORM1);
    out.extend_from_slice(kind.signature());
    out.extend_from_slice(&counter.to_le_bytes());
    let mut nonce = [0; NONCE];
    nonce.copy_from_slice(&out);
    out.extend_from_slice(plain);
    let tag = ChaCha20Poly1305::new(&(*key).into())
        .encrypt_inout_detached(&nonce.into(), &[], out[NONCE..].as_mut().into())
        .expect("a form is shorter than 256 GiB");
    out.extend_from_slice(&tag);
    out
}

fn open(kind: Kind, key: &[u8; 32], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, rest) = sealed.split_first_chunk::<NONCE>()?;
    let (body, tag) = rest.split_last_chunk::<16>()?;
    if !nonce.starts_with(kind.signature()) {
        return None;
    }
    let mut plain = Zeroizing::new(body.to_vec());
    ChaCha20Poly1305::new(&(*key).into())
        .decrypt_inout_detached(
            &(*nonce).into(),
            &[],
            plain.as_mut_slice().into(),
            &(*tag).into(),
        )
        .ok()?;
    Some(plain)
}

/// Writes a name into its field, which is zero before, and leaves at least one zero at its end.
pub(crate) fn put_name(field: &mut [u8], name: &str) {
    let length = name.len().min(field.len() - 1);
    field[..length].copy_from_slice(&name.as_bytes()[..length]);
}

/// The name in a field.
pub(crate) fn name(field: &[u8]) -> &[u8] {
    let end = field[..field.len() - 1].iter().position(|byte| *byte == 0);
    &field[..end.unwrap_or(field.len() - 1)]
}

/// The size of a challenge.
pub(crate) const CHALLENGE: usize = 8;

/// The size of a ticket of form 0.
pub(crate) const DES_TICKET: usize = 1 + CHALLENGE + 2 * NAME + DES_KEY;

/// The size of an authenticator of form 0.
pub(crate) const DES_AUTH: usize = 1 + CHALLENGE + 4;

const NONCE: usize = 12;

/// What form 1 adds to what it holds.
const FORM1: usize = NONCE + 16;

/// The size of a ticket of form 1.
pub(crate) const PAK_TICKET: usize = FORM1 + CHALLENGE + 2 * NAME + 32;

/// The size of an authenticator of form 1.
pub(crate) const PAK_AUTH: usize = FORM1 + CHALLENGE + 32;

/// The size of the secret that dp9ik yields.
const SECRET: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::conterm::vectors::known;

    #[test]
    fn the_secret_of_a_session_is_the_known_one() {
        let ticket = PakTicket {
            challenge: [0; CHALLENGE],
            key: Zeroizing::new([0; 32]),
        };
        let secret = ticket.secret(&[0; 32], &[0; 32]);
        assert_eq!(secret.len(), SECRET);
        assert!(secret.starts_with(&known("session secret")));
    }
}
