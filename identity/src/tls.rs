//! rustls parts that follow certificate changes: a [`Watched`] value is replaced by one writer and read at each
//! handshake, so no connection is dropped and no configuration rebuilt when a certificate is renewed.

mod resolve;
#[cfg(test)]
mod tests;
mod verifier;
mod verify;

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};

use crate::bundle::TrustBundle;
use crate::error::Result;
use crate::svid::Svid;

pub use resolve::SvidResolver;
pub use verifier::{Judge, Presented, Verifier};
use verify::Bundled;
pub use verify::{PeerError, PeerPolicy, check_sans};

/// A value that may be missing yet and is replaced while it is read. Clones share it.
#[derive(Debug)]
pub struct Watched<T>(Arc<ArcSwapOption<T>>);

impl<T> Clone for Watched<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Watched<T> {
    fn default() -> Self {
        Self(Arc::new(ArcSwapOption::empty()))
    }
}

impl<T> Watched<T> {
    /// Holds nothing yet.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Holds a value from the start.
    pub fn new(value: T) -> Self {
        Self(Arc::new(ArcSwapOption::from_pointee(value)))
    }

    /// Replaces the value.
    pub fn set(&self, value: Arc<T>) {
        self.0.store(Some(value));
    }

    /// The value now.
    pub fn get(&self) -> Option<Arc<T>> {
        self.0.load_full()
    }
}

/// The cryptography that every configuration here uses.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A client's side.
#[derive(Clone, Debug)]
pub struct ClientSide {
    /// The certificate that is shown when the server asks for one; `None` shows none.
    pub svid: Option<Watched<Svid>>,
    /// The roots that the server's chain must lead to.
    pub bundle: Watched<TrustBundle>,
    /// What the server's names must be.
    pub policy: PeerPolicy,
    /// Offered protocols, best first.
    pub alpn: Vec<Vec<u8>>,
}

impl ClientSide {
    /// A configuration that follows the watched values.
    pub fn config(&self) -> Result<ClientConfig> {
        self.config_with(provider(), rustls::DEFAULT_VERSIONS)
    }

    /// The same with a provider (ciphers, curves) and protocol versions of the caller's choice.
    pub fn config_with(
        &self,
        provider: Arc<CryptoProvider>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Result<ClientConfig> {
        let judge = Bundled {
            bundle: self.bundle.clone(),
            policy: self.policy.clone(),
            provider: Arc::clone(&provider),
        };
        let verifier = Verifier::optional(judge, &provider);
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &self.svid {
            Some(svid) => builder.with_client_cert_resolver(Arc::new(SvidResolver::new(svid.clone()))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols.clone_from(&self.alpn);
        Ok(config)
    }
}

/// Whether a server asks clients for a certificate.
#[derive(Clone, Debug)]
pub enum ClientAuth {
    /// It does not ask.
    None,
    /// It asks, and checks what it gets; clients without a certificate are served.
    Optional(Watched<TrustBundle>, PeerPolicy),
    /// Clients without a certificate are refused.
    Required(Watched<TrustBundle>, PeerPolicy),
}

/// A server's side.
#[derive(Clone, Debug)]
pub struct ServerSide {
    /// The certificate that is shown.
    pub svid: Watched<Svid>,
    /// What is asked of clients.
    pub client_auth: ClientAuth,
    /// Accepted protocols, best first.
    pub alpn: Vec<Vec<u8>>,
}

impl ServerSide {
    /// A configuration that follows the watched values.
    pub fn config(&self) -> Result<ServerConfig> {
        self.config_with(provider(), rustls::DEFAULT_VERSIONS)
    }

    /// The same with a provider (ciphers, curves) and protocol versions of the caller's choice.
    pub fn config_with(
        &self,
        provider: Arc<CryptoProvider>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Result<ServerConfig> {
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions)?;
        let judge = |bundle: &Watched<TrustBundle>, policy: &PeerPolicy| Bundled {
            bundle: bundle.clone(),
            policy: policy.clone(),
            provider: Arc::clone(&provider),
        };
        let builder = match &self.client_auth {
            ClientAuth::None => builder.with_no_client_auth(),
            ClientAuth::Optional(bundle, policy) => {
                builder.with_client_cert_verifier(Verifier::optional(judge(bundle, policy), &provider))
            }
            ClientAuth::Required(bundle, policy) => {
                builder.with_client_cert_verifier(Verifier::required(judge(bundle, policy), &provider))
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(SvidResolver::new(self.svid.clone())));
        config.alpn_protocols.clone_from(&self.alpn);
        Ok(config)
    }
}
