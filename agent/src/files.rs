//! Notices when files change, also where a file is a link into a directory that is swapped as a whole.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

/// Changes come in groups: what follows within this time counts as one.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// How often files are looked at in any case: notifications can be missing (limits, network file systems).
const POLL: Duration = Duration::from_secs(60);

/// Watches the directories of some files.
#[derive(Debug)]
pub struct FileWatch {
    events: mpsc::Receiver<()>,
    // Dropping the watcher ends its thread.
    _watcher: Option<notify::RecommendedWatcher>,
}

impl FileWatch {
    /// Watches from now on.
    pub fn new<'a>(files: impl IntoIterator<Item = &'a Path>) -> Self {
        let (send, events) = mpsc::channel(1);
        let dirs: BTreeSet<PathBuf> = files.into_iter().map(directory).collect();
        let watcher = watch(&dirs, send);
        Self { events, _watcher: watcher }
    }

    /// Resolves when something in those directories may have changed.
    pub async fn changed(&mut self) {
        match tokio::time::timeout(POLL, self.events.recv()).await {
            Ok(Some(())) => tokio::time::sleep(DEBOUNCE).await,
            // Without a watcher the channel is closed: the files are polled.
            Ok(None) => tokio::time::sleep(POLL).await,
            Err(_) => {}
        }
        while self.events.try_recv().is_ok() {}
    }
}

fn directory(file: &Path) -> PathBuf {
    match file.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn watch(dirs: &BTreeSet<PathBuf>, send: mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
    let notify = move |event: notify::Result<notify::Event>| {
        // Reading a file is an event as well; answering to that would never end.
        if event.map_or(true, |event| !event.kind.is_access()) {
            // A full channel already says that something changed.
            let _ = send.try_send(());
        }
    };
    let mut watcher = match notify::recommended_watcher(notify) {
        Ok(watcher) => watcher,
        Err(error) => {
            tracing::warn!(%error, "files cannot be watched; they are read every {} s", POLL.as_secs());
            return None;
        }
    };
    for dir in dirs {
        if let Err(error) = watcher.watch(dir, RecursiveMode::NonRecursive) {
            tracing::warn!(dir = %dir.display(), %error, "this directory cannot be watched; it is read every {} s", POLL.as_secs());
        }
    }
    Some(watcher)
}
