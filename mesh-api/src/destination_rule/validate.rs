//! What a DestinationRule must keep to beyond its types.

use super::{
    ClientTls, ClientTlsMode, ConnectionPool, ConsistentHashKey, DestinationRule, HashAlgorithm,
    LoadBalancer, LocalityLbSetting, OutlierDetection, PortTrafficPolicy, Subset, TrafficPolicy, Tunnel,
};
use crate::check;
use crate::field::Cx;
use crate::object::ObjectMeta;

pub(super) fn destination_rule(rule: &DestinationRule, _: &ObjectMeta, cx: &mut Cx) {
    cx.field("host", |cx| check::wildcard_host_or_ip(&rule.host, cx));
    cx.some("trafficPolicy", rule.traffic_policy.as_ref(), policy);
    cx.each("subsets", &rule.subsets, subset);
    for (i, one) in rule.subsets.iter().enumerate() {
        if rule.subsets[..i].iter().any(|other| other.name == one.name) {
            cx.field("subsets", |cx| {
                cx.index(i, |cx| cx.error_at("name", format!("{:?} is defined twice", one.name)))
            });
        }
    }
    check::export_to(&rule.export_to, cx);
    check::selector("workloadSelector", rule.workload_selector.as_ref(), cx);
}

fn subset(cx: &mut Cx, subset: &Subset) {
    if !check::is_dns_label(&subset.name) {
        cx.error_at("name", format!("{:?} is not a name of letters, digits and hyphens", subset.name));
    }
    check::labels("labels", &subset.labels, cx);
    cx.some("trafficPolicy", subset.traffic_policy.as_ref(), policy);
}

fn policy(cx: &mut Cx, policy: &TrafficPolicy) {
    if *policy == TrafficPolicy::default() {
        cx.warn("is empty: it has no effect");
    }
    cx.some("loadBalancer", policy.load_balancer.as_ref(), load_balancer);
    cx.some("connectionPool", policy.connection_pool.as_ref(), connection_pool);
    cx.some("outlierDetection", policy.outlier_detection.as_ref(), outlier_detection);
    cx.some("tls", policy.tls.as_ref(), client_tls);
    cx.each("portLevelSettings", &policy.port_level_settings, port_policy);
    cx.some("tunnel", policy.tunnel.as_ref(), tunnel);
    cx.some("retryBudget", policy.retry_budget.as_ref(), |cx, budget| {
        if budget.percent.is_some_and(|p| !(0.0..=100.0).contains(&p.get())) {
            cx.error_at("percent", "must be between 0 and 100");
        }
        check::positive("budgetInterval", budget.budget_interval, cx);
    });
}

fn port_policy(cx: &mut Cx, policy: &PortTrafficPolicy) {
    match policy.port {
        None => cx.error_at("port", "must be set"),
        Some(port) => cx.field("port", |cx| cx.field("number", |cx| check::port(port, cx))),
    }
    cx.some("loadBalancer", policy.load_balancer.as_ref(), load_balancer);
    cx.some("connectionPool", policy.connection_pool.as_ref(), connection_pool);
    cx.some("outlierDetection", policy.outlier_detection.as_ref(), outlier_detection);
    cx.some("tls", policy.tls.as_ref(), client_tls);
}

fn tunnel(cx: &mut Cx, tunnel: &Tunnel) {
    if !matches!(tunnel.protocol.as_str(), "" | "CONNECT" | "POST") {
        cx.error_at("protocol", "must be CONNECT or POST");
    }
    cx.field("targetHost", |cx| {
        if !check::is_ip(&tunnel.target_host) {
            check::fqdn(&tunnel.target_host, cx);
        }
    });
    cx.field("targetPort", |cx| check::port(tunnel.target_port, cx));
}

fn load_balancer(cx: &mut Cx, balancer: &LoadBalancer) {
    if balancer.simple.is_some() && balancer.consistent_hash.is_some() {
        cx.error("only one of simple and consistentHash may be set");
    }
    cx.some("consistentHash", balancer.consistent_hash.as_ref(), |cx, hash| {
        match &hash.key {
            ConsistentHashKey::HttpHeaderName(name) => {
                cx.field("httpHeaderName", |cx| check::header_name(name, cx))
            }
            ConsistentHashKey::HttpCookie(cookie) if cookie.name.is_empty() => {
                cx.field("httpCookie", |cx| cx.error_at("name", "must be set"));
            }
            ConsistentHashKey::HttpQueryParameterName(name) if name.is_empty() => {
                cx.error_at("httpQueryParameterName", "must not be empty");
            }
            _ => {}
        }
        if let HashAlgorithm::Maglev(maglev) = &hash.algorithm
            && maglev.table_size.is_some_and(|size| size > 5_000_011)
        {
            cx.field("maglev", |cx| cx.error_at("tableSize", "must be at most 5000011"));
        }
    });
    cx.some("localityLbSetting", balancer.locality_lb_setting.as_ref(), locality);
    cx.some("warmup", balancer.warmup.as_ref(), |cx, warmup| {
        if warmup.duration.is_none() {
            cx.error_at("duration", "must be set");
        }
        check::positive("duration", warmup.duration, cx);
        if warmup.minimum_percent.is_some_and(|p| !(0.0..=100.0).contains(&p.get())) {
            cx.error_at("minimumPercent", "must be between 0 and 100");
        }
        if warmup.aggression.is_some_and(|a| a.get() < 1.0) {
            cx.error_at("aggression", "must be at least 1");
        }
    });
    check::positive("warmupDurationSecs", balancer.warmup_duration_secs, cx);
}

