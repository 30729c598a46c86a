//! Who is calling. Each authenticator reads one kind of credential; the first that recognizes one decides.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use identity::{SpiffeId, TrustDomain};
use rustls::pki_types::CertificateDer;

pub mod client_certificate;
pub mod jwt;

/// What a caller shows. A server puts it into the extensions of every request.
#[derive(Clone)]
pub struct Credentials {
    /// The token of `authorization: Bearer`.
    pub bearer: Option<String>,
    /// The certificate of the connection, which the handshake has verified.
    pub certificate: Option<CertificateDer<'static>>,
    /// The cluster that the caller says it is in (`clusterid`).
    pub cluster: Option<String>,
    /// Where the connection comes from.
    pub peer: Option<SocketAddr>,
    /// Whether the connection is encrypted; where it is not, nothing is asked.
    pub encrypted: bool,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Tokens must never reach a log.
        f.debug_struct("Credentials")
            .field("bearer", &self.bearer.is_some())
            .field("certificate", &self.certificate.is_some())
            .field("cluster", &self.cluster)
            .field("peer", &self.peer)
            .field("encrypted", &self.encrypted)
            .finish()
    }
}

/// How a caller was recognized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// A certificate of the mesh.
    Certificate,
    /// A service account's token.
    Token,
}

/// A caller that was recognized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its namespace.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
    /// The pod that the token is bound to.
    pub pod: Option<String>,
    /// How it was recognized.
    pub means: Means,
}

impl Caller {
    /// Its identity in a trust domain.
    pub fn spiffe_id(&self, trust_domain: &TrustDomain) -> Result<SpiffeId, identity::Error> {
        SpiffeId::new(trust_domain.clone(), &self.namespace, &self.service_account)
    }
}

/// Why a credential was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Nothing was shown.
    #[error(
        "no credentials: a bearer token of a service account, or a client certificate of the mesh, is needed"
    )]
    Nothing,
    /// A credential was shown and is not good.
    #[error("{what}: {reason}")]
    Bad {
        /// Which credential.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// Whether a credential is good cannot be told now.
    #[error("{what} cannot be checked now: {reason}")]
    Unavailable {
        /// Which credential.
        what: &'static str,
        /// Why.
        reason: String,
    },
}

/// Recognizes callers by one kind of credential.
#[async_trait]
pub trait Authenticator: Send + Sync {
    /// The caller; `None` if the kind of credential is not shown.
    async fn authenticate(&self, credentials: &Credentials) -> Result<Option<Caller>, Refusal>;
}

/// Authenticators in the order in which they are asked.
#[derive(Clone, Default)]
pub struct Authenticators(Vec<Arc<dyn Authenticator>>);

impl fmt::Debug for Authenticators {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} authenticators", self.0.len())
    }
}

impl Authenticators {
    /// In this order.
    pub fn new(list: Vec<Arc<dyn Authenticator>>) -> Self {
        Self(list)
    }

    /// The caller that the first fitting credential shows. A later one counts if an earlier one is bad: an agent whose
    /// certificate has run out still has its token.
    pub async fn authenticate(&self, credentials: &Credentials) -> Result<Caller, Refusal> {
        let mut refusal = Refusal::Nothing;
        for authenticator in &self.0 {
            match authenticator.authenticate(credentials).await {
                Ok(Some(caller)) => return Ok(caller),
                Ok(None) => {}
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }
}
