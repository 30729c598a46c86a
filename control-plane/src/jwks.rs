//! The keys of tokens' issuers: fetched, kept, and fetched again, so that proxies need not reach the issuers.
//!
//! A set that was fetched once stays in use until a newer one is had: issuers that cannot be reached lock nobody out. The
//! sets survive a restart in a file, for the same reason.

mod fetch;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::backoff::Backoff;
use base::task::Supervised;
use mesh_api::request_authentication::JwtRule;
use saild_model::Mesh;
use saild_model::mesh::{Jwks, JwksSource};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

pub(crate) use fetch::Fetcher;

/// Sources that are asked at the same time.
const CONCURRENT: usize = 16;

/// How long an answer may take where no rule says.
const TIMEOUT: Duration = Duration::from_secs(5);

/// When sources are asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// A set that was fetched is fetched again after this time.
    pub(crate) refresh: Duration,
    /// A source that failed is asked again after this time, and then less and less often.
    pub(crate) retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { refresh: Duration::from_secs(20 * 60), retry: Duration::from_secs(1) }
    }
}

/// What is known.
#[derive(Clone, Debug, Default)]
struct Known {
    keys: Arc<Jwks>,
    /// How many sources were not asked yet.
    unasked: usize,
}

/// Sources, and how long their answers may take.
type Wanted = BTreeMap<JwksSource, Duration>;

/// Fetches what the mesh names. Dropping it ends that.
#[derive(Debug)]
pub(crate) struct Resolver {
    wanted: watch::Sender<Wanted>,
    known: watch::Receiver<Known>,
    /// What was given last.
    given: Arc<Jwks>,
    _task: Supervised<()>,
}

impl Resolver {
    /// Starts with what `file` holds of a former life.
    pub(crate) fn start(fetcher: Fetcher, timing: Timing, file: PathBuf) -> Self {
        let kept = load(&file);
        let (wanted, wants) = watch::channel(Wanted::new());
        let (tell, known) = watch::channel(Known::default());
        let task = Task {
            timing,
            fetcher: Arc::new(fetcher),
            permits: Arc::new(Semaphore::new(CONCURRENT)),
            entries: BTreeMap::new(),
            fetches: JoinSet::new(),
            kept,
            file,
            tell,
        };
        Self { wanted, known, given: Arc::default(), _task: Supervised::spawn(task.run(wants)) }
    }

    /// Fetches the sources of this mesh from now on, and no others.
    pub(crate) fn want(&self, mesh: &Mesh) {
        let policies = mesh.config().request_authentications.all().iter();
        let rules = policies.flat_map(|policy| &policy.spec.jwt_rules);
        let wanted: Wanted = rules.filter_map(|rule| Some((JwksSource::of(rule)?, time(rule)))).collect();
        self.wanted.send_if_modified(|before| {
            let differs = *before != wanted;
            *before = wanted;
            differs
        });
    }

    /// Waits until each source was asked once, but not for ever.
    pub(crate) async fn settled(&mut self, patience: Duration) {
        let wanted = !self.wanted.borrow().is_empty();
        // The task says that it has taken note of what is wanted before it says that all was asked.
        let asked = async {
            if self.known.changed().await.is_ok() {
                let _ = self.known.wait_for(|known| known.unasked == 0).await;
            }
        };
        if wanted && tokio::time::timeout(patience, asked).await.is_err() {
            warn!("some issuers' keys are not known yet: their tokens are refused");
        }
    }

    /// The keys as of now.
    pub(crate) fn keys(&mut self) -> Arc<Jwks> {
        self.given = self.known.borrow().keys.clone();
        self.given.clone()
    }

    /// Resolves when other keys are known than [`keys`](Self::keys) gave last.
    pub(crate) async fn changed(&mut self) {
        let given = &self.given;
        let found = self.known.wait_for(|known| known.keys != *given).await.is_ok();
        if !found {
            // The task lives as long as this does.
            std::future::pending().await
        }
    }
}

fn time(rule: &JwtRule) -> Duration {
    rule.timeout.unwrap_or(TIMEOUT)
}

/// A source.
#[derive(Debug)]
struct Entry {
    keys: Option<String>,
    timeout: Duration,
    /// When it is asked next; nothing while it is asked.
    next: Option<Instant>,
    asked: bool,
    backoff: Backoff,
}

type Fetched = (JwksSource, Result<String, fetch::Error>);

struct Task {
    timing: Timing,
    fetcher: Arc<Fetcher>,
    permits: Arc<Semaphore>,
    entries: BTreeMap<JwksSource, Entry>,
    fetches: JoinSet<Fetched>,
    /// Of a former life, until they are wanted.
    kept: Jwks,
    file: PathBuf,
    tell: watch::Sender<Known>,
}

