//! A request's way through the proxy: head checked and completed, route found, filters, router, and back.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Version};

use super::bodies::{BodyTimers, RequestBody, ResponseBody};
use super::body::Body;
use super::conn::{Codec, Connection};
use super::exchange::{Exchange, Guard, grpc_status};
use super::head::{Head, HeadError, headers_size};
use super::local_reply::LocalReply;
use super::tunnel::Tunnel;
use super::{admit, again, inform, local_reply, mutate, timers};
use crate::clock;
use crate::filters::Chain;
use crate::http1::Names;
use crate::http2::downstream::OnStream;
use crate::pool::lease::Lease;
use crate::router;
use crate::stats::sets::http as stats;
use crate::stream_info::{Protocol, ResponseFlag, details};
use crate::trace::Way;

/// What of a request decides how its response is written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    /// The head alone.
    is_head: bool,
}

/// What the router hands back: the response, and what its body needs until its end.
pub(crate) struct Reply {
    pub(crate) response: Response<Body>,
    pub(crate) lease: Option<Lease>,
    pub(crate) timers: BodyTimers,
    /// What takes the body's place once the response's head is sent.
    pub(crate) tunnel: Option<Box<Tunnel>>,
}

impl Reply {
    /// A response of the proxy's own.
    pub(crate) fn local(response: Response<Body>) -> Self {
        Self { response, lease: None, timers: BodyTimers::default(), tunnel: None }
    }
}

/// Serves a request that a codec has read.
pub(crate) fn serve(
    connection: Rc<Connection>,
    request: Request<Body>,
    on: Option<OnStream>,
) -> impl Future<Output = Response<Body>> {
    let exchange = Exchange::begin(&connection);
    exchange.stream.set(on);
    // From here on the exchange's end is noted, also if the future is dropped because the client went away.
    let guard = Guard::new(exchange.clone());
    let (parts, body) = request.into_parts();
    let version = parts.version;
    let asked = Asked { is_head: parts.method == http::Method::HEAD };
    if http_body::Body::is_end_stream(&body) {
        exchange.request_done.set(true);
    }
    let mut head = Head::new(parts, connection.accepted.tls.is_some());
    // The future is moved before it is polled: it captures no more than it needs.
    async move {
        let reply = match &mut head {
            Ok((head, extensions)) => {
                run(&exchange, head, Came::First(body, std::mem::take(extensions))).await
            }
            Err(error) => reply_to_bad_head(&exchange, version, error),
        };
        let Some(again) = exchange.take_again() else { return finish(&exchange, reply, guard, asked) };
        // What is dropped here needs no room in the future while it waits.
        drop(reply);
        // Boxed, since it is rare.
        Box::pin(again::serve(exchange, guard, again, asked)).await
    }
}

/// How a request's body came here.
pub(super) enum Came {
    /// With the request, which is looked at.
    First(Body, http::Extensions),
    /// From a request that begins anew.
    Again(Body),
}

/// Checks a request, routes it, and passes it through the filters.
pub(super) async fn run(exchange: &Rc<Exchange>, head: &mut Head, came: Came) -> Reply {
    let body = match came {
        Came::Again(body) => body,
        Came::First(body, extensions) => {
            if let Some(refusal) = refusal(exchange, head, &extensions) {
                return refusal;
            }
            RequestBody::wrap(body, exchange)
        }
    };
    exchange.find_route(head);
    remove_internal_only(exchange, head);
    trace(exchange, head);
    exchange.set_timer(head);
    exchange.connection.manager.observer.on_request_start(exchange, head);
    log_periodically(exchange);
    let manager = exchange.connection.manager.clone();
    let filters = manager.filters(head);
    // How many filters saw the request: as many see its response.
    let passed = Cell::new(0);
    // Pinned here: as an argument it would lie in this future twice.
    let answer = pin!(answer(exchange, filters, &passed, head, body));
    let answered = timers::bounded(exchange, answer).await;
    let mut reply = answered.unwrap_or_else(|expired| {
        let reply = expired.reply(exchange);
        expired.note(exchange);
        Reply::local(local_reply::respond(exchange, reply))
    });
    if exchange.shows_filters() {
        filters.on_response(passed.get(), exchange, &mut reply).await;
    }
    reply
}

/// What is said to a request that may not pass; one that may is completed.
fn refusal(exchange: &Rc<Exchange>, head: &mut Head, extensions: &http::Extensions) -> Option<Reply> {
    if let Some(names) = extensions.get::<Names>() {
        // It is set here alone.
        let _ = exchange.spelling.set(names.clone());
    }
    if let Some(reply) = admit::framing(exchange, head, extensions) {
        exchange.info.borrow_mut().protocol = Some(protocol(head.version));
        return Some(Reply::local(local_reply::respond(exchange, reply)));
    }
    inform::go_ahead(exchange, head);
    note_request(exchange, head);
    exchange.grpc.set(head.is_grpc());
    let reply =
        admit::check(exchange, head, extensions).and_then(|()| mutate::request(exchange, head)).err()?;
    note_head(exchange, head);
    Some(Reply::local(local_reply::respond(exchange, reply)))
}

