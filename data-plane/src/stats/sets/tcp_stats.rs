//! What the kernel tells of connections, on both sides. Sets of their own: few listeners and clusters ask.

use crate::stats::schema::stat_set;

macro_rules! tcp_set {
    ($(#[$doc:meta])* $name:ident, $root:literal, $label:literal) => {
        stat_set! {
            $(#[$doc])*
            $name { root: $root, tag: Tag::Label($label) }
            counters {
                cx_tx_segments = "tcp_stats.cx_tx_segments",
                cx_rx_segments = "tcp_stats.cx_rx_segments",
                cx_tx_data_segments = "tcp_stats.cx_tx_data_segments",
                cx_rx_data_segments = "tcp_stats.cx_rx_data_segments",
                cx_tx_retransmitted_segments = "tcp_stats.cx_tx_retransmitted_segments",
                cx_rx_bytes_received = "tcp_stats.cx_rx_bytes_received",
                cx_tx_bytes_sent = "tcp_stats.cx_tx_bytes_sent",
            }
            gauges {
                cx_tx_unsent_bytes = "tcp_stats.cx_tx_unsent_bytes",
                cx_tx_unacked_segments = "tcp_stats.cx_tx_unacked_segments",
            }
            histograms {
                cx_tx_percent_retransmitted_segments = "tcp_stats.cx_tx_percent_retransmitted_segments",
                cx_rtt_us = "tcp_stats.cx_rtt_us",
                cx_rtt_variance_us = "tcp_stats.cx_rtt_variance_us",
            }
        }
    };
}

tcp_set! {
    /// `listener.<address>.tcp_stats.`
    listener_tcp_stats, "listener", "envoy.listener_address"
}

tcp_set! {
    /// `cluster.<name>.tcp_stats.`
    cluster_tcp_stats, "cluster", "envoy.cluster_name"
}
