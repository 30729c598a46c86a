//! `envoy.filters.http.rbac`: lets requests pass, or refuses them.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use http::StatusCode;
use sail_proxy_decide::head::RequestHead;
use sail_proxy_decide::rbac::{Input, Peer, RbacConfig, RuleAction};
use sail_proxy_decide::route::PerFilterConfig;
use serde_json::Value;

use super::{Flow, HttpFilter, Request};
use crate::http::exchange::Exchange;
use crate::http::head::Head;
use crate::http::local_reply::LocalReply;
use crate::stats::sets::http_rbac as stats;
use crate::stream_info::{StreamInfo, details};

impl HttpFilter for RbacConfig {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let Request { name, exchange, head, .. } = request;
        let per_route: Option<Arc<RbacConfig>> = match exchange.per_filter(name) {
            Some(PerFilterConfig::Rbac(Some(config))) => Some(config),
            Some(PerFilterConfig::Rbac(None)) => return Flow::Continue,
            _ => None,
        };
        let config = per_route.as_deref().unwrap_or(self);
        let stats = exchange.connection.manager.rbac_stats();
        let info = exchange.info.borrow();
        let input = Subject { exchange, head, info: &info };
        if let Some(rules) = &config.shadow_rules {
            let allowed = rules.decide(&input).allowed;
            stats.inc(if allowed { stats::shadow_allowed } else { stats::shadow_denied });
        }
        let Some(rules) = &config.rules else { return Flow::Continue };
        let verdict = rules.decide(&input);
        if rules.action == RuleAction::Log {
            stats.inc(if verdict.policy.is_some() { stats::logged } else { stats::not_logged });
            return Flow::Continue;
        }
        stats.inc(if verdict.allowed { stats::allowed } else { stats::denied });
        if verdict.allowed {
            return Flow::Continue;
        }
        let details = details::rbac_denied(verdict.policy.as_deref());
        Flow::Reply(Box::new(LocalReply::new(StatusCode::FORBIDDEN, "RBAC: access denied", details)))
    }
}

/// A request as policies see it.
struct Subject<'a> {
    exchange: &'a Exchange,
    head: &'a Head,
    info: &'a StreamInfo,
}

impl Input for Subject<'_> {
    fn head(&self) -> Option<RequestHead<'_>> {
        Some(self.head.view())
    }

    fn destination(&self) -> Option<(IpAddr, u16)> {
        let local = self.info.downstream.local_address;
        Some((local.ip(), local.port()))
    }

    fn source_ip(&self) -> Option<IpAddr> {
        self.direct_remote_ip()
    }

    fn direct_remote_ip(&self) -> Option<IpAddr> {
        Some(self.info.downstream.direct_remote_address.ip())
    }

    fn remote_ip(&self) -> Option<IpAddr> {
        Some(self.info.downstream.remote_address.ip())
    }

    fn requested_server_name(&self) -> &str {
        self.info.downstream.server_name.as_deref().unwrap_or_default()
    }

    fn peer(&self) -> Option<Peer<'_>> {
        self.exchange.connection.accepted.peer()
    }

    fn is_tls(&self) -> bool {
        self.exchange.connection.accepted.tls.is_some()
    }

    fn dynamic_metadata(&self, namespace: &str) -> Option<Cow<'_, Value>> {
        self.info.dynamic_metadata.get(namespace).map(Cow::Borrowed)
    }

    fn filter_state(&self, key: &str) -> Option<Cow<'_, str>> {
        self.info.filter_state(key).map(Cow::Borrowed)
    }
}
