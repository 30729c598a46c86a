//! A body that passes by the service piece by piece.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use base::task::Supervised;
use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use sail_proxy_config::http_filter::ext_proc::BodyMode;
use tokio::sync::mpsc;
use xds_api::envoy::service::ext_proc::v3::body_mutation::Mutation;
use xds_api::envoy::service::ext_proc::v3::processing_request::Request as Phase;
use xds_api::envoy::service::ext_proc::v3::processing_response::Response as Answer;
use xds_api::envoy::service::ext_proc::v3::{
    BodyResponse, HttpBody, HttpTrailers, ProcessingResponse, StreamedBodyResponse, TrailersResponse,
};

use super::LIMIT;
use super::change;
use super::course::{Asked, Course};
use super::session::{Session, Side, Stop};
use crate::filters::edit;
use crate::http::body::{Body, BodyError};

/// See the module's documentation.
pub(super) struct Pump {
    pub(super) course: Course,
    body: Body,
    mode: BodyMode,
    /// Whether the service sees trailers.
    trailers: bool,
    /// The body was read to its end.
    ended: bool,
    /// The last bytes that were read were said to be the last.
    told_end: bool,
    /// Trailers that go on after everything else.
    kept: Option<HeaderMap>,
    /// Bytes that were asked about and not answered.
    held: usize,
    /// Something was sent that only the service can give back.
    given: bool,
    /// The beginning of a gRPC message.
    partial: BytesMut,
    out: VecDeque<Frame<Bytes>>,
    finished: bool,
}

impl Pump {
    /// Puts the service into a body's way.
    pub(super) fn new(course: Course, body: Body, mode: BodyMode, trailers: bool) -> Self {
        let mut pump = Self {
            course,
            ended: body.is_end_stream(),
            body,
            mode,
            trailers,
            told_end: false,
            kept: None,
            held: 0,
            given: false,
            partial: BytesMut::new(),
            out: VecDeque::new(),
            finished: false,
        };
        pump.course.set_duplex(mode.is_duplex());
        pump
    }

    /// The modes changed after the head was answered.
    pub(super) fn set_mode(&mut self, mode: BodyMode, trailers: bool) {
        self.mode = mode;
        self.trailers = trailers;
        self.course.set_duplex(mode.is_duplex());
    }

    /// The body, which nobody has touched.
    pub(super) fn into_parts(self) -> (Course, Body) {
        (self.course, self.body)
    }

    /// Whether the service was shown something of the body.
    pub(super) fn has_seen(&self) -> bool {
        self.given || !self.course.asked.is_empty() || !self.out.is_empty()
    }

    /// The body as it goes on.
    pub(super) fn into_body(self) -> Body {
        let nothing = self.ended && self.out.is_empty() && !self.given && self.course.asked.is_empty();
        if nothing && !self.mode.is_duplex() {
            return Body::Empty;
        }
        let (give, frames) = mpsc::channel(1);
        let task = Supervised::spawn_local(async move {
            let session = self.course.session.clone();
            if let Err(error) = self.run(&session, &give).await {
                let _ = give.send(Err(error)).await;
            }
        });
        Body::boxed(Pumped { frames, _task: task })
    }

    fn side(&self) -> Side {
        self.course.side
    }

    fn session(&self) -> &Session {
        &self.course.session
    }

    /// Reads and asks, until there is an answer to something.
    pub(super) async fn next(&mut self) -> Result<ProcessingResponse, Stop> {
        loop {
            let reads = !self.ended && self.held < LIMIT && self.course.is_idle();
            let waits = !self.course.asked.is_empty() || !self.course.is_idle() || self.awaits_duplex();
            tokio::select! {
                answer = self.course.step(), if waits => if let Some(answer) = answer? {
                    return Ok(answer);
                },
                frame = self.body.frame(), if reads => match frame {
                    Some(Ok(frame)) => self.show(frame),
                    Some(Err(_)) => return Err(Stop::Failed("ext_proc_error_body".to_owned())),
                    None => self.show_end(),
                },
                else => return Err(Stop::Done),
            }
        }
    }

