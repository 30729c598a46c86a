//! What the connection manager writes into requests and responses as they pass.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use sail_proxy_config::hcm::HostOptions;
use sail_proxy_decide::route::{HostRewrite, Route, RouteAction};

use super::body::Body;
use super::exchange::Exchange;
use super::forwarded::{Connected, Further};
use super::head::Head;
use super::local_reply::LocalReply;
use super::scan::Present;
use super::{forwarded, request_id, xfcc};
use crate::router::Found;
use crate::stats::sets::http as stats;
use crate::stream_info::details;

/// Headers by which a request controls the router: they are read, and go no further.
pub(crate) const ENVOY_REQUEST_CONTROLS: [&str; 12] = [
    "x-envoy-retry-on",
    "x-envoy-retry-grpc-on",
    "x-envoy-max-retries",
    "x-envoy-retriable-status-codes",
    "x-envoy-retriable-header-names",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-upstream-stream-duration-ms",
    "x-envoy-is-timeout-retry",
];

const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
const ORIGINAL_HOST: HeaderName = HeaderName::from_static("x-envoy-original-host");

/// Completes a request before it is routed.
pub(crate) fn request(exchange: &Exchange, head: &mut Head) -> Result<(), LocalReply> {
    let connection = &exchange.connection;
    let manager = &connection.manager;
    let config = &manager.config;
    early(exchange, head);
    let tls = connection.accepted.tls.as_deref();
    if let Some((name, status)) =
        config.client_address.custom_header.as_ref().zip(config.client_address.custom_header_reject)
        && forwarded::address_in(&head.headers, name).is_none()
    {
        manager.stats.inc(stats::downstream_rq_rejected_via_ip_detection);
        return Err(LocalReply::new(status, "", details::ORIGINAL_IP_DETECTION_FAILED));
    }
    let connected = Connected {
        // Whom the PROXY protocol names stands for the peer.
        peer: connection.downstream.remote_address,
        local: connection.downstream.local_address,
        host: connection.worker.shared.options.local_address,
        tls: tls.is_some(),
    };
    let further = Further { append_port: config.append_x_forwarded_port, present: head.present };
    let origin = {
        let downstream = &mut exchange.info.borrow_mut().downstream;
        forwarded::apply(&mut head.headers, &config.client_address, further, connected, downstream)
    };
    exchange.from_outside.set(!origin.internal);
    if config.add_user_agent {
        add_user_agent(exchange, &mut head.headers);
    }
    let secure = match &config.scheme.overwrite {
        Some(scheme) => **scheme == *"https",
        None if head.present.forwarded_proto => {
            head.headers.get(FORWARDED_PROTO).is_some_and(|proto| proto.as_bytes() == b"https")
        }
        // It has just been written.
        None => tls.is_some(),
    };
    head.scheme = if secure { "https" } else { "http" };
    strip_host(config.host, connection.downstream.local_address.port(), head);
    let (mode, details) = manager.client_cert();
    let chain = tls.map(|peer| &peer.chain[..]).unwrap_or_default();
    if head.present.client_cert || tls.is_some() {
        xfcc::apply(&mut head.headers, mode, details, tls.map(|peer| &*peer.info), chain);
    }
    if let Some(via) = manager.via() {
        append_via(&mut head.headers, via);
    }
    set_request_id(exchange, head, origin.edge);
    Ok(())
}

/// Mutations that the configuration wants before anything else.
fn early(exchange: &Exchange, head: &mut Head) {
    let mutations = &exchange.connection.manager.config.early_mutations;
    if mutations.is_empty() {
        return;
    }
    let mut headers = head.headers.clone();
    exchange.with_attributes(head, |attributes| {
        for mutation in mutations {
            mutation.apply(&mut headers, attributes);
        }
    });
    head.present = Present::of(&headers);
    head.headers = headers;
}

