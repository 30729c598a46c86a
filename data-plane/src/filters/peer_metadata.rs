//! Istio's peer metadata: sidecars tell each other who they are in two headers, which applications never see.

use std::cell::RefCell;
use std::sync::Arc;

use hashbrown::HashMap;
use http::{HeaderMap, HeaderName, HeaderValue};
use xds_api::istio::peer_metadata::Config;
use xds_api::istio::peer_metadata::config::{IstioHeaders, PropagationMethod};

use super::{Flow, HttpFilter, Request, Response, Work};
use crate::http::exchange::Exchange;
use crate::stream_info::PeerMetadata;

const METADATA: HeaderName = HeaderName::from_static("x-envoy-peer-metadata");
const ID: HeaderName = HeaderName::from_static("x-envoy-peer-metadata-id");

/// What is kept of a request until its response.
#[derive(Default)]
pub(crate) struct State {
    /// The client sent its metadata, and gets ours.
    asked: bool,
}

/// Peers whose metadata were read lately: they send the same with every request.
const CACHED: usize = 256;

thread_local! {
    static PEERS: RefCell<HashMap<HeaderValue, Option<Arc<PeerMetadata>>>> = RefCell::default();
}

impl HttpFilter for Config {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let Request { exchange, head, .. } = request;
        // A request that this proxy sends on to itself keeps what it carries.
        if reads_headers(&self.downstream_discovery) {
            let found = take(&mut head.headers);
            exchange.state().peer_metadata.asked = found.asked;
            if found.peer.is_some() {
                exchange.info.borrow_mut().downstream_peer = found.peer;
            }
        }
        if let Some(propagation) = by_headers(&self.upstream_propagation)
            && !(propagation.skip_external_clusters && goes_outside(exchange))
        {
            put(exchange, &mut head.headers, &self.additional_labels);
        }
        Flow::Continue
    }

    fn on_response<'a>(&'a self, response: Response<'a>) -> Option<Work<'a, ()>> {
        let Response { exchange, reply, .. } = response;
        let headers = reply.response.headers_mut();
        if reads_headers(&self.upstream_discovery) {
            let found = take(headers);
            let mut info = exchange.info.borrow_mut();
            let workload = || {
                let workload = info.upstream.as_ref()?.workload.as_deref()?;
                PeerMetadata::from_endpoint(workload).map(Arc::new)
            };
            let peer = found.peer.or_else(workload);
            info.upstream_peer = peer;
        }
        if by_headers(&self.downstream_propagation).is_some() && exchange.state().peer_metadata.asked {
            put(exchange, headers, &self.additional_labels);
        }
        None
    }
}

struct Taken {
    peer: Option<Arc<PeerMetadata>>,
    asked: bool,
}

/// Reads the headers, and takes them out.
fn take(headers: &mut HeaderMap) -> Taken {
    let id = headers.remove(ID);
    let metadata = headers.remove(METADATA);
    let asked = id.is_some() || metadata.is_some();
    let peer = metadata.and_then(|metadata| {
        PEERS.with_borrow_mut(|peers| {
            if let Some(known) = peers.get(&metadata) {
                return known.clone();
            }
            if peers.len() >= CACHED {
                peers.clear();
            }
            let peer = PeerMetadata::from_header(metadata.as_bytes()).map(Arc::new);
            peers.insert(metadata, peer.clone());
            peer
        })
    });
    Taken { peer, asked }
}

fn put(exchange: &Exchange, headers: &mut HeaderMap, labels: &[String]) {
    let worker = &exchange.connection.worker;
    let own = worker.own_metadata();
    let metadata = if labels.is_empty() {
        own.metadata.clone()
    } else {
        // Few ask for more labels: it is written anew for each message.
        let text = PeerMetadata::header(&worker.shared.options.node_metadata, labels);
        HeaderValue::try_from(text).unwrap_or_else(|_| own.metadata.clone())
    };
    headers.insert(METADATA, metadata);
    headers.insert(ID, own.id.clone());
}

fn reads_headers(methods: &[xds_api::istio::peer_metadata::config::DiscoveryMethod]) -> bool {
    use xds_api::istio::peer_metadata::config::discovery_method::MethodSpecifier;
    methods.iter().any(|method| matches!(method.method_specifier, Some(MethodSpecifier::IstioHeaders(_))))
}

fn by_headers(methods: &[PropagationMethod]) -> Option<&IstioHeaders> {
    use xds_api::istio::peer_metadata::config::propagation_method::MethodSpecifier;
    let specifiers = methods.iter().filter_map(|method| method.method_specifier.as_ref());
    specifiers.map(|MethodSpecifier::IstioHeaders(headers)| headers).next()
}

/// Whether the request's cluster is not of the mesh.
fn goes_outside(exchange: &Exchange) -> bool {
    let found = exchange.routed.get();
    let name = found.as_ref().and_then(|found| found.cluster.as_ref());
    name.and_then(|name| exchange.active.cluster(name)).is_some_and(|cluster| cluster.info().external)
}
