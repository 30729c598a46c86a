//! `envoy.filters.http.ext_proc`: a service looks at requests and responses, and may change them.

mod change;
mod course;
mod local;
mod over_http;
mod pump;
mod session;

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};
use http_body::Body as _;
use sail_proxy_config::http_filter::ext_proc::{
    BodyMode, ExtProc, ExtProcPerRoute, Mode, RouteCache, Settings,
};
use xds_api::envoy::service::ext_proc::v3::common_response::ResponseStatus;
use xds_api::envoy::service::ext_proc::v3::processing_request::Request as Phase;
use xds_api::envoy::service::ext_proc::v3::processing_response::Response as Answer;
use xds_api::envoy::service::ext_proc::v3::{
    CommonResponse, HttpBody, HttpHeaders, ImmediateResponse, ProcessingResponse,
};

use self::change::Changes;
use self::course::{Asked, Course};
use self::pump::Pump;
use self::session::{Session, Side, Stop};
use super::{Build, Flow, HttpFilter, Request, Response, Work, edit};
use crate::access_log::{LogType, View};
use crate::callout::json;
use crate::http::body::Body;
use crate::http::exchange::Exchange;
use crate::http::gather;
use crate::http::handler::Reply;
use crate::http::head::Head;
use crate::http::local_reply::LocalReply;
use crate::stats::sets::http_ext_proc as stats;
use crate::stream_info::details;

/// What is said of a body whose head says another length.
const MISMATCH: &str = "mismatch_between_content_length_and_the_length_of_the_mutated_body";

/// As much of a body as is held for the service.
const LIMIT: usize = 1024 * 1024;

/// The filter, with its statistics.
pub(crate) struct Filter {
    config: Arc<ExtProc>,
    stats: stats::Scope,
}

impl Filter {
    pub(crate) fn new(config: &Arc<ExtProc>, build: &Build<'_>) -> Self {
        Self { config: config.clone(), stats: build.store.prefixed(build.prefix, &config.stat_prefix) }
    }

    /// Opens the stream; `None` if the route wants none of it.
    fn open(&self, request: &Request<'_>) -> Option<Rc<Session>> {
        let most_specific: Option<Arc<ExtProcPerRoute>> =
            request.exchange.per_filter(request.name).and_then(|config| config.get());
        let settings = match most_specific.as_deref() {
            Some(ExtProcPerRoute::Disabled) => return None,
            Some(ExtProcPerRoute::Overrides(_)) => self.settings(request),
            None => self.config.settings.clone(),
        };
        let mode = settings.mode;
        let sees = mode.request_headers
            || mode.response_headers
            || mode.request_trailers
            || mode.response_trailers
            || [mode.request_body, mode.response_body].iter().any(|mode| *mode != BodyMode::None);
        sees.then(|| Session::open(request.exchange, &self.config, settings, &self.stats))
    }

    /// The filter's settings with what every level of the route says.
    fn settings(&self, request: &Request<'_>) -> Settings {
        let mut settings = self.config.settings.clone();
        let found = request.exchange.routed.get().clone();
        let Some(found) = found else { return settings };
        for config in found.levels::<ExtProcPerRoute>(request.name) {
            if let ExtProcPerRoute::Overrides(overrides) = &*config {
                settings.apply(overrides);
            }
        }
        settings
    }
}

