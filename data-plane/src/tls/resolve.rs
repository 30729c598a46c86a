//! Which of several certificates is shown: by the name that the client asks for, then by what its signatures allow.

use std::sync::Arc;

use identity::CertInfo;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureScheme, sign};

/// A server's certificates, in configuration's order.
#[derive(Debug)]
pub(super) struct ServerCertificates {
    all: Vec<Named>,
    require_sni: bool,
}

#[derive(Debug)]
struct Named {
    key: Arc<CertifiedKey>,
    /// DNS names, lower-case; the common name where there are none.
    names: Vec<String>,
}

impl ServerCertificates {
    pub(super) fn new(keys: Vec<Arc<CertifiedKey>>, require_sni: bool) -> Self {
        let all = keys.into_iter().map(|key| Named { names: names(&key), key }).collect();
        Self { all, require_sni }
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

impl ResolvesServerCert for ServerCertificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let sni = hello.server_name().map(str::to_ascii_lowercase);
        if self.require_sni && sni.is_none() {
            return None;
        }
        if let [only] = &self.all[..] {
            return Some(only.key.clone());
        }
        let usable = |named: &&Named| named.key.key.choose_scheme(hello.signature_schemes()).is_some();
        let named = sni.and_then(|sni| {
            let wildcard = sni.split_once('.').map(|(_, rest)| format!("*.{rest}"));
            let with = |name: &str| {
                let mut all = self.all.iter().filter(|named| named.names.iter().any(|other| other == name));
                all.find(usable)
            };
            with(&sni).or_else(|| with(&wildcard?))
        });
        let found = named.or_else(|| self.all.iter().find(usable)).or(self.all.first())?;
        Some(found.key.clone())
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
