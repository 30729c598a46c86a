//! Clusters.

use crate::stats::schema::stat_set;

stat_set! {
    /// `cluster.<name>.`: connections and requests.
    cluster { root: "cluster", tag: Tag::Label("envoy.cluster_name"), codes: "upstream_rq_" }
    counters {
        bind_errors = "bind_errors",
        lb_healthy_panic = "lb_healthy_panic",
        lb_local_cluster_not_ok = "lb_local_cluster_not_ok",
        lb_zone_cluster_too_small = "lb_zone_cluster_too_small",
        lb_zone_no_capacity_left = "lb_zone_no_capacity_left",
        lb_zone_routing_all_directly = "lb_zone_routing_all_directly",
        lb_zone_routing_cross_zone = "lb_zone_routing_cross_zone",
        lb_zone_routing_sampled = "lb_zone_routing_sampled",
        lb_subsets_created = "lb_subsets_created",
        lb_subsets_removed = "lb_subsets_removed",
        lb_subsets_selected = "lb_subsets_selected",
        lb_subsets_fallback = "lb_subsets_fallback",
        lb_subsets_fallback_panic = "lb_subsets_fallback_panic",
        original_dst_host_invalid = "original_dst_host_invalid",
        retry_or_shadow_abandoned = "retry_or_shadow_abandoned",
        upstream_cx_total = "upstream_cx_total",
        upstream_cx_http1_total = "upstream_cx_http1_total",
        upstream_cx_http2_total = "upstream_cx_http2_total",
        upstream_cx_connect_fail = "upstream_cx_connect_fail",
        upstream_cx_connect_timeout = "upstream_cx_connect_timeout",
        upstream_cx_connect_attempts_exceeded = "upstream_cx_connect_attempts_exceeded",
        upstream_cx_overflow = "upstream_cx_overflow",
        upstream_cx_pool_overflow = "upstream_cx_pool_overflow",
        upstream_cx_idle_timeout = "upstream_cx_idle_timeout",
        upstream_cx_max_duration_reached = "upstream_cx_max_duration_reached",
        upstream_cx_max_requests = "upstream_cx_max_requests",
        upstream_cx_preconnect_skipped = "upstream_cx_preconnect_skipped",
        upstream_cx_none_healthy = "upstream_cx_none_healthy",
        upstream_cx_protocol_error = "upstream_cx_protocol_error",
        upstream_cx_close_notify = "upstream_cx_close_notify",
        upstream_cx_destroy = "upstream_cx_destroy",
        upstream_cx_destroy_local = "upstream_cx_destroy_local",
        upstream_cx_destroy_remote = "upstream_cx_destroy_remote",
        upstream_cx_destroy_with_active_rq = "upstream_cx_destroy_with_active_rq",
        upstream_cx_destroy_local_with_active_rq = "upstream_cx_destroy_local_with_active_rq",
        upstream_cx_destroy_remote_with_active_rq = "upstream_cx_destroy_remote_with_active_rq",
        upstream_cx_rx_bytes_total = "upstream_cx_rx_bytes_total",
        upstream_cx_tx_bytes_total = "upstream_cx_tx_bytes_total",
        upstream_rq_total = "upstream_rq_total",
        upstream_rq_completed = "upstream_rq_completed",
        upstream_rq_1xx = "upstream_rq_1xx",
        upstream_rq_2xx = "upstream_rq_2xx",
        upstream_rq_3xx = "upstream_rq_3xx",
        upstream_rq_4xx = "upstream_rq_4xx",
        upstream_rq_5xx = "upstream_rq_5xx",
        upstream_rq_cancelled = "upstream_rq_cancelled",
        upstream_rq_maintenance_mode = "upstream_rq_maintenance_mode",
        upstream_rq_max_duration_reached = "upstream_rq_max_duration_reached",
        upstream_rq_pending_total = "upstream_rq_pending_total",
        upstream_rq_pending_overflow = "upstream_rq_pending_overflow",
        upstream_rq_pending_failure_eject = "upstream_rq_pending_failure_eject",
        upstream_rq_per_try_timeout = "upstream_rq_per_try_timeout",
        upstream_rq_per_try_idle_timeout = "upstream_rq_per_try_idle_timeout",
        upstream_rq_timeout = "upstream_rq_timeout",
        upstream_internal_redirect_failed_total = "upstream_internal_redirect_failed_total",
        upstream_internal_redirect_succeeded_total = "upstream_internal_redirect_succeeded_total",
        upstream_rq_retry = "upstream_rq_retry",
        upstream_rq_retry_success = "upstream_rq_retry_success",
        upstream_rq_retry_overflow = "upstream_rq_retry_overflow",
        upstream_rq_retry_limit_exceeded = "upstream_rq_retry_limit_exceeded",
        upstream_rq_retry_backoff_exponential = "upstream_rq_retry_backoff_exponential",
        upstream_rq_retry_backoff_ratelimited = "upstream_rq_retry_backoff_ratelimited",
        upstream_rq_rx_reset = "upstream_rq_rx_reset",
        upstream_rq_tx_reset = "upstream_rq_tx_reset",
    }
    gauges {
        upstream_cx_active = "upstream_cx_active",
        upstream_rq_active = "upstream_rq_active",
        upstream_rq_pending_active = "upstream_rq_pending_active",
        upstream_rq_retry_active = "upstream_rq_retry_active",
        lb_subsets_active = "lb_subsets_active",
    }
    histograms {
        upstream_rq_time = "upstream_rq_time",
        upstream_cx_connect_ms = "upstream_cx_connect_ms",
        upstream_cx_length_ms = "upstream_cx_length_ms",
        upstream_rq_per_cx = "upstream_rq_per_cx",
    }
    zeros {
        Counter "assignment_stale",
        Counter "assignment_timeout_received",
        Counter "assignment_use_cached",
        Counter "http1.dropped_headers_with_underscores",
        Counter "http1.metadata_not_supported_error",
        Counter "http1.requests_rejected_with_underscores_in_headers",
        Counter "http1.response_flood",
        Counter "upstream_cx_connect_with_0_rtt",
        Counter "upstream_cx_http3_total",
        Counter "upstream_http3_broken",
        Counter "upstream_rq_0rtt",
    }
}

