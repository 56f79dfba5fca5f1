//! Logging in: what a client offers and proves, and how often it may.

use std::sync::Arc;

use russh::keys::PublicKey;
use russh::keys::ssh_key::{Algorithm, Certificate};
use russh::server::{Auth, PublicKeyOffer, VerifiedPublicKey};

use super::Failure;
use crate::audit::{Credential, Proof};
use crate::auth::{AuthRequest, CertificateRequest, Grant};
use crate::certificate::UserCertificate;
use crate::flow::Link;
use crate::key::AuthorizedKey;
use crate::server::connection::{Abuse, State};

/// The attempts of one connection to log in.
pub(super) struct Login {
    connection: Arc<State>,
    link: Arc<Link>,
    offers: usize,
    rejections: usize,
}

impl Login {
    pub(super) fn new(connection: Arc<State>, link: Arc<Link>) -> Self {
        Self {
            connection,
            link,
            offers: 0,
            rejections: 0,
        }
    }

    /// Answers whether proof of a key would be looked at.
    pub(super) async fn offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Failure> {
        let shared = &self.connection.shared;
        // russh counts the offers that were rejected. A granted key is offered twice: alone and with its signature.
        self.offers += 1;
        if self.offers > shared.config.max_offers.saturating_mul(2) {
            return self.cut();
        }
        // It may be the key of a certificate, which is shown only with the proof.
        let is_perhaps_certified = shared.authorizer.takes_certificates();
        let accepted = if is_perhaps_certified {
            !is_sha1(offer.algorithm)
        } else {
            let granted = self.authorize(user, offer.public_key, offer.algorithm);
            granted.await.is_some()
        };
        if accepted {
            return Ok(Auth::Accept);
        }
        let credential = Credential::from(offer.public_key);
        self.connection.rejected(user, credential, Proof::None);
        Ok(Auth::reject())
    }

    /// Decides about a key that was proven.
    pub(super) async fn proven(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Failure> {
        let grant = self.authorize(user, key.public_key, key.algorithm).await;
        self.decide(user, grant, Credential::from(key.public_key))
    }

    /// Decides about a certificate whose key was proven.
    pub(super) async fn certified(
        &mut self,
        user: &str,
        certificate: &Certificate,
    ) -> Result<Auth, Failure> {
        let certificate = UserCertificate::from(certificate);
        let request = CertificateRequest::new(user, certificate, self.connection.peer);
        let authorizer = &self.connection.shared.authorizer;
        let answer = authorizer.authorize_certificate(&request);
        let mut grant = self.link.unless_gone(answer).await.and_then(Result::ok);
        if let Some(grant) = &mut grant {
            grant.key = request.certificate.key_line();
            grant.authority = Some(request.certificate.authority());
        }
        self.decide(user, grant, Credential::from(&request.certificate))
    }

    /// Asks the authorizer for a key that was offered or proven as `user`.
    async fn authorize(&self, user: &str, key: &PublicKey, algorithm: &Algorithm) -> Option<Grant> {
        if is_sha1(algorithm) {
            return None;
        }
        let key = AuthorizedKey::from_public(key).ok()?.line()?;
        let request = AuthRequest::new(user, key, self.connection.peer);
        let answer = self.connection.shared.authorizer.authorize(&request);
        let mut grant = self.link.unless_gone(answer).await?.ok()?;
        grant.key = Some(request.key);
        Some(grant)
    }

    /// Where certificates are taken every key has to be proven, so only the number of offers is limited then.
    fn decide(
        &mut self,
        user: &str,
        grant: Option<Grant>,
        credential: Credential,
    ) -> Result<Auth, Failure> {
        if let Some(grant) = grant {
            self.connection.log_in(grant, credential);
            return Ok(Auth::Accept);
        }
        self.connection.rejected(user, credential, Proof::Given);
        self.rejections += 1;
        let shared = &self.connection.shared;
        let max = if shared.authorizer.takes_certificates() {
            shared.config.max_offers
        } else {
            shared.config.max_rejections
        };
        if self.rejections > max {
            return self.cut();
        }
        Ok(Auth::reject())
    }

    fn cut(&self) -> Result<Auth, Failure> {
        self.connection.abused(Abuse::TooManyAttempts);
        Err(Failure(russh::Error::Disconnect))
    }
}

/// Whether a signature of this kind is over SHA-1: that of `ssh-rsa`, and of the certificates of that name.
fn is_sha1(algorithm: &Algorithm) -> bool {
    matches!(algorithm, Algorithm::Rsa { hash: None })
}