fn add_user_agent(exchange: &Exchange, headers: &mut HeaderMap) {
    let options = &exchange.connection.worker.shared.options;
    if let Ok(cluster) = HeaderValue::from_str(&options.node_cluster) {
        headers.insert(HeaderName::from_static("x-envoy-downstream-service-cluster"), cluster.clone());
        headers.entry(http::header::USER_AGENT).or_insert(cluster);
    }
    if let Ok(node) = HeaderValue::from_str(&options.node_id)
        && !node.is_empty()
    {
        headers.insert(HeaderName::from_static("x-envoy-downstream-service-node"), node);
    }
}

fn set_request_id(exchange: &Exchange, head: &mut Head, edge: bool) {
    let connection = &exchange.connection;
    let rules = &connection.manager.config.request_id;
    // At the edge, an id from outside would let others write into our logs and traces.
    let fresh = rules.generate && (!head.present.request_id || edge && !rules.preserve_external);
    let id = if fresh {
        let id = request_id::generate(&mut *connection.worker.rng.borrow_mut());
        HeaderValue::from_maybe_shared(id.clone()).ok().map(|value| {
            head.headers.insert(request_id::REQUEST_ID, value);
            id
        })
    } else if head.present.request_id {
        head.headers.get(request_id::REQUEST_ID).map(|id| Bytes::copy_from_slice(id.as_bytes()))
    } else {
        None
    };
    exchange.info.borrow_mut().request_id = id;
}

/// Adds our name behind those of the proxies before us.
fn append_via(headers: &mut HeaderMap, via: HeaderValue) {
    let before = sail_proxy_decide::head::joined(headers, &http::header::VIA);
    let joined = match before.as_deref() {
        Some(before) if !before.is_empty() => {
            HeaderValue::from_bytes(&[before, b", ", via.as_bytes()].concat()).unwrap_or(via)
        }
        _ => via,
    };
    headers.insert(http::header::VIA, joined);
}

/// Cuts off the host what the configuration does not want to see.
fn strip_host(options: HostOptions, listening: u16, head: &mut Head) {
    let host = head.authority();
    let mut end = host.len();
    if (options.strip_matching_port || options.strip_any_port)
        && let Some((name, port)) = host.rsplit_once(':')
        && (options.strip_any_port || port.parse() == Ok(listening))
        && !port.is_empty()
        && port.bytes().all(|byte| byte.is_ascii_digit())
    {
        end = name.len();
    }
    if options.strip_trailing_dot && host[..end].ends_with('.') {
        end -= 1;
    }
    if end < host.len()
        && let Ok(host) = HeaderValue::from_str(&host[..end])
    {
        head.authority = host;
    }
}

/// Path and host as the route rewrites them; the host that only the chosen upstream knows is written later.
pub(crate) fn rewrite(
    exchange: &Exchange,
    found: &Found,
    route: &Route,
    action: &RouteAction,
    head: &mut Head,
) {
    // The host first: it may be taken from the path as the client sent it.
    rewrite_host(exchange, found, action, head);
    let Some(rewrite) = &action.path_rewrite else { return };
    let path = head.path.as_str();
    let new =
        exchange.with_attributes(head, |attributes| rewrite.apply(path, &route.matching.path, attributes));
    if let Some(new) = new {
        update_path(exchange, head, new);
    }
}

/// Writes another path, and says which one it was, even if it was the same.
pub(crate) fn update_path(exchange: &Exchange, head: &mut Head, new: String) {
    let Ok(new) = http::uri::PathAndQuery::try_from(new) else { return };
    let old = std::mem::replace(&mut head.path, new);
    {
        let bytes = |path: &http::uri::PathAndQuery| Bytes::copy_from_slice(path.as_str().as_bytes());
        let request = &mut exchange.info.borrow_mut().request;
        (request.original_path, request.path) = (Some(bytes(&old)), Some(bytes(&head.path)));
    }
    if exchange.connection.manager.sends_envoy_headers()
        && let Ok(old) = HeaderValue::from_str(old.as_str())
    {
        head.headers.insert(ORIGINAL_PATH, old);
    }
}

