//! What expressions can ask about a stream: Envoy's attributes.

use super::Value;

macro_rules! attributes {
    ($($variant:ident = $root:literal . $field:literal,)*) => {
        /// An attribute with a value of its own.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "each is the attribute of its name")]
        pub enum Attribute { $($variant,)* }

        impl Attribute {
            /// Every attribute.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// By its name.
            pub(super) fn parse(root: &str, field: &str) -> Option<Self> {
                match (root, field) {
                    $(($root, $field) => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// As expressions write it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => concat!($root, ".", $field),)* }
            }

            /// Whether attributes have such a first name.
            pub(super) fn is_root(root: &str) -> bool {
                [$($root),*].contains(&root)
            }
        }
    };
}

attributes! {
    RequestPath = "request"."path",
    RequestUrlPath = "request"."url_path",
    RequestHost = "request"."host",
    RequestScheme = "request"."scheme",
    RequestMethod = "request"."method",
    RequestReferer = "request"."referer",
    RequestUseragent = "request"."useragent",
    RequestTime = "request"."time",
    RequestId = "request"."id",
    RequestProtocol = "request"."protocol",
    RequestQuery = "request"."query",
    RequestDuration = "request"."duration",
    RequestSize = "request"."size",
    RequestTotalSize = "request"."total_size",
    ResponseCode = "response"."code",
    ResponseCodeDetails = "response"."code_details",
    ResponseFlags = "response"."flags",
    ResponseGrpcStatus = "response"."grpc_status",
    ResponseSize = "response"."size",
    ResponseTotalSize = "response"."total_size",
    ResponseBackendLatency = "response"."backend_latency",
    SourceAddress = "source"."address",
    SourcePort = "source"."port",
    DestinationAddress = "destination"."address",
    DestinationPort = "destination"."port",
    ConnectionId = "connection"."id",
    ConnectionMtls = "connection"."mtls",
    ConnectionRequestedServerName = "connection"."requested_server_name",
    ConnectionTlsVersion = "connection"."tls_version",
    ConnectionSubjectLocal = "connection"."subject_local_certificate",
    ConnectionSubjectPeer = "connection"."subject_peer_certificate",
    ConnectionDnsSanLocal = "connection"."dns_san_local_certificate",
    ConnectionDnsSanPeer = "connection"."dns_san_peer_certificate",
    ConnectionUriSanLocal = "connection"."uri_san_local_certificate",
    ConnectionUriSanPeer = "connection"."uri_san_peer_certificate",
    ConnectionSha256Peer = "connection"."sha256_peer_certificate_digest",
    ConnectionTerminationDetails = "connection"."termination_details",
    ConnectionTransportFailureReason = "connection"."transport_failure_reason",
    UpstreamAddress = "upstream"."address",
    UpstreamPort = "upstream"."port",
    UpstreamTlsVersion = "upstream"."tls_version",
    UpstreamSubjectLocal = "upstream"."subject_local_certificate",
    UpstreamSubjectPeer = "upstream"."subject_peer_certificate",
    UpstreamDnsSanLocal = "upstream"."dns_san_local_certificate",
    UpstreamDnsSanPeer = "upstream"."dns_san_peer_certificate",
    UpstreamUriSanLocal = "upstream"."uri_san_local_certificate",
    UpstreamUriSanPeer = "upstream"."uri_san_peer_certificate",
    UpstreamSha256Peer = "upstream"."sha256_peer_certificate_digest",
    UpstreamLocalAddress = "upstream"."local_address",
    UpstreamTransportFailureReason = "upstream"."transport_failure_reason",
    UpstreamRequestAttemptCount = "upstream"."request_attempt_count",
    XdsClusterName = "xds"."cluster_name",
    XdsClusterMetadata = "xds"."cluster_metadata",
    XdsListenerDirection = "xds"."listener_direction",
    XdsListenerMetadata = "xds"."listener_metadata",
    XdsRouteName = "xds"."route_name",
    XdsRouteMetadata = "xds"."route_metadata",
    XdsVirtualHostName = "xds"."virtual_host_name",
    XdsVirtualHostMetadata = "xds"."virtual_host_metadata",
    XdsUpstreamHostMetadata = "xds"."upstream_host_metadata",
    XdsFilterChainName = "xds"."filter_chain_name",
}

/// Attributes that are looked into by a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    /// `request.headers`
    RequestHeaders,
    /// `response.headers`
    ResponseHeaders,
    /// `response.trailers`
    ResponseTrailers,
    /// `metadata`, whose one field is `filter_metadata`.
    Metadata,
    /// `metadata.filter_metadata`
    FilterMetadata,
    /// `filter_state`
    FilterState,
    /// `upstream_filter_state`
    UpstreamFilterState,
}

impl Table {
    pub(super) fn parse_field(root: &str, field: &str) -> Option<Self> {
        match (root, field) {
            ("request", "headers") => Some(Self::RequestHeaders),
            ("response", "headers") => Some(Self::ResponseHeaders),
            ("response", "trailers") => Some(Self::ResponseTrailers),
            _ => None,
        }
    }

    pub(super) fn parse_root(root: &str) -> Option<Self> {
        match root {
            "metadata" => Some(Self::Metadata),
            "filter_state" => Some(Self::FilterState),
            "upstream_filter_state" => Some(Self::UpstreamFilterState),
            _ => None,
        }
    }
}

/// A stream, as expressions see it.
pub trait Attributes {
    /// An attribute's value; `None` if it has none.
    fn get(&self, attribute: Attribute) -> Option<Value<'_>>;

    /// What a table has under a key: a header's value, a namespace of metadata, a filter state object.
    fn look_up(&self, table: Table, key: &str) -> Option<Value<'_>>;

    /// How many entries a table has, where somebody knows.
    fn size(&self, _table: Table) -> Option<usize> {
        None
    }
}
