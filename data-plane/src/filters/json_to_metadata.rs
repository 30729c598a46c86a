//! `envoy.filters.http.json_to_metadata`: writes values of JSON bodies into dynamic metadata.

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use sail_proxy_config::http_filter::json_to_metadata::{
    JsonToMetadata, MatchRules, MetadataValue, Rule, ValueKind,
};
use serde_json::{Map, Value};

use super::{Build, Flow, HttpFilter, Request, Response, Work};
use crate::http::body::Body;
use crate::http::exchange::Exchange;
use crate::http::gather;
use crate::http::handler::Reply;
use crate::http::local_reply::LocalReply;
use crate::stats::sets::json_to_metadata as stats;
use crate::stream_info::{StreamInfo, details};

/// As much of a body as is read.
const LIMIT: usize = 1024 * 1024;

/// See the module's documentation.
pub(crate) struct Filter {
    config: Arc<JsonToMetadata>,
    requests: stats::Scope,
    responses: stats::Scope,
}

/// What a body says.
enum Content {
    Missing,
    Unreadable,
    Json(Value),
}

impl Filter {
    pub(super) fn new(config: &Arc<JsonToMetadata>, build: &Build<'_>) -> Self {
        Self {
            config: config.clone(),
            requests: build.store.scope("json_to_metadata.rq"),
            responses: build.store.scope("json_to_metadata.resp"),
        }
    }

    fn config(&self, exchange: &Exchange, name: &str) -> Arc<JsonToMetadata> {
        let per_route = exchange.per_filter(name).and_then(|config| config.get::<JsonToMetadata>());
        per_route.unwrap_or_else(|| self.config.clone())
    }
}

/// Whether a body of this type is read.
fn takes(rules: &MatchRules, headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if value.is_empty() {
        return rules.allow_empty_content_type;
    }
    rules.content_types.iter().any(|known| **known == *value)
        || rules.content_type_regex.as_ref().is_some_and(|regex| regex.is_match(value.as_bytes()))
}

fn content(bytes: &[u8]) -> Content {
    if bytes.is_empty() {
        return Content::Missing;
    }
    serde_json::from_slice(bytes).map_or(Content::Unreadable, Content::Json)
}

/// Writes what the rules find.
fn apply(rules: &MatchRules, content: &Content, stats: &stats::Scope, exchange: &Exchange) {
    stats.inc(match content {
        Content::Missing => stats::no_body,
        Content::Unreadable => stats::invalid_json_body,
        Content::Json(_) => stats::success,
    });
    let mut info = exchange.info.borrow_mut();
    // What is there already is what was there before; later rules win over earlier ones.
    let mut all: Vec<(&MetadataValue, Value)> = Vec::new();
    for rule in &rules.rules {
        if let Some((entry, value)) = found(rule, content)
            && !(entry.keep && is_there(&info, entry))
        {
            all.push((entry, value));
        }
    }
    for (entry, value) in all {
        info.dynamic_metadata.merge(&entry.namespace, Map::from_iter([(entry.key.to_string(), value)]));
    }
}

fn is_there(info: &StreamInfo, entry: &MetadataValue) -> bool {
    info.dynamic_metadata.get(&entry.namespace).and_then(|fields| fields.get(&*entry.key)).is_some()
}

fn found<'r>(rule: &'r Rule, content: &Content) -> Option<(&'r MetadataValue, Value)> {
    let given = |entry: &'r Option<MetadataValue>| {
        let entry = entry.as_ref()?;
        Some((entry, entry.value.clone()?))
    };
    let value = match content {
        Content::Missing => return given(&rule.on_missing),
        Content::Unreadable => return given(&rule.on_error),
        Content::Json(json) => rule.path.iter().try_fold(json, |value, key| value.as_object()?.get(&**key)),
    };
    match value {
        // Only plain values are values.
        None | Some(Value::Object(_) | Value::Array(_)) => given(&rule.on_missing),
        Some(value) => {
            let entry = rule.on_present.as_ref()?;
            let value = entry.value.clone().or_else(|| cast(value, entry.kind))?;
            Some((entry, value))
        }
    }
}

