//! What is known of a request or of a TCP connection, filled by the I/O as it happens and read at its end by access
//! logs, metrics and spans.
//!
//! One [`StreamInfo`] a stream, owned by the worker that serves it: nothing here is shared or locked.

mod capture;
pub mod details;
mod flags;
mod life;
mod metadata;
mod peer;

pub use capture::{Capture, Captured};
pub use flags::{ResponseFlag, ResponseFlags};
pub use life::{CloseType, Life, UpstreamLife};
pub use metadata::{ConfigMetadata, DynamicMetadata, lookup};
pub use peer::PeerMetadata;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::Method;
use rustls::pki_types::CertificateDer;

use crate::clock;

/// The key of filter state under which TLVs of the PROXY protocol are kept: a JSON object.
pub(crate) const TLV_STATE: &str = "envoy.network.proxy_protocol.tlv";

/// A request, or a TCP connection, from its first byte to its last.
#[derive(Debug)]
pub struct StreamInfo {
    /// When it began, by the calendar.
    pub start_time: SystemTime,
    /// When it began, for durations.
    pub start: Instant,
    /// Moments after that.
    pub timing: Timing,
    /// Bytes of bodies and of the wire.
    pub bytes: ByteCounts,

    /// `None` for plain TCP.
    pub protocol: Option<Protocol>,
    /// What was asked for; empty for TCP.
    pub request: RequestHead,
    /// The response's status; `None` while there is none, and for TCP.
    pub response_code: Option<u16>,
    /// Envoy's phrase for where the response came from.
    pub code_details: Option<std::borrow::Cow<'static, str>>,
    /// What went wrong.
    pub flags: ResponseFlags,
    /// `grpc-status`, from the trailers or, with no body, from the headers.
    pub grpc_status: Option<u32>,
    /// Why the connection was ended (`%CONNECTION_TERMINATION_DETAILS%`).
    pub termination_details: Option<std::borrow::Cow<'static, str>>,
    /// Headers that logs, spans and metrics read, as the active configuration names them.
    pub captured: Captured,

    /// The downstream connection.
    pub downstream: Rc<DownstreamInfo>,
    /// The name of the route that matched.
    pub route_name: Option<Arc<str>>,
    /// The name of the virtual host that matched.
    pub virtual_host: Option<Arc<str>>,
    /// The name of the virtual cluster that takes it.
    pub virtual_cluster: Option<Arc<str>>,
    /// The name of the filter chain.
    pub filter_chain: Option<Arc<str>>,
    /// The cluster that was chosen, whether or not a host was.
    pub cluster: Option<Arc<ClusterInfo>>,
    /// The last upstream that was tried.
    pub upstream: Option<UpstreamInfo>,
    /// Upstreams that were tried before it.
    pub attempted: Vec<Attempted>,
    /// How often an upstream was tried.
    pub attempt_count: u32,
    /// The upgrade or tunnel that the stream became, as it was asked for: `websocket`.
    pub upgrade: Option<Box<str>>,

    /// Who is downstream (Istio's `downstream_peer`).
    pub downstream_peer: Option<Arc<PeerMetadata>>,
    /// Who is upstream (Istio's `upstream_peer`).
    pub upstream_peer: Option<Arc<PeerMetadata>>,
    /// What TCP metrics have told already: whether it was opened, bytes received and sent.
    pub tcp_reported: (bool, u64, u64),
    /// gRPC messages seen in each direction.
    pub grpc_messages: GrpcMessages,
    /// The span under way, if the request is traced.
    pub span: Option<Box<crate::trace::Span>>,
    /// `x-request-id`.
    pub request_id: Option<Bytes>,
    /// Whether the request is a health check, as the health check filter says it.
    pub health_check: bool,
    /// `%DYNAMIC_METADATA(namespace:key)%`.
    pub dynamic_metadata: DynamicMetadata,
    /// `%METADATA(ROUTE:namespace:key)%` and its kin; kept where [`Capture::metadata`] asks for it.
    pub config_metadata: Option<Box<ConfigMetadata>>,
    /// `%LOCAL_REPLY_BODY%`
    pub local_reply_body: Option<std::borrow::Cow<'static, str>>,
    /// `%FILTER_STATE(key:PLAIN)%`.
    pub filter_state: Vec<(Box<str>, Box<str>)>,
}

/// Protocols, as `%PROTOCOL%` spells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
    /// HTTP/2
    Http2,
    /// HTTP/3
    Http3,
}

impl Protocol {
    /// Envoy's spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
            Self::Http3 => "HTTP/3",
        }
    }
}

