//! A request's way through the proxy: head checked and completed, route found, filters, router, and back.

use std::convert::Infallible;
use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Version};
use hyper::body::Incoming;

use super::body::Body;
use super::conn::Connection;
use super::exchange::{BodyTimers, Exchange, Guard, RequestBody, ResponseBody, grpc_status};
use super::head::{Head, HeadError, headers_size};
use super::local_reply::LocalReply;
use super::{mutate, path};
use crate::pool::lease::Lease;
use crate::router;
use crate::stats::sets::http as stats;
use crate::stream_info::{Protocol, ResponseFlag, details};

/// What the router hands back: the response, and what its body needs until its end.
pub(crate) struct Reply {
    pub(crate) response: Response<Body>,
    pub(crate) lease: Option<Lease>,
    pub(crate) timers: BodyTimers,
}

impl Reply {
    /// A response of the proxy's own.
    pub(crate) fn local(response: Response<Body>) -> Self {
        Self { response, lease: None, timers: BodyTimers::default() }
    }
}

/// Serves a request that a codec has read.
pub(crate) async fn serve(
    connection: Rc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let exchange = Exchange::begin(&connection);
    // From here on the exchange's end is noted, also if this future is dropped because the client went away.
    let guard = Guard::new(exchange.clone());
    let (parts, body) = request.into_parts();
    let is_head = parts.method == http::Method::HEAD;
    let version = parts.version;
    let reply = match Head::new(parts, connection.accepted.tls.is_some()) {
        Ok((head, extensions)) => run(&exchange, head, extensions, body).await,
        Err(error) => reply_to_bad_head(&exchange, version, error),
    };
    Ok(finish(&exchange, reply, guard, is_head, version))
}

async fn run(exchange: &Rc<Exchange>, mut head: Head, extensions: http::Extensions, body: Incoming) -> Reply {
    note_request(exchange, &head);
    exchange.grpc.set(head.is_grpc());
    if let Err(reply) = check(exchange, &mut head) {
        return Reply::local(local(exchange, reply));
    }
    mutate::request(exchange, &mut head);
    exchange.find_route(&head);
    trace(exchange, &mut head);
    let mut body = RequestBody::wrap(body, exchange);
    let manager = exchange.connection.manager.clone();
    let (passed, early) = match manager.filters().on_request(exchange, &mut head, &mut body).await {
        Ok(passed) => (passed, None),
        Err((passed, reply)) => (passed, Some(*reply)),
    };
    note_head(exchange, &head);
    let mut reply = match early {
        Some(reply) => Reply::local(local(exchange, reply)),
        None => match router::route(exchange, head, extensions, body).await {
            Ok(reply) => reply,
            Err(reply) => Reply::local(local(exchange, *reply)),
        },
    };
    manager.filters().on_response(passed, exchange, &mut reply).await;
    reply
}

/// Begins the request's span, where it is traced.
fn trace(exchange: &Exchange, head: &mut Head) {
    let found = exchange.routed.get();
    let decorator = found.as_ref().and_then(|found| found.route.as_ref()?.decorator.as_ref());
    let operation = decorator.map(|decorator| (&decorator.operation, decorator.propagate));
    exchange.connection.manager.observer.on_request(
        &mut head.headers,
        &mut exchange.info.borrow_mut(),
        operation,
    );
}

/// Turns a local reply into a response, and notes what it says.
fn local(exchange: &Exchange, reply: LocalReply) -> Response<Body> {
    let mut info = exchange.info.borrow_mut();
    if let Some(flag) = reply.flag {
        info.flag(flag);
    }
    info.code_details = Some(reply.details.clone());
    drop(info);
    reply.into_response(exchange.grpc.get())
}

fn reply_to_bad_head(exchange: &Exchange, version: Version, error: HeadError) -> Reply {
    exchange.info.borrow_mut().protocol = Some(protocol(version));
    let details = match error {
        HeadError::MissingHost => details::MISSING_HOST_HEADER,
        HeadError::MissingPath => details::MISSING_PATH,
        HeadError::BadHost => details::HTTP1_PROTOCOL_ERROR,
    };
    exchange.connection.close_after_this();
    Reply::local(local(exchange, LocalReply::new(StatusCode::BAD_REQUEST, "", details)))
}

