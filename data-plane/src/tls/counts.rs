//! What handshakes count in. It is looked up by name, as a handshake takes a thousand times as long.

use std::cell::OnceCell;
use std::io;

use super::Peer;
use crate::http2;
use crate::stats::sets::{cluster, cluster_http2, cluster_tcp_stats, cluster_tls};
use crate::stats::{Scope, StatSet, Store};

/// A handshake was done.
pub(crate) fn succeeded<S: StatSet>(stats: &Scope<S>, peer: &Peer) {
    stats.inc_named("ssl.handshake", "");
    if peer.resumed {
        stats.inc_named("ssl.session_reused", "");
    }
    stats.inc_named("ssl.versions.", peer.info.version);
    stats.inc_named("ssl.ciphers.", peer.info.cipher);
    stats.inc_named("ssl.curves.", peer.info.group);
}

/// A handshake failed.
pub(crate) fn failed<S: StatSet>(stats: &Scope<S>, error: &io::Error) {
    stats.inc_named("ssl.connection_error", "");
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let why = match tls {
        Some(rustls::Error::NoCertificatesPresented) => "no_cert",
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(_))) => "san",
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::ApplicationVerificationFailure)) => {
            "cert_hash"
        }
        Some(rustls::Error::InvalidCertificate(_)) => "error",
        _ => return,
    };
    stats.inc_named("ssl.fail_verify_", why);
}

/// A cluster's, made with its first handshake.
#[derive(Debug)]
pub(crate) struct OfCluster {
    stats: cluster::Scope,
    made: OnceCell<cluster_tls::Scope>,
    tcp: OnceCell<cluster_tcp_stats::Scope>,
    http2: OnceCell<cluster_http2::Scope>,
}

impl OfCluster {
    pub(crate) fn new(stats: &cluster::Scope) -> Self {
        Self { stats: stats.clone(), made: OnceCell::new(), tcp: OnceCell::new(), http2: OnceCell::new() }
    }

    /// Keeps what another counts in.
    pub(crate) fn hold(&self, other: &Self) {
        // What is held already is the same.
        other.made.get().map(|scope| self.made.set(scope.clone()));
        other.tcp.get().map(|scope| self.tcp.set(scope.clone()));
        other.http2.get().map(|scope| self.http2.set(scope.clone()));
    }

    pub(crate) fn get(&self, store: &Store) -> &cluster_tls::Scope {
        self.made.get_or_init(|| store.scope(self.stats.name()))
    }

    /// What the kernel tells of its connections, made with the first that asks.
    pub(crate) fn tcp(&self, store: &Store) -> &cluster_tcp_stats::Scope {
        self.tcp.get_or_init(|| store.scope(self.stats.name()))
    }

    /// What its HTTP/2 connections count in, made with the first of them.
    pub(crate) fn http2(&self, store: &Store) -> http2::Counts {
        let http2 = self.http2.get_or_init(|| store.scope(self.stats.name())).clone();
        http2::Counts::OfCluster { http2, cluster: self.stats.clone() }
    }
}