/// The answer of a filter or of the router.
async fn answer(
    exchange: &Rc<Exchange>,
    filters: &Chain,
    passed: &Cell<usize>,
    head: &mut Head,
    mut body: Body,
) -> Reply {
    let early = match filters.on_request(exchange, head, &mut body).await {
        Ok(count) => {
            passed.set(count);
            None
        }
        Err((count, reply)) => {
            passed.set(count);
            Some(reply)
        }
    };
    note_head(exchange, head);
    let mut reply = match early {
        Some(reply) => reply,
        None => match router::route(exchange, head, body).await {
            Ok(reply) => return reply,
            Err(reply) => reply,
        },
    };
    router::local_headers(exchange, &mut reply, head);
    Reply::local(local_reply::respond(exchange, *reply))
}

/// Takes away what the route table says only internal clients may send.
fn remove_internal_only(exchange: &Exchange, head: &mut Head) {
    let found = exchange.routed.get();
    let Some(found) = found.as_ref().filter(|_| exchange.from_outside.get()) else { return };
    for name in &found.table.internal_only_headers {
        head.headers.remove(name);
    }
}

/// Begins the request's span, where it is traced.
fn trace(exchange: &Exchange, head: &mut Head) {
    let found = exchange.routed.get();
    let route = found.as_ref().and_then(|found| found.route.as_ref());
    let decorator = route.and_then(|route| route.decorator.as_ref());
    let way = Way {
        operation: decorator.map(|decorator| (&decorator.operation, decorator.propagate)),
        tracing: route.and_then(|route| route.tracing.as_ref()),
        runtime: exchange.connection.worker.runtime(),
    };
    let info = &mut exchange.info.borrow_mut();
    exchange.connection.manager.observer.on_request(&mut head.headers, info, &way);
}

/// Writes logs while the stream goes on, as often as the configuration says.
fn log_periodically(exchange: &Rc<Exchange>) {
    let Some(interval) = exchange.connection.manager.config.access_log_flush_interval else { return };
    let exchange = Rc::downgrade(exchange);
    tokio::task::spawn_local(async move {
        loop {
            tokio::time::sleep(interval).await;
            let Some(exchange) = exchange.upgrade() else { return };
            let info = exchange.info.borrow();
            if info.timing.end.is_some() {
                return;
            }
            exchange.connection.manager.observer.on_interval(&info);
        }
    });
}

fn reply_to_bad_head(exchange: &Exchange, version: Version, error: &HeadError) -> Reply {
    exchange.info.borrow_mut().protocol = Some(protocol(version));
    let broken = |status, body, details| {
        LocalReply::new(status, body, details).flag(ResponseFlag::DownstreamProtocolError)
    };
    let bad = |details| broken(StatusCode::BAD_REQUEST, "Bad Request", details);
    let reply = match error {
        HeadError::MissingHost(method, path) => {
            let request = &mut exchange.info.borrow_mut().request;
            request.method = Some(method.clone());
            request.path = path.as_ref().map(|path| Bytes::copy_from_slice(path.as_str().as_bytes()));
            LocalReply::new(StatusCode::BAD_REQUEST, "", details::MISSING_HOST_HEADER)
        }
        HeadError::MissingPath => bad(details::HTTP1_PROTOCOL_ERROR),
        HeadError::BadHost => bad(details::INVALID_AUTHORITY),
    };
    exchange.connection.close_after_this();
    Reply::local(local_reply::respond(exchange, reply))
}

fn protocol(version: Version) -> Protocol {
    match version {
        Version::HTTP_2 => Protocol::Http2,
        Version::HTTP_10 | Version::HTTP_09 => Protocol::Http10,
        _ => Protocol::Http11,
    }
}

pub(super) fn note_request(exchange: &Exchange, head: &Head) {
    let mut info = exchange.info.borrow_mut();
    info.protocol = Some(protocol(head.version));
    info.bytes.request_headers = head.wire_size();
    info.upgrade = head.protocol.as_deref().map(Into::into);
    info.request.method = Some(head.method.clone());
    info.request.scheme = Some(head.scheme);
}

