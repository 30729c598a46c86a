//! A mesh from manifests, as a cluster would run them: each Deployment has its pods, each Service its address.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use saild_model::proxy::RawNode;
use saild_model::{Mesh, ProxyView, Workload};
use saild_registry::adapt::Adapter;
use saild_registry::{Change, Object, Options, Store};
use serde_json::{Map, Value, json};

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The mesh of manifests. Pods get 10.244.0.x and Services 10.96.0.x, in the order in which they are written.
pub fn mesh(texts: &[String]) -> Mesh {
    let mut cluster = Cluster::default();
    for text in texts {
        for document in documents(text) {
            cluster.add(document);
        }
    }
    let mut objects = Vec::new();
    for manifest in &cluster.manifests {
        let decoded = Object::decode(manifest).unwrap_or_else(|error| panic!("{error}\n{manifest}"));
        objects.extend(decoded.objects);
    }
    let mut store = Store::default();
    let touched = store.apply(vec![Change::Replace(objects)]);
    let mut adapter = Adapter::new(Options::default());
    adapter.update(&store, &touched);
    adapter.build()
}

fn documents(text: &str) -> Vec<Value> {
    use serde::Deserialize;
    let documents = serde_norway::Deserializer::from_str(text);
    documents.map(|d| Value::deserialize(d).unwrap()).filter(|value| !value.is_null()).collect()
}

#[derive(Default)]
struct Cluster {
    manifests: Vec<Value>,
    pods: u8,
    services: u8,
}

impl Cluster {
    fn add(&mut self, mut manifest: Value) {
        let kind = manifest["kind"].as_str().unwrap_or_default().to_owned();
        if manifest["metadata"].get("namespace").is_none() {
            manifest["metadata"]["namespace"] = "default".into();
        }
        match kind.as_str() {
            "Deployment" => self.deployment(&manifest),
            "Service" => {
                if manifest["spec"].get("clusterIP").is_none() {
                    self.services += 1;
                    manifest["spec"]["clusterIP"] = format!("10.96.0.{}", self.services).into();
                }
                self.manifests.push(manifest);
            }
            _ => self.manifests.push(manifest),
        }
    }

    fn deployment(&mut self, manifest: &Value) {
        let name = manifest["metadata"]["name"].as_str().unwrap_or_default();
        let template = &manifest["spec"]["template"];
        for _ in 0..manifest["spec"]["replicas"].as_u64().unwrap_or(1) {
            self.pods += 1;
            let ip = Ipv4Addr::new(10, 244, 0, self.pods);
            let mut labels = template["metadata"]["labels"].as_object().cloned().unwrap_or_default();
            labels.insert("pod-template-hash".to_owned(), "abc".into());
            if labels.get("sidecar.istio.io/inject").and_then(Value::as_str) != Some("false") {
                labels.insert("security.istio.io/tlsMode".to_owned(), "istio".into());
            }
            self.manifests.push(json!({
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": format!("{name}-abc-{}", self.pods),
                    "namespace": manifest["metadata"]["namespace"],
                    "labels": Value::Object(labels),
                    "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{name}-abc"),
                        "uid": "1", "controller": true}],
                },
                "spec": template["spec"],
                "status": {
                    "phase": "Running",
                    "podIP": ip.to_string(),
                    "conditions": [{"type": "Ready", "status": "True"}],
                },
            }));
        }
    }
}

/// The first pod of a Deployment.
pub fn pod<'a>(mesh: &'a Mesh, deployment: &str) -> &'a Workload {
    mesh.workloads()
        .iter()
        .find(|w| w.workload_name == deployment)
        .unwrap_or_else(|| panic!("no pod of {deployment}"))
}

/// The proxy of a pod, as it would present itself.
pub fn proxy(pod: &Workload, kind: &str, extensions: &[String]) -> ProxyView {
    let labels: Map<String, Value> = pod.labels.iter().map(|(k, v)| (k.clone(), v.as_str().into())).collect();
    let (name, namespace, ip) = (&pod.name, &pod.namespace, pod.addresses[0]);
    let id = format!("{kind}~{ip}~{name}.{namespace}~{namespace}.svc.cluster.local");
    ProxyView::parse(RawNode {
        id: &id,
        metadata: json!({
            "NAMESPACE": &**namespace,
            "LABELS": labels,
            "SERVICE_ACCOUNT": pod.service_account,
            "WORKLOAD_NAME": pod.workload_name,
            "CLUSTER_ID": "Kubernetes",
            "DNS_CAPTURE": "true",
            "DNS_AUTO_ALLOCATE": "true",
        }),
        extensions: extensions.to_vec(),
        ..RawNode::default()
    })
    .unwrap()
}
