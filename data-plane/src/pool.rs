//! Upstream HTTP connections of one worker, by host: HTTP/1 connections are taken and given back, HTTP/2 ones shared.
//!
//! A request that finds no connection waits in line while connections are made; whichever becomes ready first serves
//! the first in line. If a connection fails to come about, everybody in line is told, so that each can decide whether
//! to try another host.

pub(crate) mod connect;
mod demand;
pub(crate) mod ending;
mod guard;
pub(crate) mod lease;
pub(crate) mod limits;
mod raw;
mod watch;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::clock::{self, Still};
use crate::http1::{self, Interrupt};
use crate::stats::Traffic;
use crate::stats::sets::cluster;
use connect::{Connector, Established, Protocol};
pub(crate) use demand::{AT_ONCE, Ahead, Tally};
pub(crate) use guard::ConnectionGuard;
use lease::{Codec, Connection, H1, H2, Lease};
use limits::{Limits, Permit, Resource};
use watch::Watch;

/// Why no connection could be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PoolError {
    /// A circuit breaker is open.
    #[error("overflow")]
    Overflow,
    /// Connecting failed, for the reason given in Envoy's words.
    #[error("{0}")]
    Connect(Rc<str>),
    /// Connecting took longer than the cluster allows.
    #[error("connection timeout")]
    Timeout,
}

/// How connections of a pool are used.
#[derive(Debug)]
pub(crate) struct PoolOptions {
    /// Connections idle for longer are closed.
    pub(crate) idle_timeout: Option<Duration>,
    /// Requests after which a connection is not used again.
    pub(crate) max_requests: Option<u32>,
    /// Streams on one HTTP/2 connection.
    pub(crate) max_streams: usize,
    /// How long a connection may last.
    pub(crate) max_duration: Option<Duration>,
    /// Connections that are made before requests need them, if any are.
    pub(crate) ahead: Option<Box<Ahead>>,
}

type Waiter = oneshot::Sender<Result<Lease, PoolError>>;

/// Connections to one host, with one transport and one protocol.
pub(crate) struct Pool {
    connector: Connector,
    options: PoolOptions,
    limits: Rc<Limits>,
    stats: cluster::Scope,
    idle: RefCell<Vec<H1>>,
    shared: RefCell<Vec<Rc<H2>>>,
    waiting: RefCell<VecDeque<Waiter>>,
    connecting: Cell<usize>,
    open: Cell<usize>,
    /// Requests on connections.
    busy: Cell<usize>,
    closed: Cell<bool>,
    /// Ends connections whatever is on them.
    abort: CancellationToken,
    /// The same, for HTTP/1 connections.
    interrupts: RefCell<Vec<Weak<Interrupt>>>,
    watch: OnceCell<Watch>,
    /// Its own place under the cluster's limit of pools.
    place: RefCell<Option<Permit>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("connector", &self.connector)
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}

impl Pool {
    pub(crate) fn new(
        connector: Connector,
        options: PoolOptions,
        limits: Rc<Limits>,
        stats: cluster::Scope,
        place: Permit,
    ) -> Rc<Self> {
        Rc::new(Self {
            connector,
            options,
            limits,
            stats,
            idle: RefCell::default(),
            shared: RefCell::default(),
            waiting: RefCell::default(),
            connecting: Cell::new(0),
            open: Cell::new(0),
            busy: Cell::new(0),
            closed: Cell::new(false),
            abort: CancellationToken::new(),
            interrupts: RefCell::default(),
            watch: OnceCell::new(),
            place: RefCell::new(Some(place)),
        })
    }

    /// A connection that is ready now, if there is one.
    pub(crate) fn try_acquire(self: &Rc<Self>) -> Option<Lease> {
        let lease = self.pick_ready()?;
        if self.options.ahead.is_some() {
            self.connect_for_waiting();
        }
        Some(lease)
    }

