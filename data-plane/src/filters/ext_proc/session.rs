//! The stream of messages about one request: what goes out, and who waits for what comes back.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use base::task::Supervised;
use sail_proxy_config::callout::GrpcTarget;
use sail_proxy_config::http_filter::ext_proc::{ExtProc, Mode};
use sail_proxy_decide::cel::{Program, Value};
use tokio::sync::mpsc;
use xds_api::envoy::config::core::v3 as core;
use xds_api::envoy::service::ext_proc::v3::processing_request::Request as Phase;
use xds_api::envoy::service::ext_proc::v3::processing_response::Response as Answer;
use xds_api::envoy::service::ext_proc::v3::{ImmediateResponse, ProcessingRequest, ProcessingResponse};
use xds_api::google::protobuf::Struct;
use xds_api::google::protobuf::value::Kind;

use crate::access_log::View;
use crate::callout::grpc::{Status, Stream};
use crate::callout::json;
use crate::http::exchange::Exchange;
use crate::stats::sets::http_ext_proc as stats;
use crate::worker::state::Worker;

/// Under which name attributes are told.
const ATTRIBUTES: &str = "envoy.filters.http.ext_proc";

const PATH: &str = "/envoy.service.ext_proc.v3.ExternalProcessor/Process";

/// Answers that may wait for whoever asked.
const QUEUE: usize = 4;

/// Which of the two is spoken of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Request,
    Response,
}

/// Why there is no answer to go by.
pub(super) enum Stop {
    /// The service has nothing more to say: things go on as they are.
    Done,
    /// It answers in the upstream's place.
    Immediate(Box<ImmediateResponse>),
    /// It failed.
    Failed(&'static str),
}

type Answers = mpsc::Receiver<Result<ProcessingResponse, Status>>;

/// See the module's documentation.
pub(super) struct Session {
    pub(super) config: Arc<ExtProc>,
    pub(super) stats: stats::Scope,
    pub(super) mode: Cell<Mode>,
    pub(super) failure_mode_allow: bool,
    /// The service is not asked any more.
    pub(super) over: Cell<bool>,
    /// What the service answered while nobody could pass it on.
    pub(super) immediate: RefCell<Option<Box<ImmediateResponse>>>,
    outgoing: mpsc::Sender<ProcessingRequest>,
    request: RefCell<Option<Answers>>,
    response: RefCell<Option<Answers>>,
    metadata: core::Metadata,
    /// What the next message tells of the stream.
    attributes: RefCell<HashMap<String, Struct>>,
    _task: Supervised<()>,
}

impl Session {
    pub(super) fn open(
        exchange: &Rc<Exchange>,
        config: &Arc<ExtProc>,
        target: &GrpcTarget,
        stats: &stats::Scope,
        (mode, failure_mode_allow): (Mode, bool),
    ) -> Rc<Self> {
        let worker = &exchange.connection.worker;
        stats.inc(stats::streams_started);
        let (outgoing, messages) = mpsc::channel(QUEUE);
        let (to_request, request) = mpsc::channel(QUEUE);
        let (to_response, response) = mpsc::channel(QUEUE);
        let task = run(worker.clone(), target.clone(), messages, to_request, to_response);
        let info = exchange.info.borrow();
        let namespaces = config.forwarded_namespaces.iter();
        let found = namespaces.filter_map(|namespace| {
            Some((namespace.to_string(), json::to_struct(info.dynamic_metadata.get(namespace)?)))
        });
        Rc::new(Self {
            config: config.clone(),
            stats: stats.clone(),
            mode: Cell::new(mode),
            failure_mode_allow,
            over: Cell::new(false),
            immediate: RefCell::default(),
            outgoing,
            request: RefCell::new(Some(request)),
            response: RefCell::new(Some(response)),
            metadata: core::Metadata { filter_metadata: found.collect(), ..Default::default() },
            attributes: RefCell::default(),
            _task: Supervised::spawn_local(task),
        })
    }

    /// Has the next message tell what these attributes are; those that are nothing are left out.
    pub(super) fn tell(&self, programs: &[(Arc<str>, Program)], view: &View<'_>) {
        let found = programs.iter().filter_map(|(name, program)| {
            let kind = match program.eval(view).ok()? {
                Value::Null => Kind::NullValue(0),
                Value::Bool(value) => Kind::BoolValue(value),
                Value::Double(value) => Kind::NumberValue(value),
                other => Kind::StringValue(other.to_text()?),
            };
            Some((name.to_string(), xds_api::google::protobuf::Value { kind: Some(kind) }))
        });
        let told = Struct { fields: found.collect() };
        self.attributes.borrow_mut().insert(ATTRIBUTES.to_owned(), told);
    }

