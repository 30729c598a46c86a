//! The process itself and its discovery. Written by the main thread.

use crate::stats::schema::stat_set;

stat_set! {
    /// `server.`
    server { root: "server", tag: Tag::None }
    counters {
        watchdog_miss = "watchdog_miss",
        dynamic_unknown_fields = "dynamic_unknown_fields",
        static_unknown_fields = "static_unknown_fields",
        envoy_bug_failures = "envoy_bug_failures",
        debug_assertion_failures = "debug_assertion_failures",
    }
    gauges {
        state = "state",
        live = "live",
        uptime = "uptime",
        concurrency = "concurrency",
        hot_restart_epoch = "hot_restart_epoch",
        memory_allocated = "memory_allocated",
        memory_heap_size = "memory_heap_size",
        memory_physical_size = "memory_physical_size",
        parent_connections = "parent_connections",
        total_connections = "total_connections",
        version = "version",
        days_until_first_cert_expiring = "days_until_first_cert_expiring",
        stats_recent_lookups = "stats_recent_lookups",
    }
    histograms { initialization_time_ms = "initialization_time_ms" }
    zeros {
        Gauge "compilation_settings.fips_mode",
        Counter "dropped_stat_flushes",
        Counter "envoy_notifications",
        Counter "wip_protos",
    }
}

stat_set! {
    /// `runtime.`
    runtime { root: "runtime", tag: Tag::None }
    counters {
        load_error = "load_error",
        load_success = "load_success",
        override_dir_exists = "override_dir_exists",
        override_dir_not_exists = "override_dir_not_exists",
    }
    gauges {
        admin_overrides_active = "admin_overrides_active",
        num_keys = "num_keys",
        num_layers = "num_layers",
    }
    histograms {}
    zeros {
        Counter "deprecated_feature_use",
        Gauge "deprecated_feature_seen_since_process_start",
    }
}

stat_set! {
    /// `http1.`
    http1 { root: "http1", tag: Tag::None }
    counters {
        dropped_headers_with_underscores = "dropped_headers_with_underscores",
        requests_rejected_with_underscores_in_headers = "requests_rejected_with_underscores_in_headers",
    }
    gauges {}
    histograms {}
    zeros {
        Counter "metadata_not_supported_error",
        Counter "response_flood",
    }
}

stat_set! {
    /// `http2.`
    http2 { root: "http2", tag: Tag::None }
    counters {
        dropped_headers_with_underscores = "dropped_headers_with_underscores",
        requests_rejected_with_underscores_in_headers = "requests_rejected_with_underscores_in_headers",
        rx_reset = "rx_reset",
        tx_reset = "tx_reset",
        trailers = "trailers",
        rx_messaging_error = "rx_messaging_error",
        header_overflow = "header_overflow",
        header_list_size_too_large = "header_list_size_too_large",
        stream_refused_errors = "stream_refused_errors",
        goaway_sent = "goaway_sent",
        keepalive_timeout = "keepalive_timeout",
        inbound_empty_frames_flood = "inbound_empty_frames_flood",
        inbound_priority_frames_flood = "inbound_priority_frames_flood",
        inbound_window_update_frames_flood = "inbound_window_update_frames_flood",
        outbound_control_flood = "outbound_control_flood",
        outbound_flood = "outbound_flood",
        tx_flush_timeout = "tx_flush_timeout",
    }
    gauges { streams_active = "streams_active" }
    histograms {}
}

stat_set! {
    /// `listener_manager.`
    listener_manager { root: "listener_manager", tag: Tag::None }
    counters {
        listener_added = "listener_added",
        listener_modified = "listener_modified",
        listener_removed = "listener_removed",
        listener_stopped = "listener_stopped",
        listener_create_success = "listener_create_success",
        listener_create_failure = "listener_create_failure",
        listener_in_place_updated = "listener_in_place_updated",
    }
    gauges {
        workers_started = "workers_started",
        workers_pinned = "workers_pinned",
        total_listeners_active = "total_listeners_active",
        total_listeners_warming = "total_listeners_warming",
        total_listeners_draining = "total_listeners_draining",
        total_filter_chains_draining = "total_filter_chains_draining",
    }
    histograms {}
}

