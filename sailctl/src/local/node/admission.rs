//! The API server's side of admission: pods go to the control plane's injector, mesh objects to its validator, over HTTPS
//! with the control plane's certificate checked. What it does not answer for is not created.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::{Node, http, kube_proxy, patch, system};
use crate::local::kind::{Key, Kind};

const PORT: u16 = 15017;
const NAME: &str = "istiod.istio-system.svc";
const LIMIT: Duration = Duration::from_secs(10);
const NEVER: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];

/// Whether the webhooks of a mesh would be asked about a pod: what their selectors say.
pub(crate) fn is_selected(namespace: &Value, pod: &Value) -> bool {
    if NEVER.iter().any(|name| namespace["metadata"]["name"] == *name) {
        return false;
    }
    let label = |object: &Value, name: &str| object["metadata"]["labels"][name].as_str().map(str::to_owned);
    let inject = label(pod, "sidecar.istio.io/inject");
    if inject.as_deref() == Some("false") {
        return false;
    }
    match (label(namespace, "istio-injection").as_deref(), label(namespace, "istio.io/rev")) {
        (Some("enabled"), _) => true,
        (Some(_), _) => false,
        (None, Some(_)) => true,
        (None, None) => inject.as_deref() == Some("true") || label(pod, "istio.io/rev").is_some(),
    }
}

/// Has a pod injected, if it is to be.
pub(crate) async fn mutate(node: &Node, key: &Key, pod: &mut Value) -> anyhow::Result<()> {
    let namespace = node.store.get(&Key::core("Namespace", "", &key.namespace));
    let namespace = namespace.with_context(|| format!("namespace {:?} not found", key.namespace))?;
    if !is_selected(&namespace, pod) {
        return Ok(());
    }
    let response = review(node, "/inject", key, pod).await.context("sidecar injection")?;
    if let Some(encoded) = response["patch"].as_str() {
        let steps: Value =
            serde_json::from_slice(&STANDARD.decode(encoded)?).context("the injector's patch")?;
        patch::apply(pod, &steps).context("the injector's patch")?;
    }
    Ok(())
}

/// Has a mesh object validated.
pub(crate) async fn validate(node: &Node, key: &Key, object: &Value) -> anyhow::Result<()> {
    if key.kind.is_mesh() {
        review(node, "/validate", key, object).await?;
    }
    Ok(())
}

/// Where the control plane serves: the address of its ready pod.
pub(crate) fn control_plane(node: &Node) -> Option<Ipv4Addr> {
    let pods: Vec<Pod> = node.store.list_typed(&Kind::core("Pod"));
    let serves = |pod: &&Pod| {
        let app = pod.metadata.labels.as_ref().and_then(|labels| labels.get("app"));
        pod.metadata.namespace.as_deref() == Some(system::NAMESPACE)
            && app.map(String::as_str) == Some(system::ISTIOD)
            && kube_proxy::is_serving(pod)
    };
    pods.iter().find(serves)?.status.as_ref()?.pod_ip.as_ref()?.parse().ok()
}

async fn review(node: &Node, path: &str, key: &Key, object: &Value) -> anyhow::Result<Value> {
    let uid = uuid::Uuid::new_v4().to_string();
    let version = object["apiVersion"].as_str().unwrap_or_default();
    let version = version.rsplit('/').next().unwrap_or_default();
    let plural =
        if key.kind.name == "Pod" { "pods".to_owned() } else { format!("{}s", key.kind.name.to_lowercase()) };
    let review = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": uid,
            "kind": {"group": key.kind.group, "version": version, "kind": key.kind.name},
            "resource": {"group": key.kind.group, "version": version, "resource": plural},
            "name": key.name,
            "namespace": key.namespace,
            "operation": "CREATE",
            "userInfo": {"username": "sailctl"},
            "object": object,
            "dryRun": false,
        },
    });
    let answer = tokio::time::timeout(LIMIT, post(node, path, &review)).await;
    let answer =
        answer.context("the control plane does not answer")?.context("cannot ask the control plane")?;
    let response = answer["response"].clone();
    if response["allowed"] == true {
        return Ok(response);
    }
    let message = response["status"]["message"].as_str().unwrap_or("no reason given");
    bail!("refused by the control plane: {message}")
}

async fn post(node: &Node, path: &str, review: &Value) -> anyhow::Result<Value> {
    let address = control_plane(node).context("no control plane is ready")?;
    let roots = roots(node)?;
    let stream = TcpStream::connect((address, PORT)).await.with_context(|| format!("{address}:{PORT}"))?;
    let stream = http::tls(stream, NAME, roots).await?;
    let request = Request::post(format!("{path}?timeout=10s"))
        .header("host", NAME)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(serde_json::to_vec(review)?)))?;
    let (status, body) = http::send(stream, request).await?;
    if !status.is_success() {
        bail!("{path} answered {status}: {}", String::from_utf8_lossy(&body).trim());
    }
    serde_json::from_slice(&body).with_context(|| format!("{path} answered something that is not JSON"))
}

fn roots(node: &Node) -> anyhow::Result<Arc<rustls::RootCertStore>> {
    let file = system::root_file(&node.state);
    let pem = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(identity::TrustBundle::from_pem(&pem)?.store().clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors() {
        let check = |namespace: Value, pod: Value, expect: bool| {
            let namespace = json!({"metadata": {"name": "a", "labels": namespace}});
            let pod = json!({"metadata": {"labels": pod}});
            assert_eq!(is_selected(&namespace, &pod), expect, "{namespace} {pod}");
        };
        check(json!({}), json!({}), false);
        check(json!({"istio-injection": "enabled"}), json!({}), true);
        check(json!({"istio-injection": "enabled"}), json!({"sidecar.istio.io/inject": "false"}), false);
        check(json!({"istio-injection": "disabled"}), json!({"sidecar.istio.io/inject": "true"}), false);
        check(json!({}), json!({"sidecar.istio.io/inject": "true"}), true);
        check(json!({"istio.io/rev": "default"}), json!({}), true);
    }
}
