//! The descriptors of a request, for those who count: here or in a service.

use sail_proxy_decide::fraction::Runtime as _;
use sail_proxy_decide::rate_limit::descriptor::{
    Descriptor, RateLimit, Source, Subject, VirtualHostLimits, of_route,
};
use sail_proxy_decide::route::Action;
use serde_json::Value;

use crate::http::attributes::RequestAttributes;
use crate::http::exchange::Exchange;
use crate::http::head::Head;

/// Which limits hold.
pub(super) struct Which<'a> {
    pub(super) stage: u32,
    /// In place of the route's, if there are any.
    pub(super) own: &'a [RateLimit],
    pub(super) of_virtual_host: VirtualHostLimits,
}

/// The request's descriptors.
pub(super) fn of(exchange: &Exchange, head: &Head, which: &Which<'_>) -> Vec<Descriptor> {
    let found = exchange.routed.get().clone();
    let route = found.as_ref().and_then(|found| found.route.as_ref());
    let limits = match route.map(|route| &route.action) {
        Some(Action::Route(action)) => Some(&action.rate_limits),
        _ => None,
    };
    // As in Envoy, a virtual host's hold for requests that go to a cluster.
    let found_host = found.as_ref().filter(|_| limits.is_some());
    let host: &[RateLimit] = found_host.map_or(&[], |found| &found.virtual_host.rate_limits);
    let nothing = limits.is_none_or(|limits| limits.limits.is_empty()) && host.is_empty();
    if which.own.is_empty() && nothing {
        return Vec::new();
    }
    let info = exchange.info.borrow();
    let metadata = |source, namespace: &str| -> Option<Value> {
        match source {
            Source::Dynamic => info.dynamic_metadata.get(namespace).cloned(),
            Source::Route => route?.metadata.as_ref()?.get(namespace).cloned(),
        }
    };
    let worker = &exchange.connection.worker;
    let subject = Subject {
        head: head.view(),
        source_cluster: &worker.shared.options.node_cluster,
        destination_cluster: found.as_ref().and_then(|found| found.cluster.as_deref()).unwrap_or_default(),
        remote: info.downstream.remote_address.ip(),
        metadata: &metadata,
        attributes: &RequestAttributes::of_request(&info, head),
    };
    let make = |limit: &RateLimit| {
        let on = limit.stage == which.stage && is_on(limit, exchange);
        if on { limit.descriptor(&subject) } else { None }
    };
    if !which.own.is_empty() {
        return which.own.iter().filter_map(make).collect();
    }
    of_route(limits, host, which.of_virtual_host).filter_map(make).collect()
}

fn is_on(limit: &RateLimit, exchange: &Exchange) -> bool {
    if limit.disable_key.is_empty() {
        return true;
    }
    let worker = &exchange.connection.worker;
    let key = format!("ratelimit.{}.http_filter_enabled", limit.disable_key);
    worker.runtime().fraction(&key).is_none_or(|fraction| fraction.hit(worker.random()))
}
