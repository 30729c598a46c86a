//! Statistics that modules define: `wasmcustom.<name>`, one for the process, whoever counts.

use std::cell::RefCell;
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;
use sail_proxy_wasm::{MetricKind, Status};

use crate::stats::sets::{single_counter, single_gauge, single_histogram};
use crate::stats::{Scope, Store};

/// As many as a process may have: names made of requests would be without end.
const MOST: usize = 10_000;

static ALL: Mutex<Option<Known>> = Mutex::new(None);

type Known = HashMap<(MetricKind, Box<str>), Arc<Metric>>;

struct Metric {
    /// What it is at, over all workers.
    value: Mutex<u64>,
    scope: Kind,
}

enum Kind {
    Counter(Scope<single_counter::Set>),
    Gauge(Scope<single_gauge::Set>),
    Histogram(Scope<single_histogram::Set>),
}

/// A VM's statistics, by number.
pub(super) struct Metrics {
    store: Arc<Store>,
    defined: RefCell<Vec<Arc<Metric>>>,
}

impl Metrics {
    pub(super) fn new(store: &Arc<Store>) -> Self {
        Self { store: store.clone(), defined: RefCell::default() }
    }

    pub(super) fn define(&self, kind: MetricKind, name: &str) -> Result<u32, Status> {
        let mut all = ALL.lock();
        let all = all.get_or_insert_default();
        let key = (kind, Box::from(name));
        let metric = match all.get(&key) {
            Some(metric) => metric.clone(),
            None if all.len() >= MOST => return Err(Status::InternalFailure),
            None => {
                let full = format!("wasmcustom.{name}");
                let scope = match kind {
                    MetricKind::Counter => Kind::Counter(self.store.pinned(&full)),
                    MetricKind::Gauge => Kind::Gauge(self.store.pinned(&full)),
                    MetricKind::Histogram => Kind::Histogram(self.store.pinned(&full)),
                };
                let metric = Arc::new(Metric { value: Mutex::new(0), scope });
                all.insert(key, metric.clone());
                metric
            }
        };
        let mut defined = self.defined.borrow_mut();
        let number = match defined.iter().position(|other| Arc::ptr_eq(other, &metric)) {
            Some(place) => place + 1,
            None => {
                defined.push(metric);
                defined.len()
            }
        };
        u32::try_from(number).map_err(|_| Status::InternalFailure)
    }

    fn metric(&self, number: u32) -> Result<Arc<Metric>, Status> {
        let place = (number as usize).checked_sub(1).ok_or(Status::NotFound)?;
        self.defined.borrow().get(place).cloned().ok_or(Status::NotFound)
    }

    pub(super) fn increment(&self, number: u32, offset: i64) -> Result<(), Status> {
        let metric = self.metric(number)?;
        let mut value = metric.value.lock();
        match &metric.scope {
            Kind::Counter(scope) => {
                let offset = u64::try_from(offset).map_err(|_| Status::BadArgument)?;
                scope.add(single_counter::value, offset);
                *value = value.wrapping_add(offset);
            }
            Kind::Gauge(scope) => {
                scope.move_by(single_gauge::value, offset);
                *value = value.wrapping_add_signed(offset);
            }
            Kind::Histogram(_) => return Err(Status::BadArgument),
        }
        Ok(())
    }

    pub(super) fn record(&self, number: u32, now: u64) -> Result<(), Status> {
        let metric = self.metric(number)?;
        match &metric.scope {
            Kind::Counter(_) => return Err(Status::BadArgument),
            Kind::Gauge(scope) => {
                let mut value = metric.value.lock();
                scope.move_by(single_gauge::value, now.wrapping_sub(*value) as i64);
                *value = now;
            }
            Kind::Histogram(scope) => scope.record(single_histogram::value, now),
        }
        Ok(())
    }

    pub(super) fn get(&self, number: u32) -> Result<u64, Status> {
        let metric = self.metric(number)?;
        match &metric.scope {
            Kind::Histogram(_) => Err(Status::BadArgument),
            _ => Ok(*metric.value.lock()),
        }
    }
}
