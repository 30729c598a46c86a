//! `/clusters`: every cluster with its hosts, their health and what they do.

use std::fmt::Write;
use std::sync::Arc;

use http::StatusCode;
use regex::Regex;
use sail_proxy_config::Snapshot;
use sail_proxy_config::cluster::{Cluster, Discovery, Thresholds};
use sail_proxy_config::decide::host::{HealthFlag, HealthStatus, Host};
use sail_proxy_config::decide::outlier::success_rates;
use serde_json::{Map, Value, json};

use super::{Page, Params, text};
use crate::cluster::shared::hosts_of;
use crate::cluster::stats::numbers;
use crate::server::Main;
use crate::stats::Kind;
use crate::xds::Manager;

pub(super) fn page(main: &Main, params: &Params) -> Page {
    let Some(manager) = main.discovery.get() else { return text(StatusCode::OK, String::new()) };
    let snapshot = manager.known();
    let mut clusters: Vec<&Arc<Cluster>> = snapshot.clusters.values().collect();
    clusters.sort_by(|a, b| a.name.cmp(&b.name));
    match params.get("filter").filter(|filter| !filter.is_empty()).map(Regex::new).transpose() {
        Ok(Some(filter)) => clusters.retain(|cluster| filter.is_match(&cluster.name)),
        Ok(None) => {}
        Err(error) => return text(StatusCode::BAD_REQUEST, format!("Invalid re2 regex: {error}\n")),
    }
    if params.get("format") == Some("json") {
        let statuses: Vec<Value> =
            clusters.iter().map(|cluster| as_json(manager, &snapshot, cluster)).collect();
        return super::json(&json!({ "cluster_statuses": statuses }));
    }
    let mut out = String::new();
    for cluster in clusters {
        write_text(&mut out, manager, &snapshot, cluster);
    }
    text(StatusCode::OK, out)
}

/// A cluster's hosts, those that requests brought up among them.
fn hosts(manager: &Manager, snapshot: &Snapshot, cluster: &Cluster) -> Vec<Arc<Host>> {
    let workers = manager.parts().workers();
    match &cluster.discovery {
        Discovery::OriginalDst(_) => workers.clusters().destinations(&cluster.name),
        Discovery::DynamicForwardProxy(cache) => workers.dns_caches().hosts(&cache.name),
        _ => hosts_of(snapshot, cluster).into_iter().flat_map(|all| all.hosts()).cloned().collect(),
    }
}

fn write_text(out: &mut String, manager: &Manager, snapshot: &Snapshot, cluster: &Cluster) {
    let name = &cluster.name;
    // Writing to a string does not fail.
    let _ = writeln!(out, "{name}::observability_name::{}", cluster.stat_name);
    let limits = [("default", &cluster.circuit_breakers.default), ("high", &cluster.circuit_breakers.high)];
    for (priority, limits) in limits {
        for (what, limit) in thresholds(limits) {
            let _ = writeln!(out, "{name}::{priority}_priority::{what}::{limit}");
        }
    }
    let _ = writeln!(out, "{name}::added_via_api::{}", manager.added_via_api(name));
    if let Discovery::Eds { service_name, .. } = &cluster.discovery
        && service_name != name
    {
        let _ = writeln!(out, "{name}::eds_service_name::{service_name}");
    }
    for host in &hosts(manager, snapshot, cluster) {
        let at = &host.address;
        for (what, _, value) in numbers(host) {
            let _ = writeln!(out, "{name}::{at}::{what}::{value}");
        }
        let locality = &host.locality;
        let [rate, local_rate] = success_rates(host);
        let lines: [(&str, String); 10] = [
            ("hostname", host.hostname.to_string()),
            ("health_flags", flags(host)),
            ("weight", host.weight.to_string()),
            ("region", locality.region.to_string()),
            ("zone", locality.zone.to_string()),
            ("sub_zone", locality.sub_zone.to_string()),
            ("canary", "false".to_owned()),
            ("priority", host.priority.to_string()),
            ("success_rate", rate.to_string()),
            ("local_origin_success_rate", local_rate.to_string()),
        ];
        for (what, value) in lines {
            let _ = writeln!(out, "{name}::{at}::{what}::{value}");
        }
    }
}