stat_set! {
    /// `cluster.<name>.external.`: responses to requests from outside.
    cluster_external { root: "cluster", tag: Tag::Label("envoy.cluster_name"), codes: "external.upstream_rq_" }
    counters {
        upstream_rq_completed = "external.upstream_rq_completed",
        upstream_rq_1xx = "external.upstream_rq_1xx",
        upstream_rq_2xx = "external.upstream_rq_2xx",
        upstream_rq_3xx = "external.upstream_rq_3xx",
        upstream_rq_4xx = "external.upstream_rq_4xx",
        upstream_rq_5xx = "external.upstream_rq_5xx",
    }
    gauges {}
    histograms {}
}

stat_set! {
    /// `cluster.<name>.internal.`: responses to requests of the mesh's own, such as the proxy's calls.
    cluster_internal { root: "cluster", tag: Tag::Label("envoy.cluster_name"), codes: "internal.upstream_rq_" }
    counters {
        upstream_rq_completed = "internal.upstream_rq_completed",
        upstream_rq_1xx = "internal.upstream_rq_1xx",
        upstream_rq_2xx = "internal.upstream_rq_2xx",
        upstream_rq_3xx = "internal.upstream_rq_3xx",
        upstream_rq_4xx = "internal.upstream_rq_4xx",
        upstream_rq_5xx = "internal.upstream_rq_5xx",
    }
    gauges {}
    histograms {}
}

stat_set! {
    /// `cluster.<name>.retry.`: responses that were given up for another try.
    cluster_retry { root: "cluster", tag: Tag::Label("envoy.cluster_name"), codes: "retry.upstream_rq_" }
    counters {
        upstream_rq_completed = "retry.upstream_rq_completed",
        upstream_rq_1xx = "retry.upstream_rq_1xx",
        upstream_rq_2xx = "retry.upstream_rq_2xx",
        upstream_rq_3xx = "retry.upstream_rq_3xx",
        upstream_rq_4xx = "retry.upstream_rq_4xx",
        upstream_rq_5xx = "retry.upstream_rq_5xx",
    }
    gauges {}
    histograms {}
}