    fn pick_ready(self: &Rc<Self>) -> Option<Lease> {
        if let Some(h2) = self.pick_shared() {
            return Some(Lease::shared(h2, self.clone()));
        }
        loop {
            let h1 = self.idle.borrow_mut().pop()?;
            if self.watch.get().is_some_and(|watch| watch.knows_end_of(&h1)) {
                continue;
            }
            if h1.info().is_expired() {
                self.stats.inc(cluster::upstream_cx_max_duration_reached);
                continue;
            }
            return Some(Lease::exclusive(h1, self.clone()));
        }
    }

    /// Waits for a connection.
    pub(crate) async fn acquire(self: &Rc<Self>) -> Result<Lease, PoolError> {
        if let Some(lease) = self.try_acquire() {
            return Ok(lease);
        }
        self.stats.inc(cluster::upstream_rq_pending_total);
        let Some(_pending) = self.limits.acquire(Resource::Pending) else {
            self.stats.inc(cluster::upstream_rq_pending_overflow);
            return Err(PoolError::Overflow);
        };
        let _gauge = self.stats.hold(cluster::upstream_rq_pending_active);
        let _on_host = guard::Pending::new(&self.connector.host);
        let (sender, receiver) = oneshot::channel();
        self.waiting.borrow_mut().push_back(sender);
        self.connect_for_waiting();
        self.settle();
        // The pool answers everybody in line, also when it is closed; a lost sender is a lost connection.
        receiver.await.unwrap_or_else(|_| Err(PoolError::Connect("connection closed".into())))
    }

    /// Forgets what has been idle for too long. Called by the worker's clock.
    pub(crate) fn sweep(&self, now: Instant) {
        let mut idle = self.idle.borrow_mut();
        let mut shared = self.shared.borrow_mut();
        if self.options.max_duration.is_some() {
            let before = idle.len() + shared.len();
            idle.retain(|h1| !h1.info().is_expired());
            shared.retain(|h2| !h2.info.is_expired());
            let gone = before - idle.len() - shared.len();
            self.stats.add(cluster::upstream_cx_max_duration_reached, gone as u64);
        }
        let Some(limit) = self.options.idle_timeout else { return };
        let expired = |since: Instant| now.saturating_duration_since(since) >= limit;
        let before = idle.len() + shared.len();
        idle.retain(|h1| !expired(h1.idle_since) && h1.is_reusable());
        shared.retain(|h2| h2.streams.get() > 0 || !expired(h2.idle_since.get()));
        let gone = before - idle.len() - shared.len();
        self.stats.add(cluster::upstream_cx_idle_timeout, gone as u64);
        drop((idle, shared));
        self.settle();
    }

    /// Whether nothing uses it.
    pub(crate) fn is_unused(&self) -> bool {
        self.open.get() == 0 && self.connecting.get() == 0 && self.waiting.borrow().is_empty()
    }

