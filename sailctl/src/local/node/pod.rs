//! A pod's life, as a kubelet leads it: network, volumes, init containers, containers, and at the end all of it backwards.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use base::task::Supervised;
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::sync::{oneshot, watch};

use super::board::{Board, Entry, is_sidecar};
use super::container::Running;
use super::network::PodNetwork;
use super::probe::Action;
use super::supervise;
use super::volumes::Volumes;
use super::{Node, kube_proxy};
use crate::local::kind::Key;

/// From the removal of a pod's endpoint to its first signal: time for everybody to hear of it.
const ENDPOINT_SETTLE: Duration = Duration::from_millis(1500);
const RETRY: Duration = Duration::from_millis(500);

/// A pod that runs.
pub(crate) struct PodTask {
    pub(crate) node: Arc<Node>,
    pub(crate) key: Key,
    pub(crate) network: PodNetwork,
    pub(crate) volumes: Volumes,
    pod: Pod,
    board: Mutex<Board>,
    changed: watch::Sender<u64>,
    /// Set when the pod is to end: nothing is restarted from then on.
    pub(crate) stopping: watch::Receiver<bool>,
}

/// Leads a pod's life to its end, and removes the object.
pub(crate) async fn run(node: Arc<Node>, key: Key, mut stop: watch::Receiver<bool>) {
    let task = tokio::select! {
        task = set_up(&node, &key, stop.clone()) => task,
        _ = stop.wait_for(|stop| *stop) => None,
    };
    if let Some(task) = task {
        node.pods.attach(&key, &task);
        let containers = tokio::select! {
            running = live(&task) => running,
            _ = stop.wait_for(|stop| *stop) => Vec::new(),
        };
        // A pod whose containers have ended by themselves stays until it is deleted.
        let _ = stop.wait_for(|stop| *stop).await;
        task.end().await;
        drop(containers);
    }
    node.store.remove(&key);
    node.pods.detach(&key);
}