/// What is refused before anything else looks at the request, and the path's one form.
fn check(exchange: &Exchange, head: &mut Head) -> Result<(), LocalReply> {
    let manager = &exchange.connection.manager;
    if head.version < Version::HTTP_11 && !manager.accepts_http10() {
        exchange.connection.close_after_this();
        return Err(LocalReply::new(StatusCode::UPGRADE_REQUIRED, "", details::LOW_VERSION));
    }
    if head.authority.is_empty()
        && let Some(host) = manager.default_host()
    {
        head.authority = host;
    }
    if head.method != http::Method::CONNECT && !head.path.as_str().starts_with('/') && head.path != "*" {
        manager.stats.inc(stats::downstream_rq_non_relative_path);
        return Err(LocalReply::new(StatusCode::NOT_FOUND, "", details::ABSOLUTE_PATH));
    }
    if head.headers.len() > manager.max_headers() {
        return Err(LocalReply::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "",
            details::REQUEST_HEADERS_TOO_LARGE,
        ));
    }
    match path::normalize(head.path.as_str(), manager.path_rules()) {
        path::Outcome::Path(std::borrow::Cow::Borrowed(_)) => {}
        path::Outcome::Path(std::borrow::Cow::Owned(path)) => match path.try_into() {
            Ok(path) => head.path = path,
            Err(_) => return Err(bad_path()),
        },
        path::Outcome::Reject => return Err(bad_path()),
        path::Outcome::Redirect(path) => {
            manager.stats.inc(stats::downstream_rq_redirected_with_normalized_path);
            let location = HeaderValue::try_from(path).map_err(|_| bad_path())?;
            return Err(LocalReply::new(
                StatusCode::TEMPORARY_REDIRECT,
                "",
                details::PATH_NORMALIZATION_FAILED,
            )
            .header(http::header::LOCATION, location));
        }
    }
    Ok(())
}

fn bad_path() -> LocalReply {
    LocalReply::new(StatusCode::BAD_REQUEST, "", details::PATH_NORMALIZATION_FAILED)
}

fn protocol(version: Version) -> Protocol {
    match version {
        Version::HTTP_2 => Protocol::Http2,
        Version::HTTP_10 | Version::HTTP_09 => Protocol::Http10,
        _ => Protocol::Http11,
    }
}

fn note_request(exchange: &Exchange, head: &Head) {
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
    info.request.path = Some(Bytes::copy_from_slice(head.path.as_str().as_bytes()));
    info.captured.take_request(&head.headers);
}

fn bytes_of(value: &HeaderValue) -> Bytes {
    Bytes::copy_from_slice(value.as_bytes())
}

/// The response's head as the client gets it, and its body with everything that waits for its end.
fn finish(
    exchange: &Rc<Exchange>,
    reply: Reply,
    guard: Guard,
    is_head: bool,
    version: Version,
) -> Response<Body> {
    let Reply { mut response, lease, mut timers } = reply;
    mutate::response(exchange, &mut response);
    // Our own version, not the upstream's; the codec lowers it for a client that speaks an older one.
    *response.version_mut() = if exchange.connection.http2 { Version::HTTP_2 } else { Version::HTTP_11 };
    let connection = &exchange.connection;
    if !connection.http2
        && (connection.closing.get() || connection.is_drained())
        && version != Version::HTTP_10
    {
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
    info.timing.first_downstream_tx = Some(std::time::Instant::now());
    drop(info);
    if timers.idle.is_none() {
        timers.idle = exchange.stream_idle_timeout();
    }
    let bodiless = is_head || matches!(response.status().as_u16(), 101 | 204 | 304);
    if !exchange.request_done.get() && !bodiless {
        connection.manager.stats.inc(stats::downstream_rq_response_before_rq_complete);
    }
    response.map(|body| ResponseBody::wrap(body, lease, timers, guard))
}

/// Answers that no route was found.
pub(crate) fn no_route(exchange: &Exchange) -> LocalReply {
    exchange.connection.manager.stats.inc(stats::no_route);
    LocalReply::new(StatusCode::NOT_FOUND, "", details::ROUTE_NOT_FOUND).flag(ResponseFlag::NoRouteFound)
}
