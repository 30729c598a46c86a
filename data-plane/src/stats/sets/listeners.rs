//! Listeners and the TCP proxy.

use crate::stats::schema::stat_set;

stat_set! {
    /// `listener.<address>.`
    listener {
        root: "listener", tag: Tag::Label("envoy.listener_address"),
        per_worker: ["downstream_cx_total", "downstream_cx_active"]
    }
    counters {
        downstream_cx_total = "downstream_cx_total",
        downstream_cx_destroy = "downstream_cx_destroy",
        downstream_cx_overflow = "downstream_cx_overflow",
        downstream_cx_overload_reject = "downstream_cx_overload_reject",
        downstream_cx_transport_socket_connect_timeout = "downstream_cx_transport_socket_connect_timeout",
        downstream_global_cx_overflow = "downstream_global_cx_overflow",
        downstream_pre_cx_timeout = "downstream_pre_cx_timeout",
        downstream_listener_filter_error = "downstream_listener_filter_error",
        downstream_listener_filter_remote_close = "downstream_listener_filter_remote_close",
        no_filter_chain_match = "no_filter_chain_match",
        extension_config_missing = "extension_config_missing",
        network_extension_config_missing = "network_extension_config_missing",
    }
    gauges {
        downstream_cx_active = "downstream_cx_active",
        downstream_pre_cx_active = "downstream_pre_cx_active",
    }
    histograms { downstream_cx_length_ms = "downstream_cx_length_ms" }
}

stat_set! {
    /// `listener.<address>.http.<stat_prefix>.`, where the object's name is both.
    listener_http { root: "listener", tag: Tag::None }
    counters {
        downstream_rq_completed = "downstream_rq_completed",
        downstream_rq_1xx = "downstream_rq_1xx",
        downstream_rq_2xx = "downstream_rq_2xx",
        downstream_rq_3xx = "downstream_rq_3xx",
        downstream_rq_4xx = "downstream_rq_4xx",
        downstream_rq_5xx = "downstream_rq_5xx",
    }
    gauges {}
    histograms {}
}

stat_set! {
    /// `tcp.<stat_prefix>.`
    tcp { root: "tcp", tag: Tag::Label("envoy.tcp_prefix") }
    counters {
        downstream_cx_total = "downstream_cx_total",
        downstream_cx_no_route = "downstream_cx_no_route",
        downstream_cx_rx_bytes_total = "downstream_cx_rx_bytes_total",
        downstream_cx_tx_bytes_total = "downstream_cx_tx_bytes_total",
        idle_timeout = "idle_timeout",
        max_downstream_connection_duration = "max_downstream_connection_duration",
        upstream_flush_total = "upstream_flush_total",
    }
    gauges {
        downstream_cx_active = "downstream_cx_active",
        upstream_flush_active = "upstream_flush_active",
    }
    histograms {}
}

stat_set! {
    /// `proxy_proto.<stat_prefix>.`: the listener filter.
    proxy_protocol { root: "proxy_proto", tag: Tag::None }
    counters {
        not_found_disallowed = "not_found_disallowed",
        not_found_allowed = "not_found_allowed",
        v1_found = "versions.v1.found",
        v1_disallowed = "versions.v1.disallowed",
        v1_error = "versions.v1.error",
        v2_found = "versions.v2.found",
        v2_disallowed = "versions.v2.disallowed",
        v2_error = "versions.v2.error",
    }
    gauges {}
    histograms {}
}

stat_set! {
    /// `listener_local_ratelimit.<stat_prefix>.`: the listener filter.
    listener_local_rate_limit { root: "listener_local_ratelimit", tag: Tag::None }
    counters { rate_limited = "rate_limited" }
    gauges {}
    histograms {}
}

stat_set! {
    /// `local_rate_limit.<stat_prefix>.`: the network filter.
    network_local_rate_limit { root: "local_rate_limit", tag: Tag::Label("envoy.local_network_ratelimit_prefix") }
    counters { rate_limited = "rate_limited" }
    gauges {}
    histograms {}
}

stat_set! {
    /// `connection_limit.<stat_prefix>.`
    connection_limit { root: "connection_limit", tag: Tag::Label("envoy.connection_limit_prefix") }
    counters { limited_connections = "limited_connections" }
    gauges { active_connections = "active_connections" }
    histograms {}
}

stat_set! {
    /// `ratelimit.<stat_prefix>.`: the network filter.
    network_rate_limit { root: "ratelimit", tag: Tag::Label("envoy.ratelimit_prefix") }
    counters {
        total = "total",
        ok = "ok",
        over_limit = "over_limit",
        error = "error",
        failure_mode_allowed = "failure_mode_allowed",
        cx_closed = "cx_closed",
    }
    gauges { active = "active" }
    histograms {}
}

stat_set! {
    /// `ext_authz.<stat_prefix>.`: the network filter.
    network_ext_authz { root: "ext_authz", tag: Tag::Label("envoy.ext_authz_prefix") }
    counters {
        total = "total",
        ok = "ok",
        denied = "denied",
        error = "error",
        disabled = "disabled",
        failure_mode_allowed = "failure_mode_allowed",
        cx_closed = "cx_closed",
    }
    gauges { active = "active" }
    histograms {}
}

stat_set! {
    /// `tls_inspector.`: the listener filter.
    tls_inspector { root: "tls_inspector", tag: Tag::None }
    counters {
        client_hello_too_large = "client_hello_too_large",
        tls_found = "tls_found",
        tls_not_found = "tls_not_found",
        alpn_found = "alpn_found",
        alpn_not_found = "alpn_not_found",
        sni_found = "sni_found",
        sni_not_found = "sni_not_found",
    }
    gauges {}
    histograms { bytes_processed = "bytes_processed" }
}

stat_set! {
    /// `http_inspector.`: the listener filter.
    http_inspector { root: "http_inspector", tag: Tag::None }
    counters {
        read_error = "read_error",
        http10_found = "http10_found",
        http11_found = "http11_found",
        http2_found = "http2_found",
        http_not_found = "http_not_found",
    }
    gauges {}
    histograms {}
}