    fn awaits_duplex(&self) -> bool {
        self.mode.is_duplex() && self.given && !self.finished
    }

    async fn run(mut self, session: &Session, give: &Give) -> Result<(), BodyError> {
        loop {
            while let Some(frame) = self.out.pop_front() {
                if give.send(Ok(frame)).await.is_err() {
                    return Ok(());
                }
            }
            if self.finished {
                return Ok(());
            }
            if session.config.observes.is_some() {
                self.pass_on().await?;
                continue;
            }
            let done = self.ended && self.course.asked.is_empty() && !self.awaits_duplex();
            if done && self.course.is_idle() {
                self.out.extend(self.kept.take().map(Frame::trailers));
                self.finished = true;
                continue;
            }
            if session.over.get() {
                self.release().map_err(|stop| stopped(session, stop))?;
                self.read_on().await?;
                continue;
            }
            let reads = !self.ended && self.held < LIMIT && self.course.is_idle();
            let waits = !self.course.asked.is_empty() || !self.course.is_idle() || self.awaits_duplex();
            let result = tokio::select! {
                answer = self.course.step(), if waits => match answer {
                    Ok(Some(answer)) => self.take(answer),
                    Ok(None) => Ok(()),
                    Err(stop) => Err(stop),
                },
                frame = self.body.frame(), if reads => {
                    match frame {
                        Some(frame) => self.show(frame?),
                        None => self.show_end(),
                    }
                    Ok(())
                }
                // Nothing to read and nothing to wait for: it has ended.
                else => { self.finished = true; Ok(()) }
            };
            match result {
                Ok(()) => {}
                Err(Stop::Done) => session.over.set(true),
                Err(stop) => return Err(stopped(session, stop)),
            }
        }
    }

    /// Takes a frame on, and asks about it.
    fn show(&mut self, frame: Frame<Bytes>) {
        match frame.into_data() {
            Ok(data) => {
                self.ended = self.body.is_end_stream();
                let end = self.ended;
                match self.mode {
                    BodyMode::Streamed => {
                        self.told_end = end;
                        self.held += data.len();
                        let phase = self.phase(data.clone(), end);
                        self.course.push(phase, Asked::Piece(data));
                    }
                    BodyMode::FullDuplex => {
                        self.told_end = end;
                        self.given = true;
                        let phase = self.phase(data, end);
                        self.course.tell(phase);
                    }
                    BodyMode::Grpc => self.show_messages(&data, end),
                    _ => self.out.push_back(Frame::data(data)),
                }
            }
            Err(frame) => {
                self.ended = true;
                let Ok(trailers) = frame.into_trailers() else { return };
                if self.trailers {
                    self.show_trailers(trailers);
                } else {
                    self.kept = Some(trailers);
                    self.show_end();
                }
            }
        }
    }

    fn show_trailers(&mut self, trailers: HeaderMap) {
        let shown = change::shown(&self.session().config, change::pairs(&trailers));
        let shown = HttpTrailers { trailers: Some(shown) };
        let phase = match self.side() {
            Side::Request => Phase::RequestTrailers(shown),
            Side::Response => Phase::ResponseTrailers(shown),
        };
        self.given |= self.mode.is_duplex();
        self.course.push(phase, Asked::Trailers(trailers));
    }

    /// The body ended without trailers that the service sees.
    fn show_end(&mut self) {
        self.ended = true;
        if std::mem::replace(&mut self.told_end, true) {
            return;
        }
        match self.mode {
            BodyMode::Streamed => {
                let end = self.kept.is_none();
                if end {
                    let phase = self.phase(Bytes::new(), true);
                    self.course.push(phase, Asked::Piece(Bytes::new()));
                }
            }
            BodyMode::FullDuplex => {
                self.given = true;
                let phase = self.phase(Bytes::new(), true);
                self.course.tell(phase);
            }
            BodyMode::Grpc => {
                self.given = true;
                let body = HttpBody {
                    end_of_stream: true,
                    end_of_stream_without_message: true,
                    ..Default::default()
                };
                let phase = self.wrapped(body);
                self.course.tell(phase);
            }
            _ => {}
        }
    }

