//! Files that logs go to. A worker writes into a buffer of its own; one thread takes the buffers to the file, at an
//! interval or when one of them is large. A file that cannot be written loses lines, which are counted; it never holds
//! a request up.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::{Condvar, Mutex};
use tokio::sync::mpsc;

use super::service::{self, Running, Service};
use crate::runtime::Values;
use crate::stats::sets::filesystem as stat;
use crate::stats::{self, Store};

/// A buffer of this size is written without waiting for the interval.
const LARGE: usize = 64 * 1024;
/// A buffer of this size takes nothing more.
const FULL: usize = 8 * 1024 * 1024;

/// A file. One a path, however many logs go there.
#[derive(Debug)]
pub struct Sink {
    path: Arc<str>,
    /// One a worker, and one for everybody else. The lock is the writer's and the flushing thread's alone, so it is
    /// practically never contended.
    buffers: Box<[Mutex<String>]>,
    flusher: Arc<Flusher>,
    stats: stat::Scope,
}

#[derive(Debug, Default)]
struct Flusher {
    wanted: Mutex<bool>,
    bell: Condvar,
    stop: AtomicBool,
}

/// All sinks of the process.
#[derive(Debug)]
pub struct Sinks {
    sinks: Mutex<HashMap<Arc<str>, Weak<Sink>>>,
    flusher: Arc<Flusher>,
    reopen: AtomicBool,
    stats: stat::Scope,
    runtime: Arc<Values>,
    services: Mutex<HashMap<String, Weak<Service>>>,
    started: mpsc::UnboundedSender<Running>,
    node: Vec<(String, serde_json::Value)>,
    counted: Arc<Store>,
}

impl Sink {
    /// Appends a line.
    pub fn write(&self, line: impl FnOnce(&mut String)) {
        let slot = stats::shard();
        let mut buffer = self.buffers[if slot < self.buffers.len() { slot } else { 0 }].lock();
        if buffer.len() >= FULL {
            self.stats.inc(stat::write_failed);
            return;
        }
        let before = buffer.len();
        line(&mut buffer);
        self.stats.inc(stat::write_buffered);
        if before < LARGE && buffer.len() >= LARGE {
            drop(buffer);
            self.flusher.ring();
        }
    }

    /// Moves what is buffered into `out`.
    fn take(&self, out: &mut Vec<u8>) {
        for buffer in &self.buffers {
            let mut buffer = buffer.lock();
            out.extend_from_slice(buffer.as_bytes());
            buffer.clear();
            buffer.shrink_to(2 * LARGE);
        }
    }
}

impl Flusher {
    fn ring(&self) {
        *self.wanted.lock() = true;
        self.bell.notify_one();
    }
}

impl Sinks {
    /// None yet, and the thread that will write them. What comes back besides is to be run by the main thread. `node` is
    /// what OpenTelemetry's records say of us.
    pub fn start(
        store: &Arc<Store>,
        interval: Duration,
        runtime: Arc<Values>,
        node: Vec<(String, serde_json::Value)>,
    ) -> io::Result<(Arc<Self>, mpsc::UnboundedReceiver<Running>)> {
        let (started, services) = mpsc::unbounded_channel();
        let sinks = Arc::new(Self {
            sinks: Mutex::default(),
            flusher: Arc::default(),
            reopen: AtomicBool::new(false),
            stats: store.pinned(""),
            runtime,
            services: Mutex::default(),
            started,
            node,
            counted: store.clone(),
        });
        let thread = Arc::downgrade(&sinks);
        let flusher = sinks.flusher.clone();
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .stack_size(128 * 1024)
            .spawn(move || flush_all(&thread, &flusher, interval))?;
        Ok((sinks, services))
    }

    /// The runtime's values, which filters of logs read.
    pub fn runtime(&self) -> &Arc<Values> {
        &self.runtime
    }

    /// What OpenTelemetry's records say of us.
    pub(super) fn node(&self) -> &[(String, serde_json::Value)] {
        &self.node
    }

