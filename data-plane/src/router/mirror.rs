//! Copies of requests for other clusters. They go out beside the original, whose answer waits for none of theirs: these are
//! thrown away. A copy whose body is read slowly holds the original's up a little (`tee.rs`), and is given up then.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::BodyExt;
use sail_proxy_decide::route::{MirrorCluster, MirrorPolicy, Priority, RouteAction};

use super::{Found, tee};
use crate::cluster::{Choice, Cluster, LbContext};
use crate::http::body::Body;
use crate::http::exchange::Exchange;
use crate::http::head::{Head, Keep};
use crate::pool::Pool;
use crate::pool::lease::Hold;
use crate::pool::limits::Resource;
use crate::stats::sets::cluster as stats;

const INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The limits that count for copies.
const PRIORITY: Priority = Priority::Default;

/// What bounds a copy.
pub(super) struct Limits {
    /// Bytes of the body that are held for a cluster that reads slowly.
    pub(super) buffer: usize,
    /// From the request's end to the response's.
    pub(super) timeout: Option<Duration>,
}

/// A copy to be sent.
pub(super) struct Copy {
    cluster: Rc<Cluster>,
    host_suffix: bool,
    host: Option<HeaderValue>,
    mutations: Arc<MirrorPolicy>,
}

/// The copies that this request gets.
pub(super) fn chosen(exchange: &Exchange, found: &Found, action: &RouteAction, head: &Head) -> Vec<Copy> {
    let policies = [&action.mirrors, &found.virtual_host.mirrors, &found.table.mirrors];
    let Some(policies) = policies.into_iter().find(|policies| !policies.is_empty()) else {
        return Vec::new();
    };
    let worker = &exchange.connection.worker;
    let hit = |policy: &&Arc<MirrorPolicy>| policy.hit(worker.random(), worker.runtime());
    policies
        .iter()
        .filter(hit)
        .filter_map(|policy| {
            let cluster = match &policy.cluster {
                MirrorCluster::Name(name) => exchange.active.cluster(name)?,
                MirrorCluster::Header(name) => {
                    let name = head.headers.get(name)?.to_str().ok()?;
                    exchange.active.cluster(name)?
                }
            };
            Some(Copy {
                cluster,
                host_suffix: !policy.disable_shadow_host_suffix_append,
                host: policy.host_rewrite.clone(),
                mutations: policy.clone(),
            })
        })
        .collect()
}

/// Sends the copies off, each with a copy of the body that is returned.
pub(super) fn send(
    exchange: &Rc<Exchange>,
    copies: Vec<Copy>,
    head: &Head,
    body: Body,
    limits: Limits,
) -> Body {
    let (body, bodies) = tee::split(body, limits.buffer, copies.len());
    for (copy, (body, end)) in copies.into_iter().zip(bodies) {
        let mut head = head.clone();
        let own = exchange.connection.downstream.local_address.ip();
        head.headers.insert(INTERNAL, HeaderValue::from_static("true"));
        append_forwarded_for(&mut head.headers, own);
        if let Some(host) = &copy.host {
            head.authority = host.clone();
        } else if copy.host_suffix
            && let Ok(host) = HeaderValue::from_str(&shadow_host(head.authority()))
        {
            head.authority = host;
        }
        if let Some(sampled) = copy.mutations.trace_sampled {
            crate::trace::set_sampled(&mut head.headers, sampled);
        }
        exchange.with_attributes(&head.clone(), |attributes| {
            for mutation in &copy.mutations.request_headers {
                mutation.apply(&mut head.headers, attributes);
            }
        });
        let timeout = async move {
            let Some(limit) = limits.timeout else { return std::future::pending().await };
            end.come().await;
            tokio::time::sleep(limit).await;
        };
        let sent = send_one(exchange, copy.cluster.clone(), head, body);
        tokio::task::spawn_local(async move {
            tokio::select! {
                status = sent => status.into_iter().for_each(|status| copy.cluster.count_own(status)),
                () = timeout => {
                    copy.cluster.stats().inc(stats::upstream_rq_timeout);
                    copy.cluster.count_own(StatusCode::GATEWAY_TIMEOUT.as_u16());
                }
            }
        });
    }
    body
}

fn append_forwarded_for(headers: &mut HeaderMap, own: IpAddr) {
    let value = match sail_proxy_decide::head::joined(headers, &FORWARDED_FOR) {
        Some(before) if !before.is_empty() => [&before[..], b",", own.to_string().as_bytes()].concat(),
        _ => own.to_string().into_bytes(),
    };
    if let Ok(value) = HeaderValue::from_bytes(&value) {
        headers.insert(FORWARDED_FOR, value);
    }
}

/// Sends a copy. What is returned resolves with its response's end, or with a status that stands for its failure.
fn send_one(
    exchange: &Rc<Exchange>,
    cluster: Rc<Cluster>,
    head: Head,
    body: Body,
) -> impl Future<Output = Option<u16>> + 'static {
    // The request's own exchange must not live on for its copy.
    let choice = cluster.choose(&LbContext::default(), &exchange.connection.worker);
    let chosen = choice.and_then(|choice| {
        let cluster = choice.member.clone().unwrap_or(cluster);
        let pool = cluster.pool(&choice, exchange, PRIORITY)?;
        Some((choice, cluster, pool))
    });
    async move {
        let failed = Some(StatusCode::SERVICE_UNAVAILABLE.as_u16());
        let Some((choice, cluster, pool)) = chosen else { return failed };
        match forward(choice, cluster, &pool, head, body).await {
            Some(()) => None,
            None => failed,
        }
    }
}

async fn forward(
    choice: Choice,
    cluster: Rc<Cluster>,
    pool: &Rc<Pool>,
    mut head: Head,
    body: Body,
) -> Option<()> {
    let mut lease = pool.acquire().await.ok()?;
    let Some(permit) = cluster.limits(PRIORITY).acquire(Resource::Requests) else {
        cluster.stats().inc(stats::upstream_rq_pending_overflow);
        return None;
    };
    lease.hold(Hold::new(cluster.stats(), &choice.host, permit));
    let parts = if lease.is_http2() {
        head.http2_parts(Keep::Nothing)
    } else {
        Some(head.http1_parts(Keep::Nothing))
    };
    cluster.stats().inc(stats::upstream_rq_total);
    let response = lease.send(http::Request::from_parts(parts?, body)).await.ok()?;
    cluster.count_response(&choice.host, response.status().as_u16());
    let mut body = response.into_body();
    while let Some(Ok(_)) = body.frame().await {}
    lease.finish();
    Some(())
}

/// `host-shadow:port`, by which the copy's receiver knows it.
fn shadow_host(host: &str) -> String {
    match host
        .rsplit_once(':')
        .filter(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
    {
        Some((name, port)) => format!("{name}-shadow:{port}"),
        None => format!("{host}-shadow"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_suffix_stands_before_the_port() {
        assert_eq!(super::shadow_host("reviews:9080"), "reviews-shadow:9080");
        assert_eq!(super::shadow_host("reviews"), "reviews-shadow");
    }
}
