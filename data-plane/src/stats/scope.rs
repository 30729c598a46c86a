//! One object's statistics: a shard for the main thread, a shard per worker.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};

use super::histogram::{Buckets, Shard as HistogramShard};
use super::sample::{Name, Sample, Value};
use super::schema::{Counter, Gauge, Histogram, Kind, Schema, StatSet, Tag};
use super::traffic::Traffic;
use xxhash_rust::xxh64::xxh64;

thread_local! {
    /// The shard that this thread writes. Shard 0 is everybody's who is not a worker; it alone is written with
    /// read-modify-write operations.
    static SHARD: Cell<usize> = const { Cell::new(0) };
}

static WORKERS: AtomicUsize = AtomicUsize::new(0);

/// How many workers there will be. To be called before the first scope is made; workers beyond this number share the
/// main thread's shard.
pub fn set_workers(workers: usize) {
    WORKERS.store(workers, Relaxed);
}

/// Makes the calling thread the only writer of this worker's shards (workers count from 0).
pub fn attach_worker(worker: usize) {
    SHARD.set(worker + 1);
}

/// The calling thread's shard: 0, or the worker's number counted from 1.
pub fn shard() -> usize {
    SHARD.get()
}

/// How many shards there are.
pub fn shards() -> usize {
    WORKERS.load(Relaxed) + 1
}

/// Status codes that have a place in each scope that counts any; the others get theirs when one is seen.
const CODES: [u16; 45] = [
    100, 101, 103, 200, 201, 202, 203, 204, 206, 207, 300, 301, 302, 303, 304, 307, 308, 400, 401, 402, 403,
    404, 405, 406, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 421, 422, 425, 426, 428, 429, 431, 500,
    501, 502, 503,
];
const MORE_CODES: [u16; 4] = [504, 505, 507, 511];
const CODES_LEN: usize = CODES.len() + MORE_CODES.len();

/// Statistics of one object. Cloning is cheap; the last clone's drop takes it from the store.
pub struct Scope<S> {
    any: AnyScope,
    set: PhantomData<fn() -> S>,
}

/// Does not keep the scope in the store.
pub struct WeakScope<S> {
    inner: Weak<Inner>,
    set: PhantomData<fn() -> S>,
}

impl<S> WeakScope<S> {
    /// The scope, if somebody still holds it.
    pub fn upgrade(&self) -> Option<Scope<S>> {
        Some(Scope { any: AnyScope(self.inner.upgrade()?), set: PhantomData })
    }
}

impl<S> Clone for Scope<S> {
    fn clone(&self) -> Self {
        Self { any: self.any.clone(), set: PhantomData }
    }
}

impl<S> std::fmt::Debug for Scope<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scope({} {})", self.any.0.schema.root, self.any.0.name)
    }
}

impl<S: StatSet> Scope<S> {
    pub(super) fn from_any(any: AnyScope) -> Self {
        Self { any, set: PhantomData }
    }

    /// The object's name.
    pub fn name(&self) -> &str {
        &self.any.0.name
    }

    pub(super) fn shared_name(&self) -> &Arc<str> {
        &self.any.0.name
    }

    /// A handle that does not keep the scope.
    pub fn downgrade(&self) -> WeakScope<S> {
        WeakScope { inner: Arc::downgrade(&self.any.0), set: PhantomData }
    }

    /// Two counters as those of a connection's bytes.
    pub fn traffic(&self, received: Counter<S>, sent: Counter<S>) -> Traffic {
        Traffic::new(self.any.clone(), received.place, sent.place)
    }

    /// Adds one.
    #[inline]
    pub fn inc(&self, counter: Counter<S>) {
        self.add(counter, 1);
    }

    /// Adds to a counter.
    #[inline]
    pub fn add(&self, counter: Counter<S>, n: u64) {
        self.any.add(counter.place, n);
    }

    /// Adds one to the counter whose name is these two parts, if the set has it. It is searched for: for what is rare.
    pub fn inc_named(&self, first: &str, rest: &str) {
        let scalars = S::SCHEMA.scalars;
        let place = scalars.iter().position(|def| def.name.strip_prefix(first) == Some(rest));
        if let Some(place) = place.filter(|place| scalars[*place].kind == Kind::Counter) {
            let (shard, slot) = self.any.shard();
            bump(&shard.scalars[place], slot, 1);
        }
    }

