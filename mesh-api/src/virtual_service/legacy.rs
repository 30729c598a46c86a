//! Spellings that Istio gave up, rewritten to today's, with a warning where the user should change them.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use crate::decode::{has, take};
use crate::field::Cx;

type Fields<'a> = Cow<'a, Map<String, Value>>;

/// `percent: 10` reads as `percentage: {value: 10}`.
pub(super) fn percentage<'a>(mut map: Fields<'a>, cx: &mut Cx) -> Fields<'a> {
    if has(&map, "percent") {
        rename_percent(map.to_mut(), "percent", "percentage", cx);
    }
    map
}

fn rename_percent(map: &mut Map<String, Value>, old: &str, new: &str, cx: &mut Cx) {
    let Some(percent) = take(map, old) else { return };
    cx.warn_at(old, format!("is deprecated: write {}: {{value: {percent}}}", crate::decode::camel(new)));
    if !has(map, new) {
        map.insert(new.to_owned(), json!({"value": percent}));
    }
}

/// `allowOrigin: [x]` reads as `allowOrigins: [{exact: x}]`.
pub(super) fn cors<'a>(mut map: Fields<'a>, cx: &mut Cx) -> Fields<'a> {
    if !has(&map, "allow_origin") {
        return map;
    }
    let fields = map.to_mut();
    let Some(old) = take(fields, "allow_origin") else { return map };
    cx.warn_at("allowOrigin", "is deprecated: write allowOrigins: [{exact: …}]");
    if !has(fields, "allow_origins") {
        let origins = match old {
            Value::Array(items) => Value::Array(items.into_iter().map(origin).collect()),
            other => other,
        };
        fields.insert("allowOrigins".to_owned(), origins);
    }
    map
}

fn origin(text: Value) -> Value {
    if text == "*" { json!({"regex": ".*"}) } else { json!({"exact": text}) }
}

/// Header lists of before 1.1, `websocketUpgrade`, `mirror_percent`.
pub(super) fn http_route<'a>(map: Fields<'a>, cx: &mut Cx) -> Fields<'a> {
    let mut map = headers(map, cx);
    if has(&map, "websocket_upgrade") {
        take(map.to_mut(), "websocket_upgrade");
        cx.warn_at("websocketUpgrade", "is not needed any more: WebSocket is always allowed");
    }
    if has(&map, "mirror_percent") {
        rename_percent(map.to_mut(), "mirror_percent", "mirror_percentage", cx);
    }
    if has(&map, "append_headers") {
        cx.warn_at("appendHeaders", "is deprecated: write headers: {request: {add: …}}");
        if let Some(append) = take(map.to_mut(), "append_headers") {
            merge_headers(map.to_mut(), "request", "add", append);
        }
    }
    map
}

/// Header lists of before 1.1 on a weighted destination.
pub(super) fn http_route_destination<'a>(map: Fields<'a>, cx: &mut Cx) -> Fields<'a> {
    headers(map, cx)
}

fn headers<'a>(mut map: Fields<'a>, cx: &mut Cx) -> Fields<'a> {
    const OLD: [(&str, &str, &str); 4] = [
        ("append_request_headers", "request", "add"),
        ("append_response_headers", "response", "add"),
        ("remove_request_headers", "request", "remove"),
        ("remove_response_headers", "response", "remove"),
    ];
    for (old, direction, operation) in OLD {
        if !has(&map, old) {
            continue;
        }
        let name = crate::decode::camel(old);
        cx.warn_at(&name, format!("is deprecated: write headers: {{{direction}: {{{operation}: …}}}}"));
        if let Some(value) = take(map.to_mut(), old) {
            merge_headers(map.to_mut(), direction, operation, value);
        }
    }
    map
}

/// Lays an old list under `headers.<direction>.<operation>`, where today's spelling wins.
fn merge_headers(map: &mut Map<String, Value>, direction: &str, operation: &str, value: Value) {
    let empty = || Value::Object(Map::new());
    let headers = map.entry("headers").or_insert_with(empty);
    let Some(headers) = headers.as_object_mut() else { return };
    let Some(target) = headers.entry(direction).or_insert_with(empty).as_object_mut() else { return };
    match (target.get_mut(operation), value) {
        (Some(Value::Object(now)), Value::Object(old)) => {
            for (key, value) in old {
                now.entry(key).or_insert(value);
            }
        }
        (Some(Value::Array(now)), Value::Array(old)) => now.extend(old),
        (Some(_), _) => {}
        (None, value) => {
            target.insert(operation.to_owned(), value);
        }
    }
}
