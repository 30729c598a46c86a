//! One request and its response: its record and its end.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue, StatusCode};
use sail_proxy_config::hcm::RouteSource;
use sail_proxy_decide::route::{Action, PerFilterConfig, RouteAction};

use super::again::Again;
use super::attributes::RequestAttributes;
use super::conn::Connection;
use super::head::Head;
use super::timers::{Limits, StreamTimer};
use crate::clock;
use crate::http1::Names;
use crate::http2;
use crate::http2::downstream::OnStream;
use crate::router::internal_redirect::Step;
use crate::router::{self, Routed};
use crate::stats::sets::http as stats;
use crate::stream_info::{ResponseFlag, StreamInfo, UpstreamSource, details};
use crate::worker::state::Active;

/// What everybody who works on a request shares.
pub(crate) struct Exchange {
    pub(crate) connection: Rc<Connection>,
    /// The configuration that the request began with.
    pub(crate) active: Rc<Active>,
    pub(crate) info: RefCell<StreamInfo>,
    /// When the stream began.
    pub(crate) start: Instant,
    /// What bounds the stream as a whole.
    pub(crate) timer: RefCell<StreamTimer>,
    pub(crate) grpc: Cell<bool>,
    /// The request's body was read to its end.
    pub(crate) request_done: Cell<bool>,
    /// Where it came, if over HTTP/2.
    pub(crate) stream: Cell<Option<OnStream>>,
    /// The upstream said something before its response: it is not tried again, and what fails is no answer of its.
    pub(crate) informed: Cell<bool>,
    /// Something moved; the idle timer looks at it.
    pub(crate) moved: Cell<Instant>,
    pub(crate) routed: Routed,
    /// How the client spelled the names of its headers, where that is kept.
    pub(crate) spelling: OnceCell<Names>,
    state: RefCell<crate::filters::State>,
    /// Who waits for the request's end.
    waiting: RefCell<Option<Waker>>,
    /// What internal redirects led from and to.
    pub(crate) redirects: RefCell<Vec<Step>>,
    /// What is asked for in this one's place.
    again: RefCell<Option<Box<Again>>>,
    /// Another has taken this one's place.
    superseded: Cell<bool>,
    /// No further filter sees the response.
    skips_filters: Cell<bool>,
    random: u64,
    /// The request does not come from an internal address.
    pub(crate) from_outside: Cell<bool>,
    /// A try has ended, and the next one has not begun; known where tries are logged while they go on.
    pub(crate) between_tries: Cell<bool>,
    server_names: RefCell<Vec<(Option<HeaderName>, Arc<str>)>>,
    /// What filters want of the upstream connection.
    wishes: RefCell<Option<Box<Wishes>>>,
}

/// What filters want of the upstream connection.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    /// The host.
    pub(crate) host: Option<UpstreamOverride>,
    /// From where it comes.
    pub(crate) source: Option<UpstreamSource>,
    /// The name and port of the host, in place of the request's.
    pub(crate) authority: Option<Box<str>>,
}

/// A host that a filter names.
#[derive(Debug)]
pub(crate) struct UpstreamOverride {
    /// `IP:port`
    pub(crate) address: String,
    /// Whether no other host will do.
    pub(crate) strict: bool,
    /// The answer where there is no such host, and no other will do.
    pub(crate) status_on_not_found: StatusCode,
    /// There was no such host.
    pub(crate) missing: Cell<bool>,
}

impl Exchange {
    pub(crate) fn begin(connection: &Rc<Connection>) -> Rc<Self> {
        Self::begin_at(connection, clock::now())
    }

    /// The exchange that takes this one's place. What came from downstream stays.
    pub(super) fn again(&self) -> Rc<Self> {
        let next = Self::begin_at(&self.connection, self.start);
        let before = self.info.borrow();
        let mut info = next.info.borrow_mut();
        info.start_time = before.start_time;
        info.timing.last_downstream_rx = before.timing.last_downstream_rx;
        info.protocol = before.protocol;
        info.bytes.received = before.bytes.received;
        info.bytes.request_headers = before.bytes.request_headers;
        info.request_id.clone_from(&before.request_id);
        info.filter_state.clone_from(&before.filter_state);
        drop(info);
        next.stream.set(self.stream.get());
        next.request_done.set(self.request_done.get());
        next.from_outside.set(self.from_outside.get());
        next.redirects.replace(self.redirects.take());
        if let Some(spelling) = self.spelling.get() {
            // It has just been made.
            let _ = next.spelling.set(spelling.clone());
        }
        next
    }

