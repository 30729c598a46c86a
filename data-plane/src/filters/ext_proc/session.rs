//! The stream of messages about one request: what goes out, and to whom goes what comes back.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use sail_proxy_config::http_filter::ext_proc::{ExtProc, HttpService, Mode, Namespaces, Service, Settings};
use sail_proxy_decide::cel::{Program, Value};
use tokio::sync::{mpsc, oneshot};
use xds_api::envoy::config::core::v3 as core;
use xds_api::envoy::service::ext_proc::v3::processing_request::Request as Phase;
use xds_api::envoy::service::ext_proc::v3::processing_response::Response as Answer;
use xds_api::envoy::service::ext_proc::v3::{
    ImmediateResponse, ProcessingRequest, ProcessingResponse, ProtocolConfiguration,
};
use xds_api::google::protobuf::Struct;
use xds_api::google::protobuf::value::Kind;

use crate::access_log::View;
use crate::callout::grpc::{self, Receiving, Sending, Status};
use crate::callout::json;
use crate::http::exchange::Exchange;
use crate::stats::sets::http_ext_proc as stats;

/// Under which name attributes are told.
const ATTRIBUTES: &str = "envoy.filters.http.ext_proc";

const PATH: &str = "/envoy.service.ext_proc.v3.ExternalProcessor/Process";

/// What is said of an answer that did not come in time.
pub(super) const TIMEOUT: &str = "ext_proc_error_per-message_timeout_exceeded";

/// How long the service has to end its side of a stream after the request's end.
const CLOSE: Duration = Duration::from_secs(5);

/// Answers that may wait for whoever asked.
const QUEUE: usize = 64;

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
    /// It failed, and what to say of it.
    Failed(String),
    /// It took too long.
    Timeout,
    /// The body is too long to be shown as a whole.
    TooLarge,
}

pub(super) type Answers = mpsc::Receiver<ProcessingResponse>;

/// How messages reach the service.
pub(super) enum Link {
    Grpc(Sending<ProcessingRequest>),
    Http(Box<HttpService>),
}

/// What the session and its task share.
struct Shared {
    /// Who asked last gets what fits neither.
    last: Cell<Side>,
    /// How the stream failed.
    failure: RefCell<Option<Failure>>,
    /// How many answers the sides wait for.
    expected: [Cell<i64>; 2],
}

/// How a stream fails.
enum Failure {
    Status(Status),
    /// The service answered what was not asked.
    Spurious,
}

/// See the module's documentation.
pub(super) struct Session {
    pub(super) config: Arc<ExtProc>,
    pub(super) settings: Settings,
    pub(super) stats: stats::Scope,
    pub(super) mode: Cell<Mode>,
    /// The service is not asked any more.
    pub(super) over: Cell<bool>,
    /// What the service answered while nobody could pass it on.
    pub(super) immediate: RefCell<Option<Box<ImmediateResponse>>>,
    /// How the service failed while nobody could say it.
    pub(super) failure: RefCell<Option<Stop>>,
    /// The response that the service streams in the upstream's place.
    pub(super) local: RefCell<Option<super::local::Local>>,
    pub(super) link: Link,
    exchange: Weak<Exchange>,
    shared: Rc<Shared>,
    request: RefCell<Option<Answers>>,
    response: RefCell<Option<Answers>>,
    /// What the next message tells of the stream.
    attributes: RefCell<HashMap<String, Struct>>,
    /// Nothing was sent yet.
    first: Cell<bool>,
    /// It was counted that the stream is closed.
    closed: Cell<bool>,
    /// Tells the task that the request is over.
    _over: Option<oneshot::Sender<()>>,
}

impl Session {
    pub(super) fn open(
        exchange: &Rc<Exchange>,
        config: &Arc<ExtProc>,
        settings: Settings,
        stats: &stats::Scope,
    ) -> Rc<Self> {
        stats.inc(stats::streams_started);
        let (to_request, request) = mpsc::channel(QUEUE);
        let (to_response, response) = mpsc::channel(QUEUE);
        let shared = Rc::new(Shared {
            last: Cell::new(Side::Request),
            failure: RefCell::default(),
            expected: Default::default(),
        });
        let mut over = None;
        let link = match &settings.service {
            Service::Http(service) => Link::Http(service.clone()),
            Service::Grpc(target) => {
                let worker = &exchange.connection.worker;
                let (sending, answers) = grpc::open(worker, target, PATH);
                let run = run(shared.clone(), answers, stats.clone(), to_request, to_response);
                let (sender, ended) = oneshot::channel();
                over = Some(sender);
                tokio::task::spawn_local(outlive(run, ended, config.observes.unwrap_or(CLOSE)));
                Link::Grpc(sending)
            }
        };
        Rc::new(Self {
            config: config.clone(),
            stats: stats.clone(),
            mode: Cell::new(settings.mode),
            settings,
            over: Cell::new(false),
            immediate: RefCell::default(),
            failure: RefCell::default(),
            local: RefCell::default(),
            link,
            exchange: Rc::downgrade(exchange),
            shared,
            request: RefCell::new(Some(request)),
            response: RefCell::new(Some(response)),
            attributes: RefCell::default(),
            first: Cell::new(true),
            closed: Cell::new(false),
            _over: over,
        })
    }