    fn show_messages(&mut self, data: &[u8], end: bool) {
        self.given = true;
        self.partial.extend_from_slice(data);
        while let Some((compressed, message)) = whole_message(&mut self.partial) {
            let last = end && self.partial.is_empty();
            self.told_end |= last;
            let body = HttpBody {
                body: message.to_vec(),
                end_of_stream: last,
                grpc_message_compressed: compressed,
                ..Default::default()
            };
            let phase = self.wrapped(body);
            self.course.tell(phase);
        }
        if end {
            self.show_end();
        }
    }

    fn phase(&self, data: Bytes, end: bool) -> Phase {
        self.wrapped(HttpBody { body: data.into(), end_of_stream: end, ..Default::default() })
    }

    fn wrapped(&self, body: HttpBody) -> Phase {
        match self.side() {
            Side::Request => Phase::RequestBody(body),
            Side::Response => Phase::ResponseBody(body),
        }
    }

    /// Does what an answer about the body or the trailers says.
    fn take(&mut self, answer: ProcessingResponse) -> Result<(), Stop> {
        match answer.response {
            Some(Answer::RequestBody(answer) | Answer::ResponseBody(answer)) => self.take_piece(answer),
            Some(Answer::RequestTrailers(answer) | Answer::ResponseTrailers(answer)) => {
                self.take_trailers(answer)
            }
            _ => Err(self.session().spurious()),
        }
    }

    fn take_piece(&mut self, answer: BodyResponse) -> Result<(), Stop> {
        let mutation = answer.response.and_then(|common| common.body_mutation).and_then(|body| body.mutation);
        if self.mode.is_duplex() {
            return match mutation {
                Some(Mutation::StreamedResponse(piece)) => {
                    self.take_streamed(piece);
                    Ok(())
                }
                _ => Err(self.session().spurious()),
            };
        }
        if !matches!(self.course.asked.front(), Some(Asked::Piece(_))) {
            return Err(self.session().spurious());
        }
        let Some(Asked::Piece(old)) = self.course.answered() else { return Ok(()) };
        self.held = self.held.saturating_sub(old.len());
        // The head is out already: only the body may change.
        let data = match mutation {
            Some(Mutation::Body(body)) => Bytes::from(body),
            Some(Mutation::ClearBody(true)) => Bytes::new(),
            Some(Mutation::StreamedResponse(_)) => return Err(self.session().spurious()),
            Some(Mutation::ClearBody(false)) | None => old,
        };
        self.put(data);
        Ok(())
    }

    fn take_streamed(&mut self, piece: StreamedBodyResponse) {
        let StreamedBodyResponse {
            body,
            end_of_stream,
            end_of_stream_without_message,
            grpc_message_compressed,
            ..
        } = piece;
        if self.mode == BodyMode::Grpc {
            if !(end_of_stream && body.is_empty() && end_of_stream_without_message) {
                let mut framed = BytesMut::with_capacity(body.len() + 5);
                framed.put_u8(u8::from(grpc_message_compressed));
                framed.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
                framed.extend_from_slice(&body);
                self.put(framed.freeze());
            }
        } else {
            self.put(body.into());
        }
        if end_of_stream {
            self.out.extend(self.kept.take().map(Frame::trailers));
            self.finished = true;
        }
    }

    fn take_trailers(&mut self, answer: TrailersResponse) -> Result<(), Stop> {
        if !matches!(self.course.asked.front(), Some(Asked::Trailers(_))) {
            return Err(self.session().spurious());
        }
        let Some(Asked::Trailers(mut trailers)) = self.course.answered() else { return Ok(()) };
        let mut removed = Vec::new();
        let set = |name: &str, value: &[u8], action| edit::set(&mut trailers, name, value, action);
        let changes = change::Changes { mutation: answer.header_mutation, length: false };
        let result = change::apply(self.session(), changes, set, |name| removed.push(name.to_owned()));
        removed.iter().for_each(|name| edit::remove(&mut trailers, name));
        if result.is_err() {
            return Err(change::rejected(self.session()));
        }
        self.out.push_back(Frame::trailers(trailers));
        self.finished = true;
        Ok(())
    }

