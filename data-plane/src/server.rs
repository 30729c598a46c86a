//! The process: its state, its drain, what every part of the main thread shares.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tokio::sync::Notify;
use xds_api::envoy::admin::v3::server_info::State;
use xds_api::envoy::config::core::v3::Node;

use crate::cli::Cli;
use crate::logging::Levels;
use crate::runtime::Runtime;
use crate::stats::sets::{listener_manager, runtime as runtime_stat, server as stat};
use crate::stats::{Rules, Store};
use crate::worker::{Pace, Scope as DrainScope, Workers};

/// How long connections may take to finish when the process is told to end.
const LAST_DRAIN: Duration = Duration::from_secs(5);

/// What the main thread's parts share. Lives as long as the process.
#[derive(Debug)]
pub struct Main {
    /// The command line.
    pub cli: Cli,
    /// The node, complete.
    pub node: Node,
    /// How many workers run.
    pub workers: usize,
    /// All statistics.
    pub stats: Arc<Store>,
    /// How statistics are shown.
    pub rules: Rules,
    /// The log's filter.
    pub log: Option<base::log::Handle>,
    /// The log's levels.
    pub levels: RefCell<Levels>,
    /// The runtime's values.
    pub runtime: RefCell<Runtime>,
    /// When the process began.
    pub started: Instant,
    /// The same, by the calendar.
    pub started_at: SystemTime,
    /// The bootstrap, encoded: it is only shown.
    pub bootstrap: Bytes,
    /// Discovery, once it is set up.
    pub discovery: OnceCell<Rc<crate::xds::Manager>>,
    initialized: Cell<bool>,
    healthy: Cell<bool>,
    /// Whether somebody has ordered a drain.
    draining: Cell<bool>,
    quit: Notify,
    failure: RefCell<Option<String>>,
    server: stat::Scope,
    listeners: listener_manager::Scope,
    runtime_stats: runtime_stat::Scope,
}

/// What a process starts from.
#[derive(Debug)]
#[allow(missing_docs, reason = "the fields are those of Main")]
pub struct Setup {
    pub cli: Cli,
    pub node: Node,
    pub rules: Rules,
    pub runtime: Runtime,
    pub levels: Levels,
    pub log: Option<base::log::Handle>,
    pub bootstrap: Bytes,
}

/// An order to drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// Listeners stop at once; connections stay.
    Stop(DrainScope),
    /// Connections are asked to close; listeners stop after the drain time.
    Graceful(DrainScope),
    /// Connections are asked to close; listeners stay.
    Connections(DrainScope),
}

impl Main {
    /// A process that initializes.
    pub fn new(setup: Setup) -> Rc<Self> {
        let Setup { cli, node, rules, runtime, levels, log, .. } = setup;
        let workers = cli.workers();
        crate::stats::set_workers(workers);
        let stats = Store::new();
        let (server, listeners) = (stats.pinned(""), stats.pinned(""));
        let runtime_stats: runtime_stat::Scope = stats.pinned("");
        runtime_stats.inc(runtime_stat::load_success);
        runtime_stats.inc(runtime_stat::override_dir_not_exists);
        let main = Rc::new(Self {
            cli,
            node,
            workers,
            stats,
            rules,
            log,
            levels: RefCell::new(levels),
            runtime: RefCell::new(runtime),
            started: Instant::now(),
            started_at: SystemTime::now(),
            bootstrap: setup.bootstrap,
            discovery: OnceCell::new(),
            initialized: Cell::new(false),
            healthy: Cell::new(true),
            draining: Cell::new(false),
            quit: Notify::new(),
            failure: RefCell::default(),
            server,
            listeners,
            runtime_stats,
        });
        main.listeners.set(listener_manager::workers_started, 0);
        main.server.set(stat::concurrency, workers as i64);
        main.server.set(stat::hot_restart_epoch, main.cli.restart_epoch.into());
        main.publish_state();
        main
    }

    /// The state that `/ready` and `server.state` tell.
    pub fn state(&self) -> State {
        // As in Envoy, draining listeners alone do not change it: who drains them knows.
        if !self.healthy.get() {
            State::Draining
        } else if self.initialized.get() {
            State::Live
        } else if self.discovery.get().is_some() {
            State::Initializing
        } else {
            State::PreInitializing
        }
    }

    /// Whether it serves and wants more.
    pub fn is_live(&self) -> bool {
        self.state() == State::Live
    }

    /// Workers have the first whole configuration and run.
    pub fn set_initialized(&self) {
        if !self.initialized.replace(true) {
            self.listeners.set(listener_manager::workers_started, 1);
            self.server.record(stat::initialization_time_ms, self.started.elapsed().as_millis() as u64);
            self.publish_state();
            tracing::info!("all dependencies initialized; workers run");
            tokio::task::spawn_local(crate::resident::settle());
        }
    }