stat_set! {
    /// `cluster.<name>.`: updates of its hosts, where they do not come by discovery. Written by the main thread.
    cluster_update { root: "cluster", tag: Tag::Label("envoy.cluster_name") }
    counters {
        update_attempt = "update_attempt",
        update_success = "update_success",
        update_failure = "update_failure",
        update_no_rebuild = "update_no_rebuild",
    }
    gauges {}
    histograms {}
    zeros {
        Counter "update_empty",
        Gauge "version",
    }
}

stat_set! {
    /// `cluster.<name>.`: updates of its hosts by discovery. Written by the main thread.
    cluster_eds { root: "cluster", tag: Tag::Label("envoy.cluster_name"), lazy: ["control_plane."], text: Text::VERSION }
    counters {
        update_attempt = "update_attempt",
        update_success = "update_success",
        update_failure = "update_failure",
        update_rejected = "update_rejected",
        update_empty = "update_empty",
        update_no_rebuild = "update_no_rebuild",
        init_fetch_timeout = "init_fetch_timeout",
    }
    gauges {
        connected_state = "control_plane.connected_state",
        update_time = "update_time",
    }
    histograms {}
}

stat_set! {
    /// `cluster.<name>.http2.`, from the first connection that speaks it.
    cluster_http2 { root: "cluster", tag: Tag::Label("envoy.cluster_name") }
    counters {
        rx_reset = "http2.rx_reset",
        tx_reset = "http2.tx_reset",
        trailers = "http2.trailers",
        rx_messaging_error = "http2.rx_messaging_error",
        header_overflow = "http2.header_overflow",
        header_list_size_too_large = "http2.header_list_size_too_large",
        stream_refused_errors = "http2.stream_refused_errors",
        goaway_sent = "http2.goaway_sent",
        keepalive_timeout = "http2.keepalive_timeout",
        inbound_empty_frames_flood = "http2.inbound_empty_frames_flood",
        inbound_priority_frames_flood = "http2.inbound_priority_frames_flood",
        inbound_window_update_frames_flood = "http2.inbound_window_update_frames_flood",
        outbound_control_flood = "http2.outbound_control_flood",
        outbound_flood = "http2.outbound_flood",
        tx_flush_timeout = "http2.tx_flush_timeout",
    }
    gauges { streams_active = "http2.streams_active" }
    histograms {}
}

stat_set! {
    /// `cluster.<name>.outlier_detection.`. Written by the main thread.
    cluster_outlier { root: "cluster", tag: Tag::Label("envoy.cluster_name") }
    counters {
        ejections_total = "outlier_detection.ejections_total",
        ejections_consecutive_5xx = "outlier_detection.ejections_consecutive_5xx",
        ejections_success_rate = "outlier_detection.ejections_success_rate",
        ejections_enforced_total = "outlier_detection.ejections_enforced_total",
        ejections_overflow = "outlier_detection.ejections_overflow",
        ejections_detected_consecutive_5xx = "outlier_detection.ejections_detected_consecutive_5xx",
        ejections_enforced_consecutive_5xx = "outlier_detection.ejections_enforced_consecutive_5xx",
        ejections_detected_consecutive_gateway_failure =
            "outlier_detection.ejections_detected_consecutive_gateway_failure",
        ejections_enforced_consecutive_gateway_failure =
            "outlier_detection.ejections_enforced_consecutive_gateway_failure",
        ejections_detected_consecutive_local_origin_failure =
            "outlier_detection.ejections_detected_consecutive_local_origin_failure",
        ejections_enforced_consecutive_local_origin_failure =
            "outlier_detection.ejections_enforced_consecutive_local_origin_failure",
        ejections_detected_success_rate = "outlier_detection.ejections_detected_success_rate",
        ejections_enforced_success_rate = "outlier_detection.ejections_enforced_success_rate",
        ejections_detected_local_origin_success_rate =
            "outlier_detection.ejections_detected_local_origin_success_rate",
        ejections_enforced_local_origin_success_rate =
            "outlier_detection.ejections_enforced_local_origin_success_rate",
        ejections_detected_local_origin_failure_percentage =
            "outlier_detection.ejections_detected_local_origin_failure_percentage",
        ejections_enforced_local_origin_failure_percentage =
            "outlier_detection.ejections_enforced_local_origin_failure_percentage",
        ejections_detected_failure_percentage = "outlier_detection.ejections_detected_failure_percentage",
        ejections_enforced_failure_percentage = "outlier_detection.ejections_enforced_failure_percentage",
    }
    gauges { ejections_active = "outlier_detection.ejections_active" }
    histograms {}
}

