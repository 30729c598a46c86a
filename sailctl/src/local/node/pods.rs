//! The kubelet's list: a task for each pod that is stored, told to stop when its pod is marked for deletion.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::task::Supervised;
use tokio::sync::watch;

use super::Node;
use super::pod::{self, PodTask};
use crate::local::kind::{Key, Kind};

const REFRESH: Duration = Duration::from_secs(30);
/// Changes come in groups.
const SETTLE: Duration = Duration::from_millis(200);

/// The pods that this node runs.
#[derive(Default)]
pub(crate) struct Pods(Mutex<HashMap<Key, Handle>>);

struct Handle {
    stop: watch::Sender<bool>,
    task: Option<Arc<PodTask>>,
    _life: Supervised<()>,
}

impl Pods {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Handle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn attach(&self, key: &Key, task: &Arc<PodTask>) {
        if let Some(handle) = self.lock().get_mut(key) {
            handle.task = Some(task.clone());
        }
    }

    pub(super) fn detach(&self, key: &Key) {
        self.lock().remove(key);
    }

    /// A pod that runs here.
    pub(crate) fn get(&self, key: &Key) -> Option<Arc<PodTask>> {
        self.lock().get(key)?.task.clone()
    }
}

/// Starts and stops pods as they are stored and marked.
pub(crate) async fn run(node: Arc<Node>) {
    let mut changes = node.store.watch();
    loop {
        changes.borrow_and_update();
        for object in node.store.list(&Kind::core("Pod"), None) {
            let Ok(key) = Key::of(&object) else { continue };
            let leaving = !object["metadata"]["deletionTimestamp"].is_null();
            let mut pods = node.pods.lock();
            match pods.get(&key) {
                Some(handle) if leaving => {
                    let _ = handle.stop.send(true);
                }
                Some(_) => {}
                None if leaving => {
                    drop(pods);
                    node.store.remove(&key);
                }
                None => {
                    let (stop, stopped) = watch::channel(false);
                    let life = Supervised::spawn(pod::run(node.clone(), key.clone(), stopped));
                    pods.insert(key, Handle { stop, task: None, _life: life });
                }
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Keeps config volumes and tokens fresh.
pub(crate) async fn refresh(node: Arc<Node>) {
    let mut changes = node.store.watch();
    loop {
        // A change may be of a config map; time alone ages tokens.
        if let Ok(Err(_)) = tokio::time::timeout(REFRESH, changes.changed()).await {
            return;
        }
        tokio::time::sleep(SETTLE).await;
        changes.borrow_and_update();
        let tasks: Vec<Arc<PodTask>> =
            node.pods.lock().values().filter_map(|handle| handle.task.clone()).collect();
        for task in tasks {
            if let Err(error) = task.volumes.refresh(&node) {
                tracing::warn!(pod = %task.key, "{error:#}");
            }
        }
    }
}