impl Task {
    async fn run(mut self, mut wants: watch::Receiver<Wanted>) {
        loop {
            let due = self.entries.values().filter_map(|entry| entry.next).min();
            let wait = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = wants.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let wanted = wants.borrow_and_update().clone();
                    self.reconcile(&wanted);
                }
                Some(Ok((source, result))) = self.fetches.join_next() => self.take(source, result),
                () = wait => self.ask(),
            }
        }
    }

    fn reconcile(&mut self, wanted: &Wanted) {
        self.entries.retain(|source, _| wanted.contains_key(source));
        for (source, timeout) in wanted {
            let (kept, retry) = (&mut self.kept, self.timing.retry);
            let entry = self.entries.entry(source.clone()).or_insert_with(|| Entry {
                keys: kept.remove(source),
                timeout: *timeout,
                next: Some(Instant::now()),
                asked: false,
                backoff: Backoff::new(retry, self.timing.refresh),
            });
            entry.timeout = *timeout;
        }
        self.publish();
    }

    /// Starts the fetches that are due.
    fn ask(&mut self) {
        let now = Instant::now();
        for (source, entry) in &mut self.entries {
            if entry.next.is_none_or(|next| next > now) {
                continue;
            }
            entry.next = None;
            let (fetcher, permits) = (Arc::clone(&self.fetcher), Arc::clone(&self.permits));
            let (source, timeout) = (source.clone(), entry.timeout);
            self.fetches.spawn(async move {
                let _permit = permits.acquire().await;
                let result = match tokio::time::timeout(timeout, fetcher.keys(&source)).await {
                    Ok(result) => result,
                    Err(_) => Err(fetch::Error::Timeout(timeout)),
                };
                (source, result)
            });
        }
    }

    fn take(&mut self, source: JwksSource, result: Result<String, fetch::Error>) {
        // It may not be wanted any more.
        let Some(entry) = self.entries.get_mut(&source) else { return };
        entry.asked = true;
        let delay = match result {
            Ok(keys) => {
                if entry.keys.as_ref() != Some(&keys) {
                    info!(source = source.url(), "an issuer has new keys");
                }
                entry.keys = Some(keys);
                entry.backoff.reset();
                self.timing.refresh
            }
            Err(error) => {
                let meanwhile =
                    if entry.keys.is_some() { "the keys before stay" } else { "its tokens are refused" };
                let reason = chain(&error);
                warn!(source = source.url(), "the keys of an issuer cannot be had: {reason}; {meanwhile}");
                entry.backoff.next_delay(&mut rand::rng())
            }
        };
        entry.next = Some(Instant::now() + delay);
        self.publish();
    }

    fn publish(&mut self) {
        let keys: Jwks = self
            .entries
            .iter()
            .filter_map(|(source, entry)| Some((source.clone(), entry.keys.clone()?)))
            .collect();
        let unasked = self.entries.values().filter(|entry| !entry.asked).count();
        let differs = *self.tell.borrow().keys != keys;
        if differs {
            save(&self.file, &keys);
        }
        self.tell.send_modify(|known| {
            known.unasked = unasked;
            if differs {
                known.keys = Arc::new(keys);
            }
        });
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// What the file holds; nothing if it cannot be read, as everything can be fetched again.
fn load(path: &Path) -> Jwks {
    let Ok(bytes) = std::fs::read(path) else { return Jwks::new() };
    let kept: Vec<(bool, String, String)> = serde_json::from_slice(&bytes).unwrap_or_default();
    let source = |uri, name| if uri { JwksSource::Uri(name) } else { JwksSource::Issuer(name) };
    kept.into_iter().map(|(uri, name, keys)| (source(uri, name), keys)).collect()
}

fn save(path: &Path, keys: &Jwks) {
    let kept: BTreeSet<(bool, &str, &str)> = keys
        .iter()
        .map(|(source, keys)| match source {
            JwksSource::Uri(uri) => (true, uri.as_str(), keys.as_str()),
            JwksSource::Issuer(issuer) => (false, issuer.as_str(), keys.as_str()),
        })
        .collect();
    let beside = path.with_extension("new");
    let written = path
        .parent()
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| serde_json::to_vec(&kept).map_err(std::io::Error::other))
        .and_then(|bytes| std::fs::write(&beside, bytes))
        .and_then(|()| std::fs::rename(&beside, path));
    if let Err(error) = written {
        warn!("issuers' keys are not kept for a restart: {}: {error}", path.display());
    }
}

#[cfg(test)]
mod tests;
