//! A worker's plugins and the VMs that they run in. Plugins of the same VM configuration share a VM, the same plugin in
//! two filters is one. A VM that fails takes all of its plugins with it; what becomes of requests is each one's own.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use base::task::Supervised;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use sail_proxy_config::wasm::{Code, FailurePolicy, Plugin as Config, Remote};
use sail_proxy_wasm::{Context, Error, Peer, Vm};
use sha2::{Digest as _, Sha256};
use tokio::sync::{Mutex, mpsc};

use super::code::{self, Ready};
use super::host::{Tasks, WorkerHost, worker};
use super::metrics::Metrics;
use crate::callout;
use crate::clock;
use crate::stats::Store;
use crate::stats::sets::{wasm as stats, wasm_all, wasm_plugin};
use crate::worker::state::Worker;

/// After a module could not be fetched, it is not asked for again for so long.
const FETCH_PAUSE: Duration = Duration::from_secs(10);

thread_local! {
    static PLUGINS: RefCell<Vec<Weak<Plugin>>> = RefCell::default();
    static VMS: RefCell<Vec<Weak<Running>>> = RefCell::default();
}

/// A VM of this worker.
pub(crate) struct Running {
    key: Arc<str>,
    vm: RefCell<Vm>,
    tasks: Rc<Tasks>,
    failed: Cell<bool>,
    /// Those who wait for the module, and would wait in vain once it failed.
    waiting: RefCell<Vec<Weak<dyn Wake>>>,
    sees: [(bool, bool); 2],
    stats: stats::Scope,
    all: wasm_all::Scope,
    _queues: Supervised<()>,
}

/// Somebody who waits for a module.
pub(crate) trait Wake {
    /// Something may have changed.
    fn wake(&self);
}

/// One side of a stream, as it waits.
#[derive(Default)]
pub(crate) struct Turn(RefCell<Option<Waker>>);

impl Turn {
    /// Whom to wake.
    pub(crate) fn wait(&self, waker: &Waker) {
        self.0.replace(Some(waker.clone()));
    }

    /// Wakes whoever waits.
    pub(crate) fn wake(&self) {
        if let Some(waker) = self.0.take() {
            waker.wake();
        }
    }
}

impl Running {
    fn start(config: &Config, ready: &Ready, store: &Arc<Store>) -> Result<Rc<Self>, Error> {
        let tasks: Rc<Tasks> = Rc::default();
        let (give, mut queues) = mpsc::unbounded_channel();
        let host = WorkerHost { tasks: tasks.clone(), queues: give, metrics: Metrics::new(store) };
        let vm = Vm::new(&ready.module, code::options(config, Box::new(host)))?;
        let stats: stats::Scope = store.scope(config.vm.runtime);
        stats.inc(stats::created);
        stats.move_by(stats::active, 1);
        let all: wasm_all::Scope = store.scope("");
        all.move_by(wasm_all::wasm_vm_count, 1);
        let of_queue = tasks.clone();
        let sees =
            [Peer::Downstream, Peer::Upstream].map(|peer| (vm.sees_body(peer), vm.sees_trailers(peer)));
        let running = Rc::new(Self {
            key: ready.key.clone(),
            vm: RefCell::new(vm),
            tasks: tasks.clone(),
            failed: Cell::new(false),
            waiting: RefCell::default(),
            sees,
            stats,
            all,
            _queues: Supervised::spawn_local(async move {
                while let Some((context, token)) = queues.recv().await {
                    let running = of_queue.running.borrow().upgrade();
                    let Some(running) = running else { return };
                    running.call(|vm| vm.on_queue_ready(context, token));
                }
            }),
        });
        tasks.running.replace(Rc::downgrade(&running));
        Ok(running)
    }

    /// Calls the module; `None` if it failed, now or before.
    pub(crate) fn call<T>(&self, call: impl FnOnce(&mut Vm) -> Result<T, Error>) -> Option<T> {
        if self.failed.get() {
            return None;
        }
        // A module is not called while it calls.
        let mut vm = self.vm.try_borrow_mut().ok()?;
        let result = call(&mut vm);
        clock::passed();
        let failed = vm.is_failed();
        drop(vm);
        if failed {
            self.fail();
        }
        match result {
            Ok(value) => Some(value),
            Err(Error::Failed) => None,
            Err(error) => {
                tracing::error!("wasm VM failed: {error}");
                None
            }
        }
    }

    /// Whether the module looks at bodies and at trailers of this side.
    pub(crate) fn sees(&self, peer: Peer) -> (bool, bool) {
        match peer {
            Peer::Downstream => self.sees[0],
            Peer::Upstream => self.sees[1],
        }
    }

    /// A stream is over.
    pub(crate) fn end(&self, context: Context) {
        if self.call(|vm| vm.end(context)).is_none()
            && let Ok(mut vm) = self.vm.try_borrow_mut()
        {
            vm.forget(context);
        }
    }

