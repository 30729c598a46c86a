//! Trust bundles: the roots that a peer's chain must lead to.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use crate::cert::CertInfo;
use crate::error::{Error, Result};
use crate::pem;

/// At least one root.
#[derive(Clone, Debug)]
pub struct TrustBundle {
    roots: Vec<CertificateDer<'static>>,
    store: Arc<RootCertStore>,
}

impl PartialEq for TrustBundle {
    fn eq(&self, other: &Self) -> bool {
        self.roots == other.roots
    }
}

impl Eq for TrustBundle {}

impl TrustBundle {
    /// Checks the roots and indexes them. Doubles are dropped.
    pub fn new(certs: Vec<CertificateDer<'static>>) -> Result<Self> {
        let mut roots: Vec<CertificateDer<'static>> = Vec::with_capacity(certs.len());
        for cert in certs {
            if !roots.contains(&cert) {
                roots.push(cert);
            }
        }
        if roots.is_empty() {
            return Err(Error::Empty("the trust bundle"));
        }
        let mut store = RootCertStore::empty();
        for (position, root) in roots.iter().enumerate() {
            let refuse = |error: rustls::Error| Error::Certificate { position, reason: error.to_string() };
            store.add(root.clone()).map_err(refuse)?;
        }
        Ok(Self { roots, store: Arc::new(store) })
    }

    /// Reads the CERTIFICATE blocks of a text.
    pub fn from_pem(text: &str) -> Result<Self> {
        Self::new(pem::certificates(text, "the trust bundle")?)
    }

    /// All roots as PEM.
    pub fn to_pem(&self) -> String {
        self.roots.iter().map(|root| pem::encode("CERTIFICATE", root)).collect()
    }

    /// The roots.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// The roots as rustls wants them.
    pub fn store(&self) -> &Arc<RootCertStore> {
        &self.store
    }

    /// This bundle and the roots of another.
    pub fn merged(&self, other: &Self) -> Result<Self> {
        Self::new(self.roots.iter().chain(&other.roots).cloned().collect())
    }

    /// What each root says.
    pub fn infos(&self) -> Result<Vec<CertInfo>> {
        self.roots.iter().map(|root| CertInfo::from_der(root)).collect()
    }
}
