//! Keys that are fetched through a cluster, by each worker for itself. What was fetched last is kept until something
//! better comes.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::task::Supervised;
use http::{HeaderMap, Method, StatusCode};
use sail_proxy_config::callout::HttpTarget;
use sail_proxy_decide::jwt::{Jwks, RemoteJwks};
use tokio::sync::Mutex;

use crate::callout;
use crate::stats::sets::http_jwt_authn as stats;
use crate::worker::state::Worker;

/// After a failure, keys that are there are used for so long before they are asked for again.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// How long before they are too old keys are fetched ahead of need.
const AHEAD: Duration = Duration::from_secs(5);

thread_local! {
    /// The worker's, so that a new listener need not fetch what the old one has.
    static KNOWN: RefCell<Vec<Weak<Remote>>> = RefCell::default();
}

/// A provider's remote keys.
pub(super) struct Remote {
    config: Arc<RemoteJwks>,
    target: HttpTarget,
    stats: stats::Scope,
    keys: RefCell<Option<Arc<Jwks>>>,
    good_until: Cell<Option<Instant>>,
    /// One fetch at a time; those who wait share its result.
    turn: Mutex<()>,
    fetches: Cell<u64>,
    failed: Cell<bool>,
    keeper: RefCell<Option<Supervised<()>>>,
}

impl Remote {
    pub(super) fn of(config: &Arc<RemoteJwks>, stats: &stats::Scope) -> Rc<Self> {
        KNOWN.with_borrow_mut(|known| {
            known.retain(|remote| remote.strong_count() > 0);
            let same = known.iter().filter_map(Weak::upgrade).find(|remote| remote.is_same(config));
            same.unwrap_or_else(|| {
                let remote = Rc::new(Self::new(config, stats));
                known.push(Rc::downgrade(&remote));
                remote
            })
        })
    }

    fn new(config: &Arc<RemoteJwks>, stats: &stats::Scope) -> Self {
        let target = HttpTarget {
            cluster: config.cluster.clone(),
            https: config.https,
            authority: config.authority.clone(),
            path: config.path.clone(),
            timeout: Some(config.timeout),
        };
        Self {
            config: config.clone(),
            target,
            stats: stats.clone(),
            keys: RefCell::default(),
            good_until: Cell::new(None),
            turn: Mutex::new(()),
            fetches: Cell::new(0),
            failed: Cell::new(false),
            keeper: RefCell::default(),
        }
    }

    fn is_same(&self, config: &RemoteJwks) -> bool {
        let own = &*self.config;
        own.https == config.https
            && own.authority == config.authority
            && own.path == config.path
            && own.cluster == config.cluster
            && own.timeout == config.timeout
            && own.cache_duration == config.cache_duration
            && own.async_fetch == config.async_fetch
            && own.retries == config.retries
    }

    /// Keys that are good still.
    pub(super) fn fresh(&self) -> Option<Arc<Jwks>> {
        let good = self.good_until.get().is_some_and(|end| Instant::now() < end);
        if good { self.last_good() } else { None }
    }

    /// Keys that were good once.
    pub(super) fn last_good(&self) -> Option<Arc<Jwks>> {
        self.keys.borrow().clone()
    }

    /// Fetches them, or waits for the fetch that is under way.
    pub(super) async fn fetch(&self, worker: &Rc<Worker>) {
        let before = self.fetches.get();
        let _turn = self.turn.lock().await;
        if self.fetches.get() != before {
            return;
        }
        let mut found = None;
        for _ in 0..=self.config.retries {
            found = self.ask(worker).await;
            if found.is_some() {
                break;
            }
        }
        self.fetches.set(before + 1);
        self.failed.set(found.is_none());
        let now = Instant::now();
        match found {
            Some(keys) => {
                self.stats.inc(stats::jwks_fetch_success);
                self.keys.replace(Some(Arc::new(keys)));
                self.good_until.set(now.checked_add(self.config.cache_duration));
            }
            None => {
                self.stats.inc(stats::jwks_fetch_failed);
                // Only keys that are fetched ahead of need outlive their time.
                if self.config.async_fetch.is_none() {
                    self.keys.replace(None);
                }
                self.good_until.set(Some(now + FAILURE_PAUSE));
            }
        }
    }

    async fn ask(&self, worker: &Rc<Worker>) -> Option<Jwks> {
        let head = callout::head(&self.target, Method::GET, HeaderMap::new());
        let answer = match callout::http(worker, &self.target, head, bytes::Bytes::new()).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!("keys of {} cannot be fetched: {error}", self.config.authority);
                return None;
            }
        };
        if answer.status() != StatusCode::OK {
            tracing::warn!("keys of {} cannot be fetched: {}", self.config.authority, answer.status());
            return None;
        }
        let parsed = Jwks::parse(answer.body());
        parsed.map_err(|failure| tracing::warn!("keys of {}: {failure}", self.config.authority)).ok()
    }

    /// Where the configuration asks for it: fetches keys before they are needed, as long as somebody needs them.
    pub(super) fn keep_fresh(self: &Rc<Self>, worker: &Rc<Worker>) {
        let Some(after_failure) = self.config.async_fetch else { return };
        if self.keeper.borrow().is_some() {
            return;
        }
        let (remote, worker) = (Rc::downgrade(self), worker.clone());
        let good_for = self.config.cache_duration;
        let keeper = Supervised::spawn_local(async move {
            while let Some(remote) = remote.upgrade() {
                remote.fetch(&worker).await;
                let ahead = good_for.checked_sub(AHEAD).unwrap_or(good_for / 2);
                let pause = if remote.failed.get() { after_failure } else { ahead };
                drop(remote);
                tokio::time::sleep(pause.max(Duration::from_millis(100))).await;
            }
        });
        self.keeper.replace(Some(keeper));
    }
}
