//! `envoy.filters.http.rbac`: lets requests pass, or refuses them.

mod counters;
mod subject;

use std::cell::RefCell;
use std::sync::Arc;

use http::StatusCode;
use sail_proxy_decide::rbac::{RbacConfig, Verdict};
use sail_proxy_decide::route::PerFilterConfig;
use serde_json::Value;

use super::{Build, Flow, HttpFilter, Request};
use crate::http::exchange::Exchange;
use crate::http::local_reply::LocalReply;
use crate::stats::Store;
use crate::stats::sets::http_rbac as stats;
use crate::stream_info::details;
use counters::{Counters, Outcome};
pub(crate) use subject::Subject;

/// The namespace of what it writes into dynamic metadata.
const NAMESPACE: &str = "envoy.filters.http.rbac";

/// Where access logs look for the rules' wish.
const COMMON: &str = "envoy.common";

/// See the module's documentation.
pub(crate) struct Filter {
    config: Arc<RbacConfig>,
    plain: stats::Scope,
    store: Arc<Store>,
    prefix: Box<str>,
    /// Counters under names of their own, by the configuration that names them.
    named: RefCell<Vec<(Arc<RbacConfig>, std::rc::Rc<Counters>)>>,
}

impl Filter {
    pub(super) fn new(config: &Arc<RbacConfig>, build: &Build<'_>) -> Self {
        Self {
            config: config.clone(),
            plain: build.store.scope(build.prefix),
            store: build.store.clone(),
            prefix: build.prefix.into(),
            named: RefCell::default(),
        }
    }

    fn count(&self, config: &Arc<RbacConfig>, outcome: Outcome, policy: Option<&Arc<str>>) {
        let own =
            if outcome.is_shadow() { &config.shadow_rules_stat_prefix } else { &config.rules_stat_prefix };
        if own.is_empty() {
            self.plain.inc(outcome.counter());
        }
        if !own.is_empty() || config.track_per_rule_stats {
            self.counters(config).count(config, outcome, policy);
        }
    }

    fn counters(&self, config: &Arc<RbacConfig>) -> std::rc::Rc<Counters> {
        let mut named = self.named.borrow_mut();
        if let Some((_, counters)) = named.iter().find(|(known, _)| Arc::ptr_eq(known, config)) {
            return counters.clone();
        }
        // Routes of the past have configurations that nobody else holds.
        named.retain(|(config, _)| Arc::strong_count(config) > 1);
        let counters = std::rc::Rc::new(Counters::new(&self.store, &self.prefix));
        named.push((config.clone(), counters.clone()));
        counters
    }
}

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let Request { name, exchange, head, .. } = request;
        let per_route: Option<Arc<RbacConfig>> = match exchange.per_filter(name) {
            Some(PerFilterConfig::Rbac(Some(config))) => Some(config),
            Some(PerFilterConfig::Rbac(None)) => return Flow::Continue,
            _ => None,
        };
        let config = per_route.as_ref().unwrap_or(&self.config);
        let (shadow, verdict) = {
            let info = exchange.info.borrow();
            let input = Subject::new(exchange, head, &info);
            let shadow = config.shadow_rules.as_ref().map(|rules| rules.decide(&input));
            (shadow, config.rules.as_ref().map(|rules| rules.decide(&input)))
        };
        if let Some(shadow) = shadow {
            let outcome = if shadow.allowed { Outcome::ShadowAllowed } else { Outcome::ShadowDenied };
            self.count(config, outcome, shadow.policy.as_ref());
            note(exchange, &config.shadow_rules_stat_prefix, "shadow", &shadow);
        }
        let Some(verdict) = verdict else { return Flow::Continue };
        if let Some(log) = verdict.log {
            self.count(
                config,
                if log { Outcome::Logged } else { Outcome::NotLogged },
                verdict.policy.as_ref(),
            );
            let mut info = exchange.info.borrow_mut();
            info.dynamic_metadata.set(COMMON, "access_log_hint", Value::Bool(log));
            return Flow::Continue;
        }
        if verdict.allowed {
            self.count(config, Outcome::Allowed, verdict.policy.as_ref());
            return Flow::Continue;
        }
        self.count(config, Outcome::Denied, verdict.policy.as_ref());
        note(exchange, &config.rules_stat_prefix, "enforced", &verdict);
        let details = details::rbac_denied(verdict.policy.as_deref());
        Flow::Reply(Box::new(LocalReply::new(StatusCode::FORBIDDEN, "RBAC: access denied", details)))
    }
}

/// Tells other filters and logs what the rules say.
fn note(exchange: &Exchange, prefix: &str, kind: &str, verdict: &Verdict) {
    let mut info = exchange.info.borrow_mut();
    if let Some(policy) = &verdict.policy {
        let key = format!("{prefix}{kind}_effective_policy_id");
        info.dynamic_metadata.set(NAMESPACE, &key, Value::String(policy.to_string()));
    }
    let result = if verdict.allowed { "allowed" } else { "denied" };
    let key = format!("{prefix}{kind}_engine_result");
    info.dynamic_metadata.set(NAMESPACE, &key, Value::String(result.to_owned()));
}
