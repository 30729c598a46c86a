//! Checks a peer's chain against the current bundle, and its names against matchers given as data. Without a bundle
//! every peer is refused.

use std::fmt;
use std::sync::Arc;

use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{CertificateError, OtherError};

use super::Watched;
use super::verifier::{Judge, Presented};
use crate::bundle::TrustBundle;
use crate::cert::CertInfo;
use crate::san::SanMatcher;

/// What a peer's certificate must say besides leading to a root.
#[derive(Clone, Debug, Default)]
pub struct PeerPolicy {
    /// One of the certificate's names must match one of these; empty lets any name pass.
    pub sans: Vec<SanMatcher>,
    /// Whether the certificate must also be valid for the server name that the client dialled. Servers ignore it.
    pub check_server_name: bool,
}

impl PeerPolicy {
    /// Any name, as long as the chain leads to a root.
    pub fn any() -> Self {
        Self::default()
    }

    /// One of these names.
    pub fn sans(sans: Vec<SanMatcher>) -> Self {
        Self { sans, check_server_name: false }
    }

    /// The name that was dialled, as on the web.
    pub fn server_name() -> Self {
        Self { sans: Vec::new(), check_server_name: true }
    }
}

/// Why a peer was refused, where rustls has no word for it.
#[derive(Clone, thiserror::Error)]
pub enum PeerError {
    /// No roots were delivered yet.
    #[error("no trust bundle has arrived yet, so no peer can be verified")]
    NoBundle,
    /// The certificate cannot be read.
    #[error("the peer's certificate cannot be read")]
    Unreadable(#[source] crate::Error),
    /// None of the names is wanted.
    #[error("the peer's names [{presented}] match none of [{wanted}]")]
    SanMismatch {
        /// The certificate's names.
        presented: String,
        /// The matchers.
        wanted: String,
    },
}

impl fmt::Debug for PeerError {
    /// As for display: rustls prints errors that are not its own by their debug output.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<PeerError> for rustls::Error {
    fn from(error: PeerError) -> Self {
        let other = OtherError(Arc::new(error));
        Self::InvalidCertificate(CertificateError::Other(other))
    }
}

/// Whether one of the certificate's names matches.
pub fn check_sans(end_entity: &[u8], matchers: &[SanMatcher]) -> Result<(), PeerError> {
    if matchers.is_empty() {
        return Ok(());
    }
    let info = CertInfo::from_der(end_entity).map_err(PeerError::Unreadable)?;
    if SanMatcher::any(matchers, &info.sans) {
        return Ok(());
    }
    let list = |items: Vec<String>| items.join(", ");
    Err(PeerError::SanMismatch {
        presented: list(info.sans.iter().map(ToString::to_string).collect()),
        wanted: list(matchers.iter().map(ToString::to_string).collect()),
    })
}

/// Chains lead to a root of the current bundle, and names are those of the policy.
#[derive(Debug)]
pub(super) struct Bundled {
    pub(super) bundle: Watched<TrustBundle>,
    pub(super) policy: PeerPolicy,
    pub(super) provider: Arc<CryptoProvider>,
}

impl Judge for Bundled {
    fn server(&self, presented: Presented<'_>, name: &ServerName<'_>) -> Result<(), rustls::Error> {
        let Presented { leaf, intermediates, now } = presented;
        let bundle = self.bundle.get().ok_or(PeerError::NoBundle)?;
        let cert = ParsedCertificate::try_from(leaf)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&cert, bundle.store(), intermediates, now, algorithms)?;
        if self.policy.check_server_name {
            verify_server_name(&cert, name)?;
        }
        check_sans(leaf, &self.policy.sans)?;
        Ok(())
    }

    fn client(&self, presented: Presented<'_>) -> Result<(), rustls::Error> {
        let Presented { leaf, intermediates, now } = presented;
        let bundle = self.bundle.get().ok_or(PeerError::NoBundle)?;
        let roots = Arc::clone(bundle.store());
        WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&self.provider))
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?
            .verify_client_cert(leaf, intermediates, now)?;
        check_sans(leaf, &self.policy.sans)?;
        Ok(())
    }
}