    /// `/healthcheck/{fail,ok}`
    pub fn set_healthy(&self, healthy: bool) {
        self.healthy.set(healthy);
        crate::filters::FAILING_HEALTH_CHECKS.store(!healthy, std::sync::atomic::Ordering::Relaxed);
        self.publish_state();
    }

    /// Whether health checks that the proxy answers itself pass.
    pub fn is_healthy(&self) -> bool {
        self.healthy.get()
    }

    /// Starts a drain.
    pub fn drain(self: &Rc<Self>, drain: Drain) {
        self.draining.set(true);
        match drain {
            Drain::Stop(scope) => self.stop_listeners(scope),
            Drain::Connections(scope) => self.close_connections(scope, Pace::Configured),
            Drain::Graceful(scope) => {
                self.close_connections(scope, Pace::Configured);
                let main = self.clone();
                tokio::task::spawn_local(async move {
                    tokio::time::sleep(Duration::from_secs(main.cli.drain_time_s.into())).await;
                    main.stop_listeners(scope);
                });
            }
        }
        self.publish_state();
    }

    /// What is done before the process ends, unless somebody had it drain before: clients are told with their next
    /// response, or at once where HTTP/2 can, and have a while to finish what they do. Who comes meanwhile is served and
    /// told: a socket that closes would reset those that the kernel has accepted already.
    pub async fn last_drain(self: &Rc<Self>) {
        if self.draining.get() {
            return;
        }
        self.draining.set(true);
        // The process has no drain time left to spread it over.
        self.close_connections(DrainScope::All, Pace::AtOnce);
        self.publish_state();
        let end = tokio::time::Instant::now() + LAST_DRAIN;
        let open = || self.discovery.get().map_or(0, |discovery| discovery.parts().workers().connections());
        while open() > 0 && tokio::time::Instant::now() < end {
            tokio::time::sleep(LAST_DRAIN / 250).await;
        }
    }

    /// Ends the process.
    pub fn quit(&self) {
        self.quit.notify_one();
    }

    /// Ends the process with an error: it cannot do what its bootstrap says.
    pub fn fail(&self, reason: String) {
        self.failure.borrow_mut().get_or_insert(reason);
        self.quit.notify_one();
    }

    /// Waits for [`Main::quit`] or [`Main::fail`], and says why it failed, if it did.
    pub async fn quitting(&self) -> Option<String> {
        self.quit.notified().await;
        self.failure.borrow_mut().take()
    }

    /// What initialization waits for.
    pub fn waiting_for(&self) -> Vec<String> {
        self.discovery.get().map(|discovery| discovery.waiting_for()).unwrap_or_default()
    }

    /// Brings gauges that are computed up to date.
    pub fn refresh_stats(&self) {
        let memory = memory();
        let uptime = self.started.elapsed().as_secs() as i64;
        self.server.set(stat::uptime, uptime);
        for gauge in [stat::memory_allocated, stat::memory_heap_size, stat::memory_physical_size] {
            self.server.set(gauge, memory.resident as i64);
        }
        self.refresh_runtime();
        if let Some(discovery) = self.discovery.get() {
            discovery.refresh_stats();
        }
    }

    fn refresh_runtime(&self) {
        let runtime = self.runtime.borrow();
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.runtime_stats.set(runtime_stat::num_keys, count(runtime.keys().len()));
        self.runtime_stats.set(runtime_stat::num_layers, count(runtime.configured()));
        self.runtime_stats.set(runtime_stat::admin_overrides_active, i64::from(runtime.overrides() > 0));
    }

    fn publish_state(&self) {
        self.server.set(stat::state, self.state() as i64);
        self.server.set(stat::live, i64::from(self.is_live()));
    }

    fn with_workers(&self, order: impl FnOnce(&Workers)) {
        if let Some(discovery) = self.discovery.get() {
            order(&discovery.parts().workers());
        }
    }

    fn close_connections(&self, scope: DrainScope, pace: Pace) {
        self.with_workers(|workers| workers.drain(scope, pace));
    }

    fn stop_listeners(&self, scope: DrainScope) {
        self.with_workers(|workers| workers.stop_listening(scope));
    }
}

/// Memory as the kernel counts it, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Resident now.
    pub resident: u64,
    /// Resident at most so far.
    pub peak: u64,
}

/// This process's memory; zeros where /proc is missing.
pub fn memory() -> Memory {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
    };
    Memory { resident: field("VmRSS:").unwrap_or_default(), peak: field("VmHWM:").unwrap_or_default() }
}
