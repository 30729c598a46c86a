//! `envoy.filters.http.wasm`: a module sees requests and responses, changes them, holds them back, answers them.

mod body;
mod stream;

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use http::StatusCode;
use http_body::Body as _;
use sail_proxy_config::wasm::Plugin as Config;
use sail_proxy_wasm::{HeadersAction, Peer};

use self::body::Shown;
use self::stream::HttpStream;
use super::{Build, Flow, HttpFilter, Request, Response, Work};
use crate::http::body::Body;
use crate::http::exchange::Exchange;
use crate::http::gather;
use crate::http::handler::Reply;
use crate::http::head::Head;
use crate::http::local_reply::LocalReply;
use crate::stream_info::details;
use crate::wasm::{Plugin, Use};

thread_local! {
    static LAST: Cell<u64> = const { Cell::new(0) };
}

/// See the module's documentation.
pub(crate) struct Filter {
    plugin: Rc<Plugin>,
    /// Under which it keeps a request's stream: names of filters need not differ.
    key: Box<str>,
}

/// As much as may be held back of a body.
const LIMIT: usize = 1024 * 1024;

/// The answer in place of a module that failed.
fn refusal() -> LocalReply {
    LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, "", "wasm_fail_stream")
}

impl Filter {
    pub(crate) fn new(config: &Arc<Config>, build: &Build<'_>) -> Self {
        let number = LAST.get() + 1;
        LAST.set(number);
        Self { plugin: Plugin::of(config, build.store), key: format!("wasm {number}").into() }
    }

    /// The stream's context in the VM; `Err` is what becomes of the request without one.
    fn begin(&self, exchange: &Rc<Exchange>, found: Use) -> Result<Rc<HttpStream>, Flow<'static>> {
        match found {
            Use::With(running, root) => {
                let Some(stream) = HttpStream::begin(exchange, running, root, self.plugin.fails_open())
                else {
                    return Err(self.without());
                };
                let mut state = exchange.state();
                let at_end = stream.clone();
                state.at_end(Box::new(move |exchange| at_end.end(exchange)));
                state.put(&self.key, stream.clone());
                Ok(stream)
            }
            Use::Bypass => Err(Flow::Continue),
            Use::Refuse | Use::Wait => Err(Flow::Reply(Box::new(refusal()))),
        }
    }

    fn without(&self) -> Flow<'static> {
        if self.plugin.fails_open() { Flow::Continue } else { Flow::Reply(Box::new(refusal())) }
    }
}

/// What the module said of headers, and what it cannot say any more.
enum Held {
    /// They go on.
    Go,
    /// The module answers.
    Answer(Box<LocalReply>),
    /// The module has to be waited for.
    Wait(HeadersAction),
}

fn settled(stream: &HttpStream, action: Option<HeadersAction>) -> Held {
    if let Some(reply) = stream.take_answer() {
        return Held::Answer(Box::new(reply));
    }
    match action {
        Some(HeadersAction::Continue) => Held::Go,
        Some(action) => Held::Wait(action),
        None if stream.fails_open => Held::Go,
        None => Held::Answer(Box::new(refusal())),
    }
}

/// Waits until headers may go on; the body is shown meanwhile if the module wants to see it.
async fn wait(
    stream: &Rc<HttpStream>,
    peer: Peer,
    action: HeadersAction,
    body: &mut Body,
) -> Option<Box<LocalReply>> {
    if action == HeadersAction::StopIteration && !body.is_end_stream() && stream.sees_body(peer) {
        let mut shown = Shown::new(std::mem::replace(body, Body::Empty), stream.clone(), peer);
        let first = poll_fn(|context| {
            if stream.is_over() {
                return Poll::Ready(None);
            }
            if shown.is_open() && stream.take_resumed(peer) {
                return Poll::Ready(None);
            }
            let frame = std::pin::Pin::new(&mut shown).poll_frame(context);
            match frame {
                Poll::Ready(frame) => Poll::Ready(frame),
                Poll::Pending => {
                    stream.turn(peer).wait(context.waker());
                    Poll::Pending
                }
            }
        });
        let (first, trailers) = match first.await {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => (data, None),
                Err(frame) => (bytes::Bytes::new(), frame.into_trailers().ok()),
            },
            _ => Default::default(),
        };
        if !stream.is_over() {
            *body = gather::joined(first, trailers, Body::boxed(shown));
        }
    } else {
        poll_fn(|context| {
            if stream.is_over() || stream.take_resumed(peer) {
                return Poll::Ready(());
            }
            stream.turn(peer).wait(context.waker());
            Poll::Pending
        })
        .await;
        stream.show(peer, body);
    }
    stream.take_answer().map(Box::new).or_else(|| {
        let failed = stream.is_failed() && !stream.fails_open;
        failed.then(|| Box::new(refusal()))
    })
}

