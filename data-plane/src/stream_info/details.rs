//! Envoy's phrases for where a response came from (`%RESPONSE_CODE_DETAILS%`).

macro_rules! details {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = $text;)*
    };
}

details! {
    /// The upstream answered.
    VIA_UPSTREAM = "via_upstream";
    /// A header for the router has a value that it does not understand.
    REQUEST_HEADERS_FAILED_STRICT_CHECK = "request_headers_failed_strict_check";
    /// A route's direct response.
    DIRECT_RESPONSE = "direct_response";
    /// No route.
    ROUTE_NOT_FOUND = "route_not_found";
    /// No filter chain takes the connection.
    FILTER_CHAIN_NOT_FOUND = "filter_chain_not_found";
    /// The route's cluster does not exist.
    CLUSTER_NOT_FOUND = "cluster_not_found";
    /// The cluster has no healthy host.
    NO_HEALTHY_UPSTREAM = "no_healthy_upstream";
    /// The load assignment had the request dropped.
    DROP_OVERLOAD = "drop_overload";
    /// The load assignment has all requests dropped.
    UNCONDITIONAL_DROP_OVERLOAD = "unconditional_drop_overload";
    /// The route's timeout.
    RESPONSE_TIMEOUT = "response_timeout";
    /// `per_try_timeout`.
    UPSTREAM_PER_TRY_TIMEOUT = "upstream_per_try_timeout";
    /// `per_try_idle_timeout`.
    UPSTREAM_PER_TRY_IDLE_TIMEOUT = "upstream_per_try_idle_timeout";
    /// The stream's idle timeout.
    STREAM_IDLE_TIMEOUT = "stream_idle_timeout";
    /// `request_timeout`.
    REQUEST_OVERALL_TIMEOUT = "request_overall_timeout";
    /// `request_headers_timeout`.
    REQUEST_HEADER_TIMEOUT = "request_header_timeout";
    /// `max_stream_duration` of the listener.
    MAX_DURATION_TIMEOUT = "max_duration_timeout";
    /// `max_stream_duration` of the upstream.
    UPSTREAM_MAX_STREAM_DURATION_REACHED = "upstream_max_stream_duration_reached";
    /// Without `:authority`.
    MISSING_HOST_HEADER = "missing_host_header";
    /// Without `:path`.
    MISSING_PATH = "missing_path_rejected";
    /// An absolute path was asked for with no leading slash.
    ABSOLUTE_PATH = "absolute_path_rejected";
    /// The path does not normalize.
    PATH_NORMALIZATION_FAILED = "path_normalization_failed";
    /// The overload manager takes no requests.
    OVERLOAD = "overload";
    /// HTTP/1.0 or older is not accepted.
    LOW_VERSION = "low_version";
    /// A header that should name the client's address does not.
    ORIGINAL_IP_DETECTION_FAILED = "rejected_via_ip_detection";
    /// A header's name has an underscore.
    UNEXPECTED_UNDERSCORE = "http1.unexpected_underscore";
    /// The client's headers are too large.
    REQUEST_HEADERS_TOO_LARGE = "request_headers_too_large";
    /// The client's body is too large.
    REQUEST_PAYLOAD_TOO_LARGE = "request_payload_too_large";
    /// The upstream's body is too large to buffer.
    RESPONSE_PAYLOAD_TOO_LARGE = "response_payload_too_large";
    /// The client broke HTTP/1.
    HTTP1_PROTOCOL_ERROR = "http1.codec_error";
    /// The client's HTTP/1 headers are too large.
    HTTP1_HEADERS_TOO_LARGE = "http1.headers_too_large";
    /// The client sends too many HTTP/1 headers.
    HTTP1_TOO_MANY_HEADERS = "http1.too_many_headers";
    /// Bytes that may not stand in a header.
    HTTP1_INVALID_CHARACTERS = "http1.invalid_characters";
    /// A `transfer-encoding` other than `chunked`.
    HTTP1_INVALID_TRANSFER_ENCODING = "http1.invalid_transfer_encoding";
    /// A `transfer-encoding` where none may be.
    HTTP1_TRANSFER_ENCODING_NOT_ALLOWED = "http1.transfer_encoding_not_allowed";
    /// A length beside chunks.
    HTTP1_LENGTH_AND_CHUNKED = "http1.content_length_and_chunked_not_allowed";
    /// A target that is no URL.
    HTTP1_INVALID_URL = "http1.invalid_url";
    /// A target whose scheme is not HTTP's.
    HTTP1_INVALID_SCHEME = "http1.invalid_scheme";
    /// A target that is `https`, and no TLS.
    HTTP1_HTTPS_IN_THE_CLEAR = "http1.https_url_on_plaintext_connection";
    /// `host` or `:authority` is none.
    INVALID_AUTHORITY = "http.invalid_authority";
    /// The client broke HTTP/2.
    HTTP2_PROTOCOL_ERROR = "http2.violation.of.messaging.rule";
    /// The client went away.
    DOWNSTREAM_REMOTE_DISCONNECT = "downstream_remote_disconnect";
    /// We closed the client's connection.
    DOWNSTREAM_LOCAL_DISCONNECT = "downstream_local_disconnect";
    /// The request's body broke off while a filter waited for it.
    DOWNSTREAM_REMOTE_RESET = "codec_error:downstream_remote_reset";
    /// The client sent a header that is none over HTTP/2.
    HTTP2_INVALID_FIELD = "http2.invalid.header.field";
    /// The client reset the stream.
    HTTP2_REMOTE_RESET = "http2.remote_reset";
    /// The same, with the code that says that nothing was done for it.
    HTTP2_REMOTE_REFUSE = "http2.remote_refuse";
    /// The client's headers are too large over HTTP/2.
    HTTP2_HEADERS_TOO_LARGE = "http2.header_list_size_too_large";
    /// They are too many.
    HTTP2_TOO_MANY_HEADERS = "http2.too_many_headers";
    /// The client did not answer a ping.
    HTTP2_PING_TIMEOUT = "downstream_local_disconnect(http2_ping_timeout)";
    /// An upgrade that is not configured.
    UPGRADE_FAILED = "upgrade_failed";
    /// The fault filter.
    FAULT_FILTER_ABORT = "fault_filter_abort";
    /// CORS preflight.
    CORS_RESPONSE = "cors_response";
    /// RBAC, before the matched policy: `rbac_access_denied_matched_policy[name]`.
    RBAC_ACCESS_DENIED = "rbac_access_denied_matched_policy";
    /// A token is missing or wrong; Envoy appends what.
    JWT_AUTHN_ACCESS_DENIED = "jwt_authn_access_denied";
    /// External authorization refused.
    EXT_AUTHZ_DENIED = "ext_authz_denied";
    /// External authorization failed.
    EXT_AUTHZ_ERROR = "ext_authz_error";
    /// Rate limited by the service.
    REQUEST_RATE_LIMITED = "request_rate_limited";
    /// Rate limited here.
    LOCAL_RATE_LIMITED = "local_rate_limited";
    /// The request went on elsewhere, by an internal redirect or in search of another response.
    INTERNAL_REDIRECT = "internal_redirect";
    /// The cluster is in maintenance mode.
    MAINTENANCE_MODE = "maintenance_mode";
    /// The circuit breaker's refusal; Envoy writes it with the reset reason.
    OVERFLOW = "upstream_reset_before_response_started{overflow}";
    /// The upstream did not take the upgrade to a WebSocket.
    WEBSOCKET_HANDSHAKE_UNSUCCESSFUL = "websocket_handshake_unsuccessful";
    /// The proxy answers health checks itself.
    HEALTH_CHECK_OK = "health_check_ok";
    /// It answers that it is unhealthy.
    HEALTH_CHECK_FAILED = "health_check_failed";
}

