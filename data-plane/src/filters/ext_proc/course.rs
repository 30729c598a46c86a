//! One side's conversation with the service: what was asked and not answered yet, and until when it may take.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use http::HeaderMap;
use tokio::time::{Instant, sleep_until};
use xds_api::envoy::service::ext_proc::v3::processing_request::Request as Phase;
use xds_api::envoy::service::ext_proc::v3::processing_response::Response as Answer;
use xds_api::envoy::service::ext_proc::v3::{ProcessingRequest, ProcessingResponse};

use super::session::{Answers, Link, Session, Side, Stop};
use super::{note, over_http};
use crate::stats::sets::http_ext_proc as stats;

/// What was asked about.
pub(super) enum Asked {
    /// The head, or a body as a whole.
    Part,
    /// A piece of a body, which goes on as it is if nothing else is said.
    Piece(bytes::Bytes),
    /// The trailers.
    Trailers(HeaderMap),
}

/// See the module's documentation. Its waiting can be given up at any time, and begun again.
pub(super) struct Course {
    pub(super) session: Rc<Session>,
    pub(super) side: Side,
    /// Until the first part was answered: more is not waited for then.
    answers: Option<Answers>,
    unsent: VecDeque<ProcessingRequest>,
    /// In the order in which answers come.
    pub(super) asked: VecDeque<Asked>,
    /// Whether answers come when they come.
    duplex: bool,
    deadline: Option<Instant>,
    /// More time was asked for already.
    extended: bool,
}

impl Course {
    pub(super) fn new(session: &Rc<Session>, side: Side) -> Self {
        Self {
            session: session.clone(),
            side,
            answers: session.answers(side),
            unsent: VecDeque::new(),
            asked: VecDeque::new(),
            duplex: false,
            deadline: None,
            extended: false,
        }
    }

    /// Whether answers come when they come, to nothing that was asked.
    pub(super) fn set_duplex(&mut self, duplex: bool) {
        if self.duplex != duplex {
            self.duplex = duplex;
            self.session.expects(self.side, if duplex { 1 } else { -1 });
        }
    }

    /// Asks, without waiting for anything.
    pub(super) fn push(&mut self, phase: Phase, asked: Asked) {
        self.tell(phase);
        self.asked.push_back(asked);
        self.session.expects(self.side, 1);
        self.wait_for(self.session.config.message_timeout);
    }

    /// Says something to which there need be no answer.
    pub(super) fn tell(&mut self, phase: Phase) {
        self.unsent.push_back(self.session.message(self.side, phase));
    }

    fn wait_for(&mut self, limit: Duration) {
        self.extended = false;
        self.deadline = (!self.duplex && !self.asked.is_empty()).then(|| Instant::now() + limit);
    }

    /// The oldest question was answered.
    pub(super) fn answered(&mut self) -> Option<Asked> {
        let asked = self.asked.pop_front();
        self.session.expects(self.side, -1);
        self.wait_for(self.session.config.message_timeout);
        asked
    }

    /// Whether there is room for more.
    pub(super) fn is_idle(&self) -> bool {
        self.unsent.is_empty()
    }

    /// Sends what was not sent, and waits for no answer.
    pub(super) async fn flush(&mut self) {
        let Link::Grpc(sending) = &self.session.link else { return };
        while let Some(message) = self.unsent.front() {
            match sending.room().await {
                Some(room) => room.send(message),
                None => self.session.over.set(true),
            }
            self.unsent.pop_front();
        }
    }

    /// The next answer.
    pub(super) async fn answer(&mut self) -> Result<ProcessingResponse, Stop> {
        loop {
            if let Some(answer) = self.step().await? {
                return Ok(answer);
            }
        }
    }

    /// The next answer, or nothing once a message went out.
    pub(super) async fn step(&mut self) -> Result<Option<ProcessingResponse>, Stop> {
        let session = self.session.clone();
        if session.over.get() {
            return Err(Stop::Done);
        }
        let answer = match &session.link {
            Link::Grpc(sending) => {
                let Some(answers) = &mut self.answers else { return Err(Stop::Done) };
                let deadline = self.deadline;
                tokio::select! {
                    biased;
                    answer = answers.recv() => answer.ok_or_else(|| session.ended())?,
                    room = sending.room(), if !self.unsent.is_empty() => {
                        if let (Some(message), Some(room)) = (self.unsent.pop_front(), room) {
                            room.send(&message);
                        }
                        return Ok(None);
                    }
                    () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                        return Err(session.timed_out());
                    }
                }
            }
            Link::Http(service) => {
                let Some(message) = self.unsent.front() else { return Err(Stop::Done) };
                let Some(exchange) = session.exchange() else { return Err(Stop::Done) };
                let call = over_http::ask(&exchange, service, message, &session);
                let answer = match self.deadline {
                    Some(deadline) => tokio::time::timeout_at(deadline, call)
                        .await
                        .unwrap_or_else(|_| Err(session.timed_out()))?,
                    None => call.await?,
                };
                self.unsent.pop_front();
                answer
            }
        };
        self.look_at(answer)
    }

    /// Takes from an answer what any answer may bring; `None` if that is all.
    fn look_at(&mut self, mut answer: ProcessingResponse) -> Result<Option<ProcessingResponse>, Stop> {
        let session = self.session.clone();
        if let Some(wanted) = answer.override_message_timeout.take()
            && answer.response.is_none()
        {
            match longer(&wanted, session.config.max_message_timeout) {
                Some(limit) if self.deadline.is_some() && !self.extended => {
                    session.stats.inc(stats::override_message_timeout_received);
                    self.wait_for(limit);
                    self.extended = true;
                }
                _ => session.stats.inc(stats::override_message_timeout_ignored),
            }
            return Ok(None);
        }
        let of_head =
            matches!(answer.response, None | Some(Answer::RequestHeaders(_) | Answer::ResponseHeaders(_)));
        note(&session, &mut answer, of_head);
        match answer.response.take() {
            None => Ok(None),
            Some(Answer::ImmediateResponse(response)) => Err(session.answered(response)),
            response => Ok(Some(ProcessingResponse { response, ..answer })),
        }
    }
}

/// How much time the service asks for, if it may.
fn longer(wanted: &xds_api::google::protobuf::Duration, most: Duration) -> Option<Duration> {
    let seconds = u64::try_from(wanted.seconds).ok()?;
    let wanted = Duration::new(seconds, u32::try_from(wanted.nanos).ok()?.min(999_999_999));
    (wanted >= Duration::from_millis(1) && wanted <= most).then_some(wanted)
}
