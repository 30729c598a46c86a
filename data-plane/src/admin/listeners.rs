//! `/listeners`: where the proxy listens.

use http::StatusCode;
use sail_proxy_config::decide::address::Address;
use serde_json::{Value, json};

use super::{Page, Params, text};
use crate::server::Main;

pub(super) fn page(main: &Main, params: &Params) -> Page {
    let mut all: Vec<(String, Address)> = Vec::new();
    if let Some(discovery) = main.discovery.get() {
        let parts = discovery.parts();
        let bound: Vec<(String, Address)> =
            parts.workers().addresses().map(|(name, address)| (name.to_string(), address.clone())).collect();
        for listener in &parts.current().listeners {
            let got = bound.iter().filter(|(name, _)| **name == *listener.name);
            let mut got: Vec<_> = got.cloned().collect();
            if got.is_empty() {
                // It takes connections that another hands over.
                got.extend(
                    listener.addresses.iter().map(|address| (listener.name.to_string(), address.clone())),
                );
            }
            all.append(&mut got);
        }
    }
    if params.get("format") == Some("json") {
        let statuses: Vec<Value> =
            all.iter().map(|(name, at)| json!({ "name": name, "local_address": address(at) })).collect();
        return super::json(&json!({ "listener_statuses": statuses }));
    }
    text(StatusCode::OK, all.iter().map(|(name, address)| format!("{name}::{address}\n")).collect())
}

/// An address as `envoy.config.core.v3.Address` in JSON.
pub(super) fn address(address: &Address) -> Value {
    match address {
        Address::Ip(address) => {
            json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
        }
        Address::Pipe(path) => json!({ "pipe": { "path": path.display().to_string() } }),
        Address::Internal { listener, endpoint_id } => json!({
            "envoy_internal_address": { "server_listener_name": &**listener, "endpoint_id": &**endpoint_id }
        }),
    }
}
