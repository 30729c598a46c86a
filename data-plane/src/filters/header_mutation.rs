//! `envoy.filters.http.header_mutation`: adds and removes headers.

use std::sync::Arc;

use http::HeaderMap;
use sail_proxy_decide::headers::{Mutation, Mutations};
use sail_proxy_decide::route::PerFilterConfig;

use super::{Flow, HttpFilter, Request, Response, Work};
use crate::http::exchange::Exchange;
use crate::http::head::Head;

fn per_route(name: &str, exchange: &Exchange) -> Option<Arc<Mutations>> {
    match exchange.per_filter(name) {
        Some(PerFilterConfig::HeaderMutation(mutations)) => Some(mutations),
        _ => None,
    }
}

impl HttpFilter for Mutations {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let Request { name, exchange, head, .. } = request;
        let per_route = per_route(name, exchange);
        let all = self.request.iter().chain(per_route.iter().flat_map(|mutations| &mutations.request));
        let mut headers = std::mem::take(&mut head.headers);
        let before = Head { headers: headers.clone(), ..head.clone() };
        apply(exchange, all, &mut headers, &before);
        head.headers = headers;
        Flow::Continue
    }

    fn on_response<'a>(&'a self, response: Response<'a>) -> Option<Work<'a, ()>> {
        let Response { name, exchange, reply } = response;
        let per_route = per_route(name, exchange);
        let all = self.response.iter().chain(per_route.iter().flat_map(|mutations| &mutations.response));
        let head = exchange.noted_head();
        apply(exchange, all, reply.response.headers_mut(), &head);
        None
    }
}

fn apply<'a>(
    exchange: &Exchange,
    mutations: impl Iterator<Item = &'a Mutation>,
    headers: &mut HeaderMap,
    head: &Head,
) {
    exchange.with_attributes(head, |attributes| {
        for mutation in mutations {
            mutation.apply(headers, attributes);
        }
    });
}