/// The request line's parts, as they were when the request went upstream.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    /// `:method`
    pub method: Option<Method>,
    /// `:scheme`
    pub scheme: Option<&'static str>,
    /// `:authority`
    pub authority: Option<Bytes>,
    /// `:path`, with the query.
    pub path: Option<Bytes>,
    /// `x-envoy-original-path`, where a rewrite set it.
    pub original_path: Option<Bytes>,
}

impl RequestHead {
    /// `:path` as text.
    pub fn path(&self) -> &str {
        text(self.path.as_ref())
    }

    /// The path that the client asked for.
    pub fn path_before_rewrite(&self) -> &str {
        text(self.original_path.as_ref().or(self.path.as_ref()))
    }

    /// `:authority` as text.
    pub fn authority(&self) -> &str {
        text(self.authority.as_ref())
    }
}

fn text(bytes: Option<&Bytes>) -> &str {
    bytes.and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
}

/// Moments of a stream; `None` for what did not happen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    /// The last byte of the request arrived.
    pub last_downstream_rx: Option<Instant>,
    /// A connection to the upstream was there.
    pub pool_ready: Option<Instant>,
    /// The first byte went upstream.
    pub first_upstream_tx: Option<Instant>,
    /// The last byte went upstream.
    pub last_upstream_tx: Option<Instant>,
    /// The response's first byte arrived.
    pub first_upstream_rx: Option<Instant>,
    /// The first byte of its body did; kept where [`Capture::body_begin`] asks for it.
    pub first_upstream_body: Option<Instant>,
    /// The response's last byte arrived.
    pub last_upstream_rx: Option<Instant>,
    /// The response's first byte was sent.
    pub first_downstream_tx: Option<Instant>,
    /// The response's last byte was sent.
    pub last_downstream_tx: Option<Instant>,
    /// The stream ended.
    pub end: Option<Instant>,
}

/// Bytes of a stream, seen from the proxy: received from downstream, sent to downstream.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByteCounts {
    /// Body bytes received (`%BYTES_RECEIVED%`; for TCP all bytes).
    pub received: u64,
    /// Body bytes sent (`%BYTES_SENT%`; for TCP all bytes).
    pub sent: u64,
    /// Header bytes received, near enough: names, values and four bytes a line.
    pub request_headers: u64,
    /// Header bytes sent.
    pub response_headers: u64,
    /// Trailer bytes sent.
    pub response_trailers: u64,
    /// Header bytes sent to the upstream.
    pub upstream_request_headers: u64,
    /// Header bytes received from the upstream.
    pub upstream_response_headers: u64,
    /// Wire bytes sent to the upstream.
    pub upstream_sent: u64,
    /// Wire bytes received from the upstream.
    pub upstream_received: u64,
}

/// Messages of a gRPC stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct GrpcMessages {
    /// Sent by the client.
    pub request: u64,
    /// Sent by the server.
    pub response: u64,
}

/// A downstream connection, shared by its streams.
#[derive(Clone, Debug)]
pub struct DownstreamInfo {
    /// A number that no other connection of this process has.
    pub connection_id: u64,
    /// The peer, after X-Forwarded-For or the PROXY protocol had their say.
    pub remote_address: SocketAddr,
    /// The peer of the socket.
    pub direct_remote_address: SocketAddr,
    /// The address the client meant to reach: with a redirected connection, the original destination.
    pub local_address: SocketAddr,
    /// The address of the socket itself.
    pub direct_local_address: SocketAddr,
    /// SNI.
    pub server_name: Option<Arc<str>>,
    /// TLS, if any.
    pub tls: Option<Arc<TlsInfo>>,
    /// The listener's traffic direction.
    pub direction: Direction,
    /// What listener and network filters found out.
    pub state: Rc<ConnectionState>,
}

/// What listener and network filters found out about a connection, for all of its streams.
#[derive(Debug, Default)]
pub struct ConnectionState {
    /// Dynamic metadata.
    pub metadata: RefCell<DynamicMetadata>,
    /// Values by key.
    pub filter_state: RefCell<Vec<(Box<str>, Box<str>)>>,
    /// TLVs of the PROXY protocol that may go upstream.
    pub tlvs: Vec<(u8, Bytes)>,
    /// Where the listener is, if that is a Unix socket.
    pub pipe: Option<Arc<str>>,
    /// Whether the connection began with a PROXY protocol header.
    pub proxied: bool,
    /// From where upstream connections come.
    pub upstream_source: Option<UpstreamSource>,
    /// Its moments, and how it was closed.
    pub life: Life,
    /// JA3 and JA4, where they were taken.
    pub(crate) fingerprints: Option<Box<crate::inspect::tls::Fingerprints>>,
}