stat_set! {
    /// `cluster.<name>.health_check.`. Written by the main thread.
    cluster_health_check { root: "cluster", tag: Tag::Label("envoy.cluster_name") }
    counters {
        attempt = "health_check.attempt",
        success = "health_check.success",
        failure = "health_check.failure",
        network_failure = "health_check.network_failure",
        passive_failure = "health_check.passive_failure",
        verify_cluster = "health_check.verify_cluster",
    }
    gauges { healthy = "health_check.healthy" }
    histograms {}
}

stat_set! {
    /// `cluster.<name>.ratelimit.`: what the rate limit service said of a cluster's requests.
    cluster_rate_limit { root: "cluster", tag: Tag::Label("envoy.cluster_name") }
    counters {
        ok = "ratelimit.ok",
        over_limit = "ratelimit.over_limit",
        error = "ratelimit.error",
        failure_mode_allowed = "ratelimit.failure_mode_allowed",
    }
    gauges {}
    histograms {}
}

stat_set! {
    /// `vhost.<virtual host>.vcluster.<name>.` and `vhost.<virtual host>.route.<stat_prefix>.`
    virtual_host { root: "vhost", tag: Tag::VirtualHost, codes: "upstream_rq_" }
    counters {
        upstream_rq_total = "upstream_rq_total",
        upstream_rq_completed = "upstream_rq_completed",
        upstream_rq_1xx = "upstream_rq_1xx",
        upstream_rq_2xx = "upstream_rq_2xx",
        upstream_rq_3xx = "upstream_rq_3xx",
        upstream_rq_4xx = "upstream_rq_4xx",
        upstream_rq_5xx = "upstream_rq_5xx",
        upstream_rq_retry = "upstream_rq_retry",
        upstream_rq_retry_limit_exceeded = "upstream_rq_retry_limit_exceeded",
        upstream_rq_retry_overflow = "upstream_rq_retry_overflow",
        upstream_rq_retry_success = "upstream_rq_retry_success",
        upstream_rq_timeout = "upstream_rq_timeout",
    }
    gauges {}
    histograms { upstream_rq_time = "upstream_rq_time" }
}

stat_set! {
    /// `cluster.<name>.`: sizes of requests and responses, where they are recorded.
    cluster_sizes { root: "cluster", tag: Tag::Label("envoy.cluster_name") }
    counters {}
    gauges {}
    histograms {
        upstream_rq_headers_size = "upstream_rq_headers_size",
        upstream_rq_headers_count = "upstream_rq_headers_count",
        upstream_rq_body_size = "upstream_rq_body_size",
        upstream_rs_headers_size = "upstream_rs_headers_size",
        upstream_rs_headers_count = "upstream_rs_headers_count",
        upstream_rs_body_size = "upstream_rs_body_size",
    }
}

stat_set! {
    /// `cluster.<name>.`: how many per cent of their time requests take, where that is recorded.
    cluster_budgets { root: "cluster", tag: Tag::Label("envoy.cluster_name") }
    counters {}
    gauges {}
    histograms {
        percent_used = "upstream_rq_timeout_budget_percent_used",
        per_try_percent_used = "upstream_rq_timeout_budget_per_try_percent_used",
    }
}
