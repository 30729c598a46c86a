//! A request's tries: until one brings a response that may be passed on, or none is left.

mod bounded;
mod hedge;
mod source;
mod tries;

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue, Response, StatusCode};
use sail_proxy_decide::host::Host;
use sail_proxy_decide::route::retry::{RetryPolicy, RetryState};
use sail_proxy_decide::route::{Action, Route, RouteAction, Timeouts};

use self::bounded::Bounded;
use self::source::{Source, buffer_limit};
use self::tries::Tries;
use super::attempt;
use super::counters::Counters;
use super::failure::Failure;
use super::internal_redirect::{self, Redirected};
use super::{Found, mirror, no_cluster, overload, response_headers, upgrade};
use crate::clock;
use crate::cluster::{Cluster, orca};
use crate::http::bodies::BodyTimers;
use crate::http::body::Body;
use crate::http::exchange::Exchange;
use crate::http::handler::Reply;
use crate::http::head::{Head, Keep};
use crate::http::local_reply::LocalReply;
use crate::http::scan::Present;
use crate::http::{hop, mutate};
use crate::pool::lease::Lease;
use crate::stream_info::{ResponseFlag, details};

const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
pub(super) const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const EXPECTED_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");

/// What a successful try brought.
pub(super) struct Success {
    pub(super) response: Response<Body>,
    pub(super) lease: Lease,
    pub(super) host: Arc<Host>,
    /// The host's cluster, where it is a member of the one that was asked.
    pub(super) member: Option<Rc<Cluster>>,
}

/// What the request wants its connection or stream to become.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Upgrading {
    No,
    /// Another protocol.
    To,
    /// A tunnel.
    Connect,
}

/// Forwards the request to its cluster.
pub(super) async fn forward(
    exchange: &Rc<Exchange>,
    found: &Found,
    route: &Route,
    head: &mut Head,
    body: Body,
) -> Result<Reply, Box<LocalReply>> {
    let Action::Route(action) = &route.action else {
        return Err(Box::new(crate::http::handler::no_route(exchange)));
    };
    let cluster = found.cluster.as_ref().and_then(|name| exchange.active.cluster(name));
    let Some(cluster) = cluster else {
        return Err(Box::new(no_cluster(exchange, action.cluster_not_found_status)));
    };
    exchange.info.borrow_mut().cluster = Some(cluster.info().clone());
    if let Some(reply) = overload::answer(exchange, &cluster) {
        return Err(Box::new(reply));
    }
    let policy = action.retry.as_deref().or(found.virtual_host.retry.as_deref());
    let expected = exchange.connection.manager.heeds_expected_timeout;
    let present = Present::of(&head.headers);
    let (timeouts, state) = plan(action, policy, head, present, expected);
    let max_stream = cluster.config.http.max_stream_duration.filter(|limit| !limit.is_zero());
    let hedges = hedge::is_asked(action, found, head, present);
    let counters = Counters::new(exchange, found, route, &cluster, head);
    let tried = if hedges { None } else { timeouts.per_try };
    prepare(exchange, found, route, action, head, present, tried.or(timeouts.global));
    if let Some(tracked) = cluster.tracked() {
        tracked.begin(exchange, head);
    }
    let mirrors = mirror::chosen(exchange, found, action, head);
    let buffer = buffer_limit(exchange, found, route);
    let body = match mirrors.is_empty() {
        true => body,
        false => {
            let held = exchange.connection.manager.buffer_limit as usize;
            let limits = mirror::Limits { buffer: held, timeout: timeouts.global };
            mirror::send(exchange, mirrors, head, body, limits)
        }
    };
    let redirect = action.internal_redirect.as_ref();
    let body = Source::new(body, state.is_some() || redirect.is_some(), buffer);
    // Nobody asks for the head again: it may be moved.
    let once = state.is_none() && redirect.is_none() && !has_response_operations(found, route);
    let keep = if once { Keep::Nothing } else { Keep::Headers };
    let tried = RefCell::default();
    let mut tries = Tries {
        exchange,
        found,
        action,
        cluster: &cluster,
        policy,
        state,
        timeouts,
        body,
        hash: attempt::hash(exchange, action, head),
        tried: &tried,
        under_way: Cell::new(0),
        retry_permit: None,
        keep,
        timed_out: false,
        max_stream,
        try_began: Cell::new(exchange.start),
        timeout_noted: Cell::new(false),
        retried: Cell::new(false),
        hedges,
        counters: &counters,
    };
    let result = {
        let run = pin!(tries.run(head));
        match timeouts.global {
            None => run.await,
            Some(limit) => Bounded::new(run, exchange, limit).await,
        }
    };
    let upgrading = match &head.protocol {
        Some(_) => Upgrading::To,
        None if head.is_connect() => Upgrading::Connect,
        None => Upgrading::No,
    };
    let set_cookie = tries.hash.set_cookie.take();
    let stream_end = tries.max_stream.map(|limit| tries.try_began.get() + limit);
    let limits = (timeouts.global, timeouts.per_try_idle, stream_end);
    let whole = redirect.and_then(|_| tries.body.whole());
    if let Some(tracked) = cluster.tracked() {
        tries.note_budgets(tracked, &result);
    }
    let under_way = match &result {
        Err(failure @ Failure::Timeout) => {
            tries.note_timeout(failure);
            tries.under_way.get()
        }
        _ => 1,
    };
    drop(tries);
    let success = match result {
        Ok(success) => success,
        Err(failure) => {
            let failed = Failed { exchange, found, cluster: &cluster, counters: &counters, failure };
            return Err(Box::new(failed.answer(under_way, timeouts.quiet)));
        }
    };
    if let Some(policy) = redirect {
        let response = &success.response;
        let redirected = Redirected { exchange, found, cluster: &cluster, head, body: whole, response };
        if internal_redirect::follow(policy, redirected) {
            if http_body::Body::is_end_stream(response.body()) {
                success.lease.finish();
            }
            return Ok(Reply::local(Response::new(Body::Empty)));
        }
    }
    let mut reply = respond(exchange, &cluster, success, limits, upgrading);
    counters.answered(reply.response.status().as_u16(), exchange.start);
    let headers = reply.response.headers_mut();
    if found.virtual_host.include_attempt_count_in_response {
        headers.insert(ATTEMPT_COUNT, HeaderValue::from(exchange.info.borrow().attempt_count));
    }
    if let Some(cookie) = set_cookie.and_then(|cookie| HeaderValue::try_from(cookie).ok()) {
        headers.append(http::header::SET_COOKIE, cookie);
    }
    exchange.info.borrow_mut().response_code = Some(reply.response.status().as_u16());
    response_headers(exchange, found, route, &mut reply, head);
    Ok(reply)
}

