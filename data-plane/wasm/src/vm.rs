//! One thread's instance of a module: it is made, told of what happens, and failed for good by its first trap.

mod hooks;

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use wasmtime::{Store, StoreLimitsBuilder, TypedFunc, WasmParams, WasmResults};

use crate::Error;
use crate::abi::{DataAction, HeadersAction};
use crate::host::{GrpcEvent, Host, HttpCallResponse, Stream};
use crate::imports::Exit;
use crate::module::Module;
use crate::shared::Shared;
use crate::state::{Brought, Entry, Plugin, State};
use hooks::Hooks;

/// As many ticks ([`crate::tick`]) as a call may take.
const CALL_TICKS: u64 = 50;
/// As many as starting and configuring may take.
const START_TICKS: u64 = 300;
/// As much memory as a VM may have.
const MEMORY: usize = 1024 * 1024 * 1024;

/// What a VM is made with.
pub struct VmOptions {
    /// `vm_id`
    pub vm_id: Box<str>,
    /// `KEY=VALUE`
    pub environment: Vec<String>,
    /// `vm_config.configuration`, as the module reads it.
    pub configuration: Bytes,
    /// What it shares with others of its `vm_id`.
    pub shared: Arc<Shared>,
    /// The proxy.
    pub host: Box<dyn Host>,
}

/// Which side of a request or connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The request, or the client.
    Downstream,
    /// The response, or the server.
    Upstream,
}

/// A stream's number in its VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context(u32);

/// See the module's documentation.
pub struct Vm {
    store: Store<State>,
    hooks: Hooks,
    failed: bool,
}

impl std::fmt::Debug for Vm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vm").field("failed", &self.failed).finish_non_exhaustive()
    }
}

impl Vm {
    /// An instance, with its runtime initialised.
    pub fn new(module: &Module, options: VmOptions) -> Result<Self, Error> {
        let VmOptions { vm_id, environment, configuration, shared, host } = options;
        let limits = StoreLimitsBuilder::new().memory_size(MEMORY).memories(1).instances(1).build();
        let state = State {
            host,
            shared,
            vm_id,
            environment,
            vm_configuration: configuration,
            abi: module.abi,
            capabilities: module.capabilities.clone(),
            limits,
            memory: None,
            allocate: None,
            contexts: HashMap::new(),
            last_context: 0,
            current: 0,
            effective: 0,
            last_token: 0,
            brought: Brought::default(),
            done: Vec::new(),
            lines: Default::default(),
        };
        let mut store = Store::new(module.pre.module().engine(), state);
        store.limiter(|state| &mut state.limits);
        store.set_epoch_deadline(START_TICKS);
        let instance = module.pre.instantiate(&mut store);
        let instance = instance.map_err(|error| trap("(start)", &error))?;
        let hooks = Hooks::of(&instance, &mut store)?;
        let state = store.data_mut();
        state.memory = Some(hooks.memory);
        state.allocate = Some(hooks.allocate.clone());
        let mut vm = Self { store, hooks, failed: false };
        if let Some(initialize) = vm.hooks.initialize.clone() {
            vm.call("_initialize", Some(initialize), (), START_TICKS)?;
            let main = vm.hooks.main.clone();
            vm.call("main", main, (0, 0), START_TICKS)?;
        } else if let Some(start) = vm.hooks.start.clone() {
            vm.call("_start", Some(start), (), START_TICKS)?;
        }
        Ok(vm)
    }

    /// Whether it has failed: it is called no more.
    pub fn is_failed(&self) -> bool {
        self.failed
    }