    fn put(&mut self, data: Bytes) {
        if !data.is_empty() {
            self.out.push_back(Frame::data(data));
        }
    }

    /// The service says no more: what it was asked about goes on as it is.
    fn release(&mut self) -> Result<(), Stop> {
        if self.mode.is_duplex() && self.given && !self.finished {
            // What it was given is nowhere else.
            return Err(Stop::Failed("ext_proc_error_stream_closed".to_owned()));
        }
        while let Some(asked) = self.course.asked.pop_front() {
            match asked {
                Asked::Piece(data) => self.put(data),
                Asked::Trailers(trailers) => self.out.push_back(Frame::trailers(trailers)),
                Asked::Part => {}
            }
        }
        self.held = 0;
        self.mode = BodyMode::None;
        self.trailers = false;
        Ok(())
    }

    /// Passes a frame on that the service does not see.
    async fn read_on(&mut self) -> Result<(), BodyError> {
        if self.out.is_empty() {
            match self.body.frame().await {
                Some(frame) => self.out.push_back(frame?),
                None => self.finished = true,
            }
        }
        Ok(())
    }

    /// Passes a frame on, and lets the service know of it.
    async fn pass_on(&mut self) -> Result<(), BodyError> {
        let Some(frame) = self.body.frame().await else {
            self.show_end();
            self.finished = true;
            self.course.flush().await;
            return Ok(());
        };
        let frame = frame?;
        if !self.session().over.get() {
            let copy = match (frame.data_ref(), frame.trailers_ref()) {
                (Some(data), _) if self.mode != BodyMode::None => Some(Frame::data(data.clone())),
                (_, Some(trailers)) => Some(Frame::trailers(trailers.clone())),
                _ => None,
            };
            copy.into_iter().for_each(|copy| self.show(copy));
            (self.kept, self.held) = (None, 0);
            self.course.asked.clear();
            self.out.clear();
            self.course.flush().await;
        }
        self.out.push_back(frame);
        Ok(())
    }
}

/// What becomes of a body that the service stops.
fn stopped(session: &Session, stop: Stop) -> BodyError {
    match stop {
        Stop::Immediate(response) => {
            session.immediate.replace(Some(response));
            BodyError::Reset("ext_proc answered")
        }
        stop => {
            let details = match &stop {
                Stop::Failed(details) => details.clone(),
                _ => super::session::TIMEOUT.to_owned(),
            };
            tracing::debug!(details, "ext_proc broke a body off");
            session.failure.replace(Some(stop));
            BodyError::Reset("ext_proc failed")
        }
    }
}

/// Takes a message off the front: whether it is compressed, and its bytes.
fn whole_message(seen: &mut BytesMut) -> Option<(bool, Bytes)> {
    let [flag, a, b, c, d, ..] = seen[..] else { return None };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if seen.len() - 5 < length {
        return None;
    }
    let message = seen.split_to(length + 5).freeze();
    Some((flag & 1 == 1, message.slice(5..)))
}

type Give = mpsc::Sender<Result<Frame<Bytes>, BodyError>>;

/// A body that a task fills.
pub(super) struct Pumped {
    frames: mpsc::Receiver<Result<Frame<Bytes>, BodyError>>,
    _task: Supervised<()>,
}

impl Pumped {
    pub(super) fn new(frames: mpsc::Receiver<Result<Frame<Bytes>, BodyError>>, task: Supervised<()>) -> Self {
        Self { frames, _task: task }
    }
}

impl http_body::Body for Pumped {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.frames.poll_recv(context)
    }
}
