//! Listeners and the TCP proxy.

use crate::stats::schema::stat_set;

stat_set! {
    /// `listener.<address>.`
    listener { root: "listener", tag: Tag::Label("envoy.listener_address") }
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
        ssl_handshake = "ssl.handshake",
        ssl_connection_error = "ssl.connection_error",
        ssl_session_reused = "ssl.session_reused",
        ssl_no_certificate = "ssl.no_certificate",
        ssl_fail_verify_no_cert = "ssl.fail_verify_no_cert",
        ssl_fail_verify_error = "ssl.fail_verify_error",
        ssl_fail_verify_san = "ssl.fail_verify_san",
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
