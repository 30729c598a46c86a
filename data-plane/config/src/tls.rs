//! TLS contexts, downstream and upstream.

mod algorithms;
mod convert;
mod upstream_proxy;

use std::sync::Arc;
use std::time::Duration;

use sail_proxy_decide::matcher::StringMatcher;

use crate::secret::{Certificate, TicketKeys, ValidationContext};
use crate::source::ResourceRef;

pub use algorithms::{Cipher, Curve, Signature};
pub use convert::{KNOWN_DOWNSTREAM, KNOWN_UPSTREAM};
pub(crate) use convert::{downstream_socket, upstream_socket};
pub(crate) use upstream_proxy::added_tlv;
pub use upstream_proxy::{AddedTlv, ProxyProtocolVersion, TlvValue, UpstreamProxyProtocol};

/// `DownstreamTlsContext`
#[derive(Debug)]
pub struct DownstreamTls {
    /// What both sides share.
    pub common: CommonTls,
    /// Whether a client must present a certificate.
    pub require_client_certificate: bool,
    /// Whether a client must send an SNI.
    pub require_sni: bool,
    /// Whether the client's order of cipher suites counts.
    pub prefer_client_ciphers: bool,
    /// Whether sessions are not resumed by id.
    pub disable_stateful_session_resumption: bool,
    /// Whether sessions are resumed by ticket, and whose keys encrypt those.
    pub tickets: Tickets,
    /// How long a session can be resumed.
    pub session_timeout: Option<Duration>,
    /// What becomes of certificates without an OCSP response that holds.
    pub ocsp_staple_policy: OcspStaplePolicy,
}

/// `session_ticket_keys_type`
#[derive(Clone, Debug, Default)]
pub enum Tickets {
    /// Keys that this process makes up.
    #[default]
    Own,
    /// There are no tickets.
    Disabled,
    /// Keys that are given, and are shared with others.
    Keys(Arc<TicketKeys>),
    /// Keys in a secret.
    Sds(ResourceRef),
}

/// `OcspStaplePolicy`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OcspStaplePolicy {
    /// The certificate is shown without.
    #[default]
    Lenient,
    /// A certificate with one that holds no more is not shown.
    Strict,
    /// A certificate without one that holds is not shown.
    Must,
}

/// `UpstreamTlsContext`
#[derive(Debug)]
pub struct UpstreamTls {
    /// What both sides share.
    pub common: CommonTls,
    /// The SNI; empty for none.
    pub sni: Arc<str>,
    /// Whether the upstream host's name is the SNI.
    pub auto_host_sni: bool,
    /// Whether the server's certificate must be for the SNI.
    pub auto_sni_san_validation: bool,
    /// How many sessions are kept for resumption; 0: none. 1 by default.
    pub max_session_keys: u32,
}

/// `CommonTlsContext`
#[derive(Debug)]
pub struct CommonTls {
    /// The lowest version.
    pub min_version: TlsVersion,
    /// The highest.
    pub max_version: TlsVersion,
    /// Cipher suites of TLS 1.2, by preference; all if empty.
    pub cipher_suites: Box<[Cipher]>,
    /// Curves, by preference; all if empty.
    pub ecdh_curves: Box<[Curve]>,
    /// What peers may sign with, by preference; all if empty.
    pub signature_algorithms: Box<[Signature]>,
    /// ALPN values, by preference.
    pub alpn_protocols: Box<[Box<str>]>,
    /// Our certificates.
    pub certificates: Box<[CertificateSource]>,
    /// How the peer's is checked.
    pub validation: Validation,
}

/// TLS versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2
    V1_2,
    /// TLS 1.3
    V1_3,
}

/// Where a certificate is.
#[derive(Clone, Debug)]
pub enum CertificateSource {
    /// Here.
    Inline(Arc<Certificate>),
    /// In a secret.
    Sds(ResourceRef),
}

/// How the peer's certificate is checked.
#[derive(Clone, Debug, Default)]
pub struct Validation {
    /// The context; with a secret besides, its matchers hold and the secret gives the CA.
    pub context: Option<Arc<ValidationContext>>,
    /// A secret with a context.
    pub sds: Option<ResourceRef>,
}

/// `SubjectAltNameMatcher`
#[derive(Clone, Debug, PartialEq)]
pub struct SanMatcher {
    /// Which kind of name.
    pub kind: SanKind,
    /// What it must be.
    pub matcher: StringMatcher,
}

/// Kinds of subject alternative names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SanKind {
    /// An e-mail address.
    Email,
    /// A DNS name; an exact matcher matches wildcard certificates.
    Dns,
    /// A URI.
    Uri,
    /// An IP address.
    Ip,
    /// Any of them: the old, untyped matchers.
    Any,
}

/// How bytes of a connection are carried, upstream.
#[derive(Clone, Debug)]
pub enum UpstreamSocket {
    /// As they are.
    Raw,
    /// By TLS.
    Tls(Arc<UpstreamTls>),
    /// Behind a PROXY protocol header.
    ProxyProtocol(Arc<UpstreamProxyProtocol>),
    /// Within this process; the inner socket does the work.
    Internal(Box<UpstreamSocket>),
    /// As the inner one does, and the kernel is asked about the connection.
    TcpStats(Box<UpstreamSocket>, TcpStats),
}

impl UpstreamSocket {
    /// TLS, whatever is around it.
    pub fn tls(&self) -> Option<&Arc<UpstreamTls>> {
        match self {
            Self::Raw => None,
            Self::Tls(tls) => Some(tls),
            Self::ProxyProtocol(outer) => outer.inner.tls(),
            Self::Internal(inner) | Self::TcpStats(inner, _) => inner.tls(),
        }
    }

    /// Whether the kernel is asked about connections, and how often.
    pub fn tcp_stats(&self) -> Option<TcpStats> {
        match self {
            Self::Raw | Self::Tls(_) => None,
            Self::ProxyProtocol(outer) => outer.inner.tcp_stats(),
            Self::Internal(inner) => inner.tcp_stats(),
            Self::TcpStats(_, stats) => Some(*stats),
        }
    }
}

/// `envoy.transport_sockets.tcp_stats`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpStats {
    /// How often the kernel is asked; always at the connection's end.
    pub update_period: Option<Duration>,
}

/// How bytes of a connection are carried, downstream.
#[derive(Clone, Debug)]
pub enum DownstreamSocket {
    /// As they are.
    Raw,
    /// By TLS.
    Tls(Arc<DownstreamTls>),
    /// As the inner one does, and the kernel is asked about the connection.
    TcpStats(Box<DownstreamSocket>, TcpStats),
}

impl DownstreamSocket {
    /// TLS, whatever is around it.
    pub fn tls(&self) -> Option<&Arc<DownstreamTls>> {
        match self {
            Self::Raw => None,
            Self::Tls(tls) => Some(tls),
            Self::TcpStats(inner, _) => inner.tls(),
        }
    }

    /// Whether the kernel is asked about connections, and how often.
    pub fn tcp_stats(&self) -> Option<TcpStats> {
        match self {
            Self::TcpStats(_, stats) => Some(*stats),
            Self::Raw | Self::Tls(_) => None,
        }
    }
}
