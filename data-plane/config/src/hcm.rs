//! The HTTP connection manager.

mod client;
pub(crate) mod convert;
pub(crate) mod protocol;
pub(crate) mod scope;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use sail_proxy_decide::address::CidrSet;
use sail_proxy_decide::headers::{HeaderOps, Mutation};
use sail_proxy_decide::route::RouteTable;

use crate::access_log::{AccessLog, AccessLogFilter};
use crate::http_filter::HttpFilter;
use crate::source::ResourceRef;
use crate::tracing::Tracing;

pub use scope::{Extract, Scope, ScopeFragment, ScopeKey, ScopeRoutes, ScopedRoutes, Scopes};

/// `HttpConnectionManager`
#[derive(Debug)]
pub struct Hcm {
    /// What its statistics are called.
    pub stat_prefix: Arc<str>,
    /// Which protocols it speaks.
    pub codec: Codec,
    /// Where routes come from.
    pub routes: RouteSource,
    /// Its filters; the last is the router.
    pub http_filters: Arc<[HttpFilter]>,
    /// Logs.
    pub access_logs: Box<[Arc<AccessLog>]>,
    /// How often a log is written while a stream lasts.
    pub access_log_flush_interval: Option<Duration>,
    /// Whether a log is written when a request begins.
    pub flush_access_log_on_new_request: bool,
    /// Its timeouts.
    pub timeouts: HcmTimeouts,
    /// By how much more a connection may last than its limit, at random, in percent.
    pub max_connection_duration_jitter: f64,
    /// How much longer connections drain at random, in percent.
    pub drain_timeout_jitter: f64,
    /// Limits of connections and requests.
    pub limits: HcmLimits,
    /// HTTP/1 alone.
    pub http1: Http1Options,
    /// HTTP/2 alone.
    pub http2: Http2Options,
    /// How the client's address is found.
    pub client_address: ClientAddress,
    /// What becomes of `x-forwarded-client-cert`.
    pub forward_client_cert: ForwardClientCert,
    /// What is written there.
    pub client_cert_details: ClientCertDetails,
    /// What becomes of `server` in responses.
    pub server_header: ServerHeader,
    /// Its name there.
    pub server_name: HeaderValue,
    /// Appended to `via`.
    pub via: Option<HeaderValue>,
    /// What becomes of the scheme.
    pub scheme: SchemeTransformation,
    /// Paths, before anything looks at them.
    pub path: PathOptions,
    /// Hosts, before anything looks at them.
    pub host: HostOptions,
    /// `x-request-id`.
    pub request_id: RequestId,
    /// Upgrades; those of a route come first.
    pub upgrades: Box<[HcmUpgrade]>,
    /// Traces; `None`: none.
    pub tracing: Option<Box<Tracing>>,
    /// Answers that the proxy itself gives.
    pub local_reply: Option<Box<LocalReply>>,
    /// Whether answers to what overload refuses say so (`x-envoy-local-overloaded`).
    pub append_local_overload: bool,
    /// Clients hear what upstreams say before their responses, and who waits for `100 Continue` waits for theirs.
    pub proxy_100_continue: bool,
    /// Whether `x-forwarded-port` is appended.
    pub append_x_forwarded_port: bool,
    /// What becomes of header names with underscores.
    pub underscores: Underscores,
    /// Whether `user-agent` and `x-envoy-downstream-service-cluster` are added.
    pub add_user_agent: bool,
    /// Header mutations before anything else looks at a request.
    pub early_mutations: Box<[Mutation]>,
}

/// Which protocols are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// As ALPN or the first bytes say.
    Auto,
    /// HTTP/1 alone.
    Http1,
    /// HTTP/2 alone.
    Http2,
}

/// Where routes come from.
#[derive(Clone, Debug)]
pub enum RouteSource {
    /// From here.
    Inline(Arc<RouteTable>),
    /// From RDS, by name.
    Rds(ResourceRef),
    /// By the request's scope.
    Scoped(Arc<ScopedRoutes>),
}

/// Timeouts of a connection manager; `None`: without limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HcmTimeouts {
    /// A connection without streams; 1 h by default.
    pub idle: Option<Duration>,
    /// A connection, whatever it does.
    pub max_connection_duration: Option<Duration>,
    /// A stream that is silent; 5 min by default.
    pub stream_idle: Option<Duration>,
    /// The last of a response that its client does not take over HTTP/2; `None`: as for a stream that is silent. Zero:
    /// for ever.
    pub stream_flush: Option<Duration>,
    /// A stream, whatever it does.
    pub max_stream_duration: Option<Duration>,
    /// The whole request must be there.
    pub request: Option<Duration>,
    /// The request's headers must be there.
    pub request_headers: Option<Duration>,
    /// Between our FIN and the close; 1 s by default, zero: at once.
    pub delayed_close: Duration,
    /// Between the decision that a connection ends and its end; 5 s by default.
    pub drain: Duration,
}

