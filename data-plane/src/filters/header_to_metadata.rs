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
use crate::stats::sets::header_to_metadata as stats;
use crate::stats::{Counter, Store};

/// Longer values are not kept.
const LENGTH: usize = 8 * 1024;

/// See the module's documentation.
pub(crate) struct Filter {
    config: Arc<HeaderToMetadata>,
    store: Arc<Store>,
}

/// The counters of one direction.
struct Counters {
    all: stats::Scope,
    rules_processed: Counter<stats::Set>,
    metadata_added: Counter<stats::Set>,
    header_not_found: Counter<stats::Set>,
}

/// Why a value was not kept.
enum Dropped {
    TooLong,
    BadBase64,
    /// Nothing that is counted.
    Other,
}

impl Filter {
    pub(super) fn new(config: &Arc<HeaderToMetadata>, build: &super::Build<'_>) -> Self {
        Self { config: config.clone(), store: build.store.clone() }
    }

    fn request_counters(&self, config: &HeaderToMetadata) -> Option<Counters> {
        Some(Counters {
            all: self.store.pinned(config.stat_prefix.as_ref()?),
            rules_processed: stats::request_rules_processed,
            metadata_added: stats::request_metadata_added,
            header_not_found: stats::request_header_not_found,
        })
    }

    fn response_counters(&self, config: &HeaderToMetadata) -> Option<Counters> {
        Some(Counters {
            all: self.store.pinned(config.stat_prefix.as_ref()?),
            rules_processed: stats::response_rules_processed,
            metadata_added: stats::response_metadata_added,
            header_not_found: stats::response_header_not_found,
        })
    }

    fn config(&self, exchange: &Exchange, name: &str) -> Arc<HeaderToMetadata> {
        let per_route = exchange.per_filter(name).and_then(|config| config.get::<HeaderToMetadata>());
        per_route.unwrap_or_else(|| self.config.clone())
    }
}

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let Request { name, exchange, head, .. } = request;
        let config = self.config(exchange, name);
        let counters = self.request_counters(&config);
        for rule in &config.request {
            let found = match &rule.source {
                Source::Header(key) => text(head.view().get(key).as_deref()),
                Source::Cookie(name) => cookie(&head.view(), name).map(str::to_owned),
            };
            apply(exchange, rule, found, counters.as_ref());
            remove(&mut head.headers, rule);
        }
        Flow::Continue
    }

    fn on_response<'a>(&'a self, response: Response<'a>) -> Option<Work<'a, ()>> {
        let Response { name, exchange, reply } = response;
        let config = self.config(exchange, name);
        let counters = self.response_counters(&config);
        for rule in &config.response {
            let found = match &rule.source {
                Source::Header(HeaderKey::Name(name)) => {
                    text(joined(reply.response.headers(), name).as_deref())
                }
                Source::Header(HeaderKey::Status) => Some(reply.response.status().as_str().to_owned()),
                Source::Header(_) | Source::Cookie(_) => None,
            };
            apply(exchange, rule, found, counters.as_ref());
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

fn apply(exchange: &Exchange, rule: &Rule, found: Option<String>, counters: Option<&Counters>) {
    let count = |counter: fn(&Counters) -> Counter<stats::Set>| {
        if let Some(counters) = counters {
            counters.all.inc(counter(counters));
        }
    };
    count(|counters| counters.rules_processed);
    if found.is_none() {
        count(|counters| counters.header_not_found);
    }
    let entry = if found.is_some() { &rule.on_present } else { &rule.on_missing };
    let Some(entry) = entry else { return };
    let found = found.unwrap_or_default();
    let text = match (&*entry.value, &entry.rewrite) {
        ("", Some(rewrite)) => {
            let text = rewrite.rewrite(&found);
            if text.is_empty() && !found.is_empty() {
                count(|_| stats::regex_substitution_failed);
            }
            text
        }
        ("", None) => found,
        (fixed, _) => fixed.to_owned(),
    };
    match value(entry, text) {
        Ok(value) => {
            exchange.info.borrow_mut().dynamic_metadata.set(&entry.namespace, &entry.key, value);
            count(|counters| counters.metadata_added);
        }
        Err(Dropped::TooLong) => count(|_| stats::header_value_too_long),
        Err(Dropped::BadBase64) => count(|_| stats::base64_decode_failed),
        Err(Dropped::Other) => {}
    }
}

/// What the text says; what is empty, too long or of another kind is not kept.
fn value(entry: &MetadataEntry, text: String) -> Result<Value, Dropped> {
    if text.is_empty() {
        return Err(Dropped::Other);
    }
    if text.len() > LENGTH {
        return Err(Dropped::TooLong);
    }
    let bytes =
        if entry.base64 { STANDARD.decode(text).map_err(|_| Dropped::BadBase64)? } else { text.into_bytes() };
    let value = match entry.kind {
        ValueKind::String => String::from_utf8(bytes).ok().map(Value::String),
        ValueKind::Number => {
            let number = std::str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok());
            number.and_then(serde_json::Number::from_f64).map(Value::Number)
        }
        ValueKind::Protobuf => {
            xds_api::google::protobuf::Value::decode(bytes.as_slice()).ok().map(sail_proxy_config::json)
        }
    };
    value.ok_or(Dropped::Other)
}
