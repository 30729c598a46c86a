//! A stock Envoy accepts what every case of the golden tests gives: its own validation, on a bootstrap with all of it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "common/common.rs"]
mod common;

use std::process::Command;

use serde_json::{Value, json};
use xds_api::codec::Codec;

#[test]
fn envoy_accepts_everything() {
    let found = Command::new("envoy").arg("--version").output().is_ok_and(|output| output.status.success());
    assert!(found, "there is no envoy on PATH: `scripts/need test` installs it");
    let codec = Codec::new();
    let scratch = tempfile::tempdir().unwrap();
    for dir in common::cases() {
        let (_, mesh, mut proxy) = common::Case::load(&dir);
        // Istio's filters are none of a stock Envoy's.
        proxy.extensions.clear();
        let all = common::everything(&mesh, &proxy, &codec);
        let case = dir.file_name().unwrap().to_string_lossy().into_owned();
        let file = scratch.path().join(format!("{case}.json"));
        std::fs::write(&file, bootstrap(&all).to_string()).unwrap();
        let out = Command::new("envoy")
            .args(["--mode", "validate", "-l", "error", "-c"])
            .arg(&file)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{case}: {said}");
    }
}

fn bootstrap(all: &common::Everything) -> Value {
    let resources = |kind: &str| all.resources.get(kind).cloned().unwrap_or_default();
    let routes: std::collections::HashMap<String, Value> = resources("routes").into_iter().collect();
    let listeners: Vec<Value> =
        resources("listeners").into_iter().map(|(_, listener)| inlined(listener, &routes)).collect();
    let mut clusters: Vec<Value> =
        resources("clusters").into_iter().map(|(_, value)| without_type(value)).collect();
    for name in ["xds-grpc", "sds-grpc"] {
        clusters.push(json!({
            "name": name,
            "type": "STATIC",
            "connect_timeout": "1s",
            "http2_protocol_options": {},
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": {"pipe": {"path": "/dev/null"}}}}]}]},
        }));
    }
    json!({
        "node": {"id": "test", "cluster": "test"},
        "dynamic_resources": {"ads_config": {
            "api_type": "GRPC", "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
        }},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    })
}

/// Routes in place of their names, so that they are looked at too.
fn inlined(value: Value, routes: &std::collections::HashMap<String, Value>) -> Value {
    match without_type_of_resource(value) {
        Value::Object(mut map) => {
            if let Some(rds) = map.remove("rds") {
                let name = rds["route_config_name"].as_str().unwrap();
                map.insert("route_config".to_owned(), without_type(routes[name].clone()));
            }
            map.into_iter().map(|(key, value)| (key, inlined(value, routes))).collect()
        }
        Value::Array(items) => items.into_iter().map(|value| inlined(value, routes)).collect(),
        other => other,
    }
}

fn without_type_of_resource(value: Value) -> Value {
    if value["@type"].as_str().is_some_and(|name| name.ends_with("listener.v3.Listener")) {
        return without_type(value);
    }
    value
}

fn without_type(mut value: Value) -> Value {
    if let Value::Object(map) = &mut value {
        map.remove("@type");
    }
    value
}
