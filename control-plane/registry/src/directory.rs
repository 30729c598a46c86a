//! The source that reads a directory of manifests, recursively: `*.yaml`, `*.yml`, `*.json`.
//!
//! The kernel's notifications only wake it up; what changed is found by looking at every file's metadata, so that renames,
//! symbolic links that are swapped and lost notifications all read the same. A file that cannot be read or holds a
//! broken manifest keeps its last good content, and says so in its status. A file is read when its last write is a
//! moment old, so that a half-written one does no harm.

mod file;
mod scan;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use notify::{RecursiveMode, Watcher};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::source::{Change, Source};
use scan::Scanner;

/// How long after the last notification files are looked at.
const DEBOUNCE: Duration = Duration::from_millis(10);
/// How soon files are looked at again that were being written.
const SETTLE: Duration = Duration::from_millis(25);
/// How often files are looked at without notification.
const POLL: Duration = Duration::from_secs(5);

/// What became of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FileStatus {
    /// The file.
    pub path: PathBuf,
    /// How many objects it gives.
    pub objects: usize,
    /// Why its present content is not used; its last good one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What its author should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// The status of every file, for debug pages. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Statuses(Arc<ArcSwap<Vec<FileStatus>>>);

impl Statuses {
    /// As of now, by path.
    pub fn get(&self) -> Arc<Vec<FileStatus>> {
        self.0.load_full()
    }
}

/// A directory that cannot be a source.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not there.
    #[error("registry directory {path} cannot be read")]
    Read {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The kernel does not notify.
    #[error("registry directory {path} cannot be watched")]
    Watch {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: notify::Error,
    },
}

/// The source.
#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
    watcher: notify::RecommendedWatcher,
    woken: mpsc::Receiver<()>,
    statuses: Statuses,
}

impl Directory {
    /// Begins to watch a directory.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let read = |source| Error::Read { path: root.to_owned(), source };
        if !std::fs::metadata(root).map_err(read)?.is_dir() {
            return Err(read(std::io::ErrorKind::NotADirectory.into()));
        }
        let (wake, woken) = mpsc::channel(1);
        let watch = |source| Error::Watch { path: root.to_owned(), source };
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reads of our own are no news; errors are: something was lost.
            if !event.is_ok_and(|e| e.kind.is_access()) {
                // A full channel means that somebody has been woken already.
                let _ = wake.try_send(());
            }
        })
        .map_err(watch)?;
        watcher.watch(root, RecursiveMode::Recursive).map_err(watch)?;
        Ok(Self { root: root.to_owned(), watcher, woken, statuses: Statuses::default() })
    }

    /// What became of each file.
    pub fn statuses(&self) -> Statuses {
        self.statuses.clone()
    }
}

impl Source for Directory {
    async fn run(mut self, changes: mpsc::Sender<Vec<Change>>) {
        let mut scanner = Scanner::new(self.root.clone());
        let mut first = true;
        // The initial state is complete: files that are being written as we start are waited for, but not forever.
        let mut patience = 40;
        loop {
            let (returned, outcome) = scan(scanner).await;
            scanner = returned;
            self.statuses.0.store(Arc::new(outcome.statuses));
            if first && outcome.unsettled && patience > 0 {
                patience -= 1;
                tokio::time::sleep(SETTLE).await;
                continue;
            }
            if first || outcome.changed {
                first = false;
                if changes.send(vec![Change::Replace(outcome.objects)]).await.is_err() {
                    return;
                }
            }
            let pause = if outcome.unsettled { SETTLE } else { POLL };
            tokio::select! {
                woken = self.woken.recv() => {
                    if woken.is_none() {
                        return;
                    }
                    tokio::time::sleep(DEBOUNCE).await;
                    while self.woken.try_recv().is_ok() {}
                }
                () = tokio::time::sleep(pause) => {}
                () = changes.closed() => return,
            }
            let _watching = &self.watcher;
        }
    }
}

/// Scans on a thread where blocking is allowed.
async fn scan(mut scanner: Scanner) -> (Scanner, scan::Outcome) {
    let root = scanner.root().to_owned();
    tokio::task::spawn_blocking(move || {
        let outcome = scanner.scan();
        (scanner, outcome)
    })
    .await
    .unwrap_or_else(|e| {
        tracing::error!(error = %e, "the registry directory could not be scanned: starting over");
        (Scanner::new(root), scan::Outcome::nothing())
    })
}
