//! `envoy.filters.network.rbac`: who may connect.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use sail_proxy_config::network_filter::NetworkRbac;
use sail_proxy_decide::head::RequestHead;
use sail_proxy_decide::rbac::{Input, Peer};
use serde_json::Value;

use super::{Cx, NetworkFilter, Step, Verdict};
use crate::listener::connection::Accepted;
use crate::stats::sets::{network_rbac as stats, single_counter};
use crate::stream_info::details::{self, close_reason};
use crate::worker::state::Worker;

/// Where shadow rules leave their result.
const NAMESPACE: &str = "envoy.filters.network.rbac";

impl NetworkFilter for Arc<NetworkRbac> {
    // What policies read is known when the connection begins, so that once is enough, whatever `enforcement_type` says.
    fn on_connection<'a>(&'a self, cx: &'a mut Cx<'_>) -> Step<'a> {
        let scope: stats::Scope = cx.worker.shared.store.pinned(&self.stat_prefix);
        let input = Connection(cx.accepted);
        if let Some(rules) = &self.config.shadow_rules {
            let verdict = rules.decide(&input);
            count_shadow(self, cx.worker, &scope, verdict.allowed);
            let note = |key: &str, value: &str| {
                let key = format!("{}{key}", self.config.shadow_rules_stat_prefix);
                let mut metadata = cx.accepted.downstream.state.metadata.borrow_mut();
                metadata.set(NAMESPACE, &key, value.into());
            };
            note("shadow_engine_result", if verdict.allowed { "allowed" } else { "denied" });
            if let Some(policy) = verdict.policy.as_deref() {
                note("shadow_effective_policy_id", policy);
            }
        }
        let Some(rules) = &self.config.rules else { return Step::Now(Verdict::Pass) };
        let verdict = rules.decide(&input);
        scope.inc(if verdict.allowed { stats::allowed } else { stats::denied });
        if verdict.allowed {
            return Step::Now(Verdict::Pass);
        }
        let policy = verdict.policy.as_deref().unwrap_or("none");
        tracing::debug!(policy, remote = %cx.accepted.downstream.remote_address, "RBAC refused a connection");
        let life = &cx.accepted.downstream.state.life;
        life.local_close_reason.set(Some(close_reason::RBAC_DENY));
        cx.denied.0 = Some(details::rbac_denied(Some(policy)).into());
        Step::Now(Verdict::Close(self.delay_deny))
    }
}

/// Counts what shadow rules say, under a prefix that is theirs alone where they have one.
fn count_shadow(rbac: &NetworkRbac, worker: &Worker, scope: &stats::Scope, allowed: bool) {
    let own = &rbac.config.shadow_rules_stat_prefix;
    if own.is_empty() {
        return scope.inc(if allowed { stats::shadow_allowed } else { stats::shadow_denied });
    }
    // A part of the name like the others, whether or not it ends as one.
    let own = own.strip_suffix('.').unwrap_or(own);
    let name = if allowed { "shadow_allowed" } else { "shadow_denied" };
    let name = format!("{}.rbac.{own}.{name}", rbac.stat_prefix);
    worker.shared.store.pinned::<single_counter::Set>(&name).inc(single_counter::value);
}

/// A connection as policies see it.
struct Connection<'a>(&'a Accepted);

impl Input for Connection<'_> {
    fn head(&self) -> Option<RequestHead<'_>> {
        None
    }

    fn destination(&self) -> Option<(IpAddr, u16)> {
        let local = self.0.downstream.local_address;
        Some((local.ip(), local.port()))
    }

    fn source_ip(&self) -> Option<IpAddr> {
        Some(self.0.downstream.remote_address.ip())
    }

    fn direct_remote_ip(&self) -> Option<IpAddr> {
        Some(self.0.downstream.direct_remote_address.ip())
    }

    fn remote_ip(&self) -> Option<IpAddr> {
        self.source_ip()
    }

    fn requested_server_name(&self) -> &str {
        self.0.downstream.server_name.as_deref().unwrap_or_default()
    }

    fn peer(&self) -> Option<Peer<'_>> {
        self.0.peer()
    }

    fn is_tls(&self) -> bool {
        self.0.tls.is_some()
    }

    fn dynamic_metadata(&self, namespace: &str) -> Option<Cow<'_, Value>> {
        self.0.downstream.state.metadata.borrow().get(namespace).cloned().map(Cow::Owned)
    }

    fn filter_state(&self, key: &str) -> Option<Cow<'_, str>> {
        let state = self.0.downstream.state.filter_state.borrow();
        let (_, value) = state.iter().rev().find(|(name, _)| &**name == key)?;
        Some(value.to_string().into())
    }
}
