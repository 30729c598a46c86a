//! A source joined with the model: one snapshot after another, and what changed between them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use base::task::Supervised;
use saild_model::{ChangeSet, Mesh};
use tokio::sync::{Notify, mpsc};

use crate::adapt::{Adapter, Options};
use crate::source::Source;
use crate::store::Store;

/// A new snapshot.
#[derive(Debug, Clone)]
pub struct Update {
    /// The mesh now.
    pub mesh: Arc<Mesh>,
    /// What differs from the snapshot of the update before.
    pub changes: ChangeSet,
}

/// What reader and writer share.
#[derive(Debug)]
struct Shared {
    mesh: ArcSwap<Mesh>,
    store: ArcSwap<Store>,
    pending: Mutex<Option<ChangeSet>>,
    news: Notify,
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Option<ChangeSet>> {
        // A change set is whole at every moment: a panic elsewhere does not spoil it.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running registry: dropping it ends the source.
#[derive(Debug)]
pub struct Registry {
    shared: Arc<Shared>,
    _source: Supervised<()>,
    _adapter: Supervised<()>,
}

/// The way to wait for changes. There is one reader, who loses none: those that it did not take are merged.
#[derive(Debug)]
pub struct Updates(Arc<Shared>);

impl Registry {
    /// Starts a source. The first update is its complete initial state.
    pub fn start(source: impl Source, options: Options) -> (Self, Updates) {
        let shared = Arc::new(Shared {
            mesh: ArcSwap::default(),
            store: ArcSwap::default(),
            pending: Mutex::new(None),
            news: Notify::new(),
        });
        let (send, receive) = mpsc::channel(16);
        let adapter = Supervised::spawn(adapt(receive, options, shared.clone()));
        let source = Supervised::spawn(source.run(send));
        (Self { shared: shared.clone(), _source: source, _adapter: adapter }, Updates(shared))
    }

    /// The mesh as of now; empty before the first update.
    pub fn mesh(&self) -> Arc<Mesh> {
        self.shared.mesh.load_full()
    }

    /// The objects that the mesh was made of.
    pub fn store(&self) -> Arc<Store> {
        self.shared.store.load_full()
    }
}

impl Updates {
    /// Waits for the next change.
    pub async fn next(&mut self) -> Update {
        loop {
            let news = self.0.news.notified();
            // The mesh is read under the lock that its writer holds, so that it is the one that the changes led to.
            let taken = {
                let mut pending = self.0.pending();
                pending.take().map(|changes| Update { mesh: self.0.mesh.load_full(), changes })
            };
            match taken {
                Some(update) => return update,
                None => news.await,
            }
        }
    }
}

async fn adapt(
    mut changes: mpsc::Receiver<Vec<crate::source::Change>>,
    options: Options,
    shared: Arc<Shared>,
) {
    let mut store = Store::default();
    let mut adapter = Adapter::new(options);
    let mut first = true;
    while let Some(mut batch) = changes.recv().await {
        // What is waiting already belongs to the same push.
        while let Ok(more) = changes.try_recv() {
            batch.extend(more);
        }
        let touched = store.apply(batch);
        if touched.is_empty() && !first {
            continue;
        }
        let mut change = adapter.update(&store, &touched);
        if std::mem::take(&mut first) {
            change = ChangeSet::all();
        }
        if change.is_empty() {
            shared.store.store(Arc::new(store.clone()));
            continue;
        }
        let before = shared.mesh.load_full();
        let mesh = Arc::new(if change.full { adapter.build() } else { adapter.build_from(&before, &change) });
        change.set_endpoints(mesh.endpoint_changes(&before));
        let mut pending = shared.pending();
        shared.store.store(Arc::new(store.clone()));
        shared.mesh.store(mesh);
        pending.get_or_insert_default().merge(change);
        drop(pending);
        shared.news.notify_one();
    }
}