    /// Starts a plugin: the number of its root context.
    pub fn start(&mut self, plugin: Arc<Plugin>) -> Result<u32, Error> {
        let size = length(self.store.data().vm_configuration.len());
        let configuration = length(plugin.configuration.len());
        let root = self.add(0, plugin, None);
        let create = self.hooks.context_create.clone();
        self.call_in(root, "proxy_on_context_create", create, (root as i32, 0), START_TICKS)?;
        let start = self.hooks.vm_start.clone();
        let started = self.call_in(root, "proxy_on_vm_start", start, (root as i32, size), START_TICKS)?;
        if started == Some(0) {
            self.failed = true;
            return Err(Error::Start);
        }
        let configure = self.hooks.configure.clone();
        let arguments = (root as i32, configuration);
        let configured = self.call_in(root, "proxy_on_configure", configure, arguments, START_TICKS)?;
        if configured == Some(0) {
            self.failed = true;
            return Err(Error::Configure);
        }
        Ok(root)
    }

    /// A context for a request or connection.
    pub fn create(&mut self, root: u32, stream: Rc<dyn Stream>) -> Result<Context, Error> {
        let plugin = match self.store.data().contexts.get(&root) {
            Some(entry) if !self.failed => entry.plugin.clone(),
            _ => return Err(Error::Failed),
        };
        let context = self.add(root, plugin, Some(stream));
        let create = self.hooks.context_create.clone();
        let arguments = (context as i32, root as i32);
        self.call_in(context, "proxy_on_context_create", create, arguments, CALL_TICKS)?;
        Ok(Context(context))
    }

    /// Headers of a request or response.
    pub fn on_headers(
        &mut self,
        context: Context,
        peer: Peer,
        count: usize,
        end: bool,
    ) -> Result<HeadersAction, Error> {
        let (name, hook) = match peer {
            Peer::Downstream => ("proxy_on_request_headers", self.hooks.request_headers.clone()),
            Peer::Upstream => ("proxy_on_response_headers", self.hooks.response_headers.clone()),
        };
        let (id, count, end) = (context.0 as i32, length(count), i32::from(end));
        let answer = match hook {
            None => None,
            Some(hooks::Headers::WithEnd(hook)) => {
                self.call_in(context.0, name, Some(hook), (id, count, end), CALL_TICKS)?
            }
            Some(hooks::Headers::Without(hook)) => {
                self.call_in(context.0, name, Some(hook), (id, count), CALL_TICKS)?
            }
        };
        let entry = self.store.data().contexts.get(&context.0);
        let allow = entry.is_some_and(|entry| entry.plugin.allow_stop_iteration);
        if self.is_answered(context) {
            return Ok(HeadersAction::StopAll);
        }
        Ok(HeadersAction::of(answer.unwrap_or(0), allow))
    }

    /// Whether the module looks at bodies of this side.
    pub fn sees_body(&self, peer: Peer) -> bool {
        self.hooks.body(peer).is_some()
    }

    /// Whether the module looks at trailers of this side.
    pub fn sees_trailers(&self, peer: Peer) -> bool {
        self.hooks.trailers(peer).is_some()
    }

    /// A piece of a body: how many bytes are at hand, and whether it is the last.
    pub fn on_body(
        &mut self,
        context: Context,
        peer: Peer,
        size: usize,
        end: bool,
    ) -> Result<DataAction, Error> {
        let name = match peer {
            Peer::Downstream => "proxy_on_request_body",
            Peer::Upstream => "proxy_on_response_body",
        };
        let arguments = (context.0 as i32, length(size), i32::from(end));
        let hook = self.hooks.body(peer).cloned();
        let answer = self.call_in(context.0, name, hook, arguments, CALL_TICKS)?;
        Ok(self.data_action(context, answer))
    }

    /// Trailers.
    pub fn on_trailers(&mut self, context: Context, peer: Peer, count: usize) -> Result<DataAction, Error> {
        let name = match peer {
            Peer::Downstream => "proxy_on_request_trailers",
            Peer::Upstream => "proxy_on_response_trailers",
        };
        let hook = self.hooks.trailers(peer).cloned();
        let arguments = (context.0 as i32, length(count));
        let answer = self.call_in(context.0, name, hook, arguments, CALL_TICKS)?;
        Ok(self.data_action(context, answer))
    }