/// How long the request may take, and whether it is tried again. Most requests bring no header that has a say in it.
fn plan(
    action: &RouteAction,
    policy: Option<&RetryPolicy>,
    head: &Head,
    present: Present,
    expected: bool,
) -> (Timeouts, Option<RetryState>) {
    let silent = policy.is_none() && !present.control && action.max_stream_duration.is_none();
    if silent && action.max_grpc_timeout.is_none() {
        let global = action.timeout.filter(|limit| !limit.is_zero());
        return (Timeouts { global, ..Timeouts::default() }, None);
    }
    (action.timeouts(&head.view(), policy, expected), RetryState::new(policy, &head.view()))
}

/// The head as it goes upstream, but for what a single try adds.
fn prepare(
    exchange: &Exchange,
    found: &Found,
    route: &Route,
    action: &RouteAction,
    head: &mut Head,
    present: Present,
    expected: Option<Duration>,
) {
    if present.control {
        for name in mutate::ENVOY_REQUEST_CONTROLS {
            head.headers.remove(name);
        }
    }
    hop::strip_request(&mut head.headers, present);
    let stream = action
        .stream_limit(&head.view())
        .unwrap_or(exchange.connection.manager.config.timeouts.max_stream_duration);
    if let Some(told) = action.told_grpc_timeout(&head.view(), stream, expected)
        && let Ok(told) = HeaderValue::try_from(told)
    {
        head.headers.insert(GRPC_TIMEOUT, told);
    }
    if let Some(limit) = expected.filter(|_| exchange.connection.manager.sends_envoy_headers()) {
        let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        head.headers.insert(EXPECTED_TIMEOUT, HeaderValue::from(millis));
    }
    let mut changed = false;
    for operation in found.table.request_header_ops(&found.virtual_host, route, found.weighted.as_deref()) {
        changed = true;
        operation.remove(&mut head.headers);
        let additions =
            exchange.with_attributes(head, |attributes| operation.additions(&head.headers, attributes));
        additions.write(&mut head.headers);
    }
    if changed {
        // Logs tell what went upstream.
        exchange.info.borrow_mut().captured.take_request(&head.headers);
    }
    mutate::rewrite(exchange, found, route, action, head);
}

/// As a header's value. Most are of one digit, which needs no memory of its own.
fn small_number(number: u64) -> HeaderValue {
    const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    let digit = usize::try_from(number).ok().and_then(|number| DIGITS.get(number));
    digit.map_or_else(|| HeaderValue::from(number), |digit| HeaderValue::from_static(digit))
}

fn has_response_operations(found: &Found, route: &Route) -> bool {
    let weighted = found.weighted.as_deref();
    found.table.response_header_ops(&found.virtual_host, route, weighted).next().is_some()
}

pub(super) fn note_failure(exchange: &Exchange, failure: &Failure) {
    if let Failure::Connect(reason) = failure {
        exchange.info.borrow_mut().upstream_mut().transport_failure = Some((&**reason).into());
    }
}