    /// The answers of a side; each side takes them once.
    pub(super) fn answers(&self, side: Side) -> Option<Answers> {
        match side {
            Side::Request => self.request.take(),
            Side::Response => self.response.take(),
        }
    }

    /// A side waits for so many more answers.
    pub(super) fn expects(&self, side: Side, more: i64) {
        let expected = &self.shared.expected[side as usize];
        expected.set(expected.get() + more);
    }

    /// The request, while it lasts.
    pub(super) fn exchange(&self) -> Option<Rc<Exchange>> {
        self.exchange.upgrade()
    }

    /// Has the next message tell what these attributes are; those that are nothing are left out.
    pub(super) fn tell(&self, programs: &[(Arc<str>, Program)], view: &View<'_>) {
        let found = programs.iter().filter_map(|(name, program)| {
            let kind = match program.eval(view).ok()? {
                Value::Null => Kind::NullValue(0),
                Value::Bool(value) => Kind::BoolValue(value),
                Value::Double(value) => Kind::NumberValue(value),
                #[expect(clippy::cast_precision_loss, reason = "the message has no other numbers")]
                Value::Int(value) => Kind::NumberValue(value as f64),
                #[expect(clippy::cast_precision_loss, reason = "the message has no other numbers")]
                Value::Uint(value) => Kind::NumberValue(value as f64),
                other => Kind::StringValue(other.to_text()?),
            };
            Some((name.to_string(), xds_api::google::protobuf::Value { kind: Some(kind) }))
        });
        let told = Struct { fields: found.collect() };
        self.attributes.borrow_mut().insert(ATTRIBUTES.to_owned(), told);
    }

    /// A message, with all that is told besides.
    pub(super) fn message(&self, side: Side, phase: Phase) -> ProcessingRequest {
        self.shared.last.set(side);
        self.stats.inc(stats::stream_msgs_sent);
        let metadata = self.metadata();
        let mode = self.mode.get();
        ProcessingRequest {
            metadata_context: Some(metadata),
            request: Some(phase),
            attributes: self.attributes.take(),
            observability_mode: self.config.observes.is_some(),
            protocol_config: self.first.replace(false).then(|| ProtocolConfiguration {
                request_body_mode: mode.request_body.number(),
                response_body_mode: mode.response_body.number(),
                send_body_without_waiting_for_header_response: self.config.early_body,
            }),
            ..Default::default()
        }
    }

    /// The metadata that the service may see, as they are now.
    fn metadata(&self) -> core::Metadata {
        let mut all = core::Metadata::default();
        let Some(exchange) = self.exchange() else { return all };
        let options = &self.settings.metadata;
        let given = |names: &Option<Namespaces>| names.as_ref().is_some_and(|names| !names.is_empty());
        if given(&options.cluster)
            && let Some(names) = &options.cluster
        {
            let cluster = exchange.routed.get().as_ref().and_then(|found| found.cluster.clone());
            let cluster = cluster.and_then(|name| exchange.active.cluster(&name));
            if let Some(metadata) = cluster.as_ref().and_then(|cluster| cluster.config.metadata.as_ref()) {
                for name in &names.untyped {
                    if let Some(value) = metadata.get(&**name) {
                        all.filter_metadata.insert(name.to_string(), json::to_struct(value));
                    }
                }
            }
        }
        if given(&options.forwarded)
            && let Some(names) = &options.forwarded
        {
            let info = exchange.info.borrow();
            for name in &names.untyped {
                if let Some(value) = info.dynamic_metadata.get(name) {
                    all.filter_metadata.insert(name.to_string(), json::to_struct(value));
                }
            }
            for name in &names.typed {
                if let Some(value) = info.dynamic_metadata.typed(name) {
                    all.typed_filter_metadata.insert(name.to_string(), value.clone());
                }
            }
        }
        all
    }

