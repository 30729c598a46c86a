//! TLS handshakes on both sides. What is checked and shown comes ready-made from the configuration.

mod algorithms;
pub(crate) mod context;
pub(crate) mod counts;
mod resolve;
mod resumption;
mod verify;
pub(crate) mod words;

use std::io;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::Acceptor;
use rustls::{CipherSuite, ClientConfig, CommonState, NamedGroup, ProtocolVersion};
use tokio_rustls::{LazyConfigAcceptor, TlsConnector};

use crate::net::Stream;
use crate::net::prefixed::Prefixed;
use crate::stream_info::TlsInfo;

/// What a handshake told about the other side and the connection.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) info: Arc<TlsInfo>,
    /// The peer's certificates, leaf first.
    pub(crate) chain: Arc<[CertificateDer<'static>]>,
    pub(crate) resumed: bool,
    /// Names in the peer's certificate, as policies read them.
    pub(crate) uri_sans: Vec<String>,
    pub(crate) dns_sans: Vec<String>,
}

impl Peer {
    fn new(state: &CommonState, server_name: Option<&str>, local: &LocalIdentity) -> Self {
        let chain: Arc<[_]> = state
            .peer_certificates()
            .unwrap_or_default()
            .iter()
            .map(|cert| cert.clone().into_owned())
            .collect();
        let leaf = chain.first().and_then(|leaf| identity::CertInfo::from_der(leaf).ok());
        let alpn = state.alpn_protocol().map(|alpn| String::from_utf8_lossy(alpn).into());
        let mut info = TlsInfo {
            version: state.protocol_version().map_or("", version_name),
            cipher: state.negotiated_cipher_suite().map_or("", |suite| cipher_name(suite.suite())),
            group: state.negotiated_key_exchange_group().map_or("", |group| group_name(group.name())),
            alpn,
            peer_chain: chain.clone(),
            local_certificate: local.certificate.clone(),
            server_name: server_name.map(Into::into),
            local_uri_sans: local.uri_sans.clone(),
            local_subject: local.subject.clone(),
            ..TlsInfo::default()
        };
        let (mut uri_sans, mut dns_sans) = (Vec::new(), Vec::new());
        if let Some(leaf) = leaf {
            uri_sans = leaf.uris().map(str::to_owned).collect();
            dns_sans = leaf.dns_names().map(str::to_owned).collect();
            info.peer_certificate_presented = true;
            info.peer_certificate_validated = true;
            info.peer_uri_sans = leaf.uris().map(Into::into).collect();
            info.peer_dns_sans = leaf.dns_names().map(Into::into).collect();
            info.peer_subject = Some(leaf.subject.into());
            info.peer_issuer = Some(leaf.issuer.into());
            info.peer_serial = Some(leaf.serial.into());
            info.peer_fingerprint = Some(leaf.fingerprint.into());
        }
        let resumed = state.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        Self { info: Arc::new(info), chain, resumed, uri_sans, dns_sans }
    }
}

/// Our own names, as the certificate that is in use has them.
#[derive(Clone, Debug, Default)]
pub(crate) struct LocalIdentity {
    pub(crate) uri_sans: Arc<[Box<str>]>,
    pub(crate) subject: Option<Arc<str>>,
    pub(crate) certificate: Option<Arc<CertificateDer<'static>>>,
}

/// OpenSSL's spelling.
fn group_name(group: NamedGroup) -> &'static str {
    match group {
        NamedGroup::secp256r1 => "P-256",
        NamedGroup::secp384r1 => "P-384",
        NamedGroup::secp521r1 => "P-521",
        NamedGroup::X25519 => "X25519",
        NamedGroup::X25519MLKEM768 => "X25519MLKEM768",
        _ => "",
    }
}

fn version_name(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::TLSv1_2 => "TLSv1.2",
        ProtocolVersion::TLSv1_3 => "TLSv1.3",
        _ => "",
    }
}

/// OpenSSL's spelling, which logs and policies use.
fn cipher_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-ECDSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        _ => "",
    }
}

/// Does the server's side of a handshake.
pub(crate) async fn accept(server: context::Server, plain: Prefixed) -> io::Result<(Stream, Peer)> {
    let started = LazyConfigAcceptor::new(Acceptor::default(), plain).await?;
    let (config, local) = server.for_client(&started.client_hello());
    let stream = started.into_stream(config).await?;
    let (_, session) = stream.get_ref();
    let mut peer = Peer::new(session, session.server_name(), &local);
    if let Some(checks) = server.untrusted
        && peer.info.peer_certificate_presented
        && let Some(info) = Arc::get_mut(&mut peer.info)
    {
        info.peer_certificate_validated = checks.passes(&peer.chain);
    }
    Ok((Stream::Server(Box::new(stream)), peer))
}

/// The client's side, ready to connect.
#[derive(Clone)]
pub(crate) struct UpstreamTls {
    pub(crate) config: Arc<ClientConfig>,
    /// What is asked for by name; an address asks for nothing.
    pub(crate) server_name: ServerName<'static>,
    /// Protocols to offer in place of the configuration's.
    pub(crate) alpn: Option<Arc<[Vec<u8>]>>,
    pub(crate) local: LocalIdentity,
}

impl std::fmt::Debug for UpstreamTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpstreamTls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

impl UpstreamTls {
    /// Does the client's side of a handshake.
    pub(crate) async fn connect(&self, plain: Prefixed) -> io::Result<(Stream, Peer)> {
        let connector = TlsConnector::from(self.config.clone());
        let stream = match &self.alpn {
            None => connector.connect(self.server_name.clone(), plain).await?,
            Some(alpn) => connector.with_alpn(alpn.to_vec()).connect(self.server_name.clone(), plain).await?,
        };
        let (_, session) = stream.get_ref();
        let name = match &self.server_name {
            ServerName::DnsName(name) => Some(name.as_ref()),
            _ => None,
        };
        let peer = Peer::new(session, name, &self.local);
        Ok((Stream::Client(Box::new(stream)), peer))
    }
}