    /// Has the request begin anew in place of a response of this status, which no further filter sees.
    pub(crate) fn begin_again(&self, status: StatusCode, again: Again) {
        let mut info = self.info.borrow_mut();
        info.response_code = Some(status.as_u16());
        info.code_details = Some(details::INTERNAL_REDIRECT.into());
        drop(info);
        self.superseded.set(true);
        self.skip_filters();
        self.again.replace(Some(Box::new(again)));
    }

    /// The response is the client's as it is: no further filter sees it.
    pub(crate) fn skip_filters(&self) {
        self.skips_filters.set(true);
    }

    /// Whether filters are to see the response.
    pub(crate) fn shows_filters(&self) -> bool {
        !self.skips_filters.get()
    }

    /// What is asked for in this one's place.
    pub(super) fn take_again(&self) -> Option<Box<Again>> {
        self.again.take()
    }

    fn begin_at(connection: &Rc<Connection>, start: Instant) -> Rc<Self> {
        let manager = &connection.manager;
        let stats = &manager.stats;
        stats.inc(stats::downstream_rq_total);
        stats.inc(if connection.http2 {
            stats::downstream_rq_http2_total
        } else {
            stats::downstream_rq_http1_total
        });
        stats.move_by(stats::downstream_rq_active, 1);
        connection.active.set(connection.active.get() + 1);
        connection.requests.set(connection.requests.get() + 1);
        if manager.is_last_request(connection.requests.get()) {
            stats.inc(stats::downstream_cx_max_requests_reached);
            connection.close_after_this();
        }
        // It is large: what is set by the configuration is set where it stays.
        let exchange = Rc::new(Self {
            connection: connection.clone(),
            active: connection.worker.active(),
            start,
            timer: RefCell::default(),
            info: RefCell::new(StreamInfo::new(connection.downstream.clone())),
            grpc: Cell::new(false),
            request_done: Cell::new(false),
            stream: Cell::new(None),
            informed: Cell::new(false),
            moved: Cell::new(start),
            routed: Routed::default(),
            spelling: OnceCell::new(),
            state: RefCell::default(),
            waiting: RefCell::default(),
            random: connection.worker.random(),
            from_outside: Cell::new(true),
            between_tries: Cell::new(false),
            redirects: RefCell::default(),
            again: RefCell::default(),
            superseded: Cell::new(false),
            skips_filters: Cell::new(false),
            server_names: RefCell::default(),
            wishes: RefCell::default(),
        });
        let mut info = exchange.info.borrow_mut();
        info.start = start;
        info.captured.plan(manager.observer.capture());
        if info.captured.wants_metadata() {
            info.config_metadata = Some(Box::new(manager.metadata.clone()));
        }
        info.filter_chain.clone_from(&manager.filter_chain);
        drop(info);
        exchange
    }

