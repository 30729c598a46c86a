//! How many connections are taken: by a listener, by the process, and in a time. Limits hold across workers.

use std::any::Any;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use hashbrown::HashMap;
use parking_lot::Mutex;
use sail_proxy_decide::fraction::Runtime;
use sail_proxy_decide::rate_limit::{TokenBucket, TokenBucketConfig};

use super::Listener;
use crate::stats::sets::listener as stats;
use crate::worker::Shared;
use crate::worker::state::Worker;

/// A connection's places under its listener's and the process' limits; dropped, they are free.
pub(crate) struct Place {
    shared: Arc<Shared>,
    listener: Arc<AtomicUsize>,
    global: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.connections.fetch_sub(1, Relaxed);
        self.listener.fetch_sub(1, Relaxed);
        if self.global {
            self.shared.limited_connections.fetch_sub(1, Relaxed);
        }
    }
}

/// A place for a new connection, unless there are too many.
pub(crate) fn admit(worker: &Worker, listener: &Rc<Listener>) -> Option<Place> {
    let shared = &worker.shared;
    let config = &listener.config;
    let overload = &shared.options.overload;
    if overload.rejects_connections() && !config.bypass_overload_manager {
        listener.stats.inc(stats::downstream_cx_overload_reject);
        return None;
    }
    let open = listener.open.fetch_add(1, Relaxed);
    shared.connections.fetch_add(1, Relaxed);
    let global = !config.ignore_global_conn_limit;
    let all = if global { shared.limited_connections.fetch_add(1, Relaxed) } else { 0 };
    let place = Place { shared: shared.clone(), listener: listener.open.clone(), global };
    let runtime = worker.runtime();
    if open as u64 >= runtime.integer_or(&listener.limit_key, u64::MAX) {
        listener.stats.inc(stats::downstream_cx_overflow);
        return None;
    }
    if global {
        let max = runtime.integer_or("overload.global_downstream_max_connections", u64::MAX);
        if all as u64 >= max.min(overload.max_connections()) {
            listener.stats.inc(stats::downstream_global_cx_overflow);
            return None;
        }
    }
    Some(place)
}

/// A bucket, and the configuration that has it.
type Owned = (Arc<dyn Any + Send + Sync>, TokenBucket);

/// Token buckets that all workers share, by the configuration or by the key that has them.
#[derive(Default)]
pub(crate) struct Buckets {
    by_config: Mutex<HashMap<usize, Owned>>,
    by_key: Mutex<HashMap<Arc<str>, TokenBucket>>,
}

impl Buckets {
    /// A token of the bucket that belongs to this configuration alone.
    pub(crate) fn take<T: Any + Send + Sync>(&self, config: &Arc<T>, bucket: TokenBucketConfig) -> bool {
        let mut buckets = self.by_config.lock();
        // Configurations that nobody else holds are of the past.
        if buckets.len() == buckets.capacity() {
            buckets.retain(|_, (config, _)| Arc::strong_count(config) > 1);
        }
        let now = elapsed();
        let key = Arc::as_ptr(config) as usize;
        let entry = buckets
            .entry(key)
            .or_insert_with(|| (config.clone() as Arc<dyn Any + Send + Sync>, TokenBucket::new(bucket, now)));
        entry.1.take(now)
    }

    /// A token of the bucket with this key.
    pub(crate) fn take_shared(&self, key: &Arc<str>, bucket: TokenBucketConfig) -> bool {
        let now = elapsed();
        let mut buckets = self.by_key.lock();
        buckets.entry(key.clone()).or_insert_with(|| TokenBucket::new(bucket, now)).take(now)
    }
}

/// Time since the first bucket.
fn elapsed() -> std::time::Duration {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}