/// What logs say of the request: as the filters left it.
fn note_head(exchange: &Exchange, head: &Head) {
    let mut info = exchange.info.borrow_mut();
    info.request.authority = Some(bytes_of(&head.authority));
    if info.request.path.is_none() {
        info.request.path = Some(Bytes::copy_from_slice(head.path.as_str().as_bytes()));
    }
    info.captured.take_request(&head.headers);
}

fn bytes_of(value: &HeaderValue) -> Bytes {
    Bytes::copy_from_slice(value.as_bytes())
}

/// Whether a client over HTTP/2 has more to say. What it says in a tunnel over HTTP/1 is no request any more.
fn goes_on(exchange: &Exchange) -> bool {
    match (exchange.connection.codec.get(), exchange.stream.get()) {
        (Some(Codec::Http2(codec)), Some(on)) => !codec.has_ended(on),
        _ => false,
    }
}

/// The same of one that asks for a tunnel: what it says there is no body, and nobody has looked for its end.
fn connects(exchange: &Exchange) -> bool {
    exchange.info.borrow().request.method == Some(http::Method::CONNECT) && goes_on(exchange)
}

/// The response's head as the client gets it, and its body with everything that waits for its end.
pub(super) fn finish(exchange: &Rc<Exchange>, reply: Reply, guard: Guard, asked: Asked) -> Response<Body> {
    let Reply { mut response, lease, timers, tunnel } = reply;
    // A filter may have put another answer in its place.
    let switches = |response: &Response<Body>| response.status().is_success() || response.status() == 101;
    let tunnel = tunnel.filter(|_| switches(&response));
    mutate::response(exchange, &mut response);
    // Our own version, not the upstream's; the codec lowers it for a client that speaks an older one.
    *response.version_mut() = if exchange.connection.http2 { Version::HTTP_2 } else { Version::HTTP_11 };
    let connection = &exchange.connection;
    let pressed = connection.worker.shared.options.overload.disables_keepalive();
    if pressed && !connection.http2 {
        connection.manager.stats.inc(stats::downstream_cx_overload_disable_keepalive);
    }
    if !connection.closing.get() && connection.is_drained() {
        connection.manager.stats.inc(stats::downstream_cx_drain_close);
        connection.close_after_this();
    }
    // A client that still sends what nobody reads would have to be listened to.
    let refused = || exchange.info.borrow().upgrade.is_some();
    let early = tunnel.is_none() && (!exchange.request_done.get() || refused() || connects(exchange));
    if tunnel.is_some() && goes_on(exchange) {
        connection.manager.stats.inc(stats::downstream_rq_response_before_rq_complete);
    }
    if early {
        connection.manager.stats.inc(stats::downstream_rq_response_before_rq_complete);
        if connection.http2 {
            // The stream is reset behind the response.
            connection.manager.stats.inc(stats::downstream_rq_rx_reset);
        }
    }
    if !connection.http2 && early && !connection.closing.get() {
        connection.close_after_this();
    }
    let closes = pressed || connection.closing.get();
    if !connection.http2 && tunnel.is_none() && closes {
        response.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    }
    let mut info = exchange.info.borrow_mut();
    info.response_code = Some(response.status().as_u16());
    info.bytes.response_headers = 17 + headers_size(response.headers());
    info.captured.take_response(response.headers());
    if exchange.grpc.get()
        && let Some(status) = response.headers().get("grpc-status").and_then(grpc_status)
    {
        info.grpc_status = Some(status);
    }
    let now = clock::now();
    info.timing.first_downstream_tx = Some(now);
    drop(info);
    exchange.moved.set(now);
    if let Some(tunnel) = tunnel {
        if connection.http2 {
            *response.status_mut() = StatusCode::OK;
        }
        tunnel.spawn(exchange, guard, lease);
        return response.map(|_| Body::Empty);
    }
    // The codec would not ask for a body that is not sent, and nobody would learn that it ended well.
    let bodiless = asked.is_head || matches!(response.status().as_u16(), 204 | 304);
    response.map(|body| {
        let body = if bodiless && lease.is_none() { Body::Empty } else { body };
        ResponseBody::wrap(body, lease, timers, guard)
    })
}

/// Answers that no route was found.
pub(crate) fn no_route(exchange: &Exchange) -> LocalReply {
    exchange.connection.manager.stats.inc(stats::no_route);
    LocalReply::new(StatusCode::NOT_FOUND, "", details::ROUTE_NOT_FOUND).flag(ResponseFlag::NoRouteFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, B, C, F: Future>(_: impl FnOnce(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// Each connection has room for one, and it is moved there for each request. What is rarely waited for belongs into a box; what is passed by
    /// value to an async function lies in its future twice.
    #[test]
    fn a_request_is_small() {
        let size = size_of_future(serve);
        assert!(size <= 4096, "{size} bytes");
    }
}
