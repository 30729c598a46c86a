//! A script at work on a stream: it is resumed with what it waits for, before its head goes on and while its body does.

use std::collections::VecDeque;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, StreamBody};
use mlua::{Function, IntoLuaMulti, Thread};

use super::buffer::Buffer;
use super::call;
use super::handle::Handle;
use super::headers::{Headers, Which};
use super::stream::{Call, Pending, Stream};
use super::vm::{Step, Vm};
use crate::http::body::{Body, BodyError};
use crate::http::gather;
use crate::stats::sets::http_lua as stats;
use crate::worker::state::Worker;

/// As much of a body as is held for a script.
const LIMIT: usize = 1024 * 1024;

/// See the module's documentation.
pub(super) struct Run {
    vm: Rc<Vm>,
    thread: Thread,
    pub(super) stream: Rc<Stream>,
    worker: Rc<Worker>,
    stats: stats::Scope,
}

impl Drop for Run {
    fn drop(&mut self) {
        self.stream.end();
    }
}

/// How it stands with a message when its head may go on, or is not to.
pub(super) enum Held {
    /// The script is through.
    Over,
    /// It wants to see the body pass by.
    Streams(Pending),
    /// It has answered.
    Responds(Box<Response<Bytes>>),
    /// The body is larger than what is held.
    TooLarge,
    /// The body broke off.
    Broken(BodyError),
}

impl Run {
    /// A script that is about to start.
    pub(super) fn new(
        vm: &Rc<Vm>,
        function: &Function,
        stream: Rc<Stream>,
        worker: &Rc<Worker>,
        stats: &stats::Scope,
    ) -> mlua::Result<Self> {
        let thread = vm.lua.create_thread(function.clone())?;
        Ok(Self { vm: vm.clone(), thread, stream, worker: worker.clone(), stats: stats.clone() })
    }

    /// Starts it. `None`: it is through.
    pub(super) fn start(&self) -> Option<Pending> {
        self.stats.inc(stats::executions);
        self.resume(Handle(self.stream.clone()))
    }

    /// Lets it run. What it waits for next; `None`: it is through.
    fn resume(&self, input: impl IntoLuaMulti) -> Option<Pending> {
        self.stream.iterating.set(false);
        let step = input.into_lua_multi(&self.vm.lua).map(|input| self.vm.resume(&self.thread, input));
        match step {
            Ok(Step::Paused) => self.stream.pending.take(),
            Ok(Step::Ended) => None,
            Ok(Step::Failed(error)) => self.fail(&error),
            Err(error) => self.fail(&super::vm::message(&error)),
        }
    }

    /// The stream goes on as it is.
    fn fail(&self, error: &str) -> Option<Pending> {
        self.stats.inc(stats::errors);
        tracing::error!("script log: {error}");
        None
    }

    async fn call(&self, call: Box<Call>) -> Option<Pending> {
        let duplicates = call.duplicates;
        let answer = call::fetch(&self.worker, *call).await;
        match call::answer(&self.vm.lua, &answer, duplicates) {
            Ok(answer) => self.resume(answer),
            Err(error) => self.fail(&super::vm::message(&error)),
        }
    }

    /// Gives the script what it waits for while the head is held.
    pub(super) async fn hold(&self, mut pending: Option<Pending>, body: &mut Body) -> Held {
        loop {
            pending = match pending {
                None => return Held::Over,
                Some(Pending::Respond(response)) => return Held::Responds(response),
                Some(pending @ (Pending::Chunk | Pending::Trailers)) => return Held::Streams(pending),
                Some(Pending::Call(call)) => self.call(call).await,
                Some(Pending::Body(always_wrap)) => match self.collect(body).await {
                    Err(held) => return held,
                    Ok(()) if self.stream.saw_body.get() || always_wrap => {
                        self.resume(Buffer::new(&self.stream))
                    }
                    Ok(()) => self.resume(()),
                },
            }
        }
    }

    /// Reads the body to its end.
    async fn collect(&self, body: &mut Body) -> Result<(), Held> {
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            match frame.map_err(Held::Broken)?.into_data() {
                Ok(data) if bytes.len() + data.len() > LIMIT => return Err(Held::TooLarge),
                Ok(data) => bytes.extend_from_slice(&data),
                Err(frame) => {
                    self.stream.trailers.replace(frame.into_trailers().ok());
                }
            }
        }
        self.stream.ended.set(true);
        self.stream.saw_body.set(!bytes.is_empty());
        self.stream.body.replace(bytes.freeze());
        Ok(())
    }

    /// Puts back what the script had of the body.
    pub(super) fn put_back(&self, body: &mut Body) {
        if self.stream.buffered.get() && self.stream.ended.get() {
            *body = gather::joined(self.stream.body.take(), self.stream.trailers.take(), Body::Empty);
        }
    }

    /// Puts the script into the body's way.
    pub(super) fn pass_by(self, pending: Pending, body: &mut Body) {
        let inner = std::mem::replace(body, Body::Empty);
        let passing =
            Passing { run: self, pending: Some(pending), inner, ready: VecDeque::new(), over: false };
        let frames = futures_util::stream::unfold(passing, |mut passing| async {
            let frame = passing.next().await?;
            Some((frame, passing))
        });
        *body = Body::boxed(StreamBody::new(frames));
    }
}

/// A body that passes by a script.
struct Passing {
    run: Run,
    pending: Option<Pending>,
    inner: Body,
    ready: VecDeque<Frame<Bytes>>,
    over: bool,
}

impl Passing {
    async fn next(&mut self) -> Option<Result<Frame<Bytes>, BodyError>> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some(Ok(frame));
            }
            if self.over {
                return None;
            }
            match self.inner.frame().await {
                Some(Err(error)) => {
                    self.over = true;
                    return Some(Err(error));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        let end = self.inner.is_end_stream();
                        self.data(data, end).await;
                    }
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            self.trailers(trailers).await;
                        }
                    }
                },
                None => self.data(Bytes::new(), true).await,
            }
        }
    }

    /// A piece of the body, which may be empty at its end.
    async fn data(&mut self, data: Bytes, end: bool) {
        let stream = self.run.stream.clone();
        stream.saw_body.set(true);
        stream.ended.set(end);
        stream.chunk.set(stream.chunk.get().wrapping_add(1));
        stream.body.replace(data);
        match self.pending.take() {
            Some(Pending::Chunk) => self.pending = self.run.resume(Buffer::new(&stream)),
            Some(Pending::Trailers) if end => self.pending = self.run.resume(()),
            pending => self.pending = pending,
        }
        self.finish_calls().await;
        let data = stream.body.take();
        if !data.is_empty() {
            self.ready.push_back(Frame::data(data));
        }
        self.over = end;
    }

    async fn trailers(&mut self, trailers: HeaderMap) {
        let stream = self.run.stream.clone();
        stream.ended.set(true);
        stream.trailers.replace(Some(trailers));
        if matches!(self.pending, Some(Pending::Chunk)) {
            self.pending = self.run.resume(());
            self.finish_calls().await;
        }
        if matches!(self.pending, Some(Pending::Trailers)) {
            self.pending = self.run.resume(Headers { stream: stream.clone(), which: Which::Trailers });
            self.finish_calls().await;
        }
        if let Some(trailers) = stream.trailers.take() {
            self.ready.push_back(Frame::trailers(trailers));
        }
        self.over = true;
    }

    /// A request of the script's holds everything up.
    async fn finish_calls(&mut self) {
        while let Some(Pending::Call(call)) =
            self.pending.take_if(|pending| matches!(pending, Pending::Call(_)))
        {
            self.pending = self.run.call(call).await;
        }
    }
}