/// A step of the request or response that the service may change.
enum Step<'a> {
    Request(&'a mut Head),
    Response(&'a mut http::Response<Body>),
}

impl Step<'_> {
    /// Carries header changes out.
    fn change(&mut self, session: &Session, changes: Changes) -> Result<(), Stop> {
        let mut removed = Vec::new();
        let remove = |name: &str| removed.push(name.to_owned());
        let result = match self {
            Self::Request(head) => change::apply(
                session,
                changes,
                |name, value, action| edit::set_request(head, name, value, action),
                remove,
            ),
            Self::Response(response) => change::apply(
                session,
                changes,
                |name, value, action| edit::set_response(response, name, value, action),
                remove,
            ),
        };
        let headers = self.headers();
        removed.iter().for_each(|name| edit::remove(headers, name));
        result.map_err(|_| change::rejected(session))
    }

    fn headers(&mut self) -> &mut HeaderMap {
        match self {
            Self::Request(head) => &mut head.headers,
            Self::Response(response) => response.headers_mut(),
        }
    }

    fn length(&mut self, length: usize) {
        self.headers().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }

    fn side(&self) -> Side {
        match self {
            Self::Request(_) => Side::Request,
            Self::Response(_) => Side::Response,
        }
    }

    /// What is shown of the head.
    fn shown(&self, session: &Session, end_of_stream: bool) -> Phase {
        let config = &session.config;
        let message = |headers| HttpHeaders { headers: Some(headers), end_of_stream, ..Default::default() };
        match self {
            Self::Request(head) => {
                Phase::RequestHeaders(message(change::shown(config, edit::request_headers(head))))
            }
            Self::Response(response) => {
                let status = response.status();
                let pseudo = std::iter::once((":status", status.as_str().as_bytes()));
                let all = pseudo.chain(change::pairs(response.headers()));
                Phase::ResponseHeaders(message(change::shown(config, all)))
            }
        }
    }

    /// Chooses the route again, if that is wanted and there is a reason to.
    fn route_again(&self, exchange: &Rc<Exchange>, session: &Session, asked: bool, changed: bool) {
        let Self::Request(head) = self else { return };
        let wanted = match session.config.route_cache {
            RouteCache::Default => asked,
            RouteCache::Clear => true,
            RouteCache::Retain => false,
        };
        match (wanted, changed) {
            (true, true) => exchange.find_route(head),
            (true, false) => session.stats.inc(stats::clear_route_cache_ignored),
            (false, _) if asked => session.stats.inc(stats::clear_route_cache_disabled),
            (false, _) => {}
        }
    }
}

/// What a mode says of one side: head, body, trailers.
fn sees(mode: Mode, side: Side) -> (bool, BodyMode, bool) {
    match side {
        Side::Request => (mode.request_headers, mode.request_body, mode.request_trailers),
        Side::Response => (mode.response_headers, mode.response_body, mode.response_trailers),
    }
}

fn common(answer: ProcessingResponse, side: Side) -> Option<CommonResponse> {
    match (answer.response?, side) {
        (Answer::RequestHeaders(answer), Side::Request)
        | (Answer::ResponseHeaders(answer), Side::Response) => Some(answer.response.unwrap_or_default()),
        _ => None,
    }
}

/// What every answer may bring besides.
fn note(session: &Session, answer: &mut ProcessingResponse, of_head: bool) {
    let Some(exchange) = session.exchange() else { return };
    let namespaces = session.settings.metadata.received.as_ref();
    if let Some(metadata) = answer.dynamic_metadata.take() {
        let mut info = exchange.info.borrow_mut();
        for (namespace, value) in json::object(metadata) {
            let allowed =
                namespaces.is_some_and(|names| names.untyped.iter().any(|name| **name == *namespace));
            if let (true, serde_json::Value::Object(fields)) = (allowed, value) {
                info.dynamic_metadata.merge(&namespace, fields);
            }
        }
    }
    for (namespace, message) in std::mem::take(&mut answer.typed_dynamic_metadata) {
        if namespaces.is_some_and(|names| names.typed.iter().any(|name| **name == *namespace)) {
            exchange.info.borrow_mut().dynamic_metadata.set_typed(&namespace, message);
        }
    }
    if let Some(mode) = answer.mode_override.take()
        && of_head
        && let Some(mode) = session.mode.get().with(&mode)
        && session.config.allows(mode)
    {
        session.mode.set(mode);
    }
}

/// What became of a head.
enum Headed {
    /// Its body is settled too.
    Settled,
    /// The conversation goes on about the body.
    Goes(Box<Pump>),
    /// The service answers in the upstream's place.
    Local(http::Response<Bytes>),
}

