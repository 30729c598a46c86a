//! `envoy.filters.http.csrf`: requests that change something come from where they may.

use std::sync::Arc;

use http::StatusCode;
use sail_proxy_decide::csrf::{CsrfPolicy, Origin};

use super::{Build, Flow, HttpFilter, Request};
use crate::http::local_reply::LocalReply;
use crate::stats::sets::http_csrf as stats;

/// See the module's documentation.
pub(crate) struct Filter {
    config: Arc<CsrfPolicy>,
    stats: stats::Scope,
}

impl Filter {
    pub(super) fn new(config: &Arc<CsrfPolicy>, build: &Build<'_>) -> Self {
        Self { config: config.clone(), stats: build.store.scope(build.prefix) }
    }
}

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let Request { name, exchange, head, .. } = request;
        let per_route = exchange.per_filter(name).and_then(|config| config.get::<CsrfPolicy>());
        let policy = per_route.as_ref().unwrap_or(&self.config);
        let worker = &exchange.connection.worker;
        let enabled = policy.enabled.hit(worker.random(), worker.runtime());
        if !enabled && !policy.shadow.hit(worker.random(), worker.runtime()) {
            return Flow::Continue;
        }
        match policy.judge(&head.view()) {
            Origin::Irrelevant => return Flow::Continue,
            Origin::Valid => {
                self.stats.inc(stats::request_valid);
                return Flow::Continue;
            }
            Origin::Invalid => self.stats.inc(stats::request_invalid),
            Origin::Missing => self.stats.inc(stats::missing_source_origin),
        }
        if !enabled {
            return Flow::Continue;
        }
        Flow::Reply(Box::new(LocalReply::new(
            StatusCode::FORBIDDEN,
            "Invalid origin",
            "csrf_origin_mismatch",
        )))
    }
}
