//! Copies of requests for other clusters. Nobody waits for them, and their responses are thrown away.

use std::rc::Rc;
use std::sync::Arc;

use http::HeaderValue;
use http_body_util::BodyExt;
use sail_proxy_decide::route::{MirrorCluster, MirrorPolicy, RouteAction};

use super::Found;
use super::request::Source;
use crate::cluster::{Cluster, LbContext};
use crate::http::body::Body;
use crate::http::exchange::Exchange;
use crate::http::head::{Head, Keep};
use crate::pool::lease::Hold;
use crate::pool::limits::Resource;
use crate::stats::sets::cluster as stats;

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

/// Sends the copies. A body that was too large to keep is not copied.
pub(super) fn send(exchange: &Rc<Exchange>, copies: &[Copy], head: &Head, body: &Source) {
    if copies.is_empty() {
        return;
    }
    let Some(body) = body.whole() else { return };
    for copy in copies {
        let mut head = head.clone();
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
        tokio::task::spawn_local(send_one(exchange.clone(), copy.cluster.clone(), head, body.clone()));
    }
}

async fn send_one(exchange: Rc<Exchange>, cluster: Rc<Cluster>, mut head: Head, body: bytes::Bytes) {
    let context = LbContext::default();
    let Some(choice) = cluster.choose(&context, &exchange.connection.worker) else { return };
    let priority = sail_proxy_decide::route::Priority::Default;
    let cluster = choice.member.clone().unwrap_or(cluster);
    let Some(pool) = cluster.pool(&choice, &exchange, priority) else { return };
    // The request's own exchange must not live on for its copy.
    drop(exchange);
    let Ok(mut lease) = pool.acquire().await else { return };
    let Some(permit) = cluster.limits(priority).acquire(Resource::Requests) else { return };
    lease.hold(Hold::new(cluster.stats(), &choice.host, permit));
    let parts = if lease.is_http2() {
        head.http2_parts(Keep::Nothing)
    } else {
        Some(head.http1_parts(Keep::Nothing))
    };
    let Some(parts) = parts else { return };
    cluster.stats().inc(stats::upstream_rq_total);
    let Ok(response) = lease.send(http::Request::from_parts(parts, Body::text(body))).await else { return };
    cluster.count_response(&choice.host, response.status().as_u16());
    let mut body = response.into_body();
    while let Some(Ok(_)) = body.frame().await {}
    lease.finish();
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