    /// Moves a gauge by a difference.
    #[inline]
    pub fn move_by(&self, gauge: Gauge<S>, delta: i64) {
        let (shard, slot) = self.any.shard();
        let cell = &shard.scalars[usize::from(gauge.place)];
        if cell.load(Relaxed) & USED == 0 {
            bump(cell, slot, USED);
        }
        bump(cell, slot, (delta as u64) << 1);
    }

    /// Sets a gauge that only one thread writes.
    pub fn set(&self, gauge: Gauge<S>, value: i64) {
        let (shard, _) = self.any.shard();
        shard.scalars[usize::from(gauge.place)].store((value as u64) << 1 | USED, Relaxed);
    }

    /// Raises a gauge by one until the guard is dropped, which must happen on the same thread.
    pub fn hold(&self, gauge: Gauge<S>) -> Held<S> {
        self.move_by(gauge, 1);
        Held { scope: self.clone(), gauge }
    }

    /// Records a value.
    #[inline]
    pub fn record(&self, histogram: Histogram<S>, value: u64) {
        let (shard, slot) = self.any.shard();
        let histogram =
            shard.histograms[usize::from(histogram.place)].get_or_init(|| Box::new(HistogramShard::new()));
        bump(histogram.bucket(value), slot, 1);
        bump(&histogram.sum, slot, value);
    }

    /// Counts a response by its status (`upstream_rq_200`); classes are counters of their own.
    #[inline]
    pub fn code(&self, status: u16) {
        let (shard, slot) = self.any.shard();
        let codes = shard.codes.get_or_init(|| Box::new(Codes::new()));
        match code_place(status) {
            Some(place) => bump(&codes.usual[place], slot, 1),
            None => codes.count_rare(status),
        }
    }

    /// A counter's value over all workers.
    pub fn counter(&self, counter: Counter<S>) -> u64 {
        self.any.counter(usize::from(counter.place))
    }

    /// A gauge's value over all workers: a circuit breaker's view.
    pub fn gauge(&self, gauge: Gauge<S>) -> i64 {
        self.any.gauge(usize::from(gauge.place)).0
    }

    /// A histogram over all workers.
    pub fn buckets(&self, histogram: Histogram<S>) -> Buckets {
        self.any.histogram(usize::from(histogram.place))
    }
}

/// A gauge held up by one.
pub struct Held<S: StatSet> {
    scope: Scope<S>,
    gauge: Gauge<S>,
}

impl<S: StatSet> Drop for Held<S> {
    fn drop(&mut self) {
        self.scope.move_by(self.gauge, -1);
    }
}

impl<S: StatSet> std::fmt::Debug for Held<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Held({:?}, {:?})", self.scope, self.gauge)
    }
}

/// A gauge's lowest bit says that it was ever written; the value stands above it.
const USED: u64 = 1;

#[inline]
fn bump(cell: &AtomicU64, slot: usize, n: u64) {
    if slot == 0 {
        cell.fetch_add(n, Relaxed);
    } else {
        // This thread is the only writer of its shard.
        cell.store(cell.load(Relaxed).wrapping_add(n), Relaxed);
    }
}

fn cells(n: usize) -> Box<[AtomicU64]> {
    (0..n).map(|_| AtomicU64::new(0)).collect()
}

fn code_place(status: u16) -> Option<usize> {
    CODES
        .binary_search(&status)
        .ok()
        .or_else(|| MORE_CODES.iter().position(|code| *code == status).map(|place| CODES.len() + place))
}

/// The lowest status that there is, and the highest.
const FIRST_CODE: u16 = 100;
const LAST_CODE: u16 = 999;

/// Responses by status.
struct Codes {
    usual: Box<[AtomicU64]>,
    /// Those that are nobody's habit, by how much they are above [`FIRST_CODE`].
    rare: OnceLock<Box<[AtomicU64]>>,
}

impl Codes {
    fn new() -> Self {
        Self { usual: cells(CODES_LEN), rare: OnceLock::new() }
    }

    #[cold]
    fn count_rare(&self, status: u16) {
        let rare = self.rare.get_or_init(|| cells(usize::from(LAST_CODE - FIRST_CODE) + 1));
        if let Some(count) = status.checked_sub(FIRST_CODE).and_then(|place| rare.get(usize::from(place))) {
            // Not by `bump`: a reset writes here, too.
            count.fetch_add(1, Relaxed);
        }
    }

