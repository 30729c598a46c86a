//! HTTP connection managers and HTTP filters.

use crate::stats::schema::stat_set;

stat_set! {
    /// `http.<stat_prefix>.`: a connection manager.
    http { root: "http", tag: Tag::Label("envoy.http_conn_manager_prefix") }
    counters {
        downstream_cx_total = "downstream_cx_total",
        downstream_cx_ssl_total = "downstream_cx_ssl_total",
        downstream_cx_http1_total = "downstream_cx_http1_total",
        downstream_cx_http2_total = "downstream_cx_http2_total",
        downstream_cx_upgrades_total = "downstream_cx_upgrades_total",
        downstream_cx_protocol_error = "downstream_cx_protocol_error",
        downstream_cx_destroy = "downstream_cx_destroy",
        downstream_cx_destroy_local = "downstream_cx_destroy_local",
        downstream_cx_destroy_remote = "downstream_cx_destroy_remote",
        downstream_cx_destroy_active_rq = "downstream_cx_destroy_active_rq",
        downstream_cx_destroy_local_active_rq = "downstream_cx_destroy_local_active_rq",
        downstream_cx_destroy_remote_active_rq = "downstream_cx_destroy_remote_active_rq",
        downstream_cx_drain_close = "downstream_cx_drain_close",
        downstream_cx_idle_timeout = "downstream_cx_idle_timeout",
        downstream_cx_max_duration_reached = "downstream_cx_max_duration_reached",
        downstream_cx_max_requests_reached = "downstream_cx_max_requests_reached",
        downstream_cx_overload_disable_keepalive = "downstream_cx_overload_disable_keepalive",
        downstream_cx_delayed_close_timeout = "downstream_cx_delayed_close_timeout",
        downstream_cx_rx_bytes_total = "downstream_cx_rx_bytes_total",
        downstream_cx_tx_bytes_total = "downstream_cx_tx_bytes_total",
        downstream_rq_total = "downstream_rq_total",
        downstream_rq_http1_total = "downstream_rq_http1_total",
        downstream_rq_http2_total = "downstream_rq_http2_total",
        downstream_rq_completed = "downstream_rq_completed",
        downstream_rq_1xx = "downstream_rq_1xx",
        downstream_rq_2xx = "downstream_rq_2xx",
        downstream_rq_3xx = "downstream_rq_3xx",
        downstream_rq_4xx = "downstream_rq_4xx",
        downstream_rq_5xx = "downstream_rq_5xx",
        downstream_rq_rx_reset = "downstream_rq_rx_reset",
        downstream_rq_tx_reset = "downstream_rq_tx_reset",
        downstream_rq_non_relative_path = "downstream_rq_non_relative_path",
        downstream_rq_too_large = "downstream_rq_too_large",
        downstream_rq_too_many_premature_resets = "downstream_rq_too_many_premature_resets",
        downstream_rq_timeout = "downstream_rq_timeout",
        downstream_rq_header_timeout = "downstream_rq_header_timeout",
        downstream_rq_idle_timeout = "downstream_rq_idle_timeout",
        downstream_rq_max_duration_reached = "downstream_rq_max_duration_reached",
        downstream_rq_overload_close = "downstream_rq_overload_close",
        downstream_rq_response_before_rq_complete = "downstream_rq_response_before_rq_complete",
        downstream_rq_ws_on_non_ws_route = "downstream_rq_ws_on_non_ws_route",
        downstream_rq_rejected_via_ip_detection = "downstream_rq_rejected_via_ip_detection",
        downstream_rq_redirected_with_normalized_path = "downstream_rq_redirected_with_normalized_path",
        no_route = "no_route",
        no_cluster = "no_cluster",
        rq_total = "rq_total",
        rq_direct_response = "rq_direct_response",
        rq_reset_after_downstream_response_started = "rq_reset_after_downstream_response_started",
        rq_retry_skipped_request_not_complete = "rq_retry_skipped_request_not_complete",
        rs_too_large = "rs_too_large",
        downstream_rq_failed_path_normalization = "downstream_rq_failed_path_normalization",
        passthrough_internal_redirect_bad_location = "passthrough_internal_redirect_bad_location",
        passthrough_internal_redirect_no_route = "passthrough_internal_redirect_no_route",
        passthrough_internal_redirect_predicate = "passthrough_internal_redirect_predicate",
        passthrough_internal_redirect_too_many_redirects = "passthrough_internal_redirect_too_many_redirects",
        passthrough_internal_redirect_unsafe_scheme = "passthrough_internal_redirect_unsafe_scheme",
    }
    gauges {
        downstream_cx_active = "downstream_cx_active",
        downstream_cx_ssl_active = "downstream_cx_ssl_active",
        downstream_cx_http1_active = "downstream_cx_http1_active",
        downstream_cx_http2_active = "downstream_cx_http2_active",
        downstream_cx_upgrades_active = "downstream_cx_upgrades_active",
        downstream_rq_active = "downstream_rq_active",
    }
    histograms {
        downstream_cx_length_ms = "downstream_cx_length_ms",
        downstream_rq_time = "downstream_rq_time",
    }
    zeros {
        Counter "downstream_cx_http3_total",
        Counter "downstream_rq_http3_total",
        Gauge "downstream_cx_http3_active",
    }
}