    /// How the service's silence is to be taken: the stream ended, well or not.
    pub(super) fn ended(&self) -> Stop {
        match self.shared.failure.take() {
            Some(Failure::Spurious) => self.spurious(),
            Some(Failure::Status(Status { code, message })) => {
                tracing::debug!(code, message, "ext_proc service failed");
                self.stats.inc(stats::streams_failed);
                if self.settings.failure_mode_allow {
                    self.note_closed();
                }
                self.closed.set(true);
                let message = match message.strip_prefix("upstream connect error: ") {
                    Some(cause) => format!(
                        "upstream connect error or disconnect/reset before headers. reset reason: remote connection \
                         failure{{upstream_reset_before_response_started{{remote_connection_failure|{cause}}}}}"
                    ),
                    None => format!("{message}{{via_upstream}}"),
                };
                let message = message.replace(' ', "_");
                self.fail(&format!("ext_proc_error_gRPC_error_{code}{{{message}}}"))
            }
            None => {
                self.note_closed();
                self.over.set(true);
                Stop::Done
            }
        }
    }

    /// The stream is closed, if it was not yet.
    fn note_closed(&self) {
        if !self.closed.replace(true) {
            self.stats.inc(stats::streams_closed);
        }
    }

    /// Gives the service up, as the configuration says.
    pub(super) fn fail(&self, details: &str) -> Stop {
        self.over.set(true);
        if self.settings.failure_mode_allow {
            self.stats.inc(stats::failure_mode_allowed);
            return Stop::Done;
        }
        Stop::Failed(details.to_owned())
    }

    /// As [`Self::fail`], of a message that does not belong there.
    pub(super) fn spurious(&self) -> Stop {
        self.unwanted("spurious_message")
    }

    fn unwanted(&self, details: &str) -> Stop {
        self.stats.inc(stats::spurious_msgs_received);
        self.note_closed();
        self.fail(details)
    }

    /// As [`Self::fail`], of an answer that did not come in time.
    pub(super) fn timed_out(&self) -> Stop {
        self.stats.inc(stats::message_timeouts);
        self.note_closed();
        match self.fail(TIMEOUT) {
            Stop::Failed(_) => Stop::Timeout,
            stop => stop,
        }
    }

    /// An answer in the upstream's place, unless there may be none.
    pub(super) fn answered(&self, response: ImmediateResponse) -> Stop {
        if self.config.disable_immediate_response {
            return self.unwanted("unhandled_immediate_response_due_to_config_disabled_it");
        }
        self.over.set(true);
        Stop::Immediate(Box::new(response))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.note_closed();
    }
}

/// Which side an answer belongs to; `None` for those that either may get.
fn side_of(answer: &ProcessingResponse) -> Option<Side> {
    match &answer.response {
        Some(Answer::RequestHeaders(_) | Answer::RequestBody(_) | Answer::RequestTrailers(_)) => {
            Some(Side::Request)
        }
        Some(Answer::ResponseHeaders(_) | Answer::ResponseBody(_) | Answer::ResponseTrailers(_)) => {
            Some(Side::Response)
        }
        Some(Answer::StreamedImmediateResponse(_)) => Some(Side::Request),
        _ => None,
    }
}

/// Passes answers to those who wait for them. When it ends the channels end, and whoever waits learns of it.
async fn run(
    shared: Rc<Shared>,
    mut answers: Receiving<ProcessingResponse>,
    stats: stats::Scope,
    to_request: mpsc::Sender<ProcessingResponse>,
    to_response: mpsc::Sender<ProcessingResponse>,
) {
    loop {
        match answers.next().await {
            Ok(Some(answer)) => {
                stats.inc(stats::stream_msgs_received);
                let of = side_of(&answer);
                let side = of.unwrap_or_else(|| shared.last.get());
                if of.is_some() && shared.expected[side as usize].get() <= 0 {
                    shared.failure.replace(Some(Failure::Spurious));
                    return;
                }
                let to = if side == Side::Request { &to_request } else { &to_response };
                // A side that is through with its part does not listen any more.
                let _ = to.send(answer).await;
            }
            Ok(None) => {
                stats.inc(stats::server_half_closed);
                return;
            }
            Err(status) => {
                shared.failure.replace(Some(Failure::Status(status)));
                return;
            }
        }
    }
}

/// Runs on after the request's end, but not for longer than allowed.
async fn outlive(run: impl Future<Output = ()>, over: oneshot::Receiver<()>, limit: Duration) {
    let mut run = std::pin::pin!(run);
    tokio::select! {
        () = &mut run => {}
        _ = over => {
            let _ = tokio::time::timeout(limit, run).await;
        }
    }
}