    /// The rare ones that were counted.
    fn rare(&self) -> impl Iterator<Item = (u16, &AtomicU64)> {
        (FIRST_CODE..).zip(self.rare.get().into_iter().flatten()).filter(|(_, count)| count.load(Relaxed) > 0)
    }
}

struct Shard {
    scalars: Box<[AtomicU64]>,
    histograms: Box<[OnceLock<Box<HistogramShard>>]>,
    codes: OnceLock<Box<Codes>>,
}

struct Inner {
    schema: &'static Schema,
    name: Arc<str>,
    /// What stands in the statistics' names after their first part.
    prefix: Option<Box<str>>,
    shards: Box<[OnceLock<Box<Shard>>]>,
    /// What counters read when they were last reset.
    baseline: OnceLock<Box<[AtomicU64]>>,
}

/// A scope without its set's type.
#[derive(Clone)]
pub(super) struct AnyScope(Arc<Inner>);

impl AnyScope {
    /// Adds to the counter at a place of the schema.
    #[inline]
    pub(super) fn add(&self, place: u16, n: u64) {
        let (shard, slot) = self.shard();
        bump(&shard.scalars[usize::from(place)], slot, n);
    }

    pub(super) fn new(schema: &'static Schema, name: Arc<str>, prefix: Option<Box<str>>) -> Self {
        let shards = (0..=WORKERS.load(Relaxed)).map(|_| OnceLock::new()).collect();
        Self(Arc::new(Inner { schema, name, prefix, shards, baseline: OnceLock::new() }))
    }

    /// Whether anybody but the store holds it.
    pub(super) fn is_held(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    pub(super) fn order(&self) -> (&'static str, &str) {
        (self.0.schema.root, &self.0.name)
    }

    pub(super) fn reset(&self) {
        let schema = self.0.schema;
        if self.0.shards.iter().all(|shard| shard.get().is_none()) {
            return;
        }
        let baseline = self.0.baseline.get_or_init(|| cells(schema.scalars.len() + CODES_LEN));
        for (place, def) in schema.scalars.iter().enumerate().filter(|(_, def)| def.kind == Kind::Counter) {
            baseline[place].fetch_add(self.counter(place), Relaxed);
            debug_assert_eq!(def.kind, Kind::Counter);
        }
        for place in 0..CODES_LEN {
            baseline[schema.scalars.len() + place].fetch_add(self.code_count(place), Relaxed);
        }
        self.live().filter_map(|shard| shard.codes.get()).for_each(|codes| {
            codes.rare().for_each(|(_, count)| count.store(0, Relaxed));
        });
    }

    pub(super) fn schema(&self) -> &'static Schema {
        self.0.schema
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.0.name
    }