/// A value as the kind that is asked for; `None` if it cannot be.
fn cast(value: &Value, kind: ValueKind) -> Option<Value> {
    let number = || match value {
        Value::Bool(value) => Some(f64::from(u8::from(*value))),
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    match kind {
        _ if value.is_null() => None,
        ValueKind::Value => Some(value.clone()),
        ValueKind::String => Some(match value {
            Value::String(text) => text.clone().into(),
            Value::Bool(value) => u8::from(*value).to_string().into(),
            Value::Number(number) if number.is_f64() => format!("{:.6}", number.as_f64()?).into(),
            other => other.to_string().into(),
        }),
        ValueKind::Number => Some(match value {
            Value::Number(_) => value.clone(),
            _ => {
                let number = number()?;
                #[expect(clippy::cast_possible_truncation, reason = "it is whole and small enough")]
                if number.fract() == 0.0 && number.abs() < 9e15 {
                    (number as i64).into()
                } else {
                    serde_json::Number::from_f64(number)?.into()
                }
            }
        }),
    }
}

fn mismatch(rules: &MatchRules, stats: &stats::Scope, exchange: &Exchange) {
    stats.inc(stats::mismatched_content_type);
    let mut info = exchange.info.borrow_mut();
    for rule in &rules.rules {
        if let Some((entry, value)) = found(rule, &Content::Unreadable)
            && !(entry.keep && is_there(&info, entry))
        {
            info.dynamic_metadata.set(&entry.namespace, &entry.key, value);
        }
    }
}

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let Request { name, exchange, head, body } = request;
        let config = self.config(exchange, name);
        let Some(rules) = &config.request else { return Flow::Continue };
        if !takes(rules, &head.headers) {
            mismatch(rules, &self.requests, exchange);
            return Flow::Continue;
        }
        if http_body::Body::is_end_stream(body) {
            apply(rules, &Content::Missing, &self.requests, exchange);
            return Flow::Continue;
        }
        Flow::Wait(Box::pin(async move {
            let Some(rules) = &config.request else { return Flow::Continue };
            let Ok(seen) = gather::gather(body, LIMIT).await else {
                let details = details::DOWNSTREAM_REMOTE_RESET;
                return Flow::Reply(Box::new(LocalReply::new(StatusCode::BAD_REQUEST, "", details)));
            };
            if !seen.complete {
                let details = details::REQUEST_PAYLOAD_TOO_LARGE;
                let status = StatusCode::PAYLOAD_TOO_LARGE;
                return Flow::Reply(Box::new(LocalReply::new(status, "Payload Too Large", details)));
            }
            apply(rules, &content(&seen.bytes), &self.requests, exchange);
            Flow::Continue
        }))
    }

    fn on_response<'a>(&'a self, response: Response<'a>) -> Option<Work<'a, ()>> {
        let Response { name, exchange, reply } = response;
        let config = self.config(exchange, name);
        let rules = config.response.as_ref()?;
        if !takes(rules, reply.response.headers()) {
            mismatch(rules, &self.responses, exchange);
            return None;
        }
        if http_body::Body::is_end_stream(reply.response.body()) {
            apply(rules, &Content::Missing, &self.responses, exchange);
            return None;
        }
        Some(Box::pin(async move {
            let Some(rules) = &config.response else { return };
            let mut body = std::mem::replace(reply.response.body_mut(), Body::Empty);
            let seen = gather::gather(&mut body, LIMIT).await;
            *reply.response.body_mut() = body;
            match seen {
                Ok(seen) if seen.complete => {
                    apply(rules, &content(&seen.bytes), &self.responses, exchange);
                }
                _ => too_large(exchange, reply),
            }
        }))
    }
}

/// The response cannot be read as a whole.
fn too_large(exchange: &Exchange, reply: &mut Reply) {
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    let local = LocalReply::new(status, "Internal Server Error", "response_payload_too_large");
    exchange.info.borrow_mut().code_details = Some(local.details.clone());
    *reply = Reply::local(local.into_response(exchange.grpc.get()));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(value: Value, kind: ValueKind, expected: Option<Value>) {
        assert_eq!(cast(&value, kind), expected, "{value}");
    }

    #[test]
    fn values_are_cast_as_envoy_does() {
        check(json!(12.5), ValueKind::Value, Some(json!(12.5)));
        check(json!(12.5), ValueKind::String, Some(json!("12.500000")));
        check(json!(true), ValueKind::String, Some(json!("1")));
        check(json!(true), ValueKind::Number, Some(json!(1)));
        check(json!("17"), ValueKind::Number, Some(json!(17)));
        check(json!("str"), ValueKind::Number, None);
        check(json!(null), ValueKind::Value, None);
    }
}
