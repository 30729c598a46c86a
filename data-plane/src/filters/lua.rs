//! `envoy.filters.http.lua`: scripts look at requests and responses, and change or answer them.
//!
//! A worker loads a script when the first request needs it, into a VM of the worker's own. Each request and each response
//! is a coroutine in it, which pauses wherever the script waits.

mod buffer;
mod call;
mod handle;
mod headers;
mod metadata;
mod run;
mod ssl;
mod stream;
mod stream_info;
mod values;
mod vm;

pub(crate) use vm::check;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use http::{Response as HttpResponse, StatusCode};
use mlua::Function;
use sail_proxy_config::http_filter::lua::{Choice, Lua, LuaPerRoute, Script};

use self::run::{Held, Run};
use self::stream::{Message, Setting, Stream};
use self::vm::Vm;
use super::{Build, Flow, HttpFilter, Request, Response, Work};
use crate::http::body::Body;
use crate::http::exchange::Exchange;
use crate::http::handler::Reply;
use crate::http::head::Head;
use crate::http::local_reply::LocalReply;
use crate::stats::sets::http_lua as stats;
use crate::stream_info::details;

/// So many VMs of scripts that routes bring are kept, at least; what routes no longer bring goes first.
const KEPT: usize = 16;

/// See the module's documentation.
pub(crate) struct Filter {
    config: Arc<Lua>,
    stats: stats::Scope,
    /// VMs by their scripts; `None` where one could not be loaded here.
    vms: RefCell<Vec<(Script, Option<Rc<Vm>>)>>,
}

impl Filter {
    pub(super) fn new(config: &Arc<Lua>, build: &Build<'_>) -> Self {
        let name = match &*config.stat_prefix {
            "" => format!("{}.lua", build.prefix),
            prefix => format!("{}.lua.{prefix}", build.prefix),
        };
        Self { config: config.clone(), stats: build.store.scope(&name), vms: RefCell::default() }
    }

    /// The VM of the script that a route wants.
    fn vm(&self, per_route: Option<&LuaPerRoute>) -> Option<Rc<Vm>> {
        let script = match per_route.map(|config| &config.choice) {
            None | Some(Choice::Default) => self.config.default.as_ref()?,
            Some(Choice::Disabled) => return None,
            Some(Choice::Named(name)) => self.config.sources.get(name)?,
            Some(Choice::Own(script)) => script,
        };
        let mut vms = self.vms.borrow_mut();
        if let Some((known, vm)) = vms.iter_mut().find(|(known, _)| known == script) {
            // A table that came anew has the same script at another place.
            if !Arc::ptr_eq(&known.code, &script.code) {
                *known = script.clone();
            }
            return vm.clone();
        }
        if vms.len() >= KEPT {
            vms.retain(|(known, _)| Arc::strong_count(&known.code) > 1);
        }
        let vm = Vm::load(script).map_err(|error| tracing::error!("{error}")).ok().map(Rc::new);
        vms.push((script.clone(), vm.clone()));
        vm
    }

    fn run(
        &self,
        per_route: Option<&LuaPerRoute>,
        vm: &Rc<Vm>,
        function: &Function,
        message: Message,
        (name, exchange, ended): (&str, &Rc<Exchange>, bool),
    ) -> Result<Run, Box<Message>> {
        let context = per_route.and_then(|config| config.context.clone());
        let setting = Setting {
            filter: name,
            exchange,
            context: context.or_else(|| self.config.context.clone()),
            clears_route: self.config.clear_route_cache,
            ended,
        };
        let stream = Stream::new(message, setting);
        let worker = &exchange.connection.worker;
        Run::new(vm, function, stream.clone(), worker, &self.stats).map_err(|error| {
            self.stats.inc(stats::errors);
            tracing::error!("script log: {error}");
            // Nobody else had it yet.
            Box::new(stream.give_on(false).unwrap_or_else(|| Message::Request(Head::empty())))
        })
    }
}

fn per_route(exchange: &Exchange, name: &str) -> Option<Arc<LuaPerRoute>> {
    exchange.per_filter(name)?.get()
}

/// Gives the request's head back.
fn restore(run: &Run, head: &mut Head, runs_on: bool) {
    if let Some(Message::Request(own)) = run.stream.give_on(runs_on) {
        *head = own;
    }
}