    /// A connection has come.
    pub fn on_new_connection(&mut self, context: Context) -> Result<DataAction, Error> {
        let hook = self.hooks.new_connection.clone();
        let answer =
            self.call_in(context.0, "proxy_on_new_connection", hook, context.0 as i32, CALL_TICKS)?;
        Ok(self.data_action(context, answer))
    }

    /// Bytes of a connection.
    pub fn on_data(
        &mut self,
        context: Context,
        peer: Peer,
        size: usize,
        end: bool,
    ) -> Result<DataAction, Error> {
        let (name, hook) = match peer {
            Peer::Downstream => ("proxy_on_downstream_data", self.hooks.downstream_data.clone()),
            Peer::Upstream => ("proxy_on_upstream_data", self.hooks.upstream_data.clone()),
        };
        let arguments = (context.0 as i32, length(size), i32::from(end));
        let answer = self.call_in(context.0, name, hook, arguments, CALL_TICKS)?;
        Ok(self.data_action(context, answer))
    }

    /// A side of a connection was closed, by its peer or by the proxy.
    pub fn on_close(&mut self, context: Context, peer: Peer, by_peer: bool) -> Result<(), Error> {
        let (name, hook) = match peer {
            Peer::Downstream => ("proxy_on_downstream_connection_close", self.hooks.downstream_close.clone()),
            Peer::Upstream => ("proxy_on_upstream_connection_close", self.hooks.upstream_close.clone()),
        };
        let arguments = (context.0 as i32, if by_peer { 2 } else { 1 });
        self.call_in(context.0, name, hook, arguments, CALL_TICKS).map(|_| ())
    }

    /// A stream is over: the module logs it, is done with it and forgets it.
    pub fn end(&mut self, context: Context) -> Result<(), Error> {
        let Context(id) = context;
        let log = self.hooks.log.clone();
        self.call_in(id, "proxy_on_log", log, id as i32, CALL_TICKS)?;
        let done = self.hooks.done.clone();
        let done = self.call_in(id, "proxy_on_done", done, id as i32, CALL_TICKS)?;
        if done == Some(0) {
            if let Some(entry) = self.store.data_mut().contexts.get_mut(&id) {
                entry.lingers = true;
            }
            return Ok(());
        }
        self.delete(id)
    }

    /// A context is no more, whether or not the module could be told.
    pub fn forget(&mut self, context: Context) {
        self.store.data_mut().contexts.remove(&context.0);
    }

    /// The period that a root context asked for is over.
    pub fn on_tick(&mut self, root: u32) -> Result<(), Error> {
        let hook = self.hooks.tick.clone();
        self.call_in(root, "proxy_on_tick", hook, root as i32, CALL_TICKS).map(|_| ())
    }

    /// A queue has something.
    pub fn on_queue_ready(&mut self, root: u32, queue: u32) -> Result<(), Error> {
        let hook = self.hooks.queue_ready.clone();
        let arguments = (root as i32, queue as i32);
        self.call_in(root, "proxy_on_queue_ready", hook, arguments, CALL_TICKS).map(|_| ())
    }

    /// An HTTP call has an answer, or none: then the response is empty.
    pub fn on_http_call_response(
        &mut self,
        root: u32,
        token: u32,
        response: HttpCallResponse,
    ) -> Result<(), Error> {
        let (headers, body) = (length(response.headers.len()), length(response.body.len()));
        let arguments = (root as i32, token as i32, headers, body, length(response.trailers.len()));
        self.store.data_mut().brought.response = Some(response);
        let hook = self.hooks.http_call_response.clone();
        let result = self.call_in(root, "proxy_on_http_call_response", hook, arguments, CALL_TICKS);
        self.store.data_mut().brought = Brought::default();
        result.map(|_| ())
    }