/// A request that no try of which brought a response.
struct Failed<'a> {
    exchange: &'a Exchange,
    found: &'a Found,
    cluster: &'a Cluster,
    counters: &'a Counters,
    failure: Failure,
}

impl Failed<'_> {
    /// The answer, counted for each try that was under way.
    fn answer(self, under_way: usize, quiet: bool) -> LocalReply {
        let Self { exchange, found, cluster, counters, failure } = self;
        note_failure(exchange, &failure);
        let mut reply = failed_reply(exchange, found, &failure);
        if quiet && failure.is_timeout() {
            reply.status = http::StatusCode::NO_CONTENT;
            reply.body = "".into();
        }
        if exchange.informed.get() || matches!(failure, Failure::Answered(_)) {
            // An upstream's first words were counted, and no others came; a filter is no upstream.
            return reply;
        }
        for _ in 0..under_way {
            if !matches!(failure, Failure::Downstream | Failure::MaxDuration) {
                cluster.count_answer(reply.status.as_u16(), exchange);
            }
            counters.answered(reply.status.as_u16(), exchange.start);
        }
        reply
    }
}

pub(super) fn failed_reply(exchange: &Exchange, found: &Found, failure: &Failure) -> LocalReply {
    let malformed = *failure == Failure::Downstream
        && exchange.info.borrow().flags.has(ResponseFlag::DownstreamProtocolError);
    if malformed {
        return LocalReply::new(StatusCode::BAD_REQUEST, "Bad Request", details::HTTP1_PROTOCOL_ERROR);
    }
    let mut reply = failure.reply(exchange.info.borrow().attempt_count);
    if exchange.informed.get() {
        reply.details = details::after_response_started(&reply.details).into();
    }
    if *failure == Failure::NoHealthyHost
        && let Some(named) = exchange.wishes().as_ref().and_then(|wishes| wishes.host.as_ref())
        && named.strict
        && named.missing.get()
    {
        reply.status = named.status_on_not_found;
    }
    if found.virtual_host.include_attempt_count_in_response {
        let count = exchange.info.borrow().attempt_count;
        reply = reply.header(ATTEMPT_COUNT, HeaderValue::from(count));
    }
    reply
}

fn respond(
    exchange: &Rc<Exchange>,
    cluster: &Rc<Cluster>,
    success: Success,
    (limit, upstream_idle, stream_end): (Option<Duration>, Option<Duration>, Option<Instant>),
    upgrading: Upgrading,
) -> Reply {
    let Success { mut response, mut lease, host, member } = success;
    let cluster = member.as_ref().unwrap_or(cluster);
    if let Some(tracked) = cluster.tracked() {
        tracked.note_response(response.headers());
    }
    let connect = upgrading == Upgrading::Connect;
    let switched = upgrading != Upgrading::No && upgrade::is_accepted(&response, connect);
    let mut tunnel = None;
    if upgrading == Upgrading::To && !switched && upgrade::is_no_websocket(exchange, &response, &lease) {
        return Reply::local(upgrade::refused(exchange, response.status()));
    }
    if switched {
        tunnel = upgrade::switch(exchange, connect, &mut response, &mut lease);
    } else {
        if upgrading == Upgrading::To && !lease.is_http2() {
            lease.give_up();
        }
        let told = hop::strip_response(response.headers_mut()) == hop::Last::Yes;
        if told || lease.is_last() {
            lease.note_close();
        }
    }
    // The words beside the status are our own, as all is that speaks of one connection.
    if !cluster.config.http.http1.header_case.keeps_reason() {
        response.extensions_mut().remove::<hyper::ext::ReasonPhrase>();
    }
    let (start, now) = (exchange.info.borrow().start, clock::now());
    // It tells the time from the request's end, which an upgrade does not have.
    let ended = exchange.request_done.get() && upgrading == Upgrading::No;
    if ended && exchange.connection.manager.sends_envoy_headers() {
        let millis = u64::try_from(now.duration_since(start).as_millis()).unwrap_or(u64::MAX);
        response.headers_mut().insert(SERVICE_TIME, small_number(millis));
    }
    {
        let mut info = exchange.info.borrow_mut();
        info.code_details = Some(details::VIA_UPSTREAM.into());
        info.timing.first_upstream_rx = Some(now);
        info.bytes.upstream_response_headers = 17 + crate::http::head::headers_size(response.headers());
    }
    cluster.note_response(&host, &response, exchange);
    let deadline = limit.map(|limit| start + limit).filter(|_| !switched);
    let timers = BodyTimers { deadline, upstream_idle, stream_end: stream_end.filter(|_| !switched) };
    if let Some(config) = cluster.config.lb.reported_weights()
        && !orca::note(config, &host, response.headers())
        && !switched
    {
        let config = config.clone();
        response = response.map(|inner| orca::watched(inner, host, config));
    }
    Reply { response, lease: Some(lease), timers, tunnel }
}
