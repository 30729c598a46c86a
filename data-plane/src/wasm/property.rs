//! Attributes of streams and of the node, in the form that modules read.

use std::borrow::Cow;

use prost::Message as _;
use sail_proxy_config::json;
use sail_proxy_decide::cel::{Attribute, Attributes as _, Table, Value};
use sail_proxy_decide::route::{Action, ClusterSpecifier, Metadata};
use sail_proxy_wasm::encode_pairs;
use serde_json::Value as Json;
use xds_api::envoy::config::core::v3::Node;

use super::NODE;
use crate::access_log::View;
use crate::http::exchange::Exchange;

/// An attribute of a request under way.
pub(crate) fn of_stream(exchange: &Exchange, view: &View<'_>, path: &[&str]) -> Option<Vec<u8>> {
    let (first, rest) = path.split_first()?;
    match *first {
        "xds" if rest.first() == Some(&"node") => node(path),
        "xds" if matches!(rest, ["cluster_name" | "route_name" | "virtual_host_name"]) => {
            routed(exchange, view, rest[0])
        }
        "request" | "response" | "connection" | "source" | "destination" | "upstream" | "xds" => {
            if let ["request" | "response", "headers" | "trailers", key] = path {
                let table = match (*first, path[1]) {
                    ("request", "headers") => Table::RequestHeaders,
                    ("response", "headers") => Table::ResponseHeaders,
                    ("response", "trailers") => Table::ResponseTrailers,
                    _ => return None,
                };
                return encode(&view.look_up(table, key)?);
            }
            let name = format!("{first}.{}", rest.first()?);
            let attribute = Attribute::ALL.iter().find(|attribute| attribute.name() == name)?;
            let value = view.get(*attribute)?;
            match (value, &rest[1..]) {
                (value, []) => encode(&value),
                (Value::Json(value), path) => encode_json(lookup(&value, path)?),
                _ => None,
            }
        }
        "connection_id" => encode(&view.get(Attribute::ConnectionId)?),
        "metadata" => {
            let path = rest.strip_prefix(&["filter_metadata"])?;
            let (namespace, path) = path.split_first()?;
            encode_json(lookup(view.info.dynamic_metadata.get(namespace)?, path)?)
        }
        "filter_state" | "upstream_filter_state" => {
            let [key] = rest else { return None };
            Some(view.info.filter_state(key)?.as_bytes().to_vec())
        }
        "cluster_name" | "route_name" => routed(exchange, view, first),
        "route_metadata" => {
            let found = exchange.routed.get();
            let route = found.as_ref().and_then(|found| found.route.as_ref())?;
            of_metadata(&route.metadata, rest)
        }
        "listener_direction" => encode(&view.get(Attribute::XdsListenerDirection)?),
        "listener_metadata" => of_metadata(&exchange.connection.manager.metadata.listener, rest),
        "cluster_metadata" => {
            let chosen = view.info.cluster.as_ref()?;
            let clusters = &exchange.active.snapshot.clusters;
            of_metadata(&clusters.get(&*chosen.name)?.metadata, rest)
        }
        "upstream_host_metadata" => {
            let value = view.get(Attribute::XdsUpstreamHostMetadata)?;
            match value {
                Value::Json(value) => encode_json(lookup(&value, filter_metadata(rest))?),
                _ => None,
            }
        }
        _ => node(path),
    }
}

/// Names of what the request was routed to, as soon as it is.
fn routed(exchange: &Exchange, view: &View<'_>, name: &str) -> Option<Vec<u8>> {
    let found = exchange.routed.get();
    let found = found.as_ref()?;
    let name = match name {
        "cluster_name" => match &view.info.cluster {
            Some(cluster) => cluster.name.clone(),
            None => match (&found.cluster, &found.route.as_ref()?.action) {
                (Some(cluster), _) => cluster.clone(),
                (None, Action::Route(action)) => match &action.cluster {
                    ClusterSpecifier::Name(name) => name.clone(),
                    _ => return None,
                },
                _ => return None,
            },
        },
        "route_name" => found.route.as_ref()?.name.clone(),
        _ => found.virtual_host.name.clone(),
    };
    Some(name.as_bytes().to_vec())
}

