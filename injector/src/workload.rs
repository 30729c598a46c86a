//! What a pod belongs to, and what its service is called in metrics.

use agent_contract::labels;
use k8s_openapi::api::core::v1::Pod;

/// The owner of a pod: the Deployment, not its ReplicaSet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Workload {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) api_version: String,
}

impl Workload {
    pub(crate) fn of(pod: &Pod) -> Self {
        let meta = &pod.metadata;
        let owners = meta.owner_references.as_deref().unwrap_or_default();
        let Some(owner) = owners.iter().find(|o| o.controller == Some(true)).or_else(|| owners.first())
        else {
            return Self { name: pod_name(pod), kind: "Pod".to_owned(), api_version: "v1".to_owned() };
        };
        let hash = meta.labels.as_ref().and_then(|l| l.get("pod-template-hash"));
        let deployment =
            hash.and_then(|h| owner.name.strip_suffix(h.as_str())).and_then(|name| name.strip_suffix('-'));
        match deployment.filter(|_| owner.kind == "ReplicaSet") {
            Some(name) => Self {
                name: name.to_owned(),
                kind: "Deployment".to_owned(),
                api_version: owner.api_version.clone(),
            },
            None => Self {
                name: owner.name.clone(),
                kind: owner.kind.clone(),
                api_version: owner.api_version.clone(),
            },
        }
    }

    /// `kubernetes://apis/apps/v1/namespaces/NS/deployments/NAME`
    pub(crate) fn owner_url(&self, namespace: &str) -> String {
        // Plurals of every kind that owns pods are regular.
        let plural = format!("{}s", self.kind.to_lowercase());
        format!("kubernetes://apis/{}/namespaces/{namespace}/{plural}/{}", self.api_version, self.name)
    }

    /// The service that the workload counts as: its own label, the recommended one, `app`, its name.
    pub(crate) fn canonical_name(&self, pod: &Pod) -> String {
        first_label(pod, &[labels::CANONICAL_NAME, labels::APP_KUBERNETES_NAME, labels::APP])
            .unwrap_or_else(|| self.name.clone())
    }
}

/// The revision of that service: its own label, the recommended one, `version`, `latest`.
pub(crate) fn canonical_revision(pod: &Pod) -> String {
    first_label(pod, &[labels::CANONICAL_REVISION, labels::APP_KUBERNETES_VERSION, labels::VERSION])
        .unwrap_or_else(|| "latest".to_owned())
}

fn first_label(pod: &Pod, names: &[&str]) -> Option<String> {
    let labels = pod.metadata.labels.as_ref()?;
    names.iter().find_map(|name| labels.get(*name)).cloned()
}

/// The name, or what it will begin with.
fn pod_name(pod: &Pod) -> String {
    let meta = &pod.metadata;
    let generated = || meta.generate_name.as_deref().map(|n| n.trim_end_matches('-').to_owned());
    meta.name.clone().or_else(generated).unwrap_or_default()
}