    fn fail(&self) {
        if self.failed.replace(true) {
            return;
        }
        self.tasks.stop();
        for waiting in self.waiting.take().iter().filter_map(Weak::upgrade) {
            waiting.wake();
        }
    }

    pub(crate) fn is_failed(&self) -> bool {
        self.failed.get()
    }

    /// Wakes this one too when the VM fails.
    pub(crate) fn watch(&self, waiting: Weak<dyn Wake>) {
        let mut all = self.waiting.borrow_mut();
        if all.len() == all.capacity() {
            all.retain(|waiting| waiting.strong_count() > 0);
        }
        all.push(waiting);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stats.move_by(stats::active, -1);
        self.all.move_by(wasm_all::wasm_vm_count, -1);
    }
}

/// What a plugin is at.
enum State {
    /// Nobody has asked for it, or its module is not here yet.
    Idle,
    Running(Rc<Running>, u32),
    /// It did not start, or could not be fetched.
    Failed,
}

/// A plugin of this worker.
pub(crate) struct Plugin {
    config: Arc<Config>,
    store: Arc<Store>,
    stats: wasm_plugin::Scope,
    state: RefCell<State>,
    /// The module, once it is here.
    ready: RefCell<Option<Ready>>,
    /// One fetch at a time; those who wait share its result.
    turn: Mutex<()>,
    /// Not before this is anything tried again.
    not_before: Cell<Option<Instant>>,
}

/// What a plugin is for a request.
pub(crate) enum Use {
    /// It sees it.
    With(Rc<Running>, u32),
    /// Its module has to be fetched first.
    Wait,
    /// It lets it pass.
    Bypass,
    /// It refuses it.
    Refuse,
}

impl Plugin {
    /// The plugin of a filter; one that is there already is shared.
    pub(crate) fn of(config: &Arc<Config>, store: &Arc<Store>) -> Rc<Self> {
        let plugin = PLUGINS.with_borrow_mut(|known| {
            known.retain(|plugin| plugin.strong_count() > 0);
            let same = known.iter().filter_map(Weak::upgrade).find(|plugin| plugin.is_same(config));
            same.unwrap_or_else(|| {
                let plugin = Rc::new(Self {
                    config: config.clone(),
                    store: store.clone(),
                    stats: store.scope(&config.name),
                    state: RefCell::new(State::Idle),
                    ready: RefCell::default(),
                    turn: Mutex::new(()),
                    not_before: Cell::default(),
                });
                known.push(Rc::downgrade(&plugin));
                plugin
            })
        });
        plugin.begin();
        plugin
    }

    fn is_same(&self, config: &Arc<Config>) -> bool {
        let own = &self.config;
        let same_code = match (&own.vm.code, &config.vm.code) {
            (Code::Local(own), Code::Local(other)) => {
                match (own.0.downcast_ref::<Ready>(), other.0.downcast_ref::<Ready>()) {
                    (Some(own), Some(other)) => own.key == other.key,
                    _ => Arc::ptr_eq(&own.0, &other.0),
                }
            }
            (Code::Remote(own), Code::Remote(other)) => own.sha256 == other.sha256,
            _ => false,
        };
        same_code
            && own.name == config.name
            && own.root_id == config.root_id
            && own.configuration == config.configuration
            && own.failure_policy == config.failure_policy
            && own.allow_stop_iteration == config.allow_stop_iteration
            && own.vm.id == config.vm.id
            && own.vm.configuration == config.vm.configuration
            && own.vm.environment == config.vm.environment
            && own.vm.capabilities == config.vm.capabilities
    }

    /// Starts it before the first request comes.
    fn begin(self: &Rc<Self>) {
        if !matches!(*self.state.borrow(), State::Idle) {
            return;
        }
        match &self.config.vm.code {
            Code::Local(_) => {
                self.current();
            }
            Code::Remote(_) => {
                let Some(worker) = worker() else { return };
                let plugin = self.clone();
                tokio::task::spawn_local(async move { plugin.fetched(&worker).await });
            }
        }
    }

    /// Whether requests pass where it cannot be run.
    pub(crate) fn fails_open(&self) -> bool {
        self.config.failure_policy == FailurePolicy::Open
    }

    /// What becomes of requests if it cannot be run.
    fn failed(&self) -> Use {
        match self.config.failure_policy {
            FailurePolicy::Open => Use::Bypass,
            _ => Use::Refuse,
        }
    }