stat_set! {
    /// `listener_manager.lds.`
    lds { root: "listener_manager.lds", tag: Tag::None, lazy: ["control_plane."], text: Text::VERSION }
    counters {
        update_attempt = "update_attempt",
        update_success = "update_success",
        update_failure = "update_failure",
        update_rejected = "update_rejected",
        init_fetch_timeout = "init_fetch_timeout",
    }
    gauges {
        connected_state = "control_plane.connected_state",
        update_time = "update_time",
    }
    histograms { update_duration = "update_duration" }
}

stat_set! {
    /// `cluster_manager.`
    cluster_manager { root: "cluster_manager", tag: Tag::None }
    counters {
        cluster_added = "cluster_added",
        cluster_modified = "cluster_modified",
        cluster_removed = "cluster_removed",
        cluster_updated = "cluster_updated",
        cluster_updated_via_merge = "cluster_updated_via_merge",
        update_merge_cancelled = "update_merge_cancelled",
        update_out_of_merge_window = "update_out_of_merge_window",
    }
    gauges {
        active_clusters = "active_clusters",
        warming_clusters = "warming_clusters",
    }
    histograms {}
}

stat_set! {
    /// `cluster_manager.cds.`
    cds { root: "cluster_manager.cds", tag: Tag::None, lazy: ["control_plane."], text: Text::VERSION }
    counters {
        config_reload = "config_reload",
        update_attempt = "update_attempt",
        update_success = "update_success",
        update_failure = "update_failure",
        update_rejected = "update_rejected",
        init_fetch_timeout = "init_fetch_timeout",
    }
    gauges {
        config_reload_time_ms = "config_reload_time_ms",
        connected_state = "control_plane.connected_state",
        update_time = "update_time",
    }
    histograms { update_duration = "update_duration" }
}

stat_set! {
    /// `control_plane.`
    control_plane { root: "control_plane", tag: Tag::None, text: Text::IDENTIFIER }
    counters { rate_limit_enforced = "rate_limit_enforced" }
    gauges {
        connected_state = "connected_state",
        pending_requests = "pending_requests",
    }
    histograms {}
}

stat_set! {
    /// `sds.<secret>.`
    sds { root: "sds", tag: Tag::Label("envoy.xds_resource_name"), lazy: ["control_plane."], text: Text::VERSION }
    counters {
        update_attempt = "update_attempt",
        update_success = "update_success",
        update_failure = "update_failure",
        update_rejected = "update_rejected",
        init_fetch_timeout = "init_fetch_timeout",
    }
    gauges {
        connected_state = "control_plane.connected_state",
        update_time = "update_time",
    }
    histograms { update_duration = "update_duration" }
}

stat_set! {
    /// `extension_config_discovery.<family>.<filter>.`
    extension_config {
        root: "extension_config_discovery", tag: Tag::None, lazy: ["control_plane."], text: Text::VERSION
    }
    counters {
        config_fail = "config_fail",
        config_reload = "config_reload",
        update_attempt = "update_attempt",
        update_success = "update_success",
        update_failure = "update_failure",
        update_rejected = "update_rejected",
        init_fetch_timeout = "init_fetch_timeout",
    }
    gauges {
        connected_state = "control_plane.connected_state",
        update_time = "update_time",
    }
    histograms { update_duration = "update_duration" }
}

stat_set! {
    /// `filesystem.`: access log files.
    filesystem { root: "filesystem", tag: Tag::None }
    counters {
        write_completed = "write_completed",
        write_failed = "write_failed",
        write_buffered = "write_buffered",
        flushed_by_timer = "flushed_by_timer",
        reopen_failed = "reopen_failed",
    }
    gauges { write_total_buffered = "write_total_buffered" }
    histograms {}
}

stat_set! {
    /// `tracing.<exporter>.`
    tracing_exporter { root: "tracing", tag: Tag::None }
    counters {
        spans_sent = "spans_sent",
        spans_dropped = "spans_dropped",
        timer_flushed = "timer_flushed",
        reports_sent = "reports_sent",
        reports_dropped = "reports_dropped",
        reports_skipped_no_cluster = "reports_skipped_no_cluster",
    }
    gauges {}
    histograms {}
}

stat_set! {
    /// A counter whose name is the object's.
    single_counter { root: "", tag: Tag::None }
    counters { value = "" }
    gauges {}
    histograms {}
}

stat_set! {
    /// A gauge whose name is the object's.
    single_gauge { root: "", tag: Tag::None }
    counters {}
    gauges { value = "" }
    histograms {}
}

stat_set! {
    /// A histogram whose name is the object's.
    single_histogram { root: "", tag: Tag::None }
    counters {}
    gauges {}
    histograms { value = "" }
}
