//! `envoy.filters.http.ext_proc`: a service looks at requests and responses, and may change them.

mod change;
mod pump;
mod session;

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, HeaderValue};
use http_body::Body as _;
use sail_proxy_config::http_filter::ext_proc::{BodyMode, ExtProc, ExtProcPerRoute, RouteCache};
use xds_api::envoy::service::ext_proc::v3::common_response::ResponseStatus;
use xds_api::envoy::service::ext_proc::v3::processing_request::Request as Phase;
use xds_api::envoy::service::ext_proc::v3::processing_response::Response as Answer;
use xds_api::envoy::service::ext_proc::v3::{
    CommonResponse, HeaderMutation, HttpBody, HttpHeaders, ImmediateResponse, ProcessingResponse,
};

use self::pump::Sees;
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
        let per_route: Option<Arc<ExtProcPerRoute>> =
            request.exchange.per_filter(request.name).and_then(|config| config.get());
        let overrides = match per_route.as_deref() {
            Some(ExtProcPerRoute::Disabled) => return None,
            Some(ExtProcPerRoute::Overrides(overrides)) => Some(overrides),
            None => None,
        };
        let config = &self.config;
        let mode = overrides.and_then(|overrides| overrides.mode).unwrap_or(config.mode);
        let allow = overrides.and_then(|overrides| overrides.failure_mode_allow);
        let target = overrides.and_then(|overrides| overrides.service.as_ref()).unwrap_or(&config.service);
        let settings = (mode, allow.unwrap_or(config.failure_mode_allow));
        Some(Session::open(request.exchange, config, target, &self.stats, settings))
    }
}

