//! How a peer's certificate is checked: chain, revocation, pins, names, as a validation context has it. The same for
//! servers and clients but for the purpose that the certificate must allow.

use std::sync::Arc;

use identity::{CertInfo, SanMatcher};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};
use sha2::{Digest, Sha256};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, RevocationCheckDepth, RevocationOptions,
    RevocationOptionsBuilder,
};

/// Who vouches for a peer.
#[derive(Debug)]
pub(super) enum Trust {
    /// Nobody has to: without roots there is nothing to check a chain against.
    Anyone,
    /// One of these.
    Roots(RootCertStore),
    /// One of these, by the trust domain in the peer's SPIFFE id.
    Domains(Vec<(Box<str>, RootCertStore)>),
}

/// What a peer's certificate is checked for.
#[derive(Debug)]
pub(super) struct Checks {
    pub(super) trust: Trust,
    pub(super) revoked: Vec<CertRevocationList<'static>>,
    /// Whether only the leaf is looked up there.
    pub(super) only_leaf_revocation: bool,
    pub(super) allow_expired: bool,
    /// SHA-256 of public keys; with `hashes`, one of either.
    pub(super) keys: Vec<Vec<u8>>,
    /// SHA-256 of certificates.
    pub(super) hashes: Vec<Vec<u8>>,
    /// One of these; any if empty.
    pub(super) sans: Vec<SanMatcher>,
}

impl Checks {
    /// Whether there is anything that a certificate could fail.
    pub(super) fn checks_anything(&self) -> bool {
        !matches!(self.trust, Trust::Anyone) || !self.keys.is_empty() || !self.hashes.is_empty()
    }

    fn check(
        &self,
        provider: &CryptoProvider,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), Error> {
        match &self.trust {
            Trust::Anyone => {}
            Trust::Roots(roots) => self.chain(provider, roots, leaf, intermediates, now, usage)?,
            Trust::Domains(domains) => {
                let info = read(leaf)?;
                let domain = trust_domain(&info).ok_or(CertificateError::ApplicationVerificationFailure)?;
                let (_, roots) = domains
                    .iter()
                    .find(|(name, _)| **name == *domain)
                    .ok_or(CertificateError::UnknownIssuer)?;
                self.chain(provider, roots, leaf, intermediates, now, usage)?;
            }
        }
        self.pins(leaf)?;
        // Names that nobody vouches for say nothing.
        if self.checks_anything() {
            identity::tls::check_sans(leaf, &self.sans)?;
        }
        Ok(())
    }

    fn chain(
        &self,
        provider: &CryptoProvider,
        roots: &RootCertStore,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), Error> {
        let now = if self.allow_expired { within_validity(leaf, intermediates, now) } else { now };
        let cert = EndEntityCert::try_from(leaf).map_err(refusal)?;
        let lists: Vec<&CertRevocationList<'_>> = self.revoked.iter().collect();
        let revocation = revocation(&lists, self.only_leaf_revocation);
        let algorithms = provider.signature_verification_algorithms.all;
        cert.verify_for_usage(algorithms, &roots.roots, intermediates, now, usage, revocation, None)
            .map_err(refusal)?;
        Ok(())
    }

    fn pins(&self, leaf: &CertificateDer<'_>) -> Result<(), Error> {
        if self.keys.is_empty() && self.hashes.is_empty() {
            return Ok(());
        }
        let whole = Sha256::digest(leaf);
        let key = Sha256::digest(read(leaf)?.public_key);
        if self.hashes.iter().any(|pin| **pin == *whole) || self.keys.iter().any(|pin| **pin == *key) {
            return Ok(());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }
}

/// A list for every issuer must be there and be current, as OpenSSL has it.
fn revocation<'a>(lists: &'a [&'a CertRevocationList<'a>], only_leaf: bool) -> Option<RevocationOptions<'a>> {
    let depth = if only_leaf { RevocationCheckDepth::EndEntity } else { RevocationCheckDepth::Chain };
    // Without lists nothing is looked up.
    let builder = RevocationOptionsBuilder::new(lists).ok()?;
    Some(builder.with_depth(depth).with_expiration_policy(ExpirationPolicy::Enforce).build())
}

fn read(leaf: &[u8]) -> Result<CertInfo, Error> {
    CertInfo::from_der(leaf).map_err(|_| CertificateError::BadEncoding.into())
}

/// The trust domain of a certificate that has one SPIFFE id and no other URI.
fn trust_domain(info: &CertInfo) -> Option<&str> {
    let mut uris = info.uris();
    let (only, None) = (uris.next()?, uris.next()) else { return None };
    only.strip_prefix("spiffe://")?.split('/').next().filter(|domain| !domain.is_empty())
}

/// The moment nearest to now at which all certificates are valid.
fn within_validity(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
) -> UnixTime {
    let seconds = |time: jiff::Timestamp| u64::try_from(time.as_second()).unwrap_or_default();
    let mut time = now.as_secs();
    for info in std::iter::once(leaf).chain(intermediates).filter_map(|cert| read(cert).ok()) {
        let (from, until) = (seconds(info.not_before), seconds(info.not_after));
        time = time.max(from).min(until.max(from));
    }
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(time))
}

fn refusal(error: webpki::Error) -> Error {
    use webpki::Error as Cause;
    match error {
        Cause::BadDer | Cause::BadDerTime | Cause::TrailingData(_) => CertificateError::BadEncoding.into(),
        Cause::CertExpired { .. } | Cause::InvalidCertValidity => CertificateError::Expired.into(),
        Cause::CertNotValidYet { .. } => CertificateError::NotValidYet.into(),
        Cause::UnknownIssuer => CertificateError::UnknownIssuer.into(),
        Cause::CertRevoked => CertificateError::Revoked.into(),
        Cause::UnknownRevocationStatus => CertificateError::UnknownRevocationStatus.into(),
        Cause::InvalidSignatureForPublicKey => CertificateError::BadSignature.into(),
        Cause::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose.into(),
        other => Error::General(format!("invalid peer certificate: {other}")),
    }
}

/// The checks as rustls calls them, on either side.
#[derive(Debug)]
pub(super) struct Verifier {
    checks: Checks,
    provider: Arc<CryptoProvider>,
    /// Whether a client without a certificate is refused.
    mandatory: bool,
}

impl Verifier {
    pub(super) fn new(checks: Checks, provider: Arc<CryptoProvider>, mandatory: bool) -> Arc<Self> {
        Arc::new(Self { checks, provider, mandatory })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        // Whom the configuration expects stands in its matchers.
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.checks.check(&self.provider, leaf, intermediates, now, KeyUsage::server_auth())?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Workloads hold one certificate: there is nothing to choose by a hint.
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.checks.check(&self.provider, leaf, intermediates, now, KeyUsage::client_auth())?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
