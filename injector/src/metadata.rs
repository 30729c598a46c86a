//! Labels and annotations of an injected pod.

use agent_contract::{annotations, containers, labels};
use k8s_openapi::api::core::v1::{Container, Pod};
use serde_json::json;

use crate::Added;
use crate::settings::{Settings, Template};
use crate::workload::canonical_revision;

const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
const DEFAULT_LOGS_CONTAINER: &str = "kubectl.kubernetes.io/default-logs-container";

/// Adds them; what the user has set stays.
pub(crate) fn apply(settings: &Settings<'_>, apps: &[Container], added: &Added, pod: &mut Pod) {
    let revision = match settings.config.revision.as_str() {
        "" => "default",
        revision => revision,
    };
    let name = settings.workload.canonical_name(pod);
    let canonical_revision = canonical_revision(pod);
    let all = pod.metadata.labels.get_or_insert_default();
    let mut label = |key: &str, value: &str| {
        all.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    };
    if settings.template == Template::Sidecar {
        label(labels::TLS_MODE, labels::TLS_MODE_ISTIO);
    }
    label(labels::CANONICAL_NAME, &name);
    label(labels::CANONICAL_REVISION, &canonical_revision);

    let all = pod.metadata.annotations.get_or_insert_default();
    let mut annotation = |key: &str, value: &str| {
        all.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    };
    // A gateway's pod has no other container.
    let first = apps.first().map_or(containers::PROXY, |c| c.name.as_str());
    annotation(DEFAULT_CONTAINER, first);
    annotation(DEFAULT_LOGS_CONTAINER, first);
    annotation(labels::REVISION, revision);
    for (key, value) in &settings.config.injected_annotations {
        annotation(key, value);
    }
    let status = json!({
        "initContainers": added.init_containers,
        "containers": added.containers,
        "volumes": added.volumes,
        "imagePullSecrets": added.pull_secrets,
        "revision": revision,
    });
    all.insert(annotations::STATUS.to_owned(), status.to_string());
}
