//! Redirects that the proxy follows itself: the request begins anew with the response's target, as if the client had
//! asked for it.

use std::rc::Rc;
use std::sync::Arc;

use http::header::{CONTENT_LENGTH, LOCATION};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, Uri};
use sail_proxy_decide::route::{InternalRedirect, RedirectPredicate, Route};

use super::Found;
use crate::cluster::Cluster;
use crate::http::again::Again;
use crate::http::body::Body;
use crate::http::exchange::Exchange;
use crate::http::head::Head;
use crate::stats::Counter;
use crate::stats::sets::{cluster as cluster_stats, http as stats};

const ORIGINAL_URL: HeaderName = HeaderName::from_static("x-envoy-original-url");

/// A redirect that an exchange was led by: from this route to that one.
pub(crate) type Step = (Arc<Route>, Arc<Route>);

/// A response that may lead elsewhere, and the request that brought it.
pub(super) struct Redirected<'a, B> {
    pub(super) exchange: &'a Rc<Exchange>,
    pub(super) found: &'a Found,
    pub(super) cluster: &'a Cluster,
    /// The request as it went upstream.
    pub(super) head: &'a Head,
    /// Its whole body, where that was kept.
    pub(super) body: Option<bytes::Bytes>,
    pub(super) response: &'a Response<B>,
}

/// Has the request begin anew where the policy lets it; else the client gets the response.
pub(super) fn follow<B>(policy: &InternalRedirect, redirected: Redirected<'_, B>) -> bool {
    let status = redirected.response.status();
    if !policy.codes.contains(&status.as_u16()) {
        return false;
    }
    let exchange = redirected.exchange;
    let stats = redirected.cluster.stats();
    match redirected.again(policy) {
        Ok(again) => {
            stats.inc(cluster_stats::upstream_internal_redirect_succeeded_total);
            exchange.begin_again(status, again);
            true
        }
        Err(reason) => {
            stats.inc(cluster_stats::upstream_internal_redirect_failed_total);
            if let Some(counter) = reason {
                exchange.connection.manager.stats.inc(counter);
            }
            false
        }
    }
}

type Refusal = Option<Counter<stats::Set>>;

impl<B> Redirected<'_, B> {
    fn again(self, policy: &InternalRedirect) -> Result<Again, Refusal> {
        let exchange = self.exchange;
        // What the client still sends cannot be sent anew.
        if !exchange.request_done.get() {
            return Err(None);
        }
        let mut body = self.body.clone().ok_or(None)?;
        let location = self.response.headers().get(LOCATION).ok_or(None)?;
        let mut head = self.head.clone();
        retarget(&mut head, policy, location)?;
        if exchange.redirects.borrow().len() >= policy.max as usize {
            return Err(Some(stats::passthrough_internal_redirect_too_many_redirects));
        }
        let headers = self.response.headers();
        for name in &policy.copy {
            head.headers.remove(name);
            for value in headers.get_all(name) {
                head.headers.append(name, value.clone());
            }
        }
        let step = self.step(policy, &head)?;
        let reads = head.method == Method::GET || head.method == Method::HEAD;
        if self.response.status() == StatusCode::SEE_OTHER && !reads {
            head.method = Method::GET;
            head.headers.remove(CONTENT_LENGTH);
            body = bytes::Bytes::new();
        }
        let original = format!("{}://{}{}", self.head.scheme, self.head.authority(), self.head.path);
        if let Ok(original) = HeaderValue::from_str(&original) {
            head.headers.insert(ORIGINAL_URL, original);
        }
        exchange.redirects.borrow_mut().push(step);
        Ok(Again { head, body: Body::unmeasured(body), kept: None })
    }

    /// The routes that the redirect leads from and to, where the second may follow the first.
    fn step(&self, policy: &InternalRedirect, head: &Head) -> Result<Step, Refusal> {
        let exchange = self.exchange;
        let before = exchange.routed.clone();
        exchange.find_route(head);
        let to = exchange.routed.get().as_ref().and_then(|found| found.route.clone());
        exchange.routed.restore(&before);
        let to = to.ok_or(Some(stats::passthrough_internal_redirect_no_route))?;
        let from = self.found.route.clone().ok_or(None)?;
        let unsafe_cross = self.head.scheme == "http" && head.scheme == "https";
        let passes = policy.predicates.iter().all(|predicate| match predicate {
            RedirectPredicate::PreviousRoutes => {
                let met = exchange.redirects.borrow();
                !met.iter().any(|(before, after)| before.name == from.name && after.name == to.name)
            }
            RedirectPredicate::AllowListed(names) => names.iter().any(|name| **name == *to.name),
            // What a client sent in the clear does not pass for what came by TLS.
            RedirectPredicate::SafeCrossScheme => !unsafe_cross,
        });
        if passes { Ok((from, to)) } else { Err(Some(stats::passthrough_internal_redirect_predicate)) }
    }
}

/// Points the head at the response's location.
fn retarget(head: &mut Head, policy: &InternalRedirect, location: &HeaderValue) -> Result<(), Refusal> {
    let bad = Some(stats::passthrough_internal_redirect_bad_location);
    let uri: Uri = location.to_str().ok().and_then(|text| text.parse().ok()).ok_or(bad)?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(bad) };
    if (scheme == "http") != (head.scheme == "http") && !policy.allow_cross_scheme {
        return Err(Some(stats::passthrough_internal_redirect_unsafe_scheme));
    }
    head.scheme = match scheme {
        "http" => "http",
        "https" => "https",
        _ => return Err(bad),
    };
    head.authority = HeaderValue::from_str(authority.as_str()).map_err(|_| bad)?;
    head.path = uri.path_and_query().cloned().ok_or(bad)?;
    Ok(())
}