    /// What filters keep of the request until its response.
    pub(crate) fn state(&self) -> std::cell::RefMut<'_, crate::filters::State> {
        self.state.borrow_mut()
    }

    /// Finds the request's route; filters may ask for it again after they changed the head.
    pub(crate) fn find_route(&self, head: &Head) {
        let hcm = &self.connection.manager.config;
        let table = match &hcm.routes {
            RouteSource::Scoped(scopes) => scopes.table(&head.view(), &self.active.snapshot),
            _ => self.active.snapshot.route_table(hcm),
        };
        self.routed.set(table.and_then(|table| router::find(self, head, table)));
    }

    /// The most specific configuration that the request's route has for a filter.
    pub(crate) fn per_filter(&self, name: &str) -> Option<PerFilterConfig> {
        self.routed.get().as_ref()?.per_filter(name).cloned()
    }

    /// Notes the names that a cluster may ask for by TLS, as the router sees them.
    pub(crate) fn note_server_names(&self, head: &Head) {
        let sources = self.active.server_names();
        if sources.is_empty() {
            return;
        }
        let mut names = self.server_names.borrow_mut();
        names.clear();
        for source in sources {
            let of_header = source.as_ref().and_then(|name| head.headers.get(name)?.to_str().ok());
            let name = of_header.filter(|name| !name.is_empty()).unwrap_or_else(|| head.authority());
            let port = name.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
            let name = port.map_or(name, |(name, _)| name);
            if !name.is_empty() {
                names.push((source.clone(), name.into()));
            }
        }
    }

    /// The name that a cluster asks for, by what it reads.
    pub(crate) fn server_name(&self, source: Option<&HeaderName>) -> Option<Arc<str>> {
        let names = self.server_names.borrow();
        names.iter().find(|(known, _)| known.as_ref() == source).map(|(_, name)| name.clone())
    }

    /// Names the host that the request is to go to.
    #[cfg_attr(not(feature = "lua"), allow(dead_code, reason = "scripts name hosts"))]
    pub(crate) fn set_upstream_override(&self, address: String, strict: bool) {
        self.set_upstream_or(address, strict, StatusCode::SERVICE_UNAVAILABLE);
    }

    /// As [`Self::set_upstream_override`], with the answer where there is no such host, and no other will do.
    pub(crate) fn set_upstream_or(&self, address: String, strict: bool, status_on_not_found: StatusCode) {
        let host = UpstreamOverride { address, strict, status_on_not_found, missing: Cell::new(false) };
        self.wishes.borrow_mut().get_or_insert_default().host = Some(host);
    }

    /// Says from where the upstream connection is to come.
    pub(crate) fn set_upstream_source(&self, source: UpstreamSource) {
        self.wishes.borrow_mut().get_or_insert_default().source = Some(source);
    }

    /// Says which name and port the host is found by, in place of the request's.
    pub(crate) fn set_upstream_authority(&self, authority: String) {
        self.wishes.borrow_mut().get_or_insert_default().authority = Some(authority.into());
    }

    /// What filters want of the upstream connection.
    pub(crate) fn wishes(&self) -> std::cell::Ref<'_, Option<Box<Wishes>>> {
        self.wishes.borrow()
    }

    /// The stream's random number.
    pub(crate) fn random(&self) -> u64 {
        self.random
    }

    /// What substitution operators read.
    pub(crate) fn with_attributes<R>(
        &self,
        head: &Head,
        call: impl FnOnce(&RequestAttributes<'_>) -> R,
    ) -> R {
        call(&RequestAttributes::of_request(&self.info.borrow(), head))
    }

    /// A head that stands for the request's when the response comes by: what was noted of it.
    pub(crate) fn noted_head(&self) -> Head {
        Head::noted(&self.info.borrow())
    }

    /// Sets the stream's timer as manager and route have it.
    pub(crate) fn set_timer(self: &Rc<Self>, head: &Head) {
        let timeouts = &self.connection.manager.config.timeouts;
        let of_route = self.with_route_action(|action| action.stream_limit(&head.view()));
        let limits = Limits {
            idle: self.stream_idle_timeout(),
            request: timeouts.request,
            duration: of_route.unwrap_or(timeouts.max_stream_duration),
        };
        self.timer.borrow_mut().set(self, limits);
    }

    /// Asks the route that forwards the request, if one does.
    fn with_route_action<T>(&self, ask: impl FnOnce(&RouteAction) -> Option<T>) -> Option<T> {
        match &self.routed.get().as_ref()?.route.as_ref()?.action {
            Action::Route(action) => ask(action),
            _ => None,
        }
    }

    /// How long the stream may be silent: as the route says, else as the manager says.
    fn stream_idle_timeout(&self) -> Option<Duration> {
        match self.with_route_action(|action| action.idle_timeout) {
            Some(limit) => (!limit.is_zero()).then_some(limit),
            None => self.connection.manager.config.timeouts.stream_idle,
        }
    }

    /// How long the last of the response may wait for its client: as the route says, or the manager, or as it may be
    /// silent.
    pub(crate) fn stream_flush_timeout(&self) -> Option<Duration> {
        let of_manager = || self.connection.manager.config.timeouts.stream_flush;
        match self.with_route_action(|action| action.flush_timeout).or_else(of_manager) {
            Some(limit) => (!limit.is_zero()).then_some(limit),
            None => self.stream_idle_timeout(),
        }
    }

    /// Wakes the task when the request's body has been read to its end.
    pub(crate) fn wake_when_request_done(&self, waker: &Waker) {
        self.waiting.replace(Some(waker.clone()));
    }

    pub(super) fn note_request_done(&self) {
        if !self.request_done.replace(true) {
            self.info.borrow_mut().timing.last_downstream_rx = Some(clock::now());
            if let Some(waker) = self.waiting.take() {
                waker.wake();
            }
        }
    }

    /// Notes a failure.
    pub(crate) fn flag(&self, flag: ResponseFlag) {
        self.info.borrow_mut().flag(flag);
    }

    fn end(&self, complete: bool) {
        let now = clock::now();
        let connection = &self.connection;
        let manager = &connection.manager;
        self.timer.borrow_mut().end(self);
        self.info.borrow_mut().timing.end = Some(now);
        let at_end = self.state.borrow_mut().take_at_end();
        at_end.into_iter().for_each(|call| call(self));
        let mut info = self.info.borrow_mut();
        if complete {
            info.timing.last_downstream_tx = Some(now);
        } else {
            let (flag, how) = how_it_broke_off(connection.breaks_off.get());
            info.flag(flag);
            let begun = info.is_upstreams();
            if begun || info.code_details.is_none() {
                info.code_details = Some(how);
            }
            manager.stats.inc(stats::downstream_rq_rx_reset);
            if !connection.http2 {
                info.downstream.state.life.end();
            }
        }
        let answered = info.response_code.is_some_and(|code| code < 400);
        let said = info.code_details.as_deref();
        let broke_off = said == Some(details::DOWNSTREAM_REMOTE_DISCONNECT)
            || said.is_some_and(|said| !complete && said == how_it_broke_off(connection.breaks_off.get()).1);
        if broke_off && !answered {
            // What we would have answered reached nobody.
            info.response_code = None;
        }
        if info.cluster.is_none()
            && let Some(found) = &*self.routed.get()
            && let Some(name) = &found.cluster
        {
            // Whoever answered in its place: this is where the request was to go.
            info.cluster = self.active.cluster(name).map(|cluster| cluster.info().clone());
        }
        if info.grpc_status.is_none()
            && self.grpc.get()
            && let Some(code) = info.response_code
        {
            let status = StatusCode::from_u16(code).unwrap_or_default();
            info.grpc_status = Some(super::local_reply::grpc_status(status));
        }
        if self.superseded.get() {
            manager.stats.move_by(stats::downstream_rq_active, -1);
        } else {
            manager.count_response(&info);
        }
        manager.observer.on_request_end(&mut info);
        connection.active.set(connection.active.get() - 1);
        connection.idle_since.set(now);
    }
}