/// Shows the service the head.
async fn headers(
    exchange: &Rc<Exchange>,
    course: Course,
    step: &mut Step<'_>,
    body: &mut Body,
) -> Result<Headed, Stop> {
    let session = course.session.clone();
    let side = step.side();
    let (_, mode, trailers) = sees(session.mode.get(), side);
    let early = mode.is_duplex() || (mode == BodyMode::Streamed && session.config.early_body);
    let source = std::mem::replace(body, Body::Empty);
    let has_body = !source.is_end_stream();
    let phase = step.shown(&session, !has_body);
    let mut pump = Box::new(Pump::new(course, source, mode, trailers));
    pump.course.set_duplex(mode.is_duplex() && has_body);
    pump.course.push(phase, Asked::Part);
    let answer = if early { pump.next().await } else { pump.course.answer().await };
    let answer = match answer {
        Ok(ProcessingResponse { response: Some(Answer::StreamedImmediateResponse(part)), .. })
            if side == Side::Request =>
        {
            let (course, _) = pump.into_parts();
            let (response, local) = local::begin(course, part)?;
            session.local.replace(Some(local));
            return Ok(Headed::Local(response));
        }
        Ok(answer) => answer,
        Err(Stop::Done) => {
            session.over.set(true);
            return Ok(Headed::Goes(pump));
        }
        Err(stop) => return Err(stop),
    };
    let Some(common) = common(answer, side) else {
        return match session.spurious() {
            Stop::Done => Ok(Headed::Goes(pump)),
            stop => Err(stop),
        };
    };
    pump.course.answered();
    let keeps = session.config.keep_content_length;
    let changed = common.header_mutation.is_some();
    let length = keeps || sees(session.mode.get(), side).1 == BodyMode::Buffered;
    step.change(&session, Changes { mutation: common.header_mutation, length })?;
    step.route_again(exchange, &session, common.clear_route_cache, changed);
    if common.status != ResponseStatus::ContinueAndReplace as i32 {
        let (_, mode, trailers) = sees(session.mode.get(), side);
        if !early {
            pump.set_mode(mode, trailers);
        }
        return Ok(Headed::Goes(pump));
    }
    match change::replaced(common.body_mutation) {
        Some(bytes) => {
            step.length(bytes.len());
            *body = Body::text(bytes);
        }
        None => *body = pump.into_parts().1,
    }
    Ok(Headed::Settled)
}

/// Shows the service the body, as a whole or its first part.
async fn buffered(
    course: &mut Course,
    step: &mut Step<'_>,
    body: &mut Body,
    partial: bool,
) -> Result<(), Stop> {
    let session = course.session.clone();
    let seen =
        gather::gather(body, LIMIT).await.map_err(|_| Stop::Failed("ext_proc_error_body".to_owned()))?;
    if !seen.complete && !partial {
        return Err(Stop::TooLarge);
    }
    let trailers = !body.is_end_stream() && seen.complete && body.size_hint().exact().is_none();
    let message = HttpBody {
        body: seen.bytes.to_vec(),
        end_of_stream: seen.complete && !trailers,
        ..Default::default()
    };
    let phase = match step.side() {
        Side::Request => Phase::RequestBody(message),
        Side::Response => Phase::ResponseBody(message),
    };
    course.push(phase, Asked::Part);
    let answer = match course.answer().await {
        Ok(answer) => answer,
        Err(Stop::Done) => return Ok(()),
        Err(stop) => return Err(stop),
    };
    course.answered();
    let common = match (answer.response, step.side()) {
        (Some(Answer::RequestBody(answer)), Side::Request)
        | (Some(Answer::ResponseBody(answer)), Side::Response) => answer.response.unwrap_or_default(),
        _ => {
            return match session.spurious() {
                Stop::Done => Ok(()),
                stop => Err(stop),
            };
        }
    };
    step.change(&session, Changes { mutation: common.header_mutation, length: true })?;
    if let Some(bytes) = change::replaced(common.body_mutation) {
        let said = step.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if said.is_some_and(|said: usize| said != bytes.len()) {
            session.over.set(true);
            return Err(Stop::Failed(MISMATCH.to_owned()));
        }
        let old = std::mem::replace(body, Body::Empty);
        *body = gather::joined(Bytes::from(bytes), None, skip(old, seen.bytes.len()).await);
    }
    Ok(())
}

