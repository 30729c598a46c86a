//! How much may be under way to a cluster at once.

use crate::convert::{Cx, values};
use crate::pb::cluster as pc;
use crate::pb::cluster::circuit_breakers as pt;
use crate::pb::core::RoutingPriority;

/// Limits by priority.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CircuitBreakers {
    /// For requests as usual.
    pub default: Thresholds,
    /// For requests of high priority.
    pub high: Thresholds,
}

/// `Thresholds`
#[derive(Clone, Debug, PartialEq)]
pub struct Thresholds {
    /// Connections; 1024 by default.
    pub max_connections: u32,
    /// Requests that wait for a connection; 1024 by default.
    pub max_pending_requests: u32,
    /// Requests under way; 1024 by default.
    pub max_requests: u32,
    /// Retries under way; 3 by default.
    pub max_retries: u32,
    /// Connection pools; no limit by default.
    pub max_connection_pools: u32,
    /// Retries as a share of requests, in place of `max_retries`.
    pub retry_budget: Option<RetryBudget>,
    /// Whether statistics tell what is left.
    pub track_remaining: bool,
    /// Connections to one host; no limit by default.
    pub max_connections_per_host: u32,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_pending_requests: 1024,
            max_requests: 1024,
            max_retries: 3,
            max_connection_pools: u32::MAX,
            retry_budget: None,
            track_remaining: false,
            max_connections_per_host: u32::MAX,
        }
    }
}

/// `RetryBudget`
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryBudget {
    /// Retries under way, in percent of requests under way and waiting; 20 by default.
    pub budget_percent: f64,
    /// So many are let through in any case; 3 by default.
    pub min_retry_concurrency: u32,
}

/// `CircuitBreakers`; of several entries for one priority the first counts.
pub(super) fn circuit_breakers(cx: &mut Cx<'_>, value: pc::CircuitBreakers) -> Option<CircuitBreakers> {
    let pc::CircuitBreakers { thresholds, per_host_thresholds } = value;
    let mut found: [Option<Thresholds>; 2] = [None, None];
    for (priority, limits) in cx.each("thresholds", thresholds, limits) {
        found[slot(priority)].get_or_insert(limits);
    }
    for (priority, most) in cx.each("per_host_thresholds", per_host_thresholds, per_host) {
        found[slot(priority)].get_or_insert_default().max_connections_per_host = most;
    }
    let [default, high] = found.map(Option::unwrap_or_default);
    Some(CircuitBreakers { default, high })
}

fn slot(priority: i32) -> usize {
    usize::from(priority == RoutingPriority::High as i32)
}

/// Of hosts, connections alone are counted.
fn per_host(cx: &mut Cx<'_>, value: pt::Thresholds) -> Option<(i32, u32)> {
    let counted = pt::Thresholds {
        priority: value.priority,
        max_connections: value.max_connections,
        // Taken without effect, as by Envoy: hosts have no such gauges.
        track_remaining: value.track_remaining,
        ..Default::default()
    };
    if value != counted {
        cx.error("", "max_connections is the only limit that there is for a host");
    }
    Some((value.priority, values::u32_or(value.max_connections, u32::MAX)))
}

fn limits(cx: &mut Cx<'_>, value: pt::Thresholds) -> Option<(i32, Thresholds)> {
    let pt::Thresholds {
        priority,
        max_connections,
        max_pending_requests,
        max_requests,
        max_retries,
        retry_budget: budget,
        track_remaining,
        max_connection_pools,
    } = value;
    let default = Thresholds::default();
    let limits = Thresholds {
        max_connections: values::u32_or(max_connections, default.max_connections),
        max_pending_requests: values::u32_or(max_pending_requests, default.max_pending_requests),
        max_requests: values::u32_or(max_requests, default.max_requests),
        max_retries: values::u32_or(max_retries, default.max_retries),
        max_connection_pools: values::u32_or(max_connection_pools, default.max_connection_pools),
        retry_budget: cx.option("retry_budget", budget, retry_budget),
        track_remaining,
        max_connections_per_host: u32::MAX,
    };
    Some((priority, limits))
}

fn retry_budget(cx: &mut Cx<'_>, value: pt::thresholds::RetryBudget) -> Option<RetryBudget> {
    let pt::thresholds::RetryBudget { budget_percent, budget_interval, min_retry_concurrency } = value;
    cx.refuse("budget_interval", &budget_interval);
    Some(RetryBudget {
        budget_percent: values::percent(cx, "budget_percent", budget_percent, 20.0),
        min_retry_concurrency: values::u32_or(min_retry_concurrency, 3),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::NoSources;

    fn findings(thresholds: pt::Thresholds) -> usize {
        let mut cx = Cx::new(&NoSources);
        per_host(&mut cx, thresholds);
        cx.into_findings().len()
    }

    /// As every Contour has it that limits connections of hosts.
    #[test]
    fn of_hosts_connections_are_limited_and_nothing_else() {
        let limit = pt::Thresholds {
            max_connections: Some(crate::pb::UInt32Value { value: 9 }),
            ..Default::default()
        };
        assert_eq!(findings(pt::Thresholds { track_remaining: true, ..limit }), 0);
        assert_eq!(
            findings(pt::Thresholds { max_requests: Some(crate::pb::UInt32Value { value: 9 }), ..limit }),
            1
        );
    }
}