/// What logs say of a request whose client is gone, or gave it up.
pub(super) fn how_it_broke_off(error: Option<http2::Error>) -> (ResponseFlag, Cow<'static, str>) {
    let (flag, details) = match error {
        Some(http2::Error::Reset(_)) => (ResponseFlag::DownstreamRemoteReset, details::HTTP2_REMOTE_RESET),
        Some(http2::Error::Refused) => (ResponseFlag::DownstreamRemoteReset, details::HTTP2_REMOTE_REFUSE),
        Some(http2::Error::TooLarge) => {
            (ResponseFlag::DownstreamRemoteReset, details::HTTP2_HEADERS_TOO_LARGE)
        }
        Some(http2::Error::TooMany) => (ResponseFlag::DownstreamRemoteReset, details::HTTP2_TOO_MANY_HEADERS),
        Some(http2::Error::Message(_)) => {
            (ResponseFlag::DownstreamProtocolError, details::HTTP2_PROTOCOL_ERROR)
        }
        Some(http2::Error::Field(_)) => (ResponseFlag::DownstreamProtocolError, details::HTTP2_INVALID_FIELD),
        Some(http2::Error::Flood(flood)) => (ResponseFlag::DownstreamProtocolError, flood.details()),
        Some(http2::Error::Invalid(words)) => {
            let details = format!("codec_error:{}", words.replace(' ', "_"));
            return (ResponseFlag::DownstreamProtocolError, details.into());
        }
        Some(http2::Error::Silent) => {
            (ResponseFlag::DownstreamConnectionTermination, details::HTTP2_PING_TIMEOUT)
        }
        _ => (ResponseFlag::DownstreamConnectionTermination, details::DOWNSTREAM_REMOTE_DISCONNECT),
    };
    (flag, details.into())
}

/// Whoever holds it answers for the exchange's end: the handler first, then the response's body.
pub(crate) struct Guard {
    exchange: Rc<Exchange>,
    complete: bool,
}

impl Guard {
    pub(crate) fn new(exchange: Rc<Exchange>) -> Self {
        Self { exchange, complete: false }
    }

    pub(super) fn exchange(&self) -> &Rc<Exchange> {
        &self.exchange
    }

    /// The exchange ended as it should.
    pub(crate) fn complete(&mut self) {
        self.complete = true;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.exchange.end(self.complete);
    }
}

/// A `grpc-status` header's number.
pub(crate) fn grpc_status(value: &HeaderValue) -> Option<u32> {
    value.to_str().ok()?.parse().ok()
}
