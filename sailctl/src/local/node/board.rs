//! What is known of a pod's containers, and the pod status that follows from it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use serde_json::{Value, json};

use super::container::Running;
use super::process::Exit;
use super::store::now;
use super::{NODE_NAME, network};

/// Where a container stands.
#[derive(Clone)]
pub(crate) enum Phase {
    Waiting { reason: String, message: String },
    Running { since: String },
    Ended { exit: Exit, since: String },
}

/// One container's part.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) phase: Phase,
    pub(crate) running: Option<Running>,
    /// Its startup probe has passed.
    pub(crate) started: bool,
    pub(crate) ready: bool,
    pub(crate) restarts: i32,
    pub(crate) last: Option<(Exit, String)>,
}

impl Default for Entry {
    fn default() -> Self {
        let phase = Phase::Waiting { reason: "ContainerCreating".into(), message: String::new() };
        Self { phase, running: None, started: false, ready: false, restarts: 0, last: None }
    }
}

/// All containers of a pod.
#[derive(Default, Clone)]
pub(crate) struct Board {
    pub(crate) entries: BTreeMap<String, Entry>,
    pub(crate) initialized: bool,
    /// A word on why the pod as a whole waits.
    pub(crate) trouble: Option<(String, String)>,
}

pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

impl Board {
    /// The status of a pod; times of conditions that did not change are kept from `old`.
    pub(crate) fn status(&self, pod: &Pod, address: Option<std::net::Ipv4Addr>, old: &Value) -> Value {
        let spec = pod.spec.clone().unwrap_or_default();
        let init = spec.init_containers.unwrap_or_default();
        let ready_of =
            |container: &Container| self.entries.get(&container.name).is_some_and(|entry| entry.ready);
        let sidecars = init.iter().filter(|container| is_sidecar(container));
        let ready = self.initialized && spec.containers.iter().chain(sidecars).all(ready_of);
        let conditions: Vec<Value> = [
            ("PodScheduled", true),
            ("Initialized", self.initialized),
            ("ContainersReady", ready),
            ("Ready", ready),
        ]
        .into_iter()
        .map(|(name, holds)| condition(name, holds, old))
        .collect();
        let statuses =
            |list: &[Container]| list.iter().map(|one| self.container_status(one)).collect::<Vec<_>>();
        let mut status = json!({
            "phase": self.phase(&spec.containers, spec.restart_policy.as_deref().unwrap_or("Always")),
            "hostIP": network::GATEWAY.to_string(),
            "conditions": conditions,
            "containerStatuses": statuses(&spec.containers),
            "qosClass": "Burstable",
        });
        if !init.is_empty() {
            status["initContainerStatuses"] = statuses(&init).into();
        }
        if let Some(address) = address {
            status["podIP"] = address.to_string().into();
            status["podIPs"] = json!([{"ip": address.to_string()}]);
        }
        if let Some((reason, message)) = &self.trouble {
            status["reason"] = reason.clone().into();
            status["message"] = message.clone().into();
        }
        status["startTime"] = match old["startTime"].as_str() {
            Some(time) => time.into(),
            None => now().into(),
        };
        status["nominatedNodeName"] = NODE_NAME.into();
        status
    }

    fn phase(&self, containers: &[Container], policy: &str) -> &'static str {
        let entries: Vec<&Entry> = containers.iter().filter_map(|one| self.entries.get(&one.name)).collect();
        let codes: Vec<Option<i32>> = entries
            .iter()
            .map(|entry| match &entry.phase {
                Phase::Ended { exit, .. } => Some(exit.code),
                _ => None,
            })
            .collect();
        let all_ended = entries.len() == containers.len() && codes.iter().all(Option::is_some);
        if policy != "Always" && all_ended {
            let failed = codes.iter().flatten().any(|code| *code != 0);
            return match (failed, policy) {
                (false, _) => "Succeeded",
                (true, "Never") => "Failed",
                (true, _) => "Running",
            };
        }
        let began = |entry: &&Entry| entry.restarts > 0 || !matches!(entry.phase, Phase::Waiting { .. });
        if entries.iter().any(began) { "Running" } else { "Pending" }
    }

    fn container_status(&self, container: &Container) -> Value {
        let entry = self.entries.get(&container.name).cloned().unwrap_or_default();
        let state = match &entry.phase {
            Phase::Waiting { reason, message } if message.is_empty() => {
                json!({"waiting": {"reason": reason}})
            }
            Phase::Waiting { reason, message } => json!({"waiting": {"reason": reason, "message": message}}),
            Phase::Running { since } => json!({"running": {"startedAt": since}}),
            Phase::Ended { exit, since } => json!({"terminated": ended(*exit, since)}),
        };
        let last =
            entry.last.as_ref().map_or(json!({}), |(exit, at)| json!({"terminated": ended(*exit, at)}));
        json!({
            "name": container.name,
            "image": container.image,
            "imageID": container.image,
            "ready": entry.ready,
            "started": entry.started,
            "restartCount": entry.restarts,
            "state": state,
            "lastState": last,
        })
    }
}

fn ended(exit: Exit, at: &str) -> Value {
    let reason = if exit.code == 0 { "Completed" } else { "Error" };
    let mut value = json!({"exitCode": exit.code, "reason": reason, "finishedAt": at});
    if let Some(signal) = exit.signal {
        value["signal"] = signal.into();
    }
    value
}

fn condition(name: &str, holds: bool, old: &Value) -> Value {
    let status = if holds { "True" } else { "False" };
    let before = old["conditions"].as_array().and_then(|all| all.iter().find(|one| one["type"] == name));
    match before {
        Some(before) if before["status"] == status => before.clone(),
        _ => json!({"type": name, "status": status, "lastTransitionTime": now()}),
    }
}