/// `upstream_reset_before_response_started{reason}`, or `..._after_...`; a cause is appended as Envoy does, its spaces
/// turned to underscores, since log lines are split at them.
pub fn upstream_reset(reason: &str, response_started: bool, cause: Option<&str>) -> String {
    let when = if response_started { "after" } else { "before" };
    let cause = cause.filter(|cause| !cause.is_empty()).map(|cause| format!("|{cause}")).unwrap_or_default();
    format!("upstream_reset_{when}_response_started{{{reason}{cause}}}").replace(' ', "_")
}

/// The same, once something of a response has come.
pub fn after_response_started(details: &str) -> String {
    details.replacen("upstream_reset_before_", "upstream_reset_after_", 1)
}

/// `rbac_access_denied_matched_policy[name]`; `none` where an ALLOW policy was missing.
pub fn rbac_denied(policy: Option<&str>) -> String {
    format!("{RBAC_ACCESS_DENIED}[{}]", policy.unwrap_or("none")).replace(' ', "_")
}

/// Reset reasons, as they stand in the braces of [`upstream_reset`].
pub mod reset {
    details! {
        /// The connection was refused or timed out.
        REMOTE_CONNECTION_FAILURE = "remote_connection_failure";
        /// We could not connect.
        LOCAL_CONNECTION_FAILURE = "local_connection_failure";
        /// Connecting took too long.
        CONNECTION_TIMEOUT = "connection_timeout";
        /// The connection ended under way.
        CONNECTION_TERMINATION = "connection_termination";
        /// The upstream reset the stream.
        REMOTE_RESET = "remote_reset";
        /// The upstream refused the stream, which is safe to retry.
        REMOTE_REFUSED_STREAM = "remote_refused_stream_reset";
        /// We reset it.
        LOCAL_RESET = "local_reset";
        /// A circuit breaker.
        OVERFLOW = "overflow";
        /// The upstream broke the protocol.
        PROTOCOL_ERROR = "protocol_error";
    }
}

/// Why we closed a connection, as `%DOWNSTREAM_LOCAL_CLOSE_REASON%` and its kin tell it; the spelling is Envoy's.
pub mod close_reason {
    details! {
        /// The handshake took too long.
        TRANSPORT_SOCKET_TIMEOUT = "transport_socket_timeout";
        /// Nothing moved for too long.
        TCP_SESSION_IDLE_TIMEOUT = "tcp_session_idle_timeout";
        /// The connection lasted too long.
        MAX_CONNECTION_DURATION = "max_connection_duration_reached";
        /// The client was told with a response that its connection ends.
        DRAINED = "deferred_close_on_drained_connection";
        /// No connection to the upstream.
        TCP_CONNECT_FAILED = "tcp_initializion_failure:0";
        /// No host to connect to.
        TCP_NO_HEALTHY_UPSTREAM = "tcp_initializion_failure:1";
        /// Too many connections.
        TCP_RESOURCE_LIMIT = "tcp_initializion_failure:2";
        /// RBAC refused it.
        RBAC_DENY = "rbac_deny_close";
        /// No such cluster.
        TCP_NO_ROUTE = "tcp_initializion_failure:3";
    }
}
