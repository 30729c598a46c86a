//! HTTP filters that decide who may do what.

use crate::stats::schema::stat_set;

stat_set! {
    /// `http.<stat_prefix>.jwt_authn.`
    http_jwt_authn { root: "http", tag: Tag::Label("envoy.http_conn_manager_prefix") }
    counters {
        allowed = "jwt_authn.allowed",
        cors_preflight_bypassed = "jwt_authn.cors_preflight_bypassed",
        denied = "jwt_authn.denied",
        jwks_fetch_failed = "jwt_authn.jwks_fetch_failed",
        jwks_fetch_success = "jwt_authn.jwks_fetch_success",
        jwt_cache_hit = "jwt_authn.jwt_cache_hit",
        jwt_cache_miss = "jwt_authn.jwt_cache_miss",
    }
    gauges {}
    histograms {}
}

stat_set! {
    /// `http.<stat_prefix>.csrf.`
    http_csrf { root: "http", tag: Tag::Label("envoy.http_conn_manager_prefix") }
    counters {
        missing_source_origin = "csrf.missing_source_origin",
        request_invalid = "csrf.request_invalid",
        request_valid = "csrf.request_valid",
    }
    gauges {}
    histograms {}
}

stat_set! {
    /// `http.<stat_prefix>.basic_auth.`
    http_basic_auth { root: "http", tag: Tag::Label("envoy.http_conn_manager_prefix") }
    counters {
        allowed = "basic_auth.allowed",
        denied = "basic_auth.denied",
    }
    gauges {}
    histograms {}
}

stat_set! {
    /// `http.<stat_prefix>.api_key_auth.`
    http_api_key_auth { root: "http", tag: Tag::Label("envoy.http_conn_manager_prefix") }
    counters {
        allowed = "api_key_auth.allowed",
        unauthorized = "api_key_auth.unauthorized",
        forbidden = "api_key_auth.forbidden",
    }
    gauges {}
    histograms {}
}

stat_set! {
    /// `http.<stat_prefix>.ip_tagging.`
    http_ip_tagging { root: "http", tag: Tag::Label("envoy.http_conn_manager_prefix") }
    counters {
        no_hit = "ip_tagging.no_hit",
        total = "ip_tagging.total",
    }
    gauges {}
    histograms {}
}

stat_set! {
    /// `http.<stat_prefix>.set_metadata.`
    http_set_metadata { root: "http", tag: Tag::Label("envoy.http_conn_manager_prefix") }
    counters {
        overwrite_denied = "set_metadata.overwrite_denied",
    }
    gauges {}
    histograms {}
}

stat_set! {
    /// `http.<stat_prefix>.cors.`
    http_cors { root: "http", tag: Tag::Label("envoy.http_conn_manager_prefix") }
    counters {
        origin_valid = "cors.origin_valid",
        origin_invalid = "cors.origin_invalid",
    }
    gauges {}
    histograms {}
}

stat_set! {
    /// `http.<stat_prefix>.admission_control.`
    http_admission_control { root: "http", tag: Tag::Label("envoy.http_conn_manager_prefix") }
    counters {
        rq_rejected = "admission_control.rq_rejected",
        rq_success = "admission_control.rq_success",
        rq_failure = "admission_control.rq_failure",
    }
    gauges {}
    histograms {}
}

stat_set! {
    /// `http.<stat_prefix>.adaptive_concurrency.gradient_controller.`
    http_adaptive_concurrency { root: "http", tag: Tag::Label("envoy.http_conn_manager_prefix") }
    counters {
        rq_blocked = "adaptive_concurrency.gradient_controller.rq_blocked",
    }
    gauges {
        burst_queue_size = "adaptive_concurrency.gradient_controller.burst_queue_size",
        concurrency_limit = "adaptive_concurrency.gradient_controller.concurrency_limit",
        gradient = "adaptive_concurrency.gradient_controller.gradient",
        min_rtt_calculation_active = "adaptive_concurrency.gradient_controller.min_rtt_calculation_active",
        min_rtt_msecs = "adaptive_concurrency.gradient_controller.min_rtt_msecs",
        sample_rtt_msecs = "adaptive_concurrency.gradient_controller.sample_rtt_msecs",
    }
    histograms {}
}

stat_set! {
    /// `http_filter_name.<stat_prefix>.`
    header_to_metadata { root: "http_filter_name", tag: Tag::None }
    counters {
        base64_decode_failed = "base64_decode_failed",
        header_value_too_long = "header_value_too_long",
        regex_substitution_failed = "regex_substitution_failed",
        request_header_not_found = "request_header_not_found",
        request_metadata_added = "request_metadata_added",
        request_rules_processed = "request_rules_processed",
        response_header_not_found = "response_header_not_found",
        response_metadata_added = "response_metadata_added",
        response_rules_processed = "response_rules_processed",
    }
    gauges {}
    histograms {}
}

stat_set! {
    /// `<stat_prefix>.http_bandwidth_limit.`
    http_bandwidth_limit { root: "", tag: Tag::None }
    counters {
        request_enabled = "http_bandwidth_limit.request_enabled",
        request_enforced = "http_bandwidth_limit.request_enforced",
        request_incoming_total_size = "http_bandwidth_limit.request_incoming_total_size",
        request_allowed_total_size = "http_bandwidth_limit.request_allowed_total_size",
        response_enabled = "http_bandwidth_limit.response_enabled",
        response_enforced = "http_bandwidth_limit.response_enforced",
        response_incoming_total_size = "http_bandwidth_limit.response_incoming_total_size",
        response_allowed_total_size = "http_bandwidth_limit.response_allowed_total_size",
    }
    gauges {}
    histograms {}
}

stat_set! {
    /// `http.<stat_prefix>.credential_injector.`
    http_credential_injector { root: "http", tag: Tag::Label("envoy.http_conn_manager_prefix") }
    counters {
        injected = "credential_injector.injected",
        failed = "credential_injector.failed",
        already_exists = "credential_injector.already_exists",
    }
    gauges {}
    histograms {}
}

stat_set! {
    /// `http.<stat_prefix>.credential_injector.oauth2.`
    http_credential_oauth2 { root: "http", tag: Tag::Label("envoy.http_conn_manager_prefix") }
    counters {
        token_requested = "credential_injector.oauth2.token_requested",
        token_fetched = "credential_injector.oauth2.token_fetched",
        token_fetch_failed_on_client_secret =
            "credential_injector.oauth2.token_fetch_failed_on_client_secret",
        token_fetch_failed_on_cluster_not_found =
            "credential_injector.oauth2.token_fetch_failed_on_cluster_not_found",
        token_fetch_failed_on_stream_reset = "credential_injector.oauth2.token_fetch_failed_on_stream_reset",
        token_fetch_failed_on_bad_token = "credential_injector.oauth2.token_fetch_failed_on_bad_token",
        token_fetch_failed_on_bad_response_code =
            "credential_injector.oauth2.token_fetch_failed_on_bad_response_code",
    }
    gauges {}
    histograms {}
}
