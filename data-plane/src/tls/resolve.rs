//! Which of several certificates is shown: by the name that the client asks for, then by what its signatures allow.

use std::sync::Arc;

use identity::CertInfo;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::UnixTime;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme, sign};
use sail_proxy_config::secret::{Certificate, Staple};
use sail_proxy_config::tls::{DownstreamTls, OcspStaplePolicy};

/// A server's certificates, in configuration's order.
#[derive(Debug)]
pub(super) struct ServerCertificates {
    all: Vec<Named>,
    require_sni: bool,
}

#[derive(Debug)]
struct Named {
    key: Arc<CertifiedKey>,
    stapling: Stapling,
    /// DNS names, lower-case; the common name where there are none.
    names: Vec<String>,
}

/// What is sent with a certificate to clients that ask for its OCSP response.
#[derive(Debug)]
enum Stapling {
    /// Nothing, and nothing is missing.
    None,
    /// Nothing, and that will not do.
    Missing,
    /// A response, for as long as it holds.
    Until { staple: Staple, after: After },
}

/// What becomes of a certificate whose response holds no more.
#[derive(Debug)]
enum After {
    /// It is shown by itself.
    Without(Arc<CertifiedKey>),
    /// It is not shown.
    Never,
}

impl ServerCertificates {
    pub(super) fn new(certificates: &[Arc<Certificate>], tls: &DownstreamTls) -> Self {
        let named = |certificate: &Arc<Certificate>| Named {
            names: names(&certificate.certified),
            stapling: Stapling::new(certificate, tls.ocsp_staple_policy),
            key: certificate.certified.clone(),
        };
        Self { all: certificates.iter().map(named).collect(), require_sni: tls.require_sni }
    }
}

impl Stapling {
    fn new(certificate: &Certificate, policy: OcspStaplePolicy) -> Self {
        // A certificate that asks clients to insist makes the policy that strict.
        let policy = if certificate.must_staple { OcspStaplePolicy::Must } else { policy };
        let Some(staple) = certificate.staple else {
            return if policy == OcspStaplePolicy::Must { Self::Missing } else { Self::None };
        };
        let after = if policy == OcspStaplePolicy::Lenient {
            let mut without = (*certificate.certified).clone();
            without.ocsp = None;
            After::Without(Arc::new(without))
        } else {
            After::Never
        };
        Self::Until { staple, after }
    }
}

impl Named {
    /// As it is shown now, if it may be.
    fn now(&self) -> Option<Arc<CertifiedKey>> {
        match &self.stapling {
            Stapling::None => Some(self.key.clone()),
            Stapling::Missing => None,
            Stapling::Until { staple, after } => {
                let now = i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX);
                match after {
                    _ if staple.holds_at(now) => Some(self.key.clone()),
                    After::Without(key) => Some(key.clone()),
                    After::Never => None,
                }
            }
        }
    }
}

fn names(key: &CertifiedKey) -> Vec<String> {
    let Some(info) = key.cert.first().and_then(|leaf| CertInfo::from_der(leaf).ok()) else {
        return Vec::new();
    };
    let names: Vec<String> = info.dns_names().map(str::to_ascii_lowercase).collect();
    if names.is_empty() { common_name(&info.subject).into_iter().collect() } else { names }
}

fn common_name(subject: &str) -> Option<String> {
    subject.split(',').find_map(|part| part.trim().strip_prefix("CN=")).map(str::to_ascii_lowercase)
}

impl ServerCertificates {
    /// Where the certificate stands that the client is shown.
    pub(super) fn choose(&self, hello: &ClientHello<'_>) -> Option<usize> {
        let sni = hello.server_name().map(str::to_ascii_lowercase);
        if self.require_sni && sni.is_none() {
            return None;
        }
        if let [_] = &self.all[..] {
            return Some(0);
        }
        let usable = |(_, named): &(usize, &Named)| {
            named.key.key.choose_scheme(hello.signature_schemes()).is_some() && named.now().is_some()
        };
        let all = || self.all.iter().enumerate().filter(usable);
        // As Envoy: clients that can do it get a key on a curve, which costs less.
        let best = |found: &(usize, &Named)| found.1.key.key.algorithm() != SignatureAlgorithm::ECDSA;
        let found = match sni {
            None => all().min_by_key(best),
            Some(sni) => {
                let wildcard = sni.split_once('.').map(|(_, rest)| format!("*.{rest}"));
                let with = |name: &str| {
                    let named = all().filter(|(_, named)| named.names.iter().any(|other| other == name));
                    named.min_by_key(best)
                };
                with(&sni).or_else(|| with(&wildcard?)).or_else(|| all().next())
            }
        };
        found.map(|(place, _)| place).or((!self.all.is_empty()).then_some(0))
    }
}

impl ResolvesServerCert for ServerCertificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.all.get(self.choose(&hello)?)?.now()
    }
}

/// A client's certificate, shown to whoever asks for one.
#[derive(Debug)]
pub(super) struct ClientCertificate(pub(super) Arc<CertifiedKey>);

impl ResolvesClientCert for ClientCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<sign::CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
