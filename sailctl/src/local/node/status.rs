//! How the mesh is: pods, what the control plane says of their proxies, and what is waited for.

use std::collections::BTreeMap;
use std::time::Duration;

use http_body_util::Empty;
use hyper::Request;
use hyper::body::Bytes;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use tokio::net::TcpStream;

use super::issuer::Account;
use super::{Node, admission, http, system};
use crate::local::kind::Kind;
use crate::local::output;
use crate::local::protocol::{PodStatus, Status};

const LIMIT: Duration = Duration::from_secs(2);

/// Asks the store and the control plane.
pub(crate) async fn of(node: &Node) -> Status {
    let synced = tokio::time::timeout(LIMIT, synced(node)).await.ok().flatten().unwrap_or_default();
    let pods: Vec<PodStatus> =
        node.store.list(&Kind::core("Pod"), None).iter().map(|pod| pod_status(pod, &synced)).collect();
    let waiting_for = waiting_for(node, &pods);
    Status {
        name: node.state.name().to_owned(),
        ready: waiting_for.is_empty(),
        waiting_for,
        ingress: node.ingress,
        pods,
    }
}

fn waiting_for(node: &Node, pods: &[PodStatus]) -> Vec<String> {
    let mut waiting = Vec::new();
    let serves = |app: &str| {
        let mut own =
            pods.iter().filter(|pod| pod.namespace == system::NAMESPACE && pod.name.starts_with(app));
        own.any(|pod| pod.ready.0 == pod.ready.1 && pod.ready.1 > 0)
    };
    for (app, what) in [(system::ISTIOD, "control plane"), (system::GATEWAY, "ingress gateway")] {
        if !serves(app) {
            // The gateway cannot come before the control plane: that it waits is no news.
            if app == system::GATEWAY && !waiting.is_empty() {
                waiting.push(what.to_owned());
                continue;
            }
            let pod = pods.iter().find(|pod| pod.namespace == system::NAMESPACE && pod.name.starts_with(app));
            let why = pod.map_or_else(|| deployment_trouble(node, app), |pod| Some(pod.status.clone()));
            waiting.push(why.map_or_else(|| what.to_owned(), |why| format!("{what} ({why})")));
        }
    }
    waiting
}

fn deployment_trouble(node: &Node, name: &str) -> Option<String> {
    let deployments = node.store.list(&Kind::deployment(), Some(system::NAMESPACE));
    let found = deployments.iter().find(|one| one["metadata"]["name"] == name)?;
    found["status"]["conditions"][0]["message"].as_str().map(str::to_owned)
}

fn pod_status(pod: &Value, synced: &BTreeMap<String, String>) -> PodStatus {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let init = pod["spec"]["initContainers"].as_array().into_iter().flatten();
    let has_proxy = containers.chain(init).any(|container| container["name"] == "istio-proxy");
    PodStatus {
        synced: has_proxy.then(|| {
            synced.get(&format!("{name}.{namespace}")).cloned().unwrap_or_else(|| "NOT CONNECTED".into())
        }),
        ready: output::ready(pod),
        restarts: output::restarts(pod),
        status: output::pod_state(pod),
        address: pod["status"]["podIP"].as_str().and_then(|ip| ip.parse().ok()),
        namespace,
        name,
    }
}

/// Of each connected proxy (POD.NAMESPACE), whether it has accepted what it was sent.
async fn synced(node: &Node) -> Option<BTreeMap<String, String>> {
    let address = admission::control_plane(node)?;
    let stream = TcpStream::connect((address, 8080)).await.ok()?;
    let request = Request::get("/debug/syncz")
        .header("host", "istiod")
        .header("authorization", format!("Bearer {}", token(node)?))
        .body(Empty::<Bytes>::new())
        .ok()?;
    let (_, body) = http::send(stream, request).await.ok()?;
    let page: Value = serde_json::from_slice(&body).ok()?;
    Some(read_syncz(&page))
}

/// The page is open to callers of the system namespace.
fn token(node: &Node) -> Option<String> {
    let mut pod = Pod::default();
    pod.metadata.name = Some(super::NODE_NAME.to_owned());
    pod.metadata.namespace = Some(system::NAMESPACE.to_owned());
    let account = Account { name: "sailctl".to_owned(), uid: String::new() };
    node.issuer.token(&pod, &account, "istio-ca", 60).ok()
}

/// The page is a list of clients, each with its name and the state of each type that it watches (`cluster_sync`, …).
fn read_syncz(page: &Value) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for client in page.as_array().into_iter().flatten() {
        let id = client["proxy"].as_str().unwrap_or_default();
        let name = id.split('~').nth(2).unwrap_or(id).to_owned();
        let fields = client.as_object().into_iter().flatten();
        let states =
            fields.filter(|(name, _)| name.ends_with("_sync")).filter_map(|(_, state)| state.as_str());
        let mut bad = states.filter(|state| !matches!(*state, "SYNCED" | "NOT SENT"));
        all.insert(name, bad.next().unwrap_or("SYNCED").to_owned());
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_type_that_is_not_synced_tells() {
        let page = json!([
            {"proxy": "a.default", "cluster_sync": "SYNCED", "listener_sync": "STALE", "route_sync": "NOT SENT"},
            {"proxy": "gw.istio-system", "cluster_sync": "SYNCED"},
        ]);
        let all = read_syncz(&page);
        assert_eq!(all["a.default"], "STALE");
        assert_eq!(all["gw.istio-system"], "SYNCED");
    }
}