/// The weighted cluster's host is written without a word of it; what the route wants comes after it, as in Envoy.
fn rewrite_host(exchange: &Exchange, found: &Found, action: &RouteAction, head: &mut Head) {
    let ask = |rewrite: &HostRewrite, head: &Head| {
        exchange.with_attributes(head, |attributes| {
            sail_proxy_decide::route::rewrite_host(rewrite, &head.view(), None, attributes)
        })
    };
    let weighted = found.weighted.as_ref().and_then(|weighted| weighted.host_rewrite.as_ref());
    if let Some(new) = weighted.and_then(|rewrite| ask(rewrite, head)) {
        note_authority(exchange, &new);
        head.authority = new;
    }
    if let Some(new) = action.host_rewrite.as_ref().and_then(|rewrite| ask(rewrite, head)) {
        update_authority(exchange, action, head, new);
    }
}

fn note_authority(exchange: &Exchange, new: &HeaderValue) {
    exchange.info.borrow_mut().request.authority = Some(Bytes::copy_from_slice(new.as_bytes()));
}

/// Writes another host, and says which one it was.
pub(crate) fn update_authority(exchange: &Exchange, action: &RouteAction, head: &mut Head, new: HeaderValue) {
    note_authority(exchange, &new);
    let old = std::mem::replace(&mut head.authority, new);
    if action.append_x_forwarded_host && !old.is_empty() {
        append_forwarded_host(&mut head.headers, &old);
    }
    if exchange.connection.manager.sends_envoy_headers() {
        head.headers.insert(ORIGINAL_HOST, old);
    }
}

fn append_forwarded_host(headers: &mut HeaderMap, host: &HeaderValue) {
    let before = sail_proxy_decide::head::joined(headers, &FORWARDED_HOST);
    let before = before.filter(|before| !before.is_empty());
    let joined = match before.as_deref() {
        Some(before) if before.rsplit(|byte| *byte == b',').next() == Some(host.as_bytes()) => return,
        Some(before) => HeaderValue::from_bytes(&[before, b",", host.as_bytes()].concat()),
        None => Ok(host.clone()),
    };
    if let Ok(joined) = joined {
        headers.insert(FORWARDED_HOST, joined);
    }
}

/// Completes a response before it is sent.
pub(crate) fn response(exchange: &Exchange, response: &mut Response<Body>) {
    let manager = &exchange.connection.manager;
    set_reason(response);
    let headers = response.headers_mut();
    manager.server_header().apply(headers);
    if let Some(via) = manager.via() {
        append_via(headers, via);
    }
    return_request_id(exchange, headers);
}

/// Completes an informational response.
pub(super) fn informational(exchange: &Exchange, response: &mut Response<()>) {
    set_reason(response);
    return_request_id(exchange, response.headers_mut());
}

fn return_request_id(exchange: &Exchange, headers: &mut HeaderMap) {
    if exchange.connection.manager.returns_request_id()
        && let Some(id) = &exchange.info.borrow().request_id
        && let Ok(id) = HeaderValue::from_bytes(id)
    {
        headers.insert(request_id::REQUEST_ID, id);
    }
}

/// The words beside a status where Envoy has others, or none; a filter may have chosen its own.
fn set_reason<B>(response: &mut Response<B>) {
    use hyper::ext::ReasonPhrase;
    let phrase = match response.status().as_u16() {
        203 => ReasonPhrase::from_static(b"Non-Authoritative Information"),
        599 => ReasonPhrase::from_static(b"Last Unassigned Server Error Code"),
        102 | 103 | 418 | 451 => ReasonPhrase::from_static(b"Unknown"),
        _ if response.status().canonical_reason().is_none() => ReasonPhrase::from_static(b"Unknown"),
        _ => return,
    };
    if response.extensions().get::<ReasonPhrase>().is_none() {
        response.extensions_mut().insert(phrase);
    }
}

/// What becomes of the `server` header.
#[derive(Clone, Debug)]
pub(crate) enum Server {
    Overwrite(HeaderValue),
    AppendIfAbsent(HeaderValue),
    PassThrough,
}

impl Server {
    fn apply(&self, headers: &mut HeaderMap) {
        match self {
            Self::Overwrite(name) => {
                headers.insert(http::header::SERVER, name.clone());
            }
            Self::AppendIfAbsent(name) => {
                headers.entry(http::header::SERVER).or_insert_with(|| name.clone());
            }
            Self::PassThrough => {}
        }
    }
}