/// A step of the request or response that the service may change.
enum Step<'a> {
    Request(&'a mut Head),
    Response(&'a mut http::Response<Body>),
}

impl Step<'_> {
    /// Carries header changes out; says whether there were any.
    fn change(&mut self, session: &Session, mutation: Option<HeaderMutation>) -> Result<bool, Stop> {
        let mut removed = Vec::new();
        let remove = |name: &str| removed.push(name.to_owned());
        let result = match self {
            Self::Request(head) => change::apply(
                &session.config,
                mutation,
                |name, value, action| edit::set_request(head, name, value, action),
                remove,
            ),
            Self::Response(response) => change::apply(
                &session.config,
                mutation,
                |name, value, action| edit::set_response(response, name, value, action),
                remove,
            ),
        };
        let headers = self.headers();
        removed.iter().for_each(|name| edit::remove(headers, name));
        result.map_err(|_| {
            session.stats.inc(stats::rejected_header_mutations);
            session.fail("ext_proc_error_rejected_mutation")
        })
    }

    fn headers(&mut self) -> &mut http::HeaderMap {
        match self {
            Self::Request(head) => &mut head.headers,
            Self::Response(response) => response.headers_mut(),
        }
    }

    fn length(&mut self, length: usize) {
        self.headers().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
}

fn common(answer: ProcessingResponse) -> Option<CommonResponse> {
    match answer.response? {
        Answer::RequestHeaders(answer) | Answer::ResponseHeaders(answer) => {
            Some(answer.response.unwrap_or_default())
        }
        Answer::RequestBody(answer) | Answer::ResponseBody(answer) => {
            Some(answer.response.unwrap_or_default())
        }
        _ => None,
    }
}

/// What every answer may bring besides.
fn note(exchange: &Exchange, session: &Session, answer: &mut ProcessingResponse) {
    if let Some(metadata) = answer.dynamic_metadata.take() {
        let mut info = exchange.info.borrow_mut();
        for (namespace, value) in json::object(metadata) {
            let allowed = session.config.received_namespaces.iter().any(|name| **name == *namespace);
            if let (true, serde_json::Value::Object(fields)) = (allowed, value) {
                info.dynamic_metadata.merge(&namespace, fields);
            }
        }
    }
    if let Some(mode) = answer.mode_override.take()
        && let Some(mode) = session.mode.get().with(&mode)
        && session.config.allows(mode)
    {
        session.mode.set(mode);
    }
}

/// Shows the service the head; `true` if its body is settled too.
async fn headers(
    exchange: &Rc<Exchange>,
    session: &Session,
    mut step: Step<'_>,
    body: &mut Body,
) -> Result<bool, Stop> {
    let (side, shown) = match &step {
        Step::Request(head) => (Side::Request, change::shown(&session.config, edit::request_headers(head))),
        Step::Response(response) => {
            let status = response.status();
            let pseudo = std::iter::once((":status", status.as_str().as_bytes()));
            let all = pseudo.chain(change::pairs(response.headers()));
            (Side::Response, change::shown(&session.config, all))
        }
    };
    let message =
        HttpHeaders { headers: Some(shown), end_of_stream: body.is_end_stream(), ..Default::default() };
    let phase = match side {
        Side::Request => Phase::RequestHeaders(message),
        Side::Response => Phase::ResponseHeaders(message),
    };
    let mut answer = session.ask(side, phase).await?;
    note(exchange, session, &mut answer);
    let Some(common) = common(answer) else { return Err(session.fail("ext_proc_error_spurious_message")) };
    let changed = step.change(session, common.header_mutation)?;
    if let Step::Request(head) = &mut step {
        let again = match session.config.route_cache {
            RouteCache::Default => common.clear_route_cache && changed,
            RouteCache::Clear => changed,
            RouteCache::Retain => false,
        };
        if again {
            exchange.find_route(head);
        }
    }
    if common.status != ResponseStatus::ContinueAndReplace as i32 {
        return Ok(false);
    }
    let bytes = Bytes::from(change::replaced(common.body_mutation).unwrap_or_default());
    step.length(bytes.len());
    *body = Body::text(bytes);
    Ok(true)
}

/// Shows the service the body, as a whole or its first part.
async fn buffered(
    exchange: &Rc<Exchange>,
    session: &Session,
    mut step: Step<'_>,
    body: &mut Body,
    partial: bool,
) -> Result<(), Stop> {
    let seen = gather::gather(body, LIMIT).await.map_err(|_| Stop::Failed("ext_proc_error_body"))?;
    if !seen.complete && !partial {
        return Err(Stop::Failed(details::REQUEST_PAYLOAD_TOO_LARGE));
    }
    let message = HttpBody { body: seen.bytes.to_vec(), end_of_stream: seen.complete, ..Default::default() };
    let (side, phase) = match &step {
        Step::Request(_) => (Side::Request, Phase::RequestBody(message)),
        Step::Response(_) => (Side::Response, Phase::ResponseBody(message)),
    };
    let mut answer = session.ask(side, phase).await?;
    note(exchange, session, &mut answer);
    let Some(common) = common(answer) else { return Err(session.fail("ext_proc_error_spurious_message")) };
    step.change(session, common.header_mutation)?;
    if let Some(bytes) = change::replaced(common.body_mutation) {
        let bytes = Bytes::from(bytes);
        if seen.complete {
            step.length(bytes.len());
        } else {
            step.headers().remove(CONTENT_LENGTH);
        }
        let old = std::mem::replace(body, Body::Empty);
        *body = gather::joined(bytes, None, skip(old, seen.bytes.len()).await);
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

async fn request(
    exchange: &Rc<Exchange>,
    session: &Rc<Session>,
    head: &mut Head,
    body: &mut Body,
) -> Result<(), Stop> {
    if !session.config.request_attributes.is_empty() {
        exchange.with_attributes(head, |view| session.tell(&session.config.request_attributes, view));
    }
    let settled =
        session.mode.get().request_headers && headers(exchange, session, Step::Request(head), body).await?;
    // A tunnel's bytes are nobody's body.
    if settled || body.is_end_stream() || head.protocol.is_some() {
        return Ok(());
    }
    let mode = session.mode.get();
    match mode.request_body {
        BodyMode::None => {}
        BodyMode::Streamed => {
            head.headers.remove(CONTENT_LENGTH);
        }
        BodyMode::Buffered => buffered(exchange, session, Step::Request(head), body, false).await?,
        BodyMode::BufferedPartial => buffered(exchange, session, Step::Request(head), body, true).await?,
    }
    let sees = Sees { data: mode.request_body == BodyMode::Streamed, trailers: mode.request_trailers };
    pump::wrap(body, session, Side::Request, sees);
    Ok(())
}

async fn response(exchange: &Rc<Exchange>, session: &Rc<Session>, reply: &mut Reply) -> Result<(), Stop> {
    if let Some(immediate) = session.immediate.take() {
        return Err(Stop::Immediate(immediate));
    }
    if !session.config.response_attributes.is_empty() {
        let mut info = exchange.info.borrow_mut();
        info.response_code = Some(reply.response.status().as_u16());
        let view = View::new(&info, LogType::NotAccepted).with_response(reply.response.headers());
        session.tell(&session.config.response_attributes, &view);
    }
    let mut body = std::mem::replace(reply.response.body_mut(), Body::Empty);
    let upgraded = reply.response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let result = async {
        let settled = session.mode.get().response_headers
            && headers(exchange, session, Step::Response(&mut reply.response), &mut body).await?;
        if settled || body.is_end_stream() || upgraded {
            return Ok(());
        }
        let mode = session.mode.get();
        let step = Step::Response(&mut reply.response);
        match mode.response_body {
            BodyMode::None => {}
            BodyMode::Streamed => {
                reply.response.headers_mut().remove(CONTENT_LENGTH);
            }
            BodyMode::Buffered => buffered(exchange, session, step, &mut body, false).await?,
            BodyMode::BufferedPartial => buffered(exchange, session, step, &mut body, true).await?,
        }
        let sees = Sees { data: mode.response_body == BodyMode::Streamed, trailers: mode.response_trailers };
        pump::wrap(&mut body, session, Side::Response, sees);
        Ok(())
    };
    let result = result.await;
    *reply.response.body_mut() = body;
    result
}

/// The answer that the service gives, or that its failure gives.
fn reply(config: &ExtProc, stop: Stop) -> Option<LocalReply> {
    match stop {
        Stop::Done => None,
        Stop::Immediate(response) => Some(immediate(*response)),
        Stop::Failed(details) if details == details::REQUEST_PAYLOAD_TOO_LARGE => {
            Some(LocalReply::new(StatusCode::PAYLOAD_TOO_LARGE, "Payload Too Large", details))
        }
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
            match result.err().and_then(|stop| reply(&self.config, stop)) {
                Some(reply) => Flow::Reply(Box::new(reply)),
                None => Flow::Continue,
            }
        }))
    }

    fn on_response<'a>(&'a self, response: Response<'a>) -> Option<Work<'a, ()>> {
        let Response { name, exchange, reply } = response;
        let session: Rc<Session> = exchange.state().take(name)?;
        if session.over.get() && session.immediate.borrow().is_none() {
            return None;
        }
        Some(Box::pin(async move {
            let result = self::response(exchange, &session, reply).await;
            if let Some(local) = result.err().and_then(|stop| self::reply(&self.config, stop)) {
                exchange.info.borrow_mut().code_details = Some(local.details.clone());
                *reply = Reply::local(local.into_response(exchange.grpc.get()));
            }
        }))
    }
}
