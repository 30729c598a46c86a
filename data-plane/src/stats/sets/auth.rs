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
