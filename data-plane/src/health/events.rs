//! Changes of health as `envoy.data.core.v3.HealthCheckEvent`, a JSON object a line.

use std::fs::{File, OpenOptions};
use std::io::Write;

use sail_proxy_config::cluster::{Cluster, HealthCheck, HealthChecker};
use sail_proxy_decide::address::Address;
use sail_proxy_decide::host::Host;
use serde_json::{Value, json};

use super::state::{Change, Outcome};

/// Where events of a host's checks go.
pub(super) struct Log(Option<File>);

impl Log {
    pub(super) fn open(path: Option<&str>) -> Self {
        let open = |path: &str| {
            let opened = OpenOptions::new().create(true).append(true).open(path);
            opened.inspect_err(|error| tracing::warn!(path, %error, "cannot write health check events")).ok()
        };
        Self(path.and_then(open))
    }

    pub(super) fn write(
        &mut self,
        config: &HealthCheck,
        cluster: &Cluster,
        host: &Host,
        outcome: Outcome,
        change: &Change,
    ) {
        let Some(file) = &mut self.0 else { return };
        for (name, event) in events(config, outcome, change) {
            let line = json!({
                "health_checker_type": match config.checker {
                    HealthChecker::Http { .. } => "HTTP",
                    HealthChecker::Tcp { .. } => "TCP",
                    HealthChecker::Grpc { .. } => "GRPC",
                },
                "host": address(&host.address),
                "cluster_name": &*cluster.name,
                "timestamp": jiff::Timestamp::now().to_string(),
                "metadata": { "filter_metadata": host.metadata.as_deref() },
                "locality": {
                    "region": &*host.locality.region,
                    "zone": &*host.locality.zone,
                    "sub_zone": &*host.locality.sub_zone,
                },
                name: event,
            });
            // A full disk must not end the checks.
            let _ = writeln!(file, "{line}");
        }
    }
}

/// The events of a result, by field.
fn events(config: &HealthCheck, outcome: Outcome, change: &Change) -> Vec<(&'static str, Value)> {
    let mut all = Vec::new();
    let (failure_type, status) = match outcome {
        Outcome::Success { .. } => ("", 0),
        Outcome::Refused { status, .. } => ("ACTIVE", status),
        Outcome::Network => ("NETWORK", 0),
        Outcome::Timeout => ("NETWORK_TIMEOUT", 0),
    };
    if change.failed() {
        let event = json!({ "failure_type": failure_type, "http_status_code": status });
        all.push(("eject_unhealthy_event", event));
    }
    if !change.success && (change.first || config.always_log_failures) {
        let event =
            json!({ "failure_type": failure_type, "first_check": change.first, "http_status_code": status });
        all.push(("health_check_failure_event", event));
    }
    if change.recovered() {
        all.push(("add_healthy_event", json!({ "first_check": change.first })));
    }
    if change.success && config.always_log_successes {
        all.push(("successful_health_check_event", json!({})));
    }
    match change.degraded {
        Some(true) => all.push(("degraded_healthy_host", json!({}))),
        Some(false) => all.push(("no_longer_degraded_host", json!({}))),
        None => {}
    }
    all
}

fn address(address: &Address) -> Value {
    match address {
        Address::Ip(ip) => json!({
            "socket_address": {
                "protocol": "TCP",
                "address": ip.ip().to_string(),
                "port_value": ip.port(),
                "resolver_name": "",
                "ipv4_compat": false,
            }
        }),
        Address::Pipe(path) => json!({ "pipe": { "path": path.to_string_lossy(), "mode": 0 } }),
        Address::Internal { listener, endpoint_id } => json!({
            "envoy_internal_address": { "server_listener_name": &**listener, "endpoint_id": &**endpoint_id }
        }),
    }
}