    /// A gRPC call or stream brings something.
    pub fn on_grpc_event(&mut self, root: u32, token: u32, event: GrpcEvent) -> Result<(), Error> {
        let (id, call) = (root as i32, token as i32);
        let brought = &mut self.store.data_mut().brought;
        let (name, hook, number) = match event {
            GrpcEvent::InitialMetadata(pairs) => {
                let count = length(pairs.len());
                brought.initial_metadata = Some(pairs);
                ("proxy_on_grpc_receive_initial_metadata", &self.hooks.grpc_initial_metadata, count)
            }
            GrpcEvent::Message(message) => {
                let size = length(message.len());
                brought.message = Some(message);
                ("proxy_on_grpc_receive", &self.hooks.grpc_receive, size)
            }
            GrpcEvent::TrailingMetadata(pairs) => {
                let count = length(pairs.len());
                brought.trailing_metadata = Some(pairs);
                ("proxy_on_grpc_receive_trailing_metadata", &self.hooks.grpc_trailing_metadata, count)
            }
            GrpcEvent::Close(status, message) => {
                brought.status = (status, message);
                ("proxy_on_grpc_close", &self.hooks.grpc_close, status as i32)
            }
        };
        let hook = hook.clone();
        let result = self.call_in(root, name, hook, (id, call, number), CALL_TICKS);
        self.store.data_mut().brought = Brought::default();
        result.map(|_| ())
    }

    fn data_action(&self, context: Context, answer: Option<i32>) -> DataAction {
        if self.is_answered(context) { DataAction::Discard } else { DataAction::of(answer.unwrap_or(0)) }
    }

    fn is_answered(&self, context: Context) -> bool {
        let entry = self.store.data().contexts.get(&context.0);
        entry.and_then(|entry| entry.stream.as_ref()).is_some_and(|stream| stream.is_answered())
    }

    fn add(&mut self, root: u32, plugin: Arc<Plugin>, stream: Option<Rc<dyn Stream>>) -> u32 {
        let state = self.store.data_mut();
        let mut number = state.last_context;
        loop {
            number = number.checked_add(1).unwrap_or(1);
            if !state.contexts.contains_key(&number) {
                break;
            }
        }
        state.last_context = number;
        let root = if root == 0 { number } else { root };
        state.contexts.insert(number, Entry { root, plugin, stream, lingers: false });
        number
    }

    fn delete(&mut self, id: u32) -> Result<(), Error> {
        let delete = self.hooks.delete.clone();
        let result = self.call_in(id, "proxy_on_delete", delete, id as i32, CALL_TICKS);
        self.store.data_mut().contexts.remove(&id);
        result.map(|_| ())
    }

    /// Calls a function for a context; `None` if the module has none.
    fn call_in<P: WasmParams, R: WasmResults>(
        &mut self,
        context: u32,
        name: &'static str,
        hook: Option<TypedFunc<P, R>>,
        arguments: P,
        ticks: u64,
    ) -> Result<Option<R>, Error> {
        if !self.store.data().contexts.contains_key(&context) {
            return Err(Error::Failed);
        }
        let state = self.store.data_mut();
        state.current = context;
        state.effective = 0;
        let result = self.call(name, hook, arguments, ticks);
        let state = self.store.data_mut();
        state.current = 0;
        state.effective = 0;
        for done in std::mem::take(&mut state.done) {
            self.delete(done)?;
        }
        result
    }

    fn call<P: WasmParams, R: WasmResults>(
        &mut self,
        name: &'static str,
        hook: Option<TypedFunc<P, R>>,
        arguments: P,
        ticks: u64,
    ) -> Result<Option<R>, Error> {
        if self.failed {
            return Err(Error::Failed);
        }
        let Some(hook) = hook.filter(|_| self.store.data().capabilities.allows_hook(name)) else {
            return Ok(None);
        };
        self.store.set_epoch_deadline(ticks);
        hook.call(&mut self.store, arguments).map(Some).or_else(|error| {
            if name == "_start" && error.downcast_ref::<Exit>().is_some_and(|exit| exit.0 == 0) {
                return Ok(None);
            }
            self.failed = true;
            Err(trap(name, &error))
        })
    }
}

fn length(length: usize) -> i32 {
    i32::try_from(length).unwrap_or(i32::MAX)
}

fn trap(function: &'static str, error: &wasmtime::Error) -> Error {
    Error::Trap { function, cause: error.root_cause().to_string() }
}
