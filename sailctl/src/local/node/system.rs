//! What a mesh runs of its own: the control plane and the ingress gateway, as objects like any other.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use super::issuer::{ISSUER, JWKS_FILE};
use super::store::object;
use super::{NODE_NAME, Node, api, network};
use crate::local::StateDir;
use crate::local::kind::{Key, Kind};

/// Where the mesh's own pods are.
pub(crate) const NAMESPACE: &str = "istio-system";
/// The control plane's name.
pub(crate) const ISTIOD: &str = "istiod";
/// The gateway's name.
pub(crate) const GATEWAY: &str = "istio-ingressgateway";
const ROOT_CONFIG_MAP: &str = "istio-ca-root-cert";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The root that the control plane wrote.
pub(crate) fn root_file(state: &StateDir) -> PathBuf {
    state.istiod().join("root-cert.pem")
}

/// Stores everything. Pods follow as their images' programs start.
pub(crate) async fn install(node: &Arc<Node>) -> anyhow::Result<()> {
    for name in ["default", "kube-system", NAMESPACE] {
        api::apply(node, &Key::core("Namespace", "", name), object("v1", "Namespace", "", name)).await?;
    }
    let node_object = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": NODE_NAME, "labels": {
            "topology.kubernetes.io/region": "local", "topology.kubernetes.io/zone": "local",
        }},
        "status": {
            "addresses": [{"type": "InternalIP", "address": network::GATEWAY.to_string()}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    let objects = [
        node_object,
        mesh_config(),
        account(ISTIOD),
        account(GATEWAY),
        istiod_service(),
        istiod(&node.state),
        gateway_service(),
        gateway(),
    ];
    for object in objects {
        api::apply(node, &Key::of(&object)?, object).await?;
    }
    Ok(())
}

fn ports(numbers: &[u16]) -> Vec<Value> {
    numbers.iter().map(|port| json!({"containerPort": port})).collect()
}

fn account(name: &str) -> Value {
    object("v1", "ServiceAccount", NAMESPACE, name)
}

fn mesh_config() -> Value {
    let mesh = "accessLogFile: /dev/stdout\ndefaultConfig:\n  discoveryAddress: istiod.istio-system.svc:15012\n\
                rootNamespace: istio-system\ntrustDomain: cluster.local\n";
    let mut map = object("v1", "ConfigMap", NAMESPACE, "istio");
    map["data"] = json!({"mesh": mesh, "meshNetworks": "networks: {}\n"});
    map
}

fn istiod_service() -> Value {
    let mut service = object("v1", "Service", NAMESPACE, ISTIOD);
    service["metadata"]["labels"] = json!({"app": ISTIOD, "istio": "pilot"});
    service["spec"] = json!({
        "selector": {"app": ISTIOD},
        "ports": [
            {"name": "grpc-xds", "port": 15010},
            {"name": "https-dns", "port": 15012},
            {"name": "https-webhook", "port": 443, "targetPort": 15017},
            {"name": "http-monitoring", "port": 15014},
        ],
    });
    service
}

fn istiod(state: &StateDir) -> Value {
    let host = |name: &str, path: PathBuf| json!({"name": name, "hostPath": {"path": path}});
    let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path});
    let args = [
        "discovery",
        "--domain",
        "cluster.local",
        "--clusterID",
        "Kubernetes",
        "--registries",
        "Directory",
        "--registry-dir",
        "/var/lib/ironsail/objects",
        "--state-dir",
        "/var/lib/ironsail/state",
        "--meshConfig",
        "/etc/istio/config/mesh",
        "--token-issuer",
        ISSUER,
        "--token-jwks",
    ];
    let mut args: Vec<String> = args.map(str::to_owned).into();
    args.push(format!("/var/lib/ironsail/issuer/{JWKS_FILE}"));
    let mut deployment = object("apps/v1", "Deployment", NAMESPACE, ISTIOD);
    deployment["metadata"]["labels"] = json!({"app": ISTIOD, "istio": "pilot"});
    deployment["spec"] = json!({
        "replicas": 1,
        "selector": {"matchLabels": {"app": ISTIOD}},
        "template": {
            "metadata": {"labels": {"app": ISTIOD, "istio": "pilot", "sidecar.istio.io/inject": "false"}},
            "spec": {
                "serviceAccountName": ISTIOD,
                "terminationGracePeriodSeconds": 5,
                "containers": [{
                    "name": "discovery",
                    "image": format!("ironsail/pilot:{VERSION}"),
                    "args": args,
                    "env": [
                        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                        {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
                    ],
                    "ports": ports(&[8080, 15010, 15012, 15014, 15017]),
                    "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 3},
                    "volumeMounts": [
                        mount("objects", "/var/lib/ironsail/objects"),
                        mount("state", "/var/lib/ironsail/state"),
                        mount("issuer", "/var/lib/ironsail/issuer"),
                        mount("config", "/etc/istio/config"),
                    ],
                }],
                "volumes": [
                    host("objects", state.objects()),
                    host("state", state.istiod()),
                    host("issuer", super::issuer::directory(state)),
                    {"name": "config", "configMap": {"name": "istio"}},
                ],
            },
        },
    });
    deployment
}

