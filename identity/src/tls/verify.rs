//! Checks a peer's chain against the current bundle, and its names against matchers given as data. Without a bundle
//! every peer is refused.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme};

use super::Watched;
use crate::bundle::TrustBundle;
use crate::cert::CertInfo;
use crate::san::SanMatcher;

/// The half of both verifier traits that is about signatures: as the provider's algorithms say.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            verify_tls12_signature(message, cert, dss, &self.algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            verify_tls13_signature(message, cert, dss, &self.algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.algorithms.supported_schemes()
        }
    };
}

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

/// The client's check of a server.
#[derive(Debug)]
pub struct ServerVerifier {
    bundle: Watched<TrustBundle>,
    policy: PeerPolicy,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerVerifier {
    /// Follows the bundle.
    pub fn new(bundle: Watched<TrustBundle>, policy: PeerPolicy, provider: &CryptoProvider) -> Self {
        Self { bundle, policy, algorithms: provider.signature_verification_algorithms }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let bundle = self.bundle.get().ok_or(PeerError::NoBundle)?;
        let cert = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &cert,
            bundle.store(),
            intermediates,
            now,
            self.algorithms.all,
        )?;
        if self.policy.check_server_name {
            verify_server_name(&cert, server_name)?;
        }
        check_sans(end_entity, &self.policy.sans)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures!();
}

/// The server's check of a client.
#[derive(Debug)]
pub struct ClientVerifier {
    bundle: Watched<TrustBundle>,
    policy: PeerPolicy,
    provider: Arc<CryptoProvider>,
    algorithms: WebPkiSupportedAlgorithms,
    mandatory: bool,
}

impl ClientVerifier {
    /// Clients without a certificate are served.
    pub fn optional(bundle: Watched<TrustBundle>, policy: PeerPolicy, provider: Arc<CryptoProvider>) -> Self {
        let algorithms = provider.signature_verification_algorithms;
        Self { bundle, policy, provider, algorithms, mandatory: false }
    }

    /// Clients without a certificate are refused.
    pub fn required(bundle: Watched<TrustBundle>, policy: PeerPolicy, provider: Arc<CryptoProvider>) -> Self {
        Self { mandatory: true, ..Self::optional(bundle, policy, provider) }
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // The roots change while this list is borrowed for the verifier's life, and workloads hold one certificate
        // only: there is nothing to choose by a hint.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let bundle = self.bundle.get().ok_or(PeerError::NoBundle)?;
        let roots = Arc::clone(bundle.store());
        WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&self.provider))
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?
            .verify_client_cert(end_entity, intermediates, now)?;
        check_sans(end_entity, &self.policy.sans)?;
        Ok(ClientCertVerified::assertion())
    }

    signatures!();
}