/// A body without its first bytes, which are there already.
async fn skip(mut body: Body, mut count: usize) -> Body {
    use http_body_util::BodyExt as _;
    while count > 0 {
        let Some(Ok(frame)) = body.frame().await else { break };
        let Ok(data) = frame.into_data() else { break };
        if data.len() > count {
            return gather::joined(data.slice(count..), None, body);
        }
        count -= data.len();
    }
    body
}

/// Shows the service one side of the exchange: its head, and what it sees of the body. The response that the service
/// streams in the upstream's place, if it does.
async fn side(
    exchange: &Rc<Exchange>,
    session: &Rc<Session>,
    mut step: Step<'_>,
    body: &mut Body,
    opaque: bool,
) -> Result<Option<http::Response<Bytes>>, Stop> {
    let side = step.side();
    let course = Course::new(session, side);
    let (sees_head, ..) = sees(session.mode.get(), side);
    if session.config.observes.is_some() {
        watch(course, &step, body, sees_head).await;
        return Ok(None);
    }
    let pump = if sees_head {
        match headers(exchange, course, &mut step, body).await? {
            Headed::Settled => return Ok(None),
            Headed::Local(response) => return Ok(Some(response)),
            Headed::Goes(pump) => pump,
        }
    } else {
        let source = std::mem::replace(body, Body::Empty);
        let (_, mode, trailers) = sees(session.mode.get(), side);
        Box::new(Pump::new(course, source, mode, trailers))
    };
    let (_, mode, trailers) = sees(session.mode.get(), side);
    let lengthless = match mode {
        BodyMode::None => false,
        BodyMode::Buffered => !sees_head,
        _ => true,
    };
    if lengthless && !session.config.keep_content_length && !session.over.get() {
        step.headers().remove(CONTENT_LENGTH);
    }
    match mode {
        // A tunnel's bytes are nobody's body.
        _ if opaque => *body = pump.into_parts().1,
        _ if session.over.get() && !pump.has_seen() => *body = pump.into_parts().1,
        BodyMode::Buffered | BodyMode::BufferedPartial => {
            let (mut course, source) = pump.into_parts();
            *body = source;
            if body.is_end_stream() {
                return Ok(None);
            }
            buffered(&mut course, &mut step, body, mode == BodyMode::BufferedPartial).await?;
            if trailers {
                let source = std::mem::replace(body, Body::Empty);
                *body = Pump::new(course, source, BodyMode::None, true).into_body();
            }
        }
        BodyMode::None if !trailers => *body = pump.into_parts().1,
        _ => *body = pump.into_body(),
    }
    Ok(None)
}

/// Lets the service see what passes by.
async fn watch(mut course: Course, step: &Step<'_>, body: &mut Body, sees_head: bool) {
    let (_, mode, trailers) = sees(course.session.mode.get(), course.side);
    if sees_head {
        let phase = step.shown(&course.session, body.is_end_stream());
        course.tell(phase);
        course.flush().await;
    }
    let mode = if matches!(mode, BodyMode::Streamed | BodyMode::Grpc) { mode } else { BodyMode::None };
    if (mode != BodyMode::None || trailers) && !body.is_end_stream() {
        let source = std::mem::replace(body, Body::Empty);
        *body = Pump::new(course, source, mode, trailers).into_body();
    }
}

async fn request(
    exchange: &Rc<Exchange>,
    session: &Rc<Session>,
    head: &mut Head,
    body: &mut Body,
) -> Result<Option<http::Response<Bytes>>, Stop> {
    if !session.config.request_attributes.is_empty() {
        exchange.with_attributes(head, |view| session.tell(&session.config.request_attributes, view));
    }
    let opaque = head.protocol.is_some();
    side(exchange, session, Step::Request(head), body, opaque).await
}

