//! Istio's standard metrics, one object a set of labels.

use crate::stats::schema::stat_set;

stat_set! {
    /// Metrics of HTTP and gRPC requests.
    istio_http { root: "", tag: Tag::Rendered }
    counters {
        requests_total = "istio_requests_total",
        request_messages_total = "istio_request_messages_total",
        response_messages_total = "istio_response_messages_total",
    }
    gauges {}
    histograms {
        request_duration_milliseconds = "istio_request_duration_milliseconds",
        request_bytes = "istio_request_bytes",
        response_bytes = "istio_response_bytes",
    }
}

stat_set! {
    /// Metrics of TCP connections.
    istio_tcp { root: "", tag: Tag::Rendered }
    counters {
        connections_opened_total = "istio_tcp_connections_opened_total",
        connections_closed_total = "istio_tcp_connections_closed_total",
        sent_bytes_total = "istio_tcp_sent_bytes_total",
        received_bytes_total = "istio_tcp_received_bytes_total",
    }
    gauges {}
    histograms {}
}