fn gateway_service() -> Value {
    let mut service = object("v1", "Service", NAMESPACE, GATEWAY);
    service["metadata"]["labels"] = json!({"app": GATEWAY, "istio": "ingressgateway"});
    service["spec"] = json!({
        "type": "LoadBalancer",
        "selector": {"app": GATEWAY, "istio": "ingressgateway"},
        "ports": [
            {"name": "status-port", "port": 15021, "targetPort": 15021},
            {"name": "http2", "port": 80, "targetPort": 8080},
            {"name": "https", "port": 443, "targetPort": 8443},
            {"name": "tcp", "port": 31400, "targetPort": 31400},
        ],
    });
    service
}

fn gateway() -> Value {
    let labels = json!({"app": GATEWAY, "istio": "ingressgateway"});
    let mut deployment = object("apps/v1", "Deployment", NAMESPACE, GATEWAY);
    deployment["metadata"]["labels"] = labels.clone();
    let mut pod_labels = labels.clone();
    pod_labels["sidecar.istio.io/inject"] = "true".into();
    deployment["spec"] = json!({
        "replicas": 1,
        "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"labels": pod_labels, "annotations": {"inject.istio.io/templates": "gateway"}},
            "spec": {
                "serviceAccountName": GATEWAY,
                "terminationGracePeriodSeconds": 5,
                "containers": [{
                    "name": "istio-proxy",
                    "image": "auto",
                    "ports": ports(&[8080, 8443, 31400, 15021, 15090]),
                }],
            },
        },
    });
    deployment
}

/// Gives every namespace its account and the mesh's root certificate, as Kubernetes and Istio do.
pub(crate) async fn namespaces(node: Arc<Node>) {
    let mut changes = node.store.watch();
    loop {
        changes.borrow_and_update();
        let root = std::fs::read_to_string(root_file(&node.state)).ok();
        for namespace in node.store.list(&Kind::core("Namespace"), None) {
            let name = namespace["metadata"]["name"].as_str().unwrap_or_default();
            if let Err(error) = furnish(&node, name, root.as_deref()) {
                tracing::error!(namespace = name, "{error:#}");
            }
        }
        // The root is a file of the control plane: nobody tells of its coming but time.
        let pause = std::time::Duration::from_millis(if root.is_some() { 5000 } else { 100 });
        if let Ok(Err(_)) = tokio::time::timeout(pause, changes.changed()).await {
            return;
        }
    }
}

fn furnish(node: &Node, namespace: &str, root: Option<&str>) -> anyhow::Result<()> {
    let account = Key::core("ServiceAccount", namespace, "default");
    if node.store.get(&account).is_none() {
        node.store.put(&account, object("v1", "ServiceAccount", namespace, "default"))?;
    }
    let Some(root) = root else { return Ok(()) };
    let key = Key::core("ConfigMap", namespace, ROOT_CONFIG_MAP);
    let current = node.store.get(&key);
    if current.is_none_or(|current| current["data"]["root-cert.pem"] != root) {
        let mut map = object("v1", "ConfigMap", namespace, ROOT_CONFIG_MAP);
        map["metadata"]["labels"] = json!({"istio.io/config": "true"});
        map["data"] = json!({"root-cert.pem": root});
        node.store.put(&key, map)?;
    }
    Ok(())
}