/// Limits of connections and requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HcmLimits {
    /// Request headers altogether, in bytes; 60 KiB by default.
    pub max_request_headers_bytes: usize,
    /// How many headers; 100 by default.
    pub max_headers_count: usize,
    /// How many requests a connection may have; `None`: any number.
    pub max_requests_per_connection: Option<u32>,
}

/// `Http1ProtocolOptions`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http1Options {
    /// Whether HTTP/1.0 is answered.
    pub accept_http_10: bool,
    /// The host of HTTP/1.0 requests without one.
    pub default_host_for_http_10: Option<Box<str>>,
    /// Whether trailers are let through.
    pub enable_trailers: bool,
    /// Whether a body in chunks may have a length beside it, which is dropped.
    pub allow_chunked_length: bool,
    /// Whether clients may use methods that few know.
    pub allow_custom_methods: bool,
    /// Whether upstreams get whole URLs, as proxies do.
    pub send_fully_qualified_url: bool,
    /// How header names are spelled.
    pub header_case: HeaderCase,
}

impl Default for Http1Options {
    fn default() -> Self {
        Self {
            accept_http_10: false,
            default_host_for_http_10: None,
            enable_trailers: false,
            allow_chunked_length: false,
            allow_custom_methods: false,
            send_fully_qualified_url: false,
            header_case: HeaderCase::Lower,
        }
    }
}

/// How HTTP/1 header names are spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderCase {
    /// `content-type`
    Lower,
    /// `Content-Type`
    Proper,
    /// As the other side spelled them.
    Preserve(Spelling),
}

/// What `PreserveCaseFormatterConfig` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spelling {
    /// Names that the other side did not send are spelled `Content-Type`.
    pub others_proper: bool,
    /// The words beside the status go on, too.
    pub reason: bool,
}

impl HeaderCase {
    /// Whether spellings are kept.
    pub const fn is_kept(self) -> bool {
        matches!(self, Self::Preserve(_))
    }

    /// Whether names that nobody spelled begin upper-case.
    pub const fn is_proper(self) -> bool {
        matches!(self, Self::Proper | Self::Preserve(Spelling { others_proper: true, .. }))
    }

    /// Whether the words beside a status go on.
    pub const fn keeps_reason(self) -> bool {
        matches!(self, Self::Preserve(Spelling { reason: true, .. }))
    }
}

/// `Http2ProtocolOptions`; `None`: Envoy's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Http2Options {
    /// The size of the HPACK table.
    pub hpack_table_size: Option<u32>,
    /// How many streams at a time.
    pub max_concurrent_streams: Option<u32>,
    /// A stream's window.
    pub initial_stream_window_size: Option<u32>,
    /// The connection's window.
    pub initial_connection_window_size: Option<u32>,
    /// Whether extended CONNECT is let through.
    pub allow_connect: bool,
    /// How large one field of a head may be; 64 KiB by default.
    pub max_header_field_bytes: usize,
    /// Pings on silence.
    pub keepalive: Option<Http2Keepalive>,
    /// Whether a malformed message ends its stream alone.
    pub stream_errors: bool,
    /// Whether strings are sent in Huffman's code.
    pub huffman: bool,
    /// What a peer may make us do for nothing.
    pub limits: Http2Limits,
}

/// The limits of `Http2ProtocolOptions` that are against floods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2Limits {
    /// Frames that wait to be written.
    pub outbound: u32,
    /// Those among them that answer the peer or end streams: PING, SETTINGS, RST_STREAM.
    pub outbound_control: u32,
    /// Frames in a row that carry nothing and end nothing.
    pub empty: u32,
    /// PRIORITY frames for each open stream.
    pub priorities: u32,
    /// WINDOW_UPDATE frames for each DATA frame that was sent.
    pub updates: u32,
    /// RST_STREAM frames at once.
    pub reset_burst: u64,
    /// RST_STREAM frames a second.
    pub reset_rate: u64,
}

impl Http2Limits {
    /// Envoy's.
    pub const DEFAULT: Self = Self {
        outbound: 10_000,
        outbound_control: 1000,
        empty: 1,
        priorities: 100,
        updates: 10,
        reset_burst: 1000,
        reset_rate: 33,
    };
}

impl Default for Http2Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// `KeepaliveSettings`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2Keepalive {
    /// How often a ping is sent; `None`: never.
    pub interval: Option<Duration>,
    /// Up to so much, by chance, is added to that each time.
    pub interval_jitter: Duration,
    /// A request on a connection on which nothing came for so long has a ping before it; `None`: none has.
    pub connection_idle_interval: Option<Duration>,
    /// How long its answer may take.
    pub timeout: Duration,
}