async fn response(exchange: &Rc<Exchange>, session: &Rc<Session>, reply: &mut Reply) -> Result<(), Stop> {
    if let Some(immediate) = session.immediate.take() {
        return Err(Stop::Immediate(immediate));
    }
    if let Some(failure) = session.failure.take() {
        return Err(failure);
    }
    if let Some(local) = session.local.take() {
        *reply.response.body_mut() = local.into_body();
        return Ok(());
    }
    if session.over.get() {
        return Ok(());
    }
    if !session.config.response_attributes.is_empty() {
        let mut info = exchange.info.borrow_mut();
        info.response_code = Some(reply.response.status().as_u16());
        let view = View::new(&info, LogType::NotAccepted).with_response(reply.response.headers());
        session.tell(&session.config.response_attributes, &view);
    }
    let mut body = std::mem::replace(reply.response.body_mut(), Body::Empty);
    let opaque = reply.response.status() == StatusCode::SWITCHING_PROTOCOLS || reply.tunnel.is_some();
    let result =
        side(exchange, session, Step::Response(&mut reply.response), &mut body, opaque).await.map(|_| ());
    *reply.response.body_mut() = body;
    result
}

/// The answer that the service gives, or that its failure gives.
fn reply(config: &ExtProc, stats: &stats::Scope, stop: Stop) -> Option<LocalReply> {
    if !matches!(stop, Stop::Done) {
        stats.inc(stats::immediate_responses_sent);
    }
    match stop {
        Stop::Done => None,
        Stop::Immediate(response) => Some(immediate(*response)),
        Stop::TooLarge => Some(LocalReply::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "Payload Too Large",
            details::REQUEST_PAYLOAD_TOO_LARGE,
        )),
        Stop::Timeout => Some(LocalReply::new(StatusCode::GATEWAY_TIMEOUT, "", session::TIMEOUT)),
        Stop::Failed(details) => Some(LocalReply::new(config.status_on_error, "", details)),
    }
}

fn immediate(response: ImmediateResponse) -> LocalReply {
    let ImmediateResponse { status, headers, body, grpc_status, details } = response;
    let code = status.and_then(|status| u16::try_from(status.code).ok());
    let status = code.and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(StatusCode::OK);
    let details = if details.is_empty() { "via_ext_proc".to_owned() } else { details.replace(' ', "_") };
    let mut reply = LocalReply::new(status, "", details);
    reply.body = String::from_utf8_lossy(&body).into_owned().into();
    reply.grpc_status = grpc_status.map(|status| status.status);
    for option in headers.unwrap_or_default().set_headers {
        if let Some((name, value, _)) = super::ext_authz::option(option)
            && let Ok((name, value)) = edit::header(&name.to_ascii_lowercase(), &value)
            && name != CONTENT_LENGTH
        {
            reply.headers.push((name, value));
        }
    }
    reply
}

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let Some(session) = self.open(&request) else { return Flow::Continue };
        let Request { name, exchange, head, body } = request;
        Flow::Wait(Box::pin(async move {
            let result = self::request(exchange, &session, head, body).await;
            exchange.state().put(name, session);
            let local = match result {
                Ok(whole) => whole.map(|response| LocalReply::whole(response, "ext_proc_local_response")),
                Err(stop) => reply(&self.config, &self.stats, stop),
            };
            local.map_or(Flow::Continue, |local| Flow::Reply(Box::new(local)))
        }))
    }

    fn on_response<'a>(&'a self, response: Response<'a>) -> Option<Work<'a, ()>> {
        let Response { name, exchange, reply } = response;
        let session: Rc<Session> = exchange.state().take(name)?;
        Some(Box::pin(async move {
            let result = self::response(exchange, &session, reply).await;
            if let Some(local) = result.err().and_then(|stop| self::reply(&self.config, &self.stats, stop)) {
                exchange.info.borrow_mut().code_details = Some(local.details.clone());
                *reply = Reply::local(local.into_response(exchange.grpc.get()));
            }
        }))
    }
}