    /// What it is for a request that comes now.
    pub(crate) fn current(&self) -> Use {
        match &*self.state.borrow() {
            State::Running(running, root) if !running.is_failed() => {
                return Use::With(running.clone(), *root);
            }
            State::Failed if self.waits() || matches!(self.config.vm.code, Code::Local(_)) => {
                return self.failed();
            }
            State::Failed => return Use::Wait,
            _ => {}
        }
        let reload = matches!(*self.state.borrow(), State::Running(..));
        if reload {
            let FailurePolicy::Reload(pause) = self.config.failure_policy else { return self.failed() };
            if self.waits() {
                self.stats.inc(wasm_plugin::vm_reload_backoff);
                return self.failed();
            }
            self.not_before.set(Some(Instant::now() + pause));
            self.stats.inc(wasm_plugin::vm_reload);
            let reloaded = self.start();
            self.stats.inc(match reloaded {
                Use::With(..) => wasm_plugin::vm_reload_success,
                _ => wasm_plugin::vm_reload_failure,
            });
            return reloaded;
        }
        self.start()
    }

    fn waits(&self) -> bool {
        self.not_before.get().is_some_and(|at| Instant::now() < at)
    }

    fn module(&self) -> Option<Ready> {
        match &self.config.vm.code {
            Code::Local(loaded) => loaded.0.downcast_ref::<Ready>().cloned(),
            Code::Remote(_) => self.ready.borrow().clone(),
        }
    }

    fn start(&self) -> Use {
        let Some(ready) = self.module() else {
            return match self.config.vm.code {
                Code::Local(_) => self.failed(),
                Code::Remote(_) => Use::Wait,
            };
        };
        match self.start_in(&ready) {
            Ok((running, root)) => {
                self.state.replace(State::Running(running.clone(), root));
                Use::With(running, root)
            }
            Err(error) => {
                tracing::error!("wasm plugin {:?} does not start: {error}", self.config.name);
                if !matches!(*self.state.borrow(), State::Running(..)) {
                    self.state.replace(State::Failed);
                }
                self.failed()
            }
        }
    }

    /// Starts it in the VM that others run in, or in one of its own.
    fn start_in(&self, ready: &Ready) -> Result<(Rc<Running>, u32), Error> {
        let same = VMS.with_borrow_mut(|vms| {
            vms.retain(|vm| vm.strong_count() > 0);
            let mut alive = vms.iter().filter_map(Weak::upgrade);
            alive.find(|vm| vm.key == ready.key && !vm.is_failed())
        });
        let running = match same {
            Some(running) => running,
            None => {
                let running = Running::start(&self.config, ready, &self.store)?;
                VMS.with_borrow_mut(|vms| vms.push(Rc::downgrade(&running)));
                running
            }
        };
        let root = running.vm.borrow_mut().start(code::root(&self.config));
        if running.vm.borrow().is_failed() {
            running.fail();
        }
        Ok((running, root?))
    }

    /// The same as [`Plugin::current`], once the module is here.
    pub(crate) async fn fetched(&self, worker: &Rc<Worker>) -> Use {
        let Code::Remote(remote) = &self.config.vm.code else { return self.current() };
        let _turn = self.turn.lock().await;
        match self.current() {
            Use::Wait => {}
            there => return there,
        }
        let stats: wasm_all::Scope = self.store.scope("");
        match self.fetch(worker, remote, &stats).await {
            Ok(ready) => {
                self.ready.replace(Some(ready));
                self.state.replace(State::Idle);
                self.start()
            }
            Err(error) => {
                tracing::error!("the module of wasm plugin {:?}: {error}", self.config.name);
                self.state.replace(State::Failed);
                self.not_before.set(Some(Instant::now() + FETCH_PAUSE));
                self.failed()
            }
        }
    }

    async fn fetch(
        &self,
        worker: &Rc<Worker>,
        remote: &Remote,
        stats: &wasm_all::Scope,
    ) -> Result<Ready, String> {
        stats.inc(wasm_all::remote_load_cache_misses);
        let mut tries = 0;
        let bytes = loop {
            match self.ask(worker, remote).await {
                Ok(bytes) => break bytes,
                Err(error) if tries >= remote.retries => {
                    stats.inc(wasm_all::remote_load_fetch_failures);
                    return Err(error);
                }
                Err(_) => tries += 1,
            }
            tokio::time::sleep(remote.pause).await;
        };
        stats.inc(wasm_all::remote_load_fetch_successes);
        let config = self.config.clone();
        let compiled = tokio::task::spawn_blocking(move || code::ready(&config, &bytes)).await;
        compiled.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    async fn ask(&self, worker: &Rc<Worker>, remote: &Remote) -> Result<Bytes, String> {
        let head = callout::head(&remote.target, Method::GET, HeaderMap::new());
        let answer = super::call::fetch(worker, &remote.target, head).await;
        let answer = answer.map_err(|error| format!("it cannot be fetched: {error}"))?;
        if answer.status() != StatusCode::OK {
            return Err(format!("it cannot be fetched: HTTP status {}", answer.status()));
        }
        let bytes = answer.into_body();
        let hash = hex::encode(Sha256::digest(&bytes));
        if hash != *remote.sha256 {
            return Err(format!("its SHA-256 is {hash}, not {}", remote.sha256));
        }
        Ok(bytes)
    }
}