impl ConnectionState {
    /// A value of filter state.
    pub fn get(&self, key: &str) -> Option<String> {
        let all = self.filter_state.borrow();
        all.iter().rev().find(|(name, _)| &**name == key).map(|(_, value)| value.to_string())
    }
}

/// From where upstream connections come (`original_src`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamSource {
    /// The address; port 0 leaves the port to the kernel.
    pub address: SocketAddr,
    /// `SO_MARK`; 0 for none.
    pub mark: u32,
}

/// A listener's `traffic_direction`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Not said.
    #[default]
    Unspecified,
    /// To the workload.
    Inbound,
    /// From the workload; also a gateway's.
    Outbound,
}

/// What a TLS handshake settled.
#[derive(Debug, Default)]
pub struct TlsInfo {
    /// `TLSv1.3`
    pub version: &'static str,
    /// OpenSSL's name of the cipher suite.
    pub cipher: &'static str,
    /// The group of the key exchange: `X25519`.
    pub group: &'static str,
    /// The negotiated protocol.
    pub alpn: Option<Box<str>>,
    /// SNI.
    pub server_name: Option<Box<str>>,
    /// Whether the peer gave a certificate.
    pub peer_certificate_presented: bool,
    /// Whether it passed the checks; one that does not is let in only where the configuration says so.
    pub peer_certificate_validated: bool,
    /// URI SANs of the peer.
    pub peer_uri_sans: Vec<Box<str>>,
    /// DNS SANs of the peer.
    pub peer_dns_sans: Vec<Box<str>>,
    /// The peer's subject, RFC 2253.
    pub peer_subject: Option<Box<str>>,
    /// The peer's issuer, RFC 2253.
    pub peer_issuer: Option<Box<str>>,
    /// The peer's serial number, in hexadecimal.
    pub peer_serial: Option<Box<str>>,
    /// SHA-256 of the peer's certificate, in hexadecimal.
    pub peer_fingerprint: Option<Box<str>>,
    /// The peer's certificates, leaf first.
    pub peer_chain: Arc<[CertificateDer<'static>]>,
    /// The certificate that we gave.
    pub local_certificate: Option<Arc<CertificateDer<'static>>>,
    /// URI SANs of the certificate that we gave.
    pub local_uri_sans: Arc<[Box<str>]>,
    /// Its subject.
    pub local_subject: Option<Arc<str>>,
}

impl TlsInfo {
    /// The peer's SPIFFE id, as principals are compared.
    pub fn peer_principal(&self) -> Option<&str> {
        self.peer_uri_sans.first().map(|san| &**san)
    }