/// A request whose script is through, or goes on beside it.
fn settle(run: Run, held: Held, request: Request<'_>) -> Flow<'static> {
    let Request { head, body, .. } = request;
    restore(&run, head, matches!(held, Held::Streams(_)));
    match held {
        Held::Over => {
            run.put_back(body);
            Flow::Continue
        }
        Held::Streams(pending) => {
            run.pass_by(pending, body);
            Flow::Continue
        }
        Held::Responds(response) => Flow::Reply(Box::new(local_reply(*response))),
        Held::TooLarge => {
            let details = details::REQUEST_PAYLOAD_TOO_LARGE;
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            Flow::Reply(Box::new(LocalReply::new(status, "Payload Too Large", details)))
        }
        Held::Broken(_) => {
            let details = details::DOWNSTREAM_REMOTE_RESET;
            Flow::Reply(Box::new(LocalReply::new(StatusCode::BAD_REQUEST, "", details)))
        }
    }
}

/// A response whose script is through, or goes on beside it.
fn settle_response(run: Run, held: Held, exchange: &Exchange, reply: &mut Reply) {
    if let Some(Message::Response(own)) = run.stream.give_on(matches!(held, Held::Streams(_))) {
        let body = std::mem::replace(reply.response.body_mut(), Body::Empty);
        reply.response = own.map(|()| body);
    }
    match held {
        Held::Over | Held::Responds(_) => run.put_back(reply.response.body_mut()),
        Held::Streams(pending) => run.pass_by(pending, reply.response.body_mut()),
        Held::TooLarge => {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            let local = LocalReply::new(status, "Internal Server Error", "response_payload_too_large");
            exchange.info.borrow_mut().code_details = Some(local.details.clone());
            *reply = Reply::local(local.into_response(exchange.grpc.get()));
        }
        Held::Broken(error) => {
            let frames = futures_util::stream::once(std::future::ready(Err(error)));
            *reply.response.body_mut() = Body::boxed(http_body_util::StreamBody::new(frames));
        }
    }
}

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let per_route = per_route(request.exchange, request.name);
        let Some(vm) = self.vm(per_route.as_deref()) else { return Flow::Continue };
        let Some(function) = &vm.on_request else { return Flow::Continue };
        let Request { name, exchange, head, body } = request;
        let ended = http_body::Body::is_end_stream(body);
        let message = Message::Request(std::mem::replace(head, Head::empty()));
        let run = match self.run(per_route.as_deref(), &vm, function, message, (name, exchange, ended)) {
            Ok(run) => run,
            Err(message) => {
                if let Message::Request(own) = *message {
                    *head = own;
                }
                return Flow::Continue;
            }
        };
        let request = Request { name, exchange, head, body };
        match run.start() {
            None => settle(run, Held::Over, request),
            Some(pending) => Flow::Wait(Box::pin(async move {
                let held = run.hold(Some(pending), request.body).await;
                settle(run, held, request)
            })),
        }
    }

    fn on_response<'a>(&'a self, response: Response<'a>) -> Option<Work<'a, ()>> {
        let Response { name, exchange, reply } = response;
        let per_route = per_route(exchange, name);
        let vm = self.vm(per_route.as_deref())?;
        let function = vm.on_response.as_ref()?;
        let (parts, body) =
            std::mem::replace(&mut reply.response, HttpResponse::new(Body::Empty)).into_parts();
        let ended = http_body::Body::is_end_stream(&body);
        let message = Message::Response(HttpResponse::from_parts(parts, ()));
        *reply.response.body_mut() = body;
        let run = match self.run(per_route.as_deref(), &vm, function, message, (name, exchange, ended)) {
            Ok(run) => run,
            Err(message) => {
                if let Message::Response(own) = *message {
                    let body = std::mem::replace(reply.response.body_mut(), Body::Empty);
                    reply.response = own.map(|()| body);
                }
                return None;
            }
        };
        match run.start() {
            None => {
                settle_response(run, Held::Over, exchange, reply);
                None
            }
            Some(pending) => Some(Box::pin(async move {
                let held = run.hold(Some(pending), reply.response.body_mut()).await;
                settle_response(run, held, exchange, reply);
            })),
        }
    }
}

/// What a script responds is a local reply like others: gRPC's clients read it in their way, and it may be rewritten. A
/// body that is no text goes out as it is.
fn local_reply(response: http::Response<bytes::Bytes>) -> LocalReply {
    const DETAILS: &str = "lua_response";
    let Ok(text) = std::str::from_utf8(response.body()).map(str::to_owned) else {
        return LocalReply::whole(response, DETAILS);
    };
    let headers = response.headers().iter().filter(|(name, _)| *name != http::header::CONTENT_LENGTH);
    LocalReply {
        body: text.into(),
        headers: headers.map(|(name, value)| (name.clone(), value.clone())).collect(),
        ..LocalReply::new(response.status(), "", DETAILS)
    }
}