/// `filter_metadata` is the one field of the message; we hold what is in it.
fn filter_metadata<'a>(path: &'a [&'a str]) -> &'a [&'a str] {
    path.strip_prefix(&["filter_metadata"]).unwrap_or(path)
}

fn of_metadata(metadata: &Metadata, path: &[&str]) -> Option<Vec<u8>> {
    let all = metadata.as_ref()?;
    match filter_metadata(path) {
        [] => encode_json(&Json::Object((**all).clone())),
        [namespace, path @ ..] => encode_json(lookup(all.get(*namespace)?, path)?),
    }
}

/// What is known without a request.
pub(crate) fn node(path: &[&str]) -> Option<Vec<u8>> {
    let path = path.strip_prefix(&["xds"]).unwrap_or(path);
    let (&"node", rest) = path.split_first()? else { return None };
    let node: &Node = NODE.get()?;
    match rest {
        [] => Some(node.encode_to_vec()),
        ["id"] => Some(node.id.clone().into()),
        ["cluster"] => Some(node.cluster.clone().into()),
        ["user_agent_name"] => Some(node.user_agent_name.clone().into()),
        ["locality", field] => {
            let locality = node.locality.as_ref()?;
            match *field {
                "region" => Some(locality.region.clone().into()),
                "zone" => Some(locality.zone.clone().into()),
                "sub_zone" => Some(locality.sub_zone.clone().into()),
                _ => None,
            }
        }
        ["metadata", path @ ..] => {
            let metadata = node.metadata.as_ref()?;
            let Some((key, path)) = path.split_first() else {
                let fields = metadata.fields.iter();
                let all = fields.map(|(key, value)| (key.clone(), json(value.clone()))).collect();
                return encode_json(&Json::Object(all));
            };
            encode_json(lookup(&json(metadata.fields.get(*key)?.clone()), path)?)
        }
        _ => None,
    }
}

fn lookup<'a>(value: &'a Json, path: &[&str]) -> Option<&'a Json> {
    path.iter().try_fold(value, |value, key| value.get(key))
}

/// A value's bytes: text as it is, numbers little-endian, maps as pairs.
pub(crate) fn encode(value: &Value<'_>) -> Option<Vec<u8>> {
    Some(match value {
        Value::Null | Value::Table(_) => return None,
        Value::Bool(value) => vec![u8::from(*value)],
        Value::Int(value) => value.to_le_bytes().to_vec(),
        Value::Uint(value) => value.to_le_bytes().to_vec(),
        Value::Double(value) => value.to_le_bytes().to_vec(),
        Value::String(text) => text.as_bytes().to_vec(),
        Value::Bytes(bytes) => bytes.to_vec(),
        Value::Duration(nanos) | Value::Timestamp(nanos) => {
            i64::try_from(*nanos).ok()?.to_le_bytes().to_vec()
        }
        Value::List(items) => list(items.iter().filter_map(encode)),
        Value::Map(entries) => {
            let entry = |(key, value): &(Value<'_>, Value<'_>)| Some((encode(key)?, encode(value)?));
            map(entries.iter().filter_map(entry))
        }
        Value::Json(value) => return encode_json(value),
        Value::Type(name) => name.as_bytes().to_vec(),
    })
}

fn encode_json(value: &Json) -> Option<Vec<u8>> {
    match value {
        Json::Array(items) => Some(list(items.iter().filter_map(encode_json))),
        Json::Object(fields) => {
            let entry = |(key, value): (&String, &Json)| Some((key.clone().into(), encode_json(value)?));
            Some(map(fields.iter().filter_map(entry)))
        }
        value => encode(&Value::from_json(Cow::Borrowed(value))),
    }
}

fn list(items: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    map(items.map(|item| (item, Vec::new())))
}

fn map(entries: impl Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Vec<u8> {
    let entries: Vec<_> = entries.collect();
    encode_pairs(entries.iter().map(|(key, value)| (&**key, &**value)))
}
