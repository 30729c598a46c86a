//! Shows the current SVID at each handshake.

use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::Watched;
use crate::svid::Svid;

/// Resolves to whatever SVID is current; to none while there is none, which fails the handshake of a server.
#[derive(Clone, Debug)]
pub struct SvidResolver(Watched<Svid>);

impl SvidResolver {
    /// Follows the value.
    pub fn new(svid: Watched<Svid>) -> Self {
        Self(svid)
    }

    fn current(&self) -> Option<Arc<CertifiedKey>> {
        self.0.get().map(|svid| svid.certified_key())
    }
}

impl ResolvesServerCert for SvidResolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current()
    }
}

impl ResolvesClientCert for SvidResolver {
    fn resolve(&self, _root_hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.current()
    }

    fn has_certs(&self) -> bool {
        self.0.get().is_some()
    }
}
