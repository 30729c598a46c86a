//! Functions that a module exports for its host to call.

use wasmtime::{Instance, Memory, Store, TypedFunc, WasmParams, WasmResults};

use super::Peer;
use crate::Error;
use crate::state::State;

/// By what they are told of; `None` for what the module does not care about.
pub(super) struct Hooks {
    pub(super) memory: Memory,
    pub(super) allocate: TypedFunc<i32, i32>,
    pub(super) initialize: Option<TypedFunc<(), ()>>,
    pub(super) start: Option<TypedFunc<(), ()>>,
    pub(super) main: Option<TypedFunc<(i32, i32), i32>>,
    pub(super) context_create: Option<TypedFunc<(i32, i32), ()>>,
    pub(super) vm_start: Option<TypedFunc<(i32, i32), i32>>,
    pub(super) configure: Option<TypedFunc<(i32, i32), i32>>,
    pub(super) request_headers: Option<Headers>,
    pub(super) response_headers: Option<Headers>,
    request_body: Option<Data>,
    response_body: Option<Data>,
    request_trailers: Option<TypedFunc<(i32, i32), i32>>,
    response_trailers: Option<TypedFunc<(i32, i32), i32>>,
    pub(super) new_connection: Option<TypedFunc<i32, i32>>,
    pub(super) downstream_data: Option<Data>,
    pub(super) upstream_data: Option<Data>,
    pub(super) downstream_close: Option<TypedFunc<(i32, i32), ()>>,
    pub(super) upstream_close: Option<TypedFunc<(i32, i32), ()>>,
    pub(super) log: Option<TypedFunc<i32, ()>>,
    pub(super) done: Option<TypedFunc<i32, i32>>,
    pub(super) delete: Option<TypedFunc<i32, ()>>,
    pub(super) tick: Option<TypedFunc<i32, ()>>,
    pub(super) queue_ready: Option<TypedFunc<(i32, i32), ()>>,
    pub(super) http_call_response: Option<Response>,
    pub(super) grpc_initial_metadata: Option<Event>,
    pub(super) grpc_receive: Option<Event>,
    pub(super) grpc_trailing_metadata: Option<Event>,
    pub(super) grpc_close: Option<Event>,
}

type Data = TypedFunc<(i32, i32, i32), i32>;
type Response = TypedFunc<(i32, i32, i32, i32, i32), ()>;
type Event = TypedFunc<(i32, i32, i32), ()>;

/// ABI 0.1.0 does not say whether headers are all that there is.
#[derive(Clone)]
pub(super) enum Headers {
    WithEnd(Data),
    Without(TypedFunc<(i32, i32), i32>),
}

impl Hooks {
    pub(super) fn of(instance: &Instance, store: &mut Store<State>) -> Result<Self, Error> {
        let memory = instance.get_memory(&mut *store, "memory").ok_or(Error::Memory)?;
        let mut find = Find { instance, store };
        let allocate = match find.function("proxy_on_memory_allocate")? {
            Some(allocate) => allocate,
            None => find.function("malloc")?.ok_or(Error::Memory)?,
        };
        Ok(Self {
            memory,
            allocate,
            initialize: find.function("_initialize")?,
            start: find.function("_start")?,
            // A C function of this name may have any form: only the usual one is called.
            main: find.function("main").unwrap_or_default(),
            context_create: find.function("proxy_on_context_create")?,
            vm_start: find.function("proxy_on_vm_start")?,
            configure: find.function("proxy_on_configure")?,
            request_headers: find.headers("proxy_on_request_headers")?,
            response_headers: find.headers("proxy_on_response_headers")?,
            request_body: find.function("proxy_on_request_body")?,
            response_body: find.function("proxy_on_response_body")?,
            request_trailers: find.function("proxy_on_request_trailers")?,
            response_trailers: find.function("proxy_on_response_trailers")?,
            new_connection: find.function("proxy_on_new_connection")?,
            downstream_data: find.function("proxy_on_downstream_data")?,
            upstream_data: find.function("proxy_on_upstream_data")?,
            downstream_close: find.function("proxy_on_downstream_connection_close")?,
            upstream_close: find.function("proxy_on_upstream_connection_close")?,
            log: find.function("proxy_on_log")?,
            done: find.function("proxy_on_done")?,
            delete: find.function("proxy_on_delete")?,
            tick: find.function("proxy_on_tick")?,
            queue_ready: find.function("proxy_on_queue_ready")?,
            http_call_response: find.function("proxy_on_http_call_response")?,
            grpc_initial_metadata: find.function("proxy_on_grpc_receive_initial_metadata")?,
            grpc_receive: find.function("proxy_on_grpc_receive")?,
            grpc_trailing_metadata: find.function("proxy_on_grpc_receive_trailing_metadata")?,
            grpc_close: find.function("proxy_on_grpc_close")?,
        })
    }

    pub(super) fn body(&self, peer: Peer) -> Option<&Data> {
        match peer {
            Peer::Downstream => self.request_body.as_ref(),
            Peer::Upstream => self.response_body.as_ref(),
        }
    }

    pub(super) fn trailers(&self, peer: Peer) -> Option<&TypedFunc<(i32, i32), i32>> {
        match peer {
            Peer::Downstream => self.request_trailers.as_ref(),
            Peer::Upstream => self.response_trailers.as_ref(),
        }
    }
}

struct Find<'a> {
    instance: &'a Instance,
    store: &'a mut Store<State>,
}

impl Find<'_> {
    fn function<P: WasmParams, R: WasmResults>(
        &mut self,
        name: &'static str,
    ) -> Result<Option<TypedFunc<P, R>>, Error> {
        let Some(function) = self.instance.get_func(&mut *self.store, name) else { return Ok(None) };
        let typed = function.typed(&*self.store);
        typed.map(Some).map_err(|error| Error::Export(name, format!("{error:#}")))
    }

    fn headers(&mut self, name: &'static str) -> Result<Option<Headers>, Error> {
        let Some(function) = self.instance.get_func(&mut *self.store, name) else { return Ok(None) };
        if function.ty(&*self.store).params().len() == 2 {
            return Ok(self.function(name)?.map(Headers::Without));
        }
        Ok(self.function(name)?.map(Headers::WithEnd))
    }
}
