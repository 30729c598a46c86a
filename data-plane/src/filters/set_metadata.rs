//! `envoy.filters.http.set_metadata`: writes fixed values into dynamic metadata.

use std::sync::Arc;

use sail_proxy_config::http_filter::SetMetadata;
use serde_json::{Map, Value};

use super::{Build, Flow, HttpFilter, Request};
use crate::stats::sets::http_set_metadata as stats;

/// See the module's documentation.
pub(crate) struct Filter {
    entries: Arc<[SetMetadata]>,
    stats: stats::Scope,
}

impl Filter {
    pub(super) fn new(entries: &Arc<[SetMetadata]>, build: &Build<'_>) -> Self {
        Self { entries: entries.clone(), stats: build.store.scope(build.prefix) }
    }
}

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let mut info = request.exchange.info.borrow_mut();
        for entry in self.entries.iter() {
            if let Some(message) = &entry.typed {
                let there = info.dynamic_metadata.typed(&entry.namespace).is_some();
                if there && !entry.allow_overwrite {
                    self.stats.inc(stats::overwrite_denied);
                } else {
                    info.dynamic_metadata.set_typed(&entry.namespace, message.clone());
                }
            }
            let Some(value) = &entry.value else { continue };
            let old = info.dynamic_metadata.get(&entry.namespace).and_then(Value::as_object);
            let merged = match old {
                Some(_) if !entry.allow_overwrite => {
                    self.stats.inc(stats::overwrite_denied);
                    continue;
                }
                Some(old) => {
                    let mut merged = old.clone();
                    merge(&mut merged, value);
                    merged
                }
                None => value.clone(),
            };
            info.dynamic_metadata.merge(&entry.namespace, merged);
        }
        Flow::Continue
    }
}

/// As Envoy merges: objects key by key, lists one behind the other, anything else is replaced.
fn merge(into: &mut Map<String, Value>, from: &Map<String, Value>) {
    for (key, value) in from {
        match (into.get_mut(key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => merge(old, new),
            (Some(Value::Array(old)), Value::Array(new)) => old.extend(new.iter().cloned()),
            (Some(old), new) => *old = new.clone(),
            (None, new) => {
                into.insert(key.clone(), new.clone());
            }
        }
    }
}