fn locality(cx: &mut Cx, setting: &LocalityLbSetting) {
    let ways = [!setting.distribute.is_empty(), !setting.failover.is_empty()];
    if ways == [true, true] || ways[0] && !setting.failover_priority.is_empty() {
        cx.error("only one of distribute and failover (with failoverPriority) may be set");
    }
    cx.each("distribute", &setting.distribute, |cx, distribute| {
        let sum: u64 = distribute.to.values().map(|w| u64::from(*w)).sum();
        if sum != 100 {
            cx.error_at("to", format!("the weights are {sum} together, not 100"));
        }
    });
    cx.each("failover", &setting.failover, |cx, failover| {
        if failover.from == failover.to {
            cx.error("from and to are the same");
        }
        if failover.from.contains(['/', '*']) || failover.to.contains(['/', '*']) {
            cx.error("from and to are regions, without zone and wildcard");
        }
    });
}

pub(crate) fn connection_pool(cx: &mut Cx, pool: &ConnectionPool) {
    if pool.tcp.is_none() && pool.http.is_none() {
        cx.error("one of tcp and http must be set");
    }
    cx.some("tcp", pool.tcp.as_ref(), |cx, tcp| {
        check::positive("connectTimeout", tcp.connect_timeout, cx);
        check::positive("maxConnectionDuration", tcp.max_connection_duration, cx);
        check::positive_or_zero("idleTimeout", tcp.idle_timeout, cx);
        if tcp.max_connections.is_some_and(|n| n > i32::MAX as u32) {
            cx.error_at("maxConnections", "is too large");
        }
    });
    cx.some("http", pool.http.as_ref(), |cx, http| {
        check::positive_or_zero("idleTimeout", http.idle_timeout, cx);
        cx.some("http2KeepAlive", http.http2_keep_alive.as_ref(), |cx, keep_alive| {
            check::positive("interval", keep_alive.interval, cx);
            check::positive("timeout", keep_alive.timeout, cx);
        });
    });
}

fn outlier_detection(cx: &mut Cx, outlier: &OutlierDetection) {
    check::positive("interval", outlier.interval, cx);
    check::positive("baseEjectionTime", outlier.base_ejection_time, cx);
    for (field, percent) in [
        ("maxEjectionPercent", outlier.max_ejection_percent),
        ("minHealthPercent", outlier.min_health_percent),
    ] {
        if percent > 100 {
            cx.error_at(field, "must be between 0 and 100");
        }
    }
    if outlier.consecutive_local_origin_failures.is_some() && !outlier.split_external_local_origin_errors {
        cx.error_at("consecutiveLocalOriginFailures", "needs splitExternalLocalOriginErrors: true");
    }
    if outlier.consecutive_errors > 0 {
        cx.warn_at("consecutiveErrors", "is deprecated: write consecutive5xxErrors");
    }
    cx.each("outlierDetectionHttpErrorCodes", &outlier.outlier_detection_http_error_codes, |cx, code| {
        if !(100..600).contains(code) {
            cx.error("must be an HTTP status");
        }
    });
}

pub(crate) fn client_tls(cx: &mut Cx, tls: &ClientTls) {
    let files = [
        ("clientCertificate", &tls.client_certificate),
        ("privateKey", &tls.private_key),
        ("caCertificates", &tls.ca_certificates),
    ];
    match tls.mode {
        ClientTlsMode::Mutual if tls.credential_name.is_empty() => {
            for (field, value) in &files[..2] {
                if value.is_empty() {
                    cx.error_at(field, "must be set for MUTUAL, or credentialName");
                }
            }
        }
        ClientTlsMode::Mutual | ClientTlsMode::Simple if !tls.credential_name.is_empty() => {
            for (field, value) in files {
                if !value.is_empty() {
                    cx.error_at(field, "must not be set together with credentialName");
                }
            }
        }
        ClientTlsMode::IstioMutual => {
            for (field, value) in files {
                if !value.is_empty() {
                    cx.error_at(field, "must not be set for ISTIO_MUTUAL: the mesh's certificate is used");
                }
            }
        }
        _ => {}
    }
    if tls.insecure_skip_verify == Some(true) && !tls.subject_alt_names.is_empty() {
        cx.error_at("subjectAltNames", "have no effect with insecureSkipVerify");
    }
    let unverified = tls.ca_certificates.is_empty() && tls.credential_name.is_empty();
    if tls.mode == ClientTlsMode::Simple
        && unverified
        && tls.subject_alt_names.is_empty()
        && tls.sni.is_empty()
    {
        cx.warn("neither caCertificates nor subjectAltNames are set: the system's roots verify the server");
    }
}
