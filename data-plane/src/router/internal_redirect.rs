//! Redirects that the proxy follows itself: the response's target is routed as if the client had asked for it.

use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, Uri};
use sail_proxy_decide::route::{InternalRedirect, RedirectPredicate, Route};

use super::replay::Replay;
use crate::http::body::Body;
use crate::http::exchange::Exchange;
use crate::http::handler::Reply;
use crate::http::head::Head;
use crate::http::local_reply::LocalReply;
use crate::stats::Counter;
use crate::stats::sets::{cluster as cluster_stats, http as stats};

const ORIGINAL_URL: HeaderName = HeaderName::from_static("x-envoy-original-url");

/// As much of a body as is kept for the request after a redirect.
const LIMIT: usize = 64 * 1024;

/// The request, kept for the case that it is sent elsewhere.
pub(super) struct Keeper {
    head: Head,
    replay: Replay,
}

impl Keeper {
    pub(super) fn new(head: &Head, body: Body) -> Self {
        Self { head: head.clone(), replay: Replay::new(body, LIMIT) }
    }

    /// The body that goes upstream.
    pub(super) fn body(&self) -> Body {
        self.replay.reader()
    }
}

/// Follows the response where the policy lets it; else the client gets it.
pub(super) async fn follow(
    exchange: &Rc<Exchange>,
    policy: &InternalRedirect,
    route: &Arc<Route>,
    keeper: Keeper,
    reply: Reply,
) -> Result<Reply, Box<LocalReply>> {
    if !policy.codes.contains(&reply.response.status().as_u16()) {
        return Ok(reply);
    }
    let stats = &exchange.connection.manager.stats;
    let count = |counter| {
        let cluster = exchange.info.borrow().cluster.as_ref().map(|cluster| cluster.name.clone());
        if let Some(cluster) = cluster.and_then(|name| exchange.active.cluster(&name)) {
            cluster.stats().inc(counter);
        }
    };
    match redirected(exchange, policy, route, &keeper, &reply) {
        Ok(mut head) => {
            // The connection is given up with the response: its body is of no use to anybody.
            drop(reply);
            count(cluster_stats::upstream_internal_redirect_succeeded_total);
            let body = keeper.replay.reader();
            // Boxed, since a redirect may lead to another.
            Box::pin(super::route(exchange, &mut head, http::Extensions::new(), body)).await
        }
        Err(reason) => {
            count(cluster_stats::upstream_internal_redirect_failed_total);
            if let Some(counter) = reason {
                stats.inc(counter);
            }
            Ok(reply)
        }
    }
}

type Refusal = Option<Counter<stats::Set>>;

/// The head of the request that follows the redirect, once its route is found.
fn redirected(
    exchange: &Rc<Exchange>,
    policy: &InternalRedirect,
    route: &Arc<Route>,
    keeper: &Keeper,
    reply: &Reply,
) -> Result<Head, Refusal> {
    let met = &exchange.redirects;
    if met.borrow().len() >= policy.max as usize {
        return Err(Some(stats::passthrough_internal_redirect_too_many_redirects));
    }
    if !keeper.replay.can_replay() {
        return Err(None);
    }
    let mut head = keeper.head.clone();
    retarget(&mut head, policy, reply)?;
    let headers = reply.response.headers();
    for name in &policy.copy {
        head.headers.remove(name);
        for value in headers.get_all(name) {
            head.headers.append(name, value.clone());
        }
    }
    let status = reply.response.status().as_u16();
    if status == 303 && head.method != Method::GET && head.method != Method::HEAD {
        return Err(None);
    }
    met.borrow_mut().push(route.clone());
    let before = exchange.routed.clone();
    exchange.find_route(&head);
    let found = exchange.routed.get().as_ref().and_then(|found| found.route.clone());
    let refusal = match found {
        None => Some(stats::passthrough_internal_redirect_no_route),
        Some(found) if !passes(exchange, policy, &found, &keeper.head, &head) => {
            Some(stats::passthrough_internal_redirect_predicate)
        }
        Some(_) => return Ok(head),
    };
    met.borrow_mut().pop();
    exchange.routed.restore(&before);
    Err(refusal)
}

/// Points the head at the response's location.
fn retarget(head: &mut Head, policy: &InternalRedirect, reply: &Reply) -> Result<(), Refusal> {
    let bad = Some(stats::passthrough_internal_redirect_bad_location);
    let location = reply.response.headers().get(http::header::LOCATION).ok_or(bad)?;
    let uri: Uri = location.to_str().ok().and_then(|text| text.parse().ok()).ok_or(bad)?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(bad) };
    let scheme = match scheme {
        "http" => "http",
        "https" => "https",
        _ => return Err(bad),
    };
    if scheme != head.scheme && !policy.allow_cross_scheme {
        return Err(Some(stats::passthrough_internal_redirect_unsafe_scheme));
    }
    let original = format!("{}://{}{}", head.scheme, head.authority(), head.path);
    if let Ok(original) = HeaderValue::from_str(&original) {
        head.headers.insert(ORIGINAL_URL, original);
    }
    head.scheme = scheme;
    head.authority = HeaderValue::from_str(authority.as_str()).map_err(|_| bad)?;
    head.path = uri.path_and_query().cloned().ok_or(bad)?;
    Ok(())
}

fn passes(
    exchange: &Exchange,
    policy: &InternalRedirect,
    route: &Arc<Route>,
    from: &Head,
    to: &Head,
) -> bool {
    policy.predicates.iter().all(|predicate| match predicate {
        RedirectPredicate::PreviousRoutes => {
            !exchange.redirects.borrow().iter().any(|met| Arc::ptr_eq(met, route))
        }
        RedirectPredicate::AllowListed(names) => names.iter().any(|name| **name == *route.name),
        RedirectPredicate::SafeCrossScheme => !(from.scheme == "https" && to.scheme == "http"),
    })
}
