//! What modules ask of the proxy.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base::task::Supervised;
use bytes::Bytes;
use hashbrown::HashMap;
use rand::RngCore as _;
use sail_proxy_wasm::{GrpcCall, Host, HttpCall, LogLevel, MetricKind, QueueReady, Status};
use tokio::sync::mpsc;
use tracing::level_filters::LevelFilter;

use super::plugin::Running;
use super::{call, grpc, metrics, property};
use crate::worker::state::Worker;

thread_local! {
    static WORKER: RefCell<Weak<Worker>> = RefCell::default();
}

/// Says which worker this thread is.
pub(crate) fn attach(worker: &Rc<Worker>) {
    WORKER.set(Rc::downgrade(worker));
}

/// This thread's worker.
pub(super) fn worker() -> Option<Rc<Worker>> {
    WORKER.with_borrow(Weak::upgrade)
}

fn log(source: &str, level: LogLevel, message: &str) {
    match level {
        LogLevel::Trace => tracing::trace!("wasm log{source}: {message}"),
        LogLevel::Debug => tracing::debug!("wasm log{source}: {message}"),
        LogLevel::Info => tracing::info!("wasm log{source}: {message}"),
        LogLevel::Warn => tracing::warn!("wasm log{source}: {message}"),
        LogLevel::Error | LogLevel::Critical => tracing::error!("wasm log{source}: {message}"),
    }
}

fn log_level() -> LogLevel {
    match LevelFilter::current().into_level() {
        Some(tracing::Level::TRACE) => LogLevel::Trace,
        Some(tracing::Level::DEBUG) => LogLevel::Debug,
        Some(tracing::Level::INFO) => LogLevel::Info,
        Some(tracing::Level::WARN) => LogLevel::Warn,
        Some(tracing::Level::ERROR) => LogLevel::Error,
        None => LogLevel::Critical,
    }
}

fn time() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn monotonic() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// What a VM has under way on its worker.
#[derive(Default)]
pub(super) struct Tasks {
    /// Where answers go.
    pub(super) running: RefCell<Weak<Running>>,
    ticks: RefCell<HashMap<u32, Supervised<()>>>,
    pub(super) calls: RefCell<HashMap<u32, Supervised<()>>>,
    pub(super) streams: RefCell<HashMap<u32, grpc::Handle>>,
}

impl Tasks {
    /// Nothing of it comes to an end.
    pub(super) fn stop(&self) {
        self.ticks.take();
        self.calls.take();
        self.streams.take();
    }

    /// The call is over. It may be the very task that we are in: it must not wait for anything any more.
    pub(super) fn forget(&self, token: u32) {
        let call = self.calls.borrow_mut().remove(&token);
        drop(call);
    }
}

/// The host of a worker's VM.
pub(super) struct WorkerHost {
    pub(super) tasks: Rc<Tasks>,
    pub(super) queues: mpsc::UnboundedSender<(u32, u32)>,
    pub(super) metrics: metrics::Metrics,
}

impl Host for WorkerHost {
    fn log(&self, source: &str, level: LogLevel, message: &str) {
        log(source, level, message);
    }

    fn log_level(&self) -> LogLevel {
        log_level()
    }

    fn time(&self) -> u64 {
        time()
    }

    fn monotonic(&self) -> u64 {
        monotonic()
    }

    fn random(&self, bytes: &mut [u8]) {
        rand::rng().fill_bytes(bytes);
    }

    fn set_tick_period(&self, root: u32, period: Duration) {
        if period.is_zero() {
            // The tick that asks for it is the last one.
            let ticks = self.tasks.ticks.borrow_mut().remove(&root);
            drop(ticks);
            return;
        }
        let tasks = Rc::downgrade(&self.tasks);
        let ticks = Supervised::spawn_local(async move {
            loop {
                tokio::time::sleep(period).await;
                let Some(tasks) = tasks.upgrade() else { return };
                let running = tasks.running.borrow().upgrade();
                let Some(running) = running else { return };
                if running.call(|vm| vm.on_tick(root)).is_none() {
                    return;
                }
            }
        });
        self.tasks.ticks.borrow_mut().insert(root, ticks);
    }

