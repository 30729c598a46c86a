//! `envoy.filters.http.header_mutation`: adds and removes headers, trailers and query parameters.

use std::rc::Rc;
use std::sync::Arc;

use http::HeaderMap;
use http::uri::PathAndQuery;
use sail_proxy_decide::headers::{Mutation, Mutations};
use sail_proxy_decide::route::PerFilterConfig;

use super::{Flow, HttpFilter, Request, Response, Work, tail};
use crate::http::body::Body;
use crate::http::exchange::Exchange;
use crate::http::head::Head;
use crate::http::scan::Present;

/// See the module's documentation.
pub(crate) struct Filter(pub(super) Arc<Mutations>);

/// Which part of the mutations is carried out.
type Part = fn(&Mutations) -> &[Mutation];

impl Filter {
    /// The filter's own, then those of every level that the request's route has.
    fn levels(&self, name: &str, exchange: &Exchange) -> Vec<Arc<Mutations>> {
        let mut all = vec![self.0.clone()];
        let found = exchange.routed.get();
        let Some(found) = found.as_ref() else { return all };
        let specific = [
            found.weighted.as_ref().map(|cluster| &cluster.per_filter),
            found.route.as_ref().map(|route| &route.per_filter),
            Some(&found.virtual_host.per_filter),
            Some(&found.table.per_filter),
        ];
        let each = specific.into_iter().flatten().filter_map(|level| match level.get(name) {
            Some(PerFilterConfig::HeaderMutation(mutations)) => Some(mutations.clone()),
            _ => None,
        });
        all.extend(each);
        if self.0.most_specific_wins {
            all[1..].reverse();
        }
        all
    }
}

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let Request { name, exchange, head, body } = request;
        let levels = self.levels(name, exchange);
        if levels.iter().any(|level| !level.request.is_empty()) {
            let mut headers = head.headers.clone();
            apply(exchange, &levels, |level| &level.request, &mut headers, head);
            head.headers = headers;
            // What is decided by the headers that there are looks at them again.
            head.present = Present::of(&head.headers);
        }
        for mutation in levels.iter().flat_map(|level| &level.query) {
            let changed =
                exchange.with_attributes(head, |attributes| mutation.apply(head.path.as_str(), attributes));
            if let Some(Ok(path)) = changed.map(PathAndQuery::try_from) {
                head.path = path;
            }
        }
        wrap(exchange, levels, |level| &level.request_trailers, body);
        Flow::Continue
    }

    fn on_response<'a>(&'a self, response: Response<'a>) -> Option<Work<'a, ()>> {
        let Response { name, exchange, reply } = response;
        let levels = self.levels(name, exchange);
        if levels.iter().any(|level| !level.response.is_empty()) {
            let head = exchange.noted_head();
            apply(exchange, &levels, |level| &level.response, reply.response.headers_mut(), &head);
        }
        wrap(exchange, levels, |level| &level.response_trailers, reply.response.body_mut());
        None
    }
}

/// Changes trailers when they come; where there are none, none are made.
fn wrap(exchange: &Rc<Exchange>, levels: Vec<Arc<Mutations>>, part: Part, body: &mut Body) {
    if levels.iter().all(|level| part(level).is_empty()) {
        return;
    }
    let exchange = exchange.clone();
    *body = tail::at_end(std::mem::replace(body, Body::Empty), move |trailers| {
        if let Some(trailers) = trailers {
            apply(&exchange, &levels, part, trailers, &exchange.noted_head());
        }
    });
}

fn apply(exchange: &Exchange, levels: &[Arc<Mutations>], part: Part, headers: &mut HeaderMap, head: &Head) {
    exchange.with_attributes(head, |attributes| {
        for mutation in levels.iter().flat_map(|level| part(level)) {
            mutation.apply(headers, attributes);
        }
    });
}