    /// The service of this configuration.
    pub(super) fn service(&self, config: service::Config) -> Arc<Service> {
        let key = config.key();
        let mut services = self.services.lock();
        if let Some(service) = services.get(&key).and_then(Weak::upgrade) {
            return service;
        }
        services.retain(|_, service| service.strong_count() > 0);
        let prefix = match &config.to {
            service::Destination::Als { .. } => "access_logs.grpc_access_log",
            service::Destination::Otlp { .. } => "access_logs.open_telemetry_access_log",
        };
        let counters = service::Counters {
            written: self.counted.counter(&format!("{prefix}.logs_written")),
            dropped: self.counted.counter(&format!("{prefix}.logs_dropped")),
        };
        let (service, running) = service::open(config, counters);
        // Without a main thread there is nobody to send; entries are dropped then.
        let _ = self.started.send(running);
        let service = Arc::new(service);
        services.insert(key, Arc::downgrade(&service));
        service
    }

    /// The sink for a path.
    pub fn get(&self, path: &str) -> Arc<Sink> {
        let mut sinks = self.sinks.lock();
        if let Some(sink) = sinks.get(path).and_then(Weak::upgrade) {
            return sink;
        }
        sinks.retain(|_, sink| sink.strong_count() > 0);
        let path: Arc<str> = path.into();
        let buffers = (0..stats::shards()).map(|_| Mutex::default()).collect();
        let (flusher, stats) = (self.flusher.clone(), self.stats.clone());
        let sink = Arc::new(Sink { path: path.clone(), buffers, flusher, stats });
        sinks.insert(path, Arc::downgrade(&sink));
        sink
    }

    /// Opens files anew, after somebody moved them away.
    pub fn reopen(&self) {
        self.reopen.store(true, Ordering::Relaxed);
        self.flusher.ring();
    }

    /// Writes what is buffered, now, on the calling thread: for the end of the process.
    pub fn flush(&self) {
        self.flush_into(&mut HashMap::new());
    }

    fn flush_into(&self, files: &mut HashMap<Arc<str>, File>) {
        let sinks: Vec<Arc<Sink>> = self.sinks.lock().values().filter_map(Weak::upgrade).collect();
        if self.reopen.swap(false, Ordering::Relaxed) {
            files.clear();
        }
        files.retain(|path, _| sinks.iter().any(|sink| sink.path == *path));
        for sink in sinks {
            let mut bytes = Vec::new();
            sink.take(&mut bytes);
            if bytes.is_empty() {
                continue;
            }
            if let Err(error) = write(files, &sink.path, &bytes) {
                self.stats.inc(stat::write_failed);
                tracing::warn!(path = &*sink.path, %error, "cannot write an access log; its lines are lost");
                files.remove(&sink.path);
            } else {
                self.stats.inc(stat::write_completed);
            }
        }
    }
}

impl Drop for Sinks {
    fn drop(&mut self) {
        self.flusher.stop.store(true, Ordering::Relaxed);
        self.flusher.ring();
    }
}

fn write(files: &mut HashMap<Arc<str>, File>, path: &Arc<str>, bytes: &[u8]) -> io::Result<()> {
    match &**path {
        // By path, a redirected file would be written from its start.
        "/dev/stdout" => {
            let mut out = io::stdout().lock();
            return out.write_all(bytes).and_then(|()| out.flush());
        }
        "/dev/stderr" => return io::stderr().lock().write_all(bytes),
        _ => {}
    }
    if !files.contains_key(path) {
        let file = OpenOptions::new().create(true).append(true).open(&**path)?;
        files.insert(path.clone(), file);
    }
    match files.get_mut(path) {
        Some(file) => file.write_all(bytes),
        None => Ok(()),
    }
}

fn flush_all(sinks: &Weak<Sinks>, flusher: &Flusher, interval: Duration) {
    let mut files = HashMap::new();
    while !flusher.stop.load(Ordering::Relaxed) {
        {
            let mut wanted = flusher.wanted.lock();
            if !*wanted {
                flusher.bell.wait_for(&mut wanted, interval);
            }
            *wanted = false;
        }
        let Some(sinks) = sinks.upgrade() else { return };
        sinks.flush_into(&mut files);
    }
}
