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
