//! A signing key with its certificate: what it signs, for whom, for how long.

use std::time::Duration;

use identity::{CertInfo, CertificateChain, Csr, KeyPair, San, SpiffeId, TrustBundle, TrustDomain};
use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyUsagePurpose};
use rustls::pki_types::CertificateDer;

use crate::error::{Error, Result};

/// Certificates begin a little before they are asked for: clocks differ.
const CLOCK_SKEW: Duration = Duration::from_secs(120);

/// How long certificates live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// When none is asked for.
    pub default: Duration,
    /// The longest that is granted.
    pub max: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self { default: Duration::from_secs(24 * 3600), max: Duration::from_secs(90 * 24 * 3600) }
    }
}

impl Lifetimes {
    /// The life of a certificate for which `seconds` were asked; 0 asks for the default.
    pub fn grant(&self, seconds: i64) -> Result<Duration> {
        let asked = match u64::try_from(seconds) {
            Ok(0) => self.default,
            Ok(seconds) => Duration::from_secs(seconds),
            Err(_) => return Err(Error::Negative(seconds)),
        };
        if asked > self.max { Err(Error::TooLong { asked, max: self.max }) } else { Ok(asked) }
    }
}

/// A signing key, its certificate, and what leads from there to the roots.
#[derive(Debug)]
pub struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    /// The authority's own certificate first, then those between it and the root.
    chain: CertificateChain,
    roots: TrustBundle,
}

impl Authority {
    /// Puts an authority together from its parts. The key must be that of the chain's first certificate, which must be
    /// one that may sign.
    pub fn new(key: KeyPair, chain: CertificateChain, roots: TrustBundle) -> Result<Self> {
        if chain.leaf().public_key != key.public_key_der() {
            return Err(identity::Error::KeyMismatch { subject: chain.leaf().subject.clone() }.into());
        }
        if !chain.leaf().is_ca {
            return Err(Error::Sign(format!(
                "{:?} is not the certificate of an authority",
                chain.leaf().subject
            )));
        }
        let own = chain.certs().first().ok_or(identity::Error::Empty("the authority's chain"))?;
        let issuer = rcgen::Issuer::from_ca_cert_der(own, key.into_rcgen())
            .map_err(|error| Error::Sign(error.to_string()))?;
        Ok(Self { issuer, chain, roots })
    }

    /// A root that signs itself. With the key of an earlier root it takes that one's place: what the earlier one signed
    /// stays valid.
    pub fn self_signed(
        key: KeyPair,
        trust_domain: &TrustDomain,
        life: Duration,
        now: Timestamp,
    ) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, trust_domain.as_str());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, now, life);
        let cert = params.self_signed(key.as_rcgen()).map_err(|error| Error::Sign(error.to_string()))?;
        let chain = CertificateChain::new(vec![cert.der().clone()])?;
        let roots = TrustBundle::new(vec![cert.der().clone()])?;
        Self::new(key, chain, roots)
    }

    /// What its own certificate says.
    pub fn info(&self) -> &CertInfo {
        self.chain.leaf()
    }

    /// The roots that peers must trust.
    pub fn roots(&self) -> &TrustBundle {
        &self.roots
    }

    /// Signs a workload's request for an identity. The names in the request do not count.
    pub fn issue(
        &self,
        csr: &Csr,
        id: &SpiffeId,
        life: Duration,
        now: Timestamp,
    ) -> Result<CertificateChain> {
        let key = csr.to_rcgen_public_key().map_err(Error::Request)?;
        self.sign(&key, &[San::uri(id.to_string())], life, now)
    }

    /// Signs a key of this process for servers' names.
    pub(crate) fn issue_own(
        &self,
        key: &KeyPair,
        names: &[San],
        life: Duration,
        now: Timestamp,
    ) -> Result<CertificateChain> {
        let key = rcgen::SubjectPublicKeyInfo::from_der(&key.public_key_der())
            .map_err(|error| Error::Sign(error.to_string()))?;
        self.sign(&key, names, life, now)
    }

    fn sign(
        &self,
        key: &rcgen::SubjectPublicKeyInfo,
        names: &[San],
        life: Duration,
        now: Timestamp,
    ) -> Result<CertificateChain> {
        let end = self.info().not_after;
        if end <= now {
            return Err(Error::Expired(end));
        }
        // A certificate that outlives its authority would fail before its time, and nobody would renew it.
        let left = Duration::try_from(end - now).unwrap_or(life);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names.iter().map(san).collect::<Result<_>>()?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, now, life.min(left));
        let cert = params.signed_by(key, &self.issuer).map_err(|error| Error::Sign(error.to_string()))?;
        let mut certs: Vec<CertificateDer<'static>> = vec![cert.der().clone()];
        certs.extend(self.chain.certs().iter().filter(|cert| !self.roots.roots().contains(cert)).cloned());
        Ok(CertificateChain::new(certs)?)
    }

    /// The key, for the authority's own store.
    pub(crate) fn key_pem(&self) -> Result<String> {
        let der = self.issuer.key().serialized_der().to_vec();
        let der =
            rustls::pki_types::PrivateKeyDer::try_from(der).map_err(|error| Error::Sign(error.to_owned()))?;
        Ok(KeyPair::from_der(&der)?.to_pem())
    }

    /// Its own certificate, for the store.
    pub(crate) fn cert_pem(&self) -> String {
        self.chain.to_pem()
    }
}