async fn request(
    exchange: &Rc<Exchange>,
    stream: &Rc<HttpStream>,
    head: &mut Head,
    body: &mut Body,
    action: HeadersAction,
) -> Flow<'static> {
    let answer = wait(stream, Peer::Downstream, action, body).await;
    release(exchange, stream, head);
    match answer {
        Some(answer) => Flow::Reply(answer),
        None => Flow::Continue,
    }
}

/// Gives the head back; its route is chosen again where the module changed it.
fn release(exchange: &Exchange, stream: &HttpStream, head: &mut Head) {
    if stream.release_request(head) {
        exchange.find_route(head);
    }
}

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let Request { exchange, head, body, .. } = request;
        let found = match self.plugin.current() {
            Use::Wait => {
                return Flow::Wait(Box::pin(async move {
                    let found = self.plugin.fetched(&exchange.connection.worker).await;
                    match self.on_headers(exchange, head, body, found) {
                        Flow::Wait(work) => work.await,
                        Flow::Reply(reply) => Flow::Reply(reply),
                        Flow::Continue => Flow::Continue,
                    }
                }));
            }
            found => found,
        };
        self.on_headers(exchange, head, body, found)
    }

    fn on_response<'a>(&'a self, response: Response<'a>) -> Option<Work<'a, ()>> {
        let Response { exchange, reply, .. } = response;
        let stream: Rc<HttpStream> = exchange.state().take(&self.key)?;
        if let Some(answer) = stream.take_answer() {
            // It came too late to be the filter's answer: the request's body was on its way.
            self::answer(exchange, reply, answer);
        }
        if stream.is_failed() {
            return None;
        }
        stream.begin_response();
        stream.take_response(reply);
        let end = reply.response.body().is_end_stream();
        let action = stream.on_headers(Peer::Upstream, end);
        match settled(&stream, action) {
            Held::Go => {
                stream.release_response(reply);
                stream.show(Peer::Upstream, reply.response.body_mut());
                None
            }
            Held::Answer(answer) => {
                stream.release_response(reply);
                self::answer(exchange, reply, *answer);
                None
            }
            Held::Wait(action) => Some(Box::pin(async move {
                let body = reply.response.body_mut();
                let answer = wait(&stream, Peer::Upstream, action, body).await;
                stream.release_response(reply);
                if let Some(answer) = answer {
                    self::answer(exchange, reply, *answer);
                }
            })),
        }
    }
}

/// Puts the module's answer into the place of the one that there is.
fn answer(exchange: &Exchange, reply: &mut Reply, answer: LocalReply) {
    exchange.info.borrow_mut().code_details = Some(answer.details.clone());
    *reply = Reply::local(answer.into_response(exchange.grpc.get()));
}

impl Filter {
    fn on_headers<'a>(
        &'a self,
        exchange: &'a Rc<Exchange>,
        head: &'a mut Head,
        body: &'a mut Body,
        found: Use,
    ) -> Flow<'a> {
        let stream = match self.begin(exchange, found) {
            Ok(stream) => stream,
            Err(flow) => return flow,
        };
        stream.take_request(head);
        let action = stream.on_headers(Peer::Downstream, body.is_end_stream());
        match settled(&stream, action) {
            Held::Go => {
                release(exchange, &stream, head);
                // A tunnel's bytes are nobody's body.
                if head.protocol.is_none() {
                    stream.show(Peer::Downstream, body);
                }
                Flow::Continue
            }
            Held::Answer(reply) => {
                release(exchange, &stream, head);
                Flow::Reply(reply)
            }
            Held::Wait(action) => {
                Flow::Wait(Box::pin(
                    async move { self::request(exchange, &stream, head, body, action).await },
                ))
            }
        }
    }
}

/// The answer to a request that is larger than what may be held back.
fn too_large() -> LocalReply {
    let status = StatusCode::PAYLOAD_TOO_LARGE;
    LocalReply::new(status, "Payload Too Large", details::REQUEST_PAYLOAD_TOO_LARGE)
}
