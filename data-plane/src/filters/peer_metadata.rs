//! Istio's peer metadata: sidecars tell each other who they are in two headers, which applications never see.

use std::cell::RefCell;
use std::sync::Arc;

use hashbrown::HashMap;
use http::{HeaderMap, HeaderName, HeaderValue};
use xds_api::istio::peer_metadata::Config;

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
        if writes_headers(&self.upstream_propagation) {
            put(exchange, &mut head.headers);
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
        if writes_headers(&self.downstream_propagation) && exchange.state().peer_metadata.asked {
            put(exchange, headers);
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

fn put(exchange: &Exchange, headers: &mut HeaderMap) {
    let own = exchange.connection.worker.own_metadata();
    headers.insert(METADATA, own.metadata.clone());
    headers.insert(ID, own.id.clone());
}

fn reads_headers(methods: &[xds_api::istio::peer_metadata::config::DiscoveryMethod]) -> bool {
    use xds_api::istio::peer_metadata::config::discovery_method::MethodSpecifier;
    methods.iter().any(|method| matches!(method.method_specifier, Some(MethodSpecifier::IstioHeaders(_))))
}

fn writes_headers(methods: &[xds_api::istio::peer_metadata::config::PropagationMethod]) -> bool {
    use xds_api::istio::peer_metadata::config::propagation_method::MethodSpecifier;
    methods.iter().any(|method| matches!(method.method_specifier, Some(MethodSpecifier::IstioHeaders(_))))
}