/// How the client's address is found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientAddress {
    /// Whether the connection's peer is the client, and `x-forwarded-for` is appended to.
    pub use_remote_address: bool,
    /// How many entries of `x-forwarded-for`, from the right, are trusted.
    pub xff_num_trusted_hops: u32,
    /// Whether `x-forwarded-for` is left alone.
    pub skip_xff_append: bool,
    /// Proxies whose word is believed, in the place of a number of them.
    pub xff_trusted_cidrs: Option<CidrSet>,
    /// Whether the peer is appended to `x-forwarded-for` though the client is found in it.
    pub append_to_xff: bool,
    /// Addresses that are internal; `None`: no address is.
    pub internal: Option<CidrSet>,
    /// Whether peers of Unix sockets are internal.
    pub unix_sockets_are_internal: bool,
    /// The original-IP-detection extension `custom_header`: the header's name.
    pub custom_header: Option<http::HeaderName>,
    /// Whether an address from there may count as internal.
    pub custom_header_is_trusted: bool,
    /// What a request gets whose header names no address; `None`: it goes on.
    pub custom_header_reject: Option<http::StatusCode>,
}

/// `ForwardClientCertDetails`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardClientCert {
    /// The header is removed.
    #[default]
    Sanitize,
    /// It is let through over mutual TLS.
    ForwardOnly,
    /// It is appended to over mutual TLS.
    AppendForward,
    /// It is replaced over mutual TLS.
    SanitizeSet,
    /// It is let through whatever the connection.
    AlwaysForwardOnly,
}

/// `SetCurrentClientCertDetails`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCertDetails {
    /// The subject.
    pub subject: bool,
    /// The certificate.
    pub cert: bool,
    /// The chain.
    pub chain: bool,
    /// DNS SANs.
    pub dns: bool,
    /// URI SANs.
    pub uri: bool,
}

/// `ServerHeaderTransformation`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerHeader {
    /// Ours replaces any.
    #[default]
    Overwrite,
    /// Ours only if there is none.
    AppendIfAbsent,
    /// Left alone.
    PassThrough,
}

/// `SchemeHeaderTransformation`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SchemeTransformation {
    /// Every request has this scheme.
    pub overwrite: Option<Box<str>>,
}

/// Paths, before anything looks at them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathOptions {
    /// Whether dot segments are removed.
    pub normalize: bool,
    /// Whether `//` becomes `/`.
    pub merge_slashes: bool,
    /// What becomes of `%2F` and `%5C`.
    pub escaped_slashes: EscapedSlashes,
}

/// `PathWithEscapedSlashesAction`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EscapedSlashes {
    /// Nothing.
    #[default]
    KeepUnchanged,
    /// 400.
    RejectRequest,
    /// A redirect to the unescaped path.
    UnescapeAndRedirect,
    /// They are unescaped.
    UnescapeAndForward,
}

/// Hosts, before anything looks at them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostOptions {
    /// Whether the listener's own port is cut off.
    pub strip_matching_port: bool,
    /// Whether any port is cut off.
    pub strip_any_port: bool,
    /// Whether a dot at the end is cut off.
    pub strip_trailing_dot: bool,
}

/// `x-request-id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId {
    /// Whether one is made up where there is none; on by default.
    pub generate: bool,
    /// Whether one from outside is kept.
    pub preserve_external: bool,
    /// Whether it goes into every response.
    pub always_set_in_response: bool,
    /// Whether the trace decision is packed into it; on by default.
    pub pack_trace_reason: bool,
    /// Whether it decides sampling; on by default.
    pub use_for_trace_sampling: bool,
}

/// An entry of `upgrade_configs`.
#[derive(Clone, Debug)]
pub struct HcmUpgrade {
    /// `websocket`, `connect`; lower-case.
    pub upgrade_type: Box<str>,
    /// Whether it is let through.
    pub enabled: bool,
    /// Its own filters, in place of the manager's.
    pub filters: Option<Arc<[HttpFilter]>>,
}

/// `LocalReplyConfig`
#[derive(Debug)]
pub struct LocalReply {
    /// The first whose filter matches changes the answer.
    pub mappers: Box<[ReplyMapper]>,
    /// The body of all answers.
    pub body_format: Option<BodyFormat>,
}

/// `ResponseMapper`
#[derive(Debug)]
pub struct ReplyMapper {
    /// For which answers.
    pub filter: AccessLogFilter,
    /// The status.
    pub status: Option<http::StatusCode>,
    /// The body, before it is formatted.
    pub body: Option<bytes::Bytes>,
    /// The body's format.
    pub body_format: Option<BodyFormat>,
    /// Headers to add.
    pub headers: HeaderOps,
}

pub use sail_proxy_decide::route::BodyFormat;

/// `HeadersWithUnderscoresAction`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Underscores {
    /// They pass.
    #[default]
    Allow,
    /// The request is refused.
    RejectRequest,
    /// The header is dropped.
    DropHeader,
}
