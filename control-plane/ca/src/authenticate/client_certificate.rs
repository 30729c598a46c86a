//! The certificate of the connection: one that the mesh's authority signed.

use async_trait::async_trait;
use identity::{CertInfo, TrustDomain};

use super::{Authenticator, Caller, Credentials, Means, Refusal};

const WHAT: &str = "the client certificate";

/// Reads the SPIFFE id of the connection's certificate.
#[derive(Debug)]
pub struct ClientCertificate {
    trust_domains: Vec<TrustDomain>,
}

impl ClientCertificate {
    /// Recognizes identities of these trust domains: the mesh's own and its aliases.
    pub fn new(trust_domains: Vec<TrustDomain>) -> Self {
        Self { trust_domains }
    }
}

#[async_trait]
impl Authenticator for ClientCertificate {
    async fn authenticate(&self, credentials: &Credentials) -> Result<Option<Caller>, Refusal> {
        let Some(certificate) = &credentials.certificate else { return Ok(None) };
        let bad = |reason: String| Refusal::Bad { what: WHAT, reason };
        let info = CertInfo::from_der(certificate).map_err(|error| bad(error.to_string()))?;
        let id = info.spiffe_id().ok_or_else(|| bad("it bears no SPIFFE id of a workload".to_owned()))?;
        if !self.trust_domains.contains(id.trust_domain()) {
            return Err(bad(format!("{id} is of a foreign trust domain")));
        }
        Ok(Some(Caller {
            namespace: id.namespace().to_owned(),
            service_account: id.service_account().to_owned(),
            pod: None,
            means: Means::Certificate,
        }))
    }
}