fn san(san: &San) -> Result<rcgen::SanType> {
    use identity::SanKind;
    let refuse = |error: String| Error::Sign(format!("{san} cannot stand in a certificate: {error}"));
    Ok(match san.kind {
        SanKind::Uri => rcgen::SanType::URI(text(&san.value).map_err(refuse)?),
        SanKind::Dns => rcgen::SanType::DnsName(text(&san.value).map_err(refuse)?),
        SanKind::Ip => {
            rcgen::SanType::IpAddress(san.value.parse().map_err(|error| refuse(format!("{error}")))?)
        }
        _ => return Err(refuse("only URIs, DNS names and IP addresses are issued".to_owned())),
    })
}

fn text<T: TryFrom<String, Error: std::fmt::Display>>(value: &str) -> Result<T, String> {
    T::try_from(value.to_owned()).map_err(|error| error.to_string())
}

fn set_validity(params: &mut CertificateParams, now: Timestamp, life: Duration) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    // Certificates count whole seconds.
    let now = Duration::from_secs(u64::try_from(now.as_second()).unwrap_or_default());
    params.not_before = epoch + now.saturating_sub(CLOCK_SKEW);
    params.not_after = epoch + (now + life);
}

#[cfg(test)]
mod tests {
    use super::*;
    use identity::{CsrRequest, KeyAlgorithm};

    const HOUR: Duration = Duration::from_secs(3600);

    fn authority(now: Timestamp, life: Duration) -> Authority {
        let key = KeyPair::generate(KeyAlgorithm::EcdsaP256).unwrap();
        Authority::self_signed(key, &TrustDomain::default(), life, now).unwrap()
    }

    #[test]
    fn the_name_is_the_callers_and_not_the_requests() {
        let now = Timestamp::now();
        let authority = authority(now, 10 * HOUR);
        let key = KeyPair::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let request =
            CsrRequest { sans: vec![San::uri("spiffe://cluster.local/ns/a/sa/admin")], organization: None };
        let csr = Csr::from_pem(&request.to_pem(&key).unwrap()).unwrap();
        let id = SpiffeId::new(TrustDomain::default(), "a", "b").unwrap();
        let chain = authority.issue(&csr, &id, HOUR, now).unwrap();
        let leaf = chain.leaf();
        assert_eq!(leaf.uris().collect::<Vec<_>>(), ["spiffe://cluster.local/ns/a/sa/b"]);
        assert_eq!(leaf.public_key, key.public_key_der());
        assert_eq!(leaf.not_after.as_second(), now.as_second() + 3600);
        assert!(leaf.not_before < now && !leaf.is_ca);
    }

    #[test]
    fn nothing_outlives_the_authority() {
        let now = Timestamp::now();
        let authority = authority(now, HOUR);
        let key = KeyPair::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let names = [San::dns("istiod.istio-system.svc")];
        let chain = authority.issue_own(&key, &names, 5 * HOUR, now).unwrap();
        assert!(chain.leaf().not_after <= authority.info().not_after);
        let late = now + 2 * HOUR;
        assert!(matches!(authority.issue_own(&key, &names, HOUR, late), Err(Error::Expired(_))));
    }

    #[test]
    fn lives_are_granted_up_to_the_longest() {
        let lives = Lifetimes::default();
        assert_eq!(lives.grant(0).unwrap(), 24 * HOUR);
        assert_eq!(lives.grant(3600).unwrap(), HOUR);
        assert!(matches!(lives.grant(91 * 24 * 3600), Err(Error::TooLong { .. })));
        assert!(matches!(lives.grant(-1), Err(Error::Negative(-1))));
    }
}
