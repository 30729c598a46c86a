//! `envoy.filters.http.ip_tagging`: tells upstreams, by tags, where a client is.

use std::cell::RefCell;
use std::sync::Arc;

use hashbrown::HashMap;
use http::HeaderValue;
use sail_proxy_config::http_filter::ip_tagging::{IpTagging, Requests};

use super::{Build, Flow, HttpFilter, Request};
use crate::stats::sets::{http_ip_tagging as stats, single_counter};
use crate::stats::{Scope, Store};

/// See the module's documentation.
pub(crate) struct Filter {
    config: Arc<IpTagging>,
    stats: stats::Scope,
    store: Arc<Store>,
    prefix: Box<str>,
    hits: RefCell<HashMap<Arc<str>, Scope<single_counter::Set>>>,
}

impl Filter {
    pub(super) fn new(config: &Arc<IpTagging>, build: &Build<'_>) -> Self {
        Self {
            config: config.clone(),
            stats: build.store.scope(build.prefix),
            store: build.store.clone(),
            prefix: build.prefix.into(),
            hits: RefCell::default(),
        }
    }

    fn count(&self, tag: &Arc<str>) {
        let mut hits = self.hits.borrow_mut();
        let counter = hits.entry(tag.clone());
        let name = || format!("http.{}.ip_tagging.{tag}.hit", self.prefix);
        counter.or_insert_with(|| self.store.counter(&name())).inc(single_counter::value);
    }
}

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let Request { name, exchange, head, .. } = request;
        let per_route = exchange.per_filter(name).and_then(|config| config.get::<IpTagging>());
        let config = per_route.as_ref().unwrap_or(&self.config);
        let internal = head.headers.get("x-envoy-internal").is_some_and(|value| value == "true");
        let applies = match config.requests {
            Requests::Both => true,
            Requests::Internal => internal,
            Requests::External => !internal,
        };
        if !applies {
            return Flow::Continue;
        }
        let ip = exchange.info.borrow().downstream.remote_address.ip();
        let tags: Vec<&Arc<str>> =
            config.tags.iter().filter(|(_, ranges)| ranges.contains(ip)).map(|(tag, _)| tag).collect();
        if config.sanitize {
            head.headers.remove(&config.header);
        }
        if tags.is_empty() {
            self.stats.inc(stats::no_hit);
        } else {
            tags.iter().for_each(|tag| self.count(tag));
            let mut all: Vec<&[u8]> = Vec::new();
            let old = head.headers.get(&config.header).cloned();
            all.extend(old.iter().map(|value| value.as_bytes()));
            all.extend(tags.iter().map(|tag| tag.as_bytes()));
            if let Ok(value) = HeaderValue::from_bytes(&all.join(&b","[..])) {
                head.headers.insert(&config.header, value);
            }
        }
        self.stats.inc(stats::total);
        Flow::Continue
    }
}