    fn queue_ready(&self) -> Option<QueueReady> {
        let queues = self.queues.clone();
        Some(Arc::new(move |context, token| {
            // The VM may be gone.
            let _ = queues.send((context, token));
        }))
    }

    fn define_metric(&self, kind: MetricKind, name: &str) -> Result<u32, Status> {
        self.metrics.define(kind, name)
    }

    fn increment_metric(&self, metric: u32, offset: i64) -> Result<(), Status> {
        self.metrics.increment(metric, offset)
    }

    fn record_metric(&self, metric: u32, value: u64) -> Result<(), Status> {
        self.metrics.record(metric, value)
    }

    fn metric(&self, metric: u32) -> Result<u64, Status> {
        self.metrics.get(metric)
    }

    fn http_call(&self, root: u32, token: u32, call: HttpCall) -> Result<(), Status> {
        let worker = worker().ok_or(Status::InternalFailure)?;
        call::http(&worker, &self.tasks, (root, token), call)
    }

    fn grpc_call(&self, root: u32, token: u32, call: GrpcCall) -> Result<(), Status> {
        let worker = worker().ok_or(Status::InternalFailure)?;
        grpc::open(&worker, &self.tasks, (root, token), call)
    }

    fn grpc_send(&self, token: u32, message: Bytes, end: bool) -> Result<(), Status> {
        let streams = self.tasks.streams.borrow();
        streams.get(&token).ok_or(Status::NotFound)?.send(message, end)
    }

    fn grpc_close(&self, token: u32) -> Result<(), Status> {
        let streams = self.tasks.streams.borrow();
        streams.get(&token).ok_or(Status::NotFound)?.close();
        Ok(())
    }

    fn grpc_cancel(&self, token: u32) -> Result<(), Status> {
        let handle = self.tasks.streams.borrow_mut().remove(&token);
        let call = self.tasks.calls.borrow_mut().remove(&token);
        if handle.is_none() && call.is_none() { Err(Status::NotFound) } else { Ok(()) }
    }

    fn property(&self, path: &[&str]) -> Option<Vec<u8>> {
        property::node(path)
    }

    fn foreign_function(&self, _: &str, _: &[u8]) -> Option<Result<Vec<u8>, Status>> {
        None
    }
}

/// The host of a VM that only shows whether its module starts: calls are never answered, no time passes.
pub(super) struct Canary;

impl Host for Canary {
    fn log(&self, source: &str, level: LogLevel, message: &str) {
        log(source, level, message);
    }

    fn log_level(&self) -> LogLevel {
        log_level()
    }

    fn time(&self) -> u64 {
        time()
    }

    fn monotonic(&self) -> u64 {
        monotonic()
    }

    fn random(&self, bytes: &mut [u8]) {
        rand::rng().fill_bytes(bytes);
    }

    fn set_tick_period(&self, _: u32, _: Duration) {}

    fn queue_ready(&self) -> Option<QueueReady> {
        None
    }

    fn define_metric(&self, _: MetricKind, _: &str) -> Result<u32, Status> {
        Ok(1)
    }

    fn increment_metric(&self, _: u32, _: i64) -> Result<(), Status> {
        Ok(())
    }

    fn record_metric(&self, _: u32, _: u64) -> Result<(), Status> {
        Ok(())
    }

    fn metric(&self, _: u32) -> Result<u64, Status> {
        Ok(0)
    }

    fn http_call(&self, _: u32, _: u32, _: HttpCall) -> Result<(), Status> {
        Ok(())
    }

    fn grpc_call(&self, _: u32, _: u32, _: GrpcCall) -> Result<(), Status> {
        Ok(())
    }

    fn grpc_send(&self, _: u32, _: Bytes, _: bool) -> Result<(), Status> {
        Ok(())
    }

    fn grpc_close(&self, _: u32) -> Result<(), Status> {
        Ok(())
    }

    fn grpc_cancel(&self, _: u32) -> Result<(), Status> {
        Ok(())
    }

    fn property(&self, path: &[&str]) -> Option<Vec<u8>> {
        property::node(path)
    }

    fn foreign_function(&self, _: &str, _: &[u8]) -> Option<Result<Vec<u8>, Status>> {
        None
    }
}