    /// Ours.
    pub fn local_principal(&self) -> Option<&str> {
        self.local_uri_sans.first().map(|san| &**san)
    }
}

/// What logs and metrics say of a cluster. Built once per cluster, when its configuration is activated.
#[derive(Debug, Default)]
pub struct ClusterInfo {
    /// `%UPSTREAM_CLUSTER_RAW%`.
    pub name: Arc<str>,
    /// `alt_stat_name` where there is one (`%UPSTREAM_CLUSTER%`), else the name.
    pub observability_name: Arc<str>,
    /// From metadata `istio.services[0]`.
    pub service_host: Option<Arc<str>>,
    /// From metadata `istio.services[0]`.
    pub service_name: Option<Arc<str>>,
    /// From metadata `istio.services[0]`.
    pub service_namespace: Option<Arc<str>>,
    /// Metadata `istio.external`.
    pub external: bool,
}

/// An upstream connection and the stream on it.
#[derive(Clone, Debug, Default)]
pub struct UpstreamInfo {
    /// `%UPSTREAM_HOST%`: the host that was chosen; a path for a Unix socket.
    pub host: Option<UpstreamAddress>,
    /// `%UPSTREAM_LOCAL_ADDRESS%`: our end of the connection.
    pub local_address: Option<SocketAddr>,
    /// The connection's number.
    pub connection_id: Option<u64>,
    /// The connection's moments.
    pub life: Option<Rc<UpstreamLife>>,
    /// TLS, if any.
    pub tls: Option<Arc<TlsInfo>>,
    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`.
    pub transport_failure: Option<Box<str>>,
    /// `%UPSTREAM_PROTOCOL%`.
    pub protocol: Option<Protocol>,
    /// The endpoint's metadata `istio.workload`: `workload;namespace;canonical-name;canonical-revision;cluster`.
    pub workload: Option<Arc<str>>,
    /// The endpoint's host name, for DNS clusters.
    pub hostname: Option<Arc<str>>,
}

/// An upstream that was tried.
#[derive(Clone, Debug)]
pub struct Attempted {
    /// Where.
    pub host: Option<UpstreamAddress>,
    /// Its name.
    pub hostname: Option<Arc<str>>,
    /// The connection's number.
    pub connection_id: Option<u64>,
}

/// An upstream's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamAddress {
    /// IP and port.
    Socket(SocketAddr),
    /// A Unix socket.
    Pipe(Arc<str>),
}

impl std::fmt::Display for UpstreamAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Pipe(path) => f.write_str(path),
        }
    }
}

impl ClusterInfo {
    /// From the cluster's configuration.
    pub fn new(cluster: &sail_proxy_config::cluster::Cluster) -> Self {
        let istio = cluster.metadata.as_ref().and_then(|all| all.get("istio"));
        let service = istio.and_then(|istio| istio.get("services")?.get(0));
        let field = |name: &str| {
            let text = service.and_then(|service| service.get(name)?.as_str());
            text.filter(|text| !text.is_empty()).map(Arc::from)
        };
        Self {
            name: cluster.name.clone(),
            observability_name: cluster.stat_name.clone(),
            service_host: field("host"),
            service_name: field("name"),
            service_namespace: field("namespace"),
            external: istio.and_then(|istio| istio.get("external")?.as_bool()).unwrap_or(false),
        }
    }
}

impl StreamInfo {
    /// Whether the response is an upstream's, and not the proxy's own.
    pub(crate) fn is_upstreams(&self) -> bool {
        self.code_details.as_deref() == Some(details::VIA_UPSTREAM)
    }

    /// A stream that begins now.
    pub fn new(downstream: Rc<DownstreamInfo>) -> Self {
        let filter_state = downstream.state.filter_state.borrow().clone();
        let downstream_metadata = downstream.state.metadata.borrow().clone();
        Self {
            start_time: SystemTime::now(),
            start: clock::now(),
            timing: Timing::default(),
            bytes: ByteCounts::default(),
            protocol: None,
            request: RequestHead::default(),
            response_code: None,
            code_details: None,
            flags: ResponseFlags::default(),
            grpc_status: None,
            termination_details: None,
            captured: Captured::default(),
            filter_state,
            downstream,
            route_name: None,
            virtual_host: None,
            virtual_cluster: None,
            filter_chain: None,
            cluster: None,
            upstream: None,
            attempted: Vec::new(),
            attempt_count: 0,
            upgrade: None,
            downstream_peer: None,
            upstream_peer: None,
            tcp_reported: (false, 0, 0),
            grpc_messages: GrpcMessages::default(),
            span: None,
            request_id: None,
            health_check: false,
            dynamic_metadata: downstream_metadata,
            config_metadata: None,
            local_reply_body: None,
        }
    }

    /// A connection as a stream, which began when it was accepted.
    pub fn of_connection(downstream: Rc<DownstreamInfo>) -> Self {
        let accepted = downstream.state.life.accepted;
        let mut info = Self::new(downstream);
        if let Some(accepted) = accepted {
            info.start_time -= info.start.saturating_duration_since(accepted);
            info.start = accepted;
        }
        info
    }

    /// Notes a failure.
    pub fn flag(&mut self, flag: ResponseFlag) {
        self.flags.set(flag);
    }

    /// How long it took: until its end, or until now while it goes on.
    pub fn duration(&self) -> Duration {
        self.timing.end.unwrap_or_else(clock::now).saturating_duration_since(self.start)
    }

    /// Another upstream is tried: the one before is remembered.
    pub fn try_upstream(&mut self, next: UpstreamInfo) {
        if let Some(before) = self.upstream.replace(next) {
            let UpstreamInfo { host, hostname, connection_id, .. } = before;
            self.attempted.push(Attempted { host, hostname, connection_id });
        }
    }

    /// The upstream, made if there is none yet.
    pub fn upstream_mut(&mut self) -> &mut UpstreamInfo {
        self.upstream.get_or_insert_default()
    }

    /// `%FILTER_STATE(key)%`.
    pub fn filter_state(&self, key: &str) -> Option<&str> {
        self.filter_state.iter().rev().find(|(name, _)| &**name == key).map(|(_, value)| &**value)
    }
}

#[cfg(test)]
mod tests;