async fn set_up(node: &Arc<Node>, key: &Key, stopping: watch::Receiver<bool>) -> Option<Arc<PodTask>> {
    let mut trouble = String::new();
    loop {
        let pod: Pod = node.store.typed(key)?;
        match prepare(node, key, pod, stopping.clone()).await {
            Ok(task) => return Some(task),
            Err(error) => {
                let text = format!("{error:#}");
                if text != trouble {
                    tracing::warn!(pod = %key, "{text}");
                    let set = node.store.update(key, |object| {
                        object["status"]["phase"] = "Pending".into();
                        object["status"]["reason"] = "FailedMount".into();
                        object["status"]["message"] = text.clone().into();
                    });
                    drop(set);
                    trouble = text;
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn prepare(
    node: &Arc<Node>,
    key: &Key,
    mut pod: Pod,
    stopping: watch::Receiver<bool>,
) -> anyhow::Result<Arc<PodTask>> {
    let uid = pod.metadata.uid.clone().context("the pod has no uid")?;
    let maker = node.network.clone();
    let network = tokio::task::spawn_blocking(move || maker.add_pod()).await??;
    let status = pod.status.get_or_insert_default();
    status.pod_ip = Some(network.address.to_string());
    status.host_ip = Some(super::network::GATEWAY.to_string());
    let root: PathBuf = node.state.run().join("pods").join(uid);
    let volumes = Volumes::create(node, &pod, root)?;
    let task = Arc::new(PodTask {
        node: node.clone(),
        key: key.clone(),
        network,
        volumes,
        pod,
        board: Mutex::default(),
        changed: watch::Sender::new(0),
        stopping,
    });
    task.publish();
    Ok(task)
}

/// Starts everything; returns what keeps the containers going.
async fn live(task: &Arc<PodTask>) -> Vec<Supervised<()>> {
    let spec = task.pod.spec.clone().unwrap_or_default();
    let mut guards = Vec::new();
    for container in spec.init_containers.unwrap_or_default() {
        if is_sidecar(&container) {
            let name = container.name.clone();
            guards.push(Supervised::spawn(supervise::keep(task.clone(), container, "Always", None)));
            task.wait_for(|board| board.entries.get(&name).is_some_and(|entry| entry.started)).await;
        } else {
            supervise::to_completion(task, &container).await;
        }
    }
    task.change(|board| board.initialized = true);
    let policy = match spec.restart_policy.as_deref() {
        Some("Never") => "Never",
        Some("OnFailure") => "OnFailure",
        _ => "Always",
    };
    for container in spec.containers {
        // The next container waits for this one's postStart hook: so a sidecar can hold the application back.
        let (launched, wait) = oneshot::channel();
        guards.push(Supervised::spawn(supervise::keep(task.clone(), container, policy, Some(launched))));
        let _ = wait.await;
    }
    // They stay here until the pod is stopped: dropping them would stop the supervision.
    let mut stopping = task.stopping.clone();
    let _ = stopping.wait_for(|stop| *stop).await;
    guards
}

impl PodTask {
    /// The pod as it is stored now.
    pub(crate) fn current(&self) -> Pod {
        let mut pod = self.node.store.typed(&self.key).unwrap_or_else(|| self.pod.clone());
        pod.status.clone_from(&self.pod.status);
        pod
    }

    pub(crate) fn pod(&self) -> &Pod {
        &self.pod
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Changes what is known and publishes the status that follows.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Board)) {
        change(&mut self.board.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_modify(|count| *count += 1);
        self.publish();
    }

    /// Changes what is known of one container.
    pub(crate) fn change_entry(&self, container: &str, change: impl FnOnce(&mut Entry)) {
        self.change(|board| change(board.entries.entry(container.to_owned()).or_default()));
    }

    fn publish(&self) {
        let board = self.board();
        let result = self.node.store.update(&self.key, |object| {
            object["status"] = board.status(&self.pod, Some(self.network.address), &object["status"]);
        });
        if let Err(error) = result {
            tracing::error!(pod = %self.key, "{error:#}");
        }
    }

    pub(crate) fn board(&self) -> Board {
        self.board.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn running(&self, container: &str) -> Option<Running> {
        self.board().entries.get(container)?.running.clone()
    }

    async fn wait_for(&self, mut condition: impl FnMut(&Board) -> bool) {
        let mut changed = self.changed.subscribe();
        while !condition(&self.board()) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Ends all containers: first those of the application, then the sidecars that started before them.
    async fn end(self: &Arc<Self>) {
        let stored: Option<Pod> = self.node.store.typed(&self.key);
        let grace = stored.as_ref().and_then(|pod| pod.metadata.deletion_grace_period_seconds);
        let spec = self.pod.spec.clone().unwrap_or_default();
        let grace = grace.or(spec.termination_grace_period_seconds).unwrap_or(30);
        let grace = Duration::from_secs(grace.max(0).cast_unsigned());
        if grace > ENDPOINT_SETTLE && self.was_serving() {
            tokio::time::sleep(ENDPOINT_SETTLE).await;
        }
        let deadline = tokio::time::Instant::now() + grace;
        self.end_all(spec.containers, deadline).await;
        for container in spec.init_containers.unwrap_or_default().into_iter().rev() {
            self.end_all(vec![container], deadline).await;
        }
    }

    fn was_serving(&self) -> bool {
        let Some(mut pod) = self.node.store.typed::<Pod>(&self.key) else { return false };
        pod.metadata.deletion_timestamp = None;
        kube_proxy::is_serving(&pod)
    }

    async fn end_all(self: &Arc<Self>, containers: Vec<Container>, deadline: tokio::time::Instant) {
        let mut ending = Vec::new();
        for container in containers {
            if let Some(running) = self.running(&container.name) {
                ending.push(Supervised::spawn(end_one(self.clone(), container, running, deadline)));
            }
        }
        for one in ending {
            let _ = one.await;
        }
    }
}

async fn end_one(task: Arc<PodTask>, container: Container, running: Running, deadline: tokio::time::Instant) {
    let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    let politely = async {
        if let Some(action) = hook.and_then(Action::of_hook)
            && let Err(error) = action.run(&task.node, task.pod(), &container, &running).await
        {
            tracing::warn!(pod = %task.key, container = container.name, "preStop: {error:#}");
        }
        running.process.terminate();
        running.process.wait().await;
    };
    if tokio::time::timeout_at(deadline, politely).await.is_err() {
        running.process.kill();
        running.process.wait().await;
    }
}