stat_set! {
    /// `http.<stat_prefix>.rbac.`
    http_rbac { root: "http", tag: Tag::Label("envoy.http_conn_manager_prefix") }
    counters {
        allowed = "rbac.allowed",
        denied = "rbac.denied",
        shadow_allowed = "rbac.shadow_allowed",
        shadow_denied = "rbac.shadow_denied",
        logged = "rbac.logged",
        not_logged = "rbac.not_logged",
    }
    gauges {}
    histograms {}
}

stat_set! {
    /// `<stat_prefix>rbac.`: the network filter.
    network_rbac { root: "", tag: Tag::None }
    counters {
        allowed = "rbac.allowed",
        denied = "rbac.denied",
        shadow_allowed = "rbac.shadow_allowed",
        shadow_denied = "rbac.shadow_denied",
        logged = "rbac.logged",
        not_logged = "rbac.not_logged",
    }
    gauges {}
    histograms {}
}

stat_set! {
    /// `http.<stat_prefix>.health_check.`
    http_health_check { root: "http", tag: Tag::Label("envoy.http_conn_manager_prefix") }
    counters {
        request_total = "health_check.request_total",
        ok = "health_check.ok",
        failed = "health_check.failed",
        cached_response = "health_check.cached_response",
        failed_cluster_not_found = "health_check.failed_cluster_not_found",
        failed_cluster_empty = "health_check.failed_cluster_empty",
        failed_cluster_unhealthy = "health_check.failed_cluster_unhealthy",
        degraded = "health_check.degraded",
    }
    gauges {}
    histograms {}
}

stat_set! {
    /// `http.<stat_prefix>.fault.`
    http_fault { root: "http", tag: Tag::Label("envoy.http_conn_manager_prefix") }
    counters {
        aborts_injected = "fault.aborts_injected",
        delays_injected = "fault.delays_injected",
        response_rl_injected = "fault.response_rl_injected",
        faults_overflow = "fault.faults_overflow",
    }
    gauges { active_faults = "fault.active_faults" }
    histograms {}
}

stat_set! {
    /// `http.<stat_prefix>.ext_authz.`
    http_ext_authz { root: "http", tag: Tag::Label("envoy.http_conn_manager_prefix") }
    counters {
        ok = "ext_authz.ok",
        denied = "ext_authz.denied",
        error = "ext_authz.error",
        timeout = "ext_authz.timeout",
        disabled = "ext_authz.disabled",
        failure_mode_allowed = "ext_authz.failure_mode_allowed",
        invalid = "ext_authz.invalid",
        ignored_dynamic_metadata = "ext_authz.ignored_dynamic_metadata",
        shadow_denied = "ext_authz.shadow_denied",
    }
    gauges {}
    histograms {}
}

stat_set! {
    /// `<stat_prefix>.http_local_rate_limit.`
    http_local_rate_limit { root: "", tag: Tag::None }
    counters {
        enabled = "http_local_rate_limit.enabled",
        enforced = "http_local_rate_limit.enforced",
        rate_limited = "http_local_rate_limit.rate_limited",
        ok = "http_local_rate_limit.ok",
    }
    gauges {}
    histograms {}
}

stat_set! {
    /// `http.<stat_prefix>.stateful_session.<stat_prefix>.`, where the object's name is all of it.
    http_stateful_session { root: "http", tag: Tag::None }
    counters {
        routed = "routed",
        failed_open = "failed_open",
        failed_closed = "failed_closed",
        no_session = "no_session",
    }
    gauges {}
    histograms {}
}

stat_set! {
    /// `http.<stat_prefix>.tracing.`
    http_tracing { root: "http", tag: Tag::Label("envoy.http_conn_manager_prefix") }
    counters {
        client_enabled = "tracing.client_enabled",
        health_check = "tracing.health_check",
        not_traceable = "tracing.not_traceable",
        random_sampling = "tracing.random_sampling",
        service_forced = "tracing.service_forced",
    }
    gauges {}
    histograms {}
}

stat_set! {
    /// `http.<stat_prefix>.rds.<route config>.`, where the object's name is both. Written by the main thread.
    http_rds { root: "http", tag: Tag::RouteTable, lazy: ["control_plane."], text: Text::VERSION }
    counters {
        config_reload = "config_reload",
        update_attempt = "update_attempt",
        update_success = "update_success",
        update_failure = "update_failure",
        update_rejected = "update_rejected",
        update_empty = "update_empty",
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
    /// `http.<prefix>.scoped_rds.<name>.`: updates of scopes of routes. Written by the main thread.
    http_srds { root: "http", tag: Tag::Scopes, lazy: ["control_plane."], text: Text::VERSION }
    counters {
        config_reload = "config_reload",
        update_attempt = "update_attempt",
        update_success = "update_success",
        update_failure = "update_failure",
        update_rejected = "update_rejected",
        update_empty = "update_empty",
        init_fetch_timeout = "init_fetch_timeout",
    }
    gauges {
        active_scopes = "active_scopes",
        all_scopes = "all_scopes",
        config_reload_time_ms = "config_reload_time_ms",
        connected_state = "control_plane.connected_state",
        update_time = "update_time",
    }
    histograms { update_duration = "update_duration" }
    zeros { Gauge "on_demand_scopes" }
}
