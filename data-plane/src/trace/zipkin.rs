//! Spans as Zipkin's JSON, version 2.

use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::span::{Kind, Span};

/// A batch as a request's body. `service` is our name; `address` is ours, where it is known.
pub(super) fn encode(spans: &[Span], service: &str, address: Option<std::net::IpAddr>) -> Vec<u8> {
    let list: Vec<Value> = spans.iter().map(|span| one(span, service, address)).collect();
    // Strings and numbers have a text.
    serde_json::to_vec(&list).unwrap_or_default()
}

fn one(span: &Span, service: &str, address: Option<std::net::IpAddr>) -> Value {
    let micros =
        |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |t| t.as_micros() as u64);
    let mut endpoint = json!({ "serviceName": service });
    match address {
        Some(std::net::IpAddr::V4(ip)) => endpoint["ipv4"] = ip.to_string().into(),
        Some(std::net::IpAddr::V6(ip)) => endpoint["ipv6"] = ip.to_string().into(),
        None => {}
    }
    let tags: Map<String, Value> =
        span.tags.iter().map(|(name, value)| (name.to_string(), value.as_str().into())).collect();
    let mut value = json!({
        "traceId": span.trace.to_string(),
        "id": span.id.to_string(),
        "name": &*span.name,
        "kind": match span.kind { Kind::Client => "CLIENT", Kind::Server => "SERVER" },
        "timestamp": micros(span.start),
        // Zipkin takes zero as unknown.
        "duration": (span.duration.as_micros() as u64).max(1),
        "localEndpoint": endpoint,
        "tags": tags,
    });
    if let Some(parent) = span.parent {
        value["parentId"] = parent.to_string().into();
    }
    if !span.annotations.is_empty() {
        let one = |(at, what): &(SystemTime, &str)| json!({ "timestamp": micros(*at), "value": what });
        value["annotations"] = span.annotations.iter().map(one).collect();
    }
    if span.shared {
        value["shared"] = true.into();
    }
    value
}
