//! How a peer's certificate is checked: chain, revocation, pins, names, as a validation context has it. The same for
//! servers and clients but for the purpose that the certificate must allow.

use std::sync::Arc;

use identity::tls::{Judge, Presented};
use identity::{CertInfo, SanMatcher};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, Error, RootCertStore};
use sha2::{Digest, Sha256};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, RevocationCheckDepth, RevocationOptions,
    RevocationOptionsBuilder, VerifiedPath,
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
pub(crate) struct Checks {
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) trust: Trust,
    /// Peers that fail are let in, for others to judge.
    pub(super) accept_untrusted: bool,
    /// How many certificates may stand above the leaf, the root included.
    pub(super) max_depth: Option<u32>,
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

    /// Whether a client's chain passes, which its handshake does not tell where whoever fails is let in.
    pub(super) fn passes(&self, chain: &[CertificateDer<'_>]) -> bool {
        let Some((leaf, intermediates)) = chain.split_first() else { return false };
        let presented = Presented { leaf, intermediates, now: UnixTime::now() };
        self.checks_anything() && self.check(presented, KeyUsage::client_auth()).is_ok()
    }

    fn judge(&self, presented: Presented<'_>, usage: KeyUsage) -> Result<(), Error> {
        // What fails is asked about again when somebody wants to know.
        if self.accept_untrusted { Ok(()) } else { self.check(presented, usage) }
    }

    fn check(&self, presented: Presented<'_>, usage: KeyUsage) -> Result<(), Error> {
        let leaf = presented.leaf;
        match &self.trust {
            Trust::Anyone => {}
            Trust::Roots(roots) => self.chain(roots, presented, usage)?,
            Trust::Domains(domains) => {
                let info = read(leaf)?;
                let domain = trust_domain(&info).ok_or(CertificateError::ApplicationVerificationFailure)?;
                let (_, roots) = domains
                    .iter()
                    .find(|(name, _)| **name == *domain)
                    .ok_or(CertificateError::UnknownIssuer)?;
                self.chain(roots, presented, usage)?;
            }
        }
        self.pins(leaf)?;
        // Names that nobody vouches for say nothing.
        if self.checks_anything() {
            identity::tls::check_sans(leaf, &self.sans)?;
        }
        Ok(())
    }

    fn chain(&self, roots: &RootCertStore, presented: Presented<'_>, usage: KeyUsage) -> Result<(), Error> {
        let Presented { leaf, intermediates, now } = presented;
        let now = if self.allow_expired { within_validity(leaf, intermediates, now) } else { now };
        let cert = EndEntityCert::try_from(leaf).map_err(refusal)?;
        let lists: Vec<&CertRevocationList<'_>> = self.revoked.iter().collect();
        let revocation = revocation(&lists, self.only_leaf_revocation);
        let algorithms = self.provider.signature_verification_algorithms.all;
        let depth = |path: &VerifiedPath<'_>| {
            let above = path.intermediate_certificates().count() as u64 + 1;
            let too_long = self.max_depth.is_some_and(|most| above > u64::from(most));
            if too_long { Err(webpki::Error::MaximumPathDepthExceeded) } else { Ok(()) }
        };
        cert.verify_for_usage(algorithms, &roots.roots, intermediates, now, usage, revocation, Some(&depth))
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

impl Judge for Checks {
    /// Whom the configuration expects stands in its matchers, not in the name that was asked for.
    fn server(&self, presented: Presented<'_>, _: &ServerName<'_>) -> Result<(), Error> {
        self.judge(presented, KeyUsage::server_auth())
    }

    fn client(&self, presented: Presented<'_>) -> Result<(), Error> {
        self.judge(presented, KeyUsage::client_auth())
    }
}

/// One context's checks serve its configuration, and those who ask later whether a peer passed.
#[derive(Debug)]
pub(super) struct Judging(pub(super) Arc<Checks>);

impl Judge for Judging {
    fn server(&self, presented: Presented<'_>, name: &ServerName<'_>) -> Result<(), Error> {
        self.0.server(presented, name)
    }

    fn client(&self, presented: Presented<'_>) -> Result<(), Error> {
        self.0.client(presented)
    }
}
