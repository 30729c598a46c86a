//! The verbs, one file each.

pub(crate) mod apply;
pub(crate) mod delete;
pub(crate) mod down;
pub(crate) mod exec;
pub(crate) mod get;
pub(crate) mod label;
pub(crate) mod logs;
pub(crate) mod port_forward;
pub(crate) mod restart;
pub(crate) mod status;
pub(crate) mod up;

use anyhow::{Context, bail};
use serde_json::Value;

use super::StateDir;
use super::client;
use super::kind::{Key, Kind};
use super::protocol::{Reply, Request};

/// Objects of a kind.
fn list(state: &StateDir, kind: &Kind, namespace: Option<&str>) -> anyhow::Result<Vec<Value>> {
    let request = Request::List { kind: kind.clone(), namespace: namespace.map(str::to_owned) };
    match client::ask(state, &request)? {
        Reply::Objects(objects) => Ok(objects),
        other => bail!("unexpected answer to a list request: {other:?}"),
    }
}

/// Asks for something that is done or not; what was done.
fn done(state: &StateDir, request: &Request) -> anyhow::Result<String> {
    match client::ask(state, request)? {
        Reply::Done(word) => Ok(word),
        other => bail!("unexpected answer: {other:?}"),
    }
}

/// Finds the pod that a user means: its name, `deploy/NAME`, or a Deployment's name. A pod that is ready is preferred.
fn find_pod(state: &StateDir, namespace: &str, target: &str) -> anyhow::Result<Key> {
    let pods = list(state, &Kind::core("Pod"), Some(namespace))?;
    let (kind, name) = match target.split_once('/') {
        Some((kind, name)) => (Some(Kind::parse(kind)?), name),
        None => (None, target),
    };
    let is_pod = kind.as_ref().is_none_or(|kind| kind.name == "Pod");
    let is_deployment = kind.as_ref().is_none_or(|kind| kind.name == "Deployment");
    if !is_pod && !is_deployment {
        bail!("{target}: name a pod, or deploy/NAME");
    }
    let named = |pod: &&Value| is_pod && pod["metadata"]["name"] == name;
    let owned = |pod: &&Value| {
        let owner = pod["metadata"]["ownerReferences"][0]["name"].as_str().unwrap_or_default();
        let hash = pod["metadata"]["labels"]["pod-template-hash"].as_str().unwrap_or_default();
        is_deployment && owner.strip_suffix(hash).and_then(|rest| rest.strip_suffix('-')) == Some(name)
    };
    let rank = |pod: &&Value| {
        let leaving = !pod["metadata"]["deletionTimestamp"].is_null();
        let (ready, total) = super::output::ready(pod);
        (leaving, ready < total)
    };
    let mut candidates: Vec<&Value> = pods.iter().filter(|pod| named(pod) || owned(pod)).collect();
    candidates.sort_by_key(rank);
    let pod = candidates.first().with_context(|| format!("no pod {target:?} in namespace {namespace}"))?;
    Key::of(pod)
}