    /// Visits its statistics; `text` is the one that is text.
    pub(super) fn visit(&self, text: Option<&str>, visit: &mut dyn FnMut(Sample<'_>)) {
        let schema = self.0.schema;
        self.visit_text(text, visit);
        // A set of labels has the metrics that were recorded with it, and no others.
        let rendered = schema.tag == Tag::Rendered;
        let visit: &mut dyn FnMut(Sample<'_>) = &mut |sample| {
            if sample.used || !rendered {
                visit(sample);
            }
        };
        for (place, def) in schema.scalars.iter().enumerate() {
            let (value, used) = match def.kind {
                Kind::Gauge => {
                    let (value, used) = self.gauge(place);
                    (Value::Gauge(value), used)
                }
                _ => {
                    let value = self.counter(place);
                    (Value::Counter(value), value > 0)
                }
            };
            if used || !schema.lazy.iter().any(|prefix| def.name.starts_with(prefix)) {
                visit(Sample { name: self.named(&self.prefixed(def.name)), value, used });
            }
        }
        self.visit_workers(visit);
        for def in schema.zeros {
            let value = if def.kind == Kind::Gauge { Value::Gauge(0) } else { Value::Counter(0) };
            visit(Sample { name: self.named(def.name), value, used: false });
        }
        if let Some(prefix) = schema.codes {
            self.visit_codes(prefix, visit);
        }
        for (place, def) in schema.histograms.iter().enumerate() {
            let buckets = self.histogram(place);
            let used = buckets.count() > 0;
            visit(Sample { name: self.named(def.name), value: Value::Histogram(&buckets), used });
        }
    }

    fn visit_text(&self, text: Option<&str>, visit: &mut dyn FnMut(Sample<'_>)) {
        let Some(def) = self.0.schema.text else { return };
        let used = text.is_some();
        visit(Sample { name: self.named(def.name), value: Value::Text(text.unwrap_or_default()), used });
        if let Some(hash) = def.hash {
            let value = Value::Hash(text.map_or(0, |text| xxh64(text.as_bytes(), 0)));
            visit(Sample { name: self.named(hash), value, used });
        }
    }

    fn prefixed(&self, stat: &'static str) -> Cow<'static, str> {
        match (&self.0.prefix, stat.split_once('.')) {
            (Some(prefix), Some((first, rest))) => format!("{first}.{prefix}.{rest}").into(),
            _ => Cow::Borrowed(stat),
        }
    }

    fn named<'a>(&'a self, stat: &'a str) -> Name<'a> {
        Name { root: self.0.schema.root, object: &self.0.name, stat, tag: self.0.schema.tag, labels: &[] }
    }

    fn visit_workers(&self, visit: &mut dyn FnMut(Sample<'_>)) {
        let scalars = self.0.schema.scalars.iter().enumerate();
        for (place, def) in scalars.filter(|(_, def)| self.0.schema.per_worker.contains(&def.name)) {
            for (worker, shard) in self.0.shards.iter().skip(1).enumerate() {
                let cell = shard.get().map_or(0, |shard| shard.scalars[place].load(Relaxed));
                let value = match def.kind {
                    Kind::Gauge => Value::Gauge(cell as i64 >> 1),
                    _ => Value::Counter(cell),
                };
                let stat = format!("worker_{worker}.{}", def.name);
                visit(Sample { name: self.named(&stat), value, used: cell != 0 });
            }
        }
    }

    fn visit_codes(&self, prefix: &str, visit: &mut dyn FnMut(Sample<'_>)) {
        for (place, code) in CODES.iter().chain(&MORE_CODES).enumerate() {
            let value = self.code_count(place);
            if value > 0 {
                let stat = format!("{prefix}{code}");
                visit(Sample { name: self.named(&stat), value: Value::Counter(value), used: true });
            }
        }
        let mut rare = BTreeMap::<u16, u64>::new();
        for codes in self.live().filter_map(|shard| shard.codes.get()) {
            for (code, count) in codes.rare() {
                *rare.entry(code).or_default() += count.load(Relaxed);
            }
        }
        for (code, count) in rare {
            let stat = format!("{prefix}{code}");
            visit(Sample { name: self.named(&stat), value: Value::Counter(count), used: true });
        }
    }

    #[inline]
    fn shard(&self) -> (&Shard, usize) {
        let slot = SHARD.get();
        let slot = if slot < self.0.shards.len() { slot } else { 0 };
        (self.0.shards[slot].get_or_init(|| Box::new(self.new_shard())), slot)
    }

    #[cold]
    fn new_shard(&self) -> Shard {
        Shard {
            scalars: cells(self.0.schema.scalars.len()),
            histograms: self.0.schema.histograms.iter().map(|_| OnceLock::new()).collect(),
            codes: OnceLock::new(),
        }
    }

    fn live(&self) -> impl Iterator<Item = &Shard> {
        self.0.shards.iter().filter_map(|shard| shard.get().map(|shard| &**shard))
    }

    fn since_reset(&self, place: usize, total: u64) -> u64 {
        total.wrapping_sub(self.0.baseline.get().map_or(0, |baseline| baseline[place].load(Relaxed)))
    }

    fn counter(&self, place: usize) -> u64 {
        let total = self.live().fold(0u64, |sum, shard| sum.wrapping_add(shard.scalars[place].load(Relaxed)));
        self.since_reset(place, total)
    }

    fn gauge(&self, place: usize) -> (i64, bool) {
        self.live().map(|shard| shard.scalars[place].load(Relaxed)).fold((0, false), |(sum, used), cell| {
            (i64::wrapping_add(sum, cell as i64 >> 1), used || cell & USED != 0)
        })
    }

    fn code_count(&self, place: usize) -> u64 {
        let total = self
            .live()
            .filter_map(|shard| shard.codes.get())
            .fold(0u64, |sum, codes| sum.wrapping_add(codes.usual[place].load(Relaxed)));
        self.since_reset(self.0.schema.scalars.len() + place, total)
    }

    fn histogram(&self, place: usize) -> Buckets {
        let mut total = Buckets::default();
        for histogram in self.live().filter_map(|shard| shard.histograms[place].get()) {
            histogram.add_to(&mut total);
        }
        total
    }
}