    /// Sends a message, and waits for the answer to it.
    pub(super) async fn ask(&self, side: Side, phase: Phase) -> Result<ProcessingResponse, Stop> {
        if self.over.get() {
            return Err(Stop::Done);
        }
        let metadata = &self.metadata;
        let message = ProcessingRequest {
            metadata_context: (!metadata.filter_metadata.is_empty()).then(|| metadata.clone()),
            request: Some(phase),
            attributes: self.attributes.take(),
            ..Default::default()
        };
        self.stats.inc(stats::stream_msgs_sent);
        // If it cannot be sent, the reason comes as the answer.
        let _ = self.outgoing.send(message).await;
        let place = match side {
            Side::Request => &self.request,
            Side::Response => &self.response,
        };
        // Each side asks one thing at a time.
        let Some(mut answers) = place.take() else { return Err(Stop::Done) };
        let mut limit = self.config.message_timeout;
        let result = loop {
            let answer = tokio::time::timeout(limit, answers.recv()).await;
            if let Ok(Some(Ok(answer))) = &answer
                && answer.response.is_none()
                && let Some(longer) = longer(answer, self.config.max_message_timeout)
            {
                self.stats.inc(stats::override_message_timeout_received);
                limit = longer;
                continue;
            }
            break answer;
        };
        place.replace(Some(answers));
        match result {
            Err(_) => {
                self.stats.inc(stats::message_timeouts);
                Err(self.fail("ext_proc_error_per-message_timeout_exceeded"))
            }
            Ok(None) => {
                self.stats.inc(stats::streams_closed);
                self.over.set(true);
                Err(Stop::Done)
            }
            Ok(Some(Err(status))) => {
                tracing::debug!(%status, "ext_proc service failed");
                Err(self.fail("ext_proc_error_gRPC_error"))
            }
            Ok(Some(Ok(answer))) => {
                self.stats.inc(stats::stream_msgs_received);
                match answer.response {
                    Some(Answer::ImmediateResponse(immediate)) => {
                        self.over.set(true);
                        if self.config.disable_immediate_response {
                            return Err(Stop::Done);
                        }
                        Err(Stop::Immediate(Box::new(immediate)))
                    }
                    _ => Ok(answer),
                }
            }
        }
    }

    /// Gives the service up, as the configuration says.
    pub(super) fn fail(&self, details: &'static str) -> Stop {
        self.stats.inc(stats::streams_failed);
        self.over.set(true);
        if self.failure_mode_allow {
            self.stats.inc(stats::failure_mode_allowed);
            return Stop::Done;
        }
        Stop::Failed(details)
    }
}

/// How much time the service asks for, if it may.
fn longer(answer: &ProcessingResponse, most: Duration) -> Option<Duration> {
    let wanted = answer.override_message_timeout.as_ref()?;
    let seconds = u64::try_from(wanted.seconds).ok()?;
    let wanted = Duration::new(seconds, u32::try_from(wanted.nanos).ok()?.min(999_999_999));
    (wanted >= Duration::from_millis(1) && wanted <= most).then_some(wanted)
}

/// Passes messages on, and answers to those who wait for them.
async fn run(
    worker: Rc<Worker>,
    target: GrpcTarget,
    mut messages: mpsc::Receiver<ProcessingRequest>,
    to_request: mpsc::Sender<Result<ProcessingResponse, Status>>,
    to_response: mpsc::Sender<Result<ProcessingResponse, Status>>,
) {
    let mut stream = Stream::<ProcessingRequest, ProcessingResponse>::open(&worker, &target, PATH);
    // Who asked last gets what fits neither.
    let mut last = Side::Request;
    loop {
        tokio::select! {
            message = messages.recv() => {
                let Some(message) = message else {
                    stream.close_send();
                    return;
                };
                last = match &message.request {
                    Some(Phase::ResponseHeaders(_) | Phase::ResponseBody(_) | Phase::ResponseTrailers(_)) => {
                        Side::Response
                    }
                    _ => Side::Request,
                };
                stream.send(&message).await;
            }
            answer = stream.next() => match answer {
                Ok(Some(answer)) => {
                    let side = match &answer.response {
                        Some(Answer::RequestHeaders(_) | Answer::RequestBody(_) | Answer::RequestTrailers(_)) => {
                            Side::Request
                        }
                        Some(
                            Answer::ResponseHeaders(_) | Answer::ResponseBody(_) | Answer::ResponseTrailers(_),
                        ) => Side::Response,
                        _ => last,
                    };
                    let to = if side == Side::Request { &to_request } else { &to_response };
                    if to.send(Ok(answer)).await.is_err() {
                        return;
                    }
                }
                // The channels end, and whoever waits learns of it.
                Ok(None) => return,
                Err(status) => {
                    let _ = to_request.try_send(Err(status.clone()));
                    let _ = to_response.try_send(Err(status));
                    return;
                }
            }
        }
    }
}
