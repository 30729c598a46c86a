//! `envoy.filters.http.header_mutation`: adds and removes headers.

use std::rc::Rc;
use std::sync::Arc;

use http::HeaderMap;
use sail_proxy_decide::headers::{Mutation, Mutations};
use sail_proxy_decide::route::PerFilterConfig;

use super::{Flow, HttpFilter};
use crate::http::exchange::Exchange;
use crate::http::handler::Reply;
use crate::http::head::Head;

const NAME: &str = "envoy.filters.http.header_mutation";

fn per_route(exchange: &Exchange) -> Option<Arc<Mutations>> {
    let found = exchange.routed.get();
    match found.as_ref()?.per_filter(NAME) {
        Some(PerFilterConfig::HeaderMutation(mutations)) => Some(mutations.clone()),
        _ => None,
    }
}

impl HttpFilter for Mutations {
    fn on_request(&self, exchange: &Rc<Exchange>, head: &mut Head) -> Flow {
        let per_route = per_route(exchange);
        let all = self.request.iter().chain(per_route.iter().flat_map(|mutations| &mutations.request));
        let mut headers = std::mem::take(&mut head.headers);
        let before = Head { headers: headers.clone(), ..head.clone() };
        apply(exchange, all, &mut headers, &before);
        head.headers = headers;
        Flow::Continue
    }

    fn on_response(&self, exchange: &Exchange, reply: &mut Reply) {
        let per_route = per_route(exchange);
        let all = self.response.iter().chain(per_route.iter().flat_map(|mutations| &mutations.response));
        let head = exchange.noted_head();
        apply(exchange, all, reply.response.headers_mut(), &head);
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