fn as_json(manager: &Manager, snapshot: &Snapshot, cluster: &Cluster) -> Value {
    let limit = |priority: &str, limits: &Thresholds| {
        let mut all = Map::new();
        all.insert("priority".to_owned(), priority.into());
        all.extend(thresholds(limits).map(|(what, limit)| (what.to_owned(), limit.into())));
        Value::Object(all)
    };
    let hosts: Vec<Value> = hosts(manager, snapshot, cluster)
        .iter()
        .map(|host| {
            let stats: Vec<Value> = numbers(host)
                .iter()
                .map(|(name, kind, value)| match kind {
                    // The default of both is left out, as Protobuf's JSON does.
                    Kind::Counter => json!({ "name": name, "value": value.to_string() }),
                    _ => json!({ "type": "GAUGE", "name": name, "value": value.to_string() }),
                })
                .collect();
            let mut status = json!({
                "address": super::listeners::address(&host.address),
                "stats": stats,
                "health_status": health(host),
                "weight": host.weight,
                "hostname": &*host.hostname,
                "priority": host.priority,
                "locality": {
                    "region": &*host.locality.region,
                    "zone": &*host.locality.zone,
                    "sub_zone": &*host.locality.sub_zone,
                },
            });
            let names = ["success_rate", "local_origin_success_rate"];
            for (name, rate) in names.into_iter().zip(success_rates(host)).filter(|(_, rate)| *rate >= 0.0) {
                status[name] = json!({ "value": rate });
            }
            status
        })
        .collect();
    let mut status = json!({
        "name": &*cluster.name,
        "added_via_api": manager.added_via_api(&cluster.name),
        "observability_name": &*cluster.stat_name,
        "host_statuses": hosts,
        "circuit_breakers": { "thresholds": [
            limit("DEFAULT", &cluster.circuit_breakers.default),
            limit("HIGH", &cluster.circuit_breakers.high),
        ] },
    });
    if let Discovery::Eds { service_name, .. } = &cluster.discovery
        && *service_name != cluster.name
    {
        status["eds_service_name"] = service_name.to_string().into();
    }
    status
}

fn thresholds(limits: &Thresholds) -> impl Iterator<Item = (&'static str, u32)> {
    [
        ("max_connections", limits.max_connections),
        ("max_pending_requests", limits.max_pending_requests),
        ("max_requests", limits.max_requests),
        ("max_retries", limits.max_retries),
    ]
    .into_iter()
}

fn flags(host: &Host) -> String {
    let state = &host.state;
    let mut all: Vec<&str> = [
        (HealthFlag::FailedActiveHealthCheck, "/failed_active_hc"),
        (HealthFlag::FailedOutlierCheck, "/failed_outlier_check"),
        (HealthFlag::DegradedActiveHealthCheck, "/degraded_active_hc"),
        (HealthFlag::PendingActiveHealthCheck, "/pending_active_hc"),
        (HealthFlag::PendingDynamicRemoval, "/pending_dynamic_removal"),
    ]
    .into_iter()
    .filter(|(flag, _)| state.has(*flag))
    .map(|(_, name)| name)
    .collect();
    match host.health_status {
        HealthStatus::Unhealthy | HealthStatus::Timeout => all.push("/failed_eds_health"),
        HealthStatus::Draining => all.push("/eds_status_draining"),
        HealthStatus::Degraded => all.push("/degraded_eds_health"),
        HealthStatus::Unknown | HealthStatus::Healthy => {}
    }
    if all.is_empty() { "healthy".to_owned() } else { all.concat() }
}

fn health(host: &Host) -> Value {
    let mut status = Map::new();
    let state = &host.state;
    for (flag, name) in [
        (HealthFlag::FailedActiveHealthCheck, "failed_active_health_check"),
        (HealthFlag::FailedOutlierCheck, "failed_outlier_check"),
        (HealthFlag::DegradedActiveHealthCheck, "failed_active_degraded_check"),
        (HealthFlag::PendingActiveHealthCheck, "pending_active_hc"),
        (HealthFlag::PendingDynamicRemoval, "pending_dynamic_removal"),
    ] {
        if state.has(flag) {
            status.insert(name.to_owned(), true.into());
        }
    }
    let eds = match host.health_status {
        HealthStatus::Unknown | HealthStatus::Healthy => "HEALTHY",
        HealthStatus::Unhealthy | HealthStatus::Timeout => "UNHEALTHY",
        HealthStatus::Draining => "DRAINING",
        HealthStatus::Degraded => "DEGRADED",
    };
    status.insert("eds_health_status".to_owned(), eds.into());
    Value::Object(status)
}
