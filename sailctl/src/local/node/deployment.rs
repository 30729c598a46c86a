//! Deployments: so many pods of a template, replaced a few at a time when the template changes.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStrategy};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::{Duration, sleep};

use super::{Node, api};
use crate::local::kind::{Key, Kind};

const HASH_LABEL: &str = "pod-template-hash";
const RETRY: Duration = Duration::from_millis(500);

/// Keeps pods as their Deployments say.
pub(crate) async fn run(node: Arc<Node>) {
    let mut changes = node.store.watch();
    loop {
        changes.borrow_and_update();
        let mut again = false;
        for object in node.store.list(&Kind::deployment(), None) {
            again |= !reconcile(&node, &object).await;
        }
        let changed = async {
            if again {
                // A pod could not be made: the webhook may not be there yet.
                let _ = tokio::time::timeout(RETRY, changes.changed()).await;
                sleep(RETRY / 2).await;
                true
            } else {
                changes.changed().await.is_ok()
            }
        };
        if !changed.await {
            return;
        }
    }
}

/// What is to be done for one Deployment.
#[derive(Debug, PartialEq, Eq)]
struct Steps {
    create: usize,
    /// Names of pods.
    delete: Vec<String>,
}

/// A pod of a Deployment, as far as the decision needs it.
#[derive(Debug, Clone)]
struct Member {
    name: String,
    current: bool,
    ready: bool,
}

async fn reconcile(node: &Arc<Node>, object: &Value) -> bool {
    let Ok(key) = Key::of(object) else { return true };
    let Some(deployment) = super::store::typed::<Deployment>(object) else { return true };
    let Some(spec) = &deployment.spec else { return true };
    let hash = hash(&object["spec"]["template"]);
    let members = members(node, &key, &hash);
    let wanted = usize::try_from(spec.replicas.unwrap_or(1).max(0)).unwrap_or_default();
    let steps = decide(wanted, spec.strategy.as_ref(), &members);
    for name in &steps.delete {
        if let Err(error) = api::mark_for_deletion(node, &Key::pod(&key.namespace, name)) {
            tracing::error!(deployment = %key, "{error:#}");
        }
    }
    let mut trouble = None;
    for _ in 0..steps.create {
        if let Err(error) = create_pod(node, &key, object, &hash).await {
            trouble = Some(format!("{error:#}"));
            break;
        }
    }
    publish(node, &key, object, &members, trouble.as_deref());
    trouble.is_none()
}

fn members(node: &Node, key: &Key, hash: &str) -> Vec<Member> {
    let prefix = format!("{}-", key.name);
    node.store
        .list(&Kind::core("Pod"), Some(&key.namespace))
        .iter()
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        .filter(|pod| {
            let owner = pod["metadata"]["ownerReferences"][0]["name"].as_str().unwrap_or_default();
            let label = pod["metadata"]["labels"][HASH_LABEL].as_str().unwrap_or_default();
            owner.strip_prefix(&prefix) == Some(label)
        })
        .map(|pod| Member {
            name: pod["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
            current: pod["metadata"]["labels"][HASH_LABEL] == hash,
            ready: super::store::typed(pod).as_ref().is_some_and(super::kube_proxy::is_serving),
        })
        .collect()
}

fn decide(wanted: usize, strategy: Option<&DeploymentStrategy>, members: &[Member]) -> Steps {
    let (current, old): (Vec<&Member>, Vec<&Member>) = members.iter().partition(|member| member.current);
    let names = |list: &[&Member]| list.iter().map(|member| member.name.clone()).collect::<Vec<_>>();
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate") && !old.is_empty() {
        return Steps { create: 0, delete: names(&old) };
    }
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let surge = share(rolling.and_then(|rolling| rolling.max_surge.as_ref()), wanted, Round::Up);
    let mut unavailable =
        share(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), wanted, Round::Down);
    if surge == 0 && unavailable == 0 {
        unavailable = 1;
    }
    let room = if old.is_empty() { wanted } else { (wanted + surge).saturating_sub(old.len()).min(wanted) };
    let create = room.saturating_sub(current.len());
    let mut delete = Vec::new();
    if current.len() > wanted {
        let mut extra = current.clone();
        extra.sort_by_key(|member| member.ready);
        delete.extend(names(&extra[..current.len() - wanted]));
    }
    // Old pods that do not serve go first; those that do, as far as enough others serve.
    let mut available = members.iter().filter(|member| member.ready).count();
    let least = wanted.saturating_sub(unavailable);
    for member in old {
        if !member.ready {
            delete.push(member.name.clone());
        } else if available > least {
            available -= 1;
            delete.push(member.name.clone());
        }
    }
    Steps { create, delete }
}