    /// Closes idle connections now and the others after their last response.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        drop(self.idle.take());
        self.shared.borrow_mut().clear();
        self.place.take();
    }

    /// Closes it if no request is on it or waits for it; says whether it did.
    pub(crate) fn close_if_unused(&self) -> bool {
        let unused = self.busy.get() == 0 && self.connecting.get() == 0 && self.waiting.borrow().is_empty();
        if unused {
            self.close();
        }
        unused
    }

    /// Closes all connections, whatever is on them.
    pub(crate) fn abort(&self) {
        self.close();
        self.abort.cancel();
        let interrupts = self.interrupts.take();
        interrupts.iter().filter_map(Weak::upgrade).for_each(|interrupt| interrupt.raise());
    }

    /// A request begins or ends on a connection.
    pub(crate) fn note_busy(&self, by: isize) {
        self.busy.set(self.busy.get().saturating_add_signed(by));
        self.settle();
    }

    fn pick_shared(&self) -> Option<Rc<H2>> {
        let mut shared = self.shared.borrow_mut();
        let mut index = 0;
        while let Some(h2) = shared.get(index) {
            if h2.info.is_expired() {
                self.stats.inc(cluster::upstream_cx_max_duration_reached);
                shared.swap_remove(index);
            } else if h2.send.is_closed() || h2.is_spent(self.options.max_requests) {
                shared.swap_remove(index);
            } else if h2.streams.get() < self.options.max_streams.min(h2.send.max_streams()) {
                return Some(h2.clone());
            } else {
                index += 1;
            }
        }
        None
    }

    fn spawn_connect(self: &Rc<Self>, permit: Permit) {
        self.connecting.set(self.connecting.get() + 1);
        self.settle();
        let pool = self.clone();
        tokio::task::spawn_local(async move {
            let started = Instant::now();
            pool.stats.inc(cluster::upstream_cx_total);
            pool.connector.host.state.connections.fetch_add(1, Relaxed);
            pool.note_protocol(pool.connector.protocol);
            let result = pool.connector.establish(traffic(&pool.stats)).await;
            pool.connecting.set(pool.connecting.get() - 1);
            match result {
                Ok(established) => {
                    pool.stats.record(cluster::upstream_cx_connect_ms, started.elapsed().as_millis() as u64);
                    if pool.abort.is_cancelled() {
                        drop(permit);
                        pool.fail(&PoolError::Connect("connection closed".into()));
                    } else {
                        pool.adopt(established, permit);
                    }
                }
                Err(error) => {
                    drop(permit);
                    pool.stats.inc(cluster::upstream_cx_destroy);
                    pool.stats.inc(match error {
                        PoolError::Timeout => cluster::upstream_cx_destroy_local,
                        _ => cluster::upstream_cx_destroy_remote,
                    });
                    pool.fail(&error);
                }
            }
            pool.settle();
        });
    }

    /// Counts a connection by its protocol: when it begins, where that is known then.
    fn note_protocol(&self, protocol: Protocol) {
        match protocol {
            Protocol::Http1 => self.stats.inc(cluster::upstream_cx_http1_total),
            Protocol::Http2 => self.stats.inc(cluster::upstream_cx_http2_total),
            Protocol::Negotiated | Protocol::Tcp => {}
        }
    }

    fn adopt(self: &Rc<Self>, established: Established, permit: Permit) {
        self.open.set(self.open.get() + 1);
        let negotiated = matches!(self.connector.protocol, Protocol::Negotiated);
        match established {
            Established::Http1 { stream, info } => {
                if negotiated {
                    self.note_protocol(Protocol::Http1);
                }
                let interrupt = Rc::new(Interrupt::default());
                self.note_interrupt(&interrupt);
                let connection =
                    http1::Connection::new(stream, self.connector.http1, interrupt, traffic(&self.stats));
                self.adopt_exclusive(Codec::Http1(Rc::new(RefCell::new(connection))), info, permit);
                if negotiated {
                    // Those in line may have counted on sharing it.
                    self.connect_for_waiting();
                }
            }
            Established::Tcp { stream, info } => self.adopt_exclusive(Codec::raw(stream), info, permit),
            Established::Http2 { send, driver, info } => {
                if negotiated {
                    self.note_protocol(Protocol::Http2);
                }
                self.bound(&info);
                let guard = ConnectionGuard::new(self, info.clone(), permit);
                let h2 = Rc::new(H2::new(send, info));
                // Held by those who use it alone: when nobody does any more, the codec ends it.
                let (abort, used) = (self.abort.clone(), Rc::downgrade(&h2));
                tokio::task::spawn_local(async move {
                    let ended = abort.run_until_cancelled(Still::new(driver.run())).await;
                    let wanted = used.upgrade();
                    let ending = &guard.info.ending;
                    ending.set_busy(wanted.as_ref().is_some_and(|h2| h2.streams.get() > 0));
                    ending.task_ended(ended.is_none(), wanted.is_some());
                    drop(guard);
                });
                if !self.closed.get() {
                    self.shared.borrow_mut().push(h2.clone());
                }
                self.serve_waiting_from(&h2);
            }
        }
    }

    fn adopt_exclusive(self: &Rc<Self>, codec: Codec, info: Facts, permit: Permit) {
        self.bound(&info);
        let guard = ConnectionGuard::new(self, info, permit);
        self.offer(H1 { codec, idle_since: clock::now(), guard });
    }

    /// Sets when the connection has lasted long enough.
    fn bound(&self, info: &Facts) {
        info.ending.count_in(&self.stats);
        info.expires.set(self.options.max_duration.map(|limit| clock::now() + limit));
    }

    fn serve_waiting_from(self: &Rc<Self>, h2: &Rc<H2>) {
        // The peer's own limit is not known before its settings arrive; the codec holds back what exceeds it.
        while h2.streams.get() < self.options.max_streams {
            let Some(waiter) = self.next_waiter() else { return };
            let _ = waiter.send(Ok(Lease::shared(h2.clone(), self.clone())));
        }
        self.connect_for_waiting();
    }

    /// A stream's place on a shared connection is free.
    pub(crate) fn stream_ended(self: &Rc<Self>, h2: &Rc<H2>) {
        if !self.waiting.borrow().is_empty()
            && !h2.send.is_closed()
            && !h2.is_spent(self.options.max_requests)
        {
            self.serve_waiting_from(h2);
        }
    }

    /// The first in line who still waits.
    fn next_waiter(&self) -> Option<Waiter> {
        let mut waiting = self.waiting.borrow_mut();
        loop {
            match waiting.pop_front() {
                Some(waiter) if waiter.is_closed() => {}
                other => return other,
            }
        }
    }

    /// Hands a connection to the first in line, or keeps it.
    pub(crate) fn offer(self: &Rc<Self>, h1: H1) {
        if h1.info().is_expired() {
            self.stats.inc(cluster::upstream_cx_max_duration_reached);
            return;
        }
        if !h1.is_reusable() {
            return;
        }
        if h1.info().is_spent(self.options.max_requests) {
            self.stats.inc(cluster::upstream_cx_max_requests);
            return;
        }
        if let Some(waiter) = self.next_waiter() {
            // If the waiter leaves in this instant, the lease comes back through its drop.
            let _ = waiter.send(Ok(Lease::handed_over(h1, self.clone())));
        } else if !self.closed.get() && !self.watch.get_or_init(|| Watch::new(self)).has_ended(&h1) {
            self.idle.borrow_mut().push(H1 { idle_since: clock::now(), ..h1 });
        }
    }

    /// Forgets idle connections that have ended.
    fn drop_ended(&self, watch: &Watch) {
        let mut idle = self.idle.take();
        idle.retain(|h1| !watch.has_ended(h1));
        self.idle.borrow_mut().extend(idle);
    }

    /// Keeps what ends the exchange on a connection.
    fn note_interrupt(&self, interrupt: &Rc<Interrupt>) {
        let mut interrupts = self.interrupts.borrow_mut();
        // Those of connections that are gone are forgotten before the list grows.
        if interrupts.len() == interrupts.capacity() {
            interrupts.retain(|interrupt| interrupt.strong_count() > 0);
        }
        interrupts.push(Rc::downgrade(interrupt));
    }

    fn fail(self: &Rc<Self>, error: &PoolError) {
        self.stats.inc(cluster::upstream_cx_connect_fail);
        if *error == PoolError::Timeout {
            self.stats.inc(cluster::upstream_cx_connect_timeout);
        }
        for waiter in self.waiting.take() {
            self.stats.inc(cluster::upstream_rq_pending_failure_eject);
            let _ = waiter.send(Err(error.clone()));
        }
    }

    fn connection_closed(self: &Rc<Self>) {
        self.open.set(self.open.get() - 1);
        self.settle();
        if !self.waiting.borrow().is_empty() {
            self.connect_for_waiting();
        }
    }
}

/// What counts the bytes of a cluster's connections.
pub(crate) fn traffic(stats: &cluster::Scope) -> Traffic {
    stats.traffic(cluster::upstream_cx_rx_bytes_total, cluster::upstream_cx_tx_bytes_total)
}

/// A connection's own facts are the lease's to tell.
pub(crate) type Facts = Rc<Connection>;
