//! `envoy.filters.http.header_to_metadata`: writes headers and cookies into dynamic metadata.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use prost::Message as _;
use sail_proxy_config::http_filter::header_to_metadata::{
    HeaderToMetadata, MetadataEntry, Rule, Source, ValueKind,
};
use sail_proxy_decide::head::{HeaderKey, joined};
use sail_proxy_decide::route::cookie;
use serde_json::Value;

use super::{Flow, HttpFilter, Request, Response, Work};
use crate::http::exchange::Exchange;

/// Longer values are not kept.
const LENGTH: usize = 8 * 1024;

/// See the module's documentation.
pub(crate) struct Filter(pub(super) Arc<HeaderToMetadata>);

impl Filter {
    fn config(&self, exchange: &Exchange, name: &str) -> Arc<HeaderToMetadata> {
        let per_route = exchange.per_filter(name).and_then(|config| config.get::<HeaderToMetadata>());
        per_route.unwrap_or_else(|| self.0.clone())
    }
}

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let Request { name, exchange, head, .. } = request;
        for rule in &self.config(exchange, name).request {
            let found = match &rule.source {
                Source::Header(key) => text(head.view().get(key).as_deref()),
                Source::Cookie(name) => cookie(&head.view(), name).map(str::to_owned),
            };
            apply(exchange, rule, found);
            remove(&mut head.headers, rule);
        }
        Flow::Continue
    }

    fn on_response<'a>(&'a self, response: Response<'a>) -> Option<Work<'a, ()>> {
        let Response { name, exchange, reply } = response;
        for rule in &self.config(exchange, name).response {
            let found = match &rule.source {
                Source::Header(HeaderKey::Name(name)) => {
                    text(joined(reply.response.headers(), name).as_deref())
                }
                Source::Header(HeaderKey::Status) => Some(reply.response.status().as_str().to_owned()),
                Source::Header(_) | Source::Cookie(_) => None,
            };
            apply(exchange, rule, found);
            remove(reply.response.headers_mut(), rule);
        }
        None
    }
}

fn text(value: Option<&[u8]>) -> Option<String> {
    value.and_then(|value| std::str::from_utf8(value).ok()).map(str::to_owned)
}

fn remove(headers: &mut HeaderMap, rule: &Rule) {
    if let (true, Source::Header(HeaderKey::Name(name))) = (rule.remove, &rule.source) {
        headers.remove(name);
    }
}

fn apply(exchange: &Exchange, rule: &Rule, found: Option<String>) {
    let entry = if found.is_some() { &rule.on_present } else { &rule.on_missing };
    let Some(entry) = entry else { return };
    let found = found.unwrap_or_default();
    let text = match (&*entry.value, &entry.rewrite) {
        ("", Some(rewrite)) => rewrite.rewrite(&found),
        ("", None) => found,
        (fixed, _) => fixed.to_owned(),
    };
    if let Some(value) = value(entry, text) {
        exchange.info.borrow_mut().dynamic_metadata.set(&entry.namespace, &entry.key, value);
    }
}

/// What the text says; what is empty, too long or of another kind is not kept.
fn value(entry: &MetadataEntry, text: String) -> Option<Value> {
    if text.is_empty() || text.len() > LENGTH {
        return None;
    }
    let bytes = if entry.base64 { STANDARD.decode(text).ok()? } else { text.into_bytes() };
    match entry.kind {
        ValueKind::String => String::from_utf8(bytes).ok().map(Value::String),
        ValueKind::Number => {
            let number: f64 = std::str::from_utf8(&bytes).ok()?.parse().ok()?;
            serde_json::Number::from_f64(number).map(Value::Number)
        }
        ValueKind::Protobuf => {
            let value = xds_api::google::protobuf::Value::decode(bytes.as_slice()).ok()?;
            Some(sail_proxy_config::json(value))
        }
    }
}