enum Round {
    Up,
    Down,
}

/// A number or a percentage of the replicas; a quarter by default.
fn share(value: Option<&IntOrString>, wanted: usize, round: Round) -> usize {
    let percent = match value {
        Some(IntOrString::Int(number)) => return usize::try_from(*number).unwrap_or_default(),
        Some(IntOrString::String(text)) => text.trim_end_matches('%').parse().unwrap_or(25),
        None => 25,
    };
    match round {
        Round::Up => (wanted * percent).div_ceil(100),
        Round::Down => wanted * percent / 100,
    }
}

/// Ten characters that change with the template.
fn hash(template: &Value) -> String {
    hex::encode(Sha256::digest(template.to_string()))[..10].to_owned()
}

async fn create_pod(node: &Arc<Node>, key: &Key, deployment: &Value, hash: &str) -> anyhow::Result<()> {
    let mut pod = deployment["spec"]["template"].clone();
    pod["apiVersion"] = "v1".into();
    pod["kind"] = "Pod".into();
    let set = format!("{}-{hash}", key.name);
    let name = format!("{set}-{}", suffix());
    pod["metadata"]["name"] = name.clone().into();
    pod["metadata"]["namespace"] = key.namespace.clone().into();
    pod["metadata"]["generateName"] = format!("{set}-").into();
    pod["metadata"]["labels"][HASH_LABEL] = hash.into();
    pod["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set, "controller": true, "blockOwnerDeletion": true,
        "uid": deployment["metadata"]["uid"],
    }]);
    api::create_pod(node, &Key::pod(&key.namespace, &name), pod).await
}

fn suffix() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    (0..5).map(|_| char::from(LETTERS[rand::random_range(0..LETTERS.len())])).collect()
}

fn publish(node: &Node, key: &Key, object: &Value, members: &[Member], trouble: Option<&str>) {
    let ready = members.iter().filter(|member| member.ready).count();
    let updated = members.iter().filter(|member| member.current).count();
    let mut status = json!({
        "replicas": members.len(), "readyReplicas": ready, "availableReplicas": ready, "updatedReplicas": updated,
    });
    if let Some(message) = trouble {
        if object["status"]["conditions"][0]["message"] != message {
            tracing::warn!(deployment = %key, "{message}");
        }
        status["conditions"] = json!([{
            "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message,
        }]);
    }
    let result = node.store.update(key, |object| object["status"] = status);
    if let Err(error) = result {
        tracing::error!(deployment = %key, "{error:#}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(wanted: usize, members: &[(bool, bool)], create: usize, delete: &[usize]) {
        let members: Vec<Member> = members
            .iter()
            .enumerate()
            .map(|(index, (current, ready))| Member {
                name: index.to_string(),
                current: *current,
                ready: *ready,
            })
            .collect();
        let steps = decide(wanted, None, &members);
        let delete: Vec<String> = delete.iter().map(usize::to_string).collect();
        assert_eq!(steps, Steps { create, delete }, "{members:?}");
    }

    #[test]
    fn scales_up_and_down() {
        check(3, &[], 3, &[]);
        check(1, &[(true, true), (true, false)], 0, &[1]);
        check(0, &[(true, true)], 0, &[0]);
    }

    #[test]
    fn rolls_one_by_one_and_never_below_what_is_wanted() {
        check(1, &[(false, true)], 1, &[]);
        check(1, &[(false, true), (true, false)], 0, &[]);
        check(1, &[(false, true), (true, true)], 0, &[0]);
        check(4, &[(false, true), (false, true), (false, true), (false, true)], 1, &[0]);
    }

    #[test]
    fn pods_that_never_served_do_not_block() {
        check(1, &[(false, false)], 1, &[0]);
    }
}
