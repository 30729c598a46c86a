//! Watches the directories of files that certificates were read from, and has them read again when one changes. The
//! listeners, clusters and connections that use them are not touched: handshakes to come have the new ones.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Weak;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::Manager;

/// Files that are written one after the other make one change.
const SETTLE: Duration = Duration::from_millis(50);
/// How often directories that cannot be watched are looked at.
const POLL: Duration = Duration::from_secs(10);

/// Watches for as long as the manager lives.
pub(super) async fn watch(manager: Weak<Manager>) {
    let (send, mut changes) = mpsc::channel(1);
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // A full channel already says that something changed.
            let _ = send.try_send(());
        }
    });
    let mut watcher = watcher.map_err(|error| tracing::warn!(%error, "cannot watch certificate files")).ok();
    let mut watched = BTreeSet::new();
    loop {
        let Some(alive) = manager.upgrade() else { return };
        let (wanted, asked) = (alive.parts().convert.watched_directories(), alive.watch_changed());
        let unwatched = follow(watcher.as_mut(), &mut watched, wanted);
        drop(alive);
        tokio::select! {
            _ = changes.recv() => tokio::time::sleep(SETTLE).await,
            () = asked => continue,
            () = tokio::time::sleep(POLL), if unwatched => {}
        }
        while changes.try_recv().is_ok() {}
        let Some(alive) = manager.upgrade() else { return };
        alive.refresh_files();
    }
}

/// Watches what is wanted and nothing else; true if something cannot be watched.
fn follow(
    watcher: Option<&mut RecommendedWatcher>,
    watched: &mut BTreeSet<PathBuf>,
    wanted: BTreeSet<PathBuf>,
) -> bool {
    let Some(watcher) = watcher else { return !wanted.is_empty() };
    for gone in watched.difference(&wanted) {
        // It may have been removed, and its watch with it.
        let _ = watcher.unwatch(gone);
    }
    watched.retain(|path| wanted.contains(path));
    let mut failed = false;
    for path in wanted {
        if watched.contains(&path) {
            continue;
        }
        match watcher.watch(Path::new(&path), RecursiveMode::NonRecursive) {
            Ok(()) => {
                watched.insert(path);
            }
            Err(error) => {
                tracing::warn!(directory = %path.display(), %error, "cannot watch; looking every 10 s");
                failed = true;
            }
        }
    }
    failed
}
