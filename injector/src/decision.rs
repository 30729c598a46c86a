//! Whether a pod is injected: what the selectors of Istio's webhooks say, then what its injector does.

use std::collections::BTreeMap;
use std::fmt;

use agent_contract::{annotations, containers, labels};
use k8s_openapi::api::core::v1::Pod;

use crate::config::{InjectConfig, Policy, Selection};

type Labels = BTreeMap<String, String>;

/// Namespaces of Kubernetes itself.
const NEVER: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];

/// Why a pod is not injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkipReason {
    /// Its network is the node's.
    HostNetwork,
    /// Its namespace is one of Kubernetes'.
    SystemNamespace,
    /// Neither it nor its namespace asks for it.
    NotLabelled,
    /// Another revision does it.
    OtherRevision,
    /// It says no.
    OptedOut,
    /// A selector of the installation excludes it.
    NeverSelected,
    /// The policy is to inject only who asks.
    PolicyDisabled,
    /// It has been.
    AlreadyInjected,
    /// There is nothing to inject beside.
    NoContainers,
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HostNetwork => "the pod uses the host's network",
            Self::SystemNamespace => "the namespace belongs to Kubernetes",
            Self::NotLabelled => "neither the namespace nor the pod is labelled for injection",
            Self::OtherRevision => "another revision of the control plane is asked for",
            Self::OptedOut => "sidecar.istio.io/inject says no",
            Self::NeverSelected => "a neverInjectSelector matches",
            Self::PolicyDisabled => "the policy is disabled and the pod does not ask for injection",
            Self::AlreadyInjected => "the pod is injected already",
            Self::NoContainers => "the pod has no containers",
        })
    }
}

/// What a pod says about itself.
enum Wish {
    Yes,
    No,
    Nothing,
}

/// Why the pod is skipped, if it is.
pub(crate) fn skip(pod: &Pod, namespace: &Labels, config: &InjectConfig) -> Option<SkipReason> {
    let meta = &pod.metadata;
    let empty = Labels::new();
    let pod_labels = meta.labels.as_ref().unwrap_or(&empty);
    let pod_annotations = meta.annotations.as_ref().unwrap_or(&empty);
    let spec = pod.spec.as_ref();
    if spec.is_some_and(|s| s.host_network == Some(true)) {
        return Some(SkipReason::HostNetwork);
    }
    if NEVER.contains(&meta.namespace.as_deref().unwrap_or_default()) {
        return Some(SkipReason::SystemNamespace);
    }
    let has_proxy = spec.is_some_and(|s| {
        let init = s.init_containers.iter().flatten();
        s.containers.iter().chain(init).any(|c| c.name == containers::PROXY)
    });
    if has_proxy && pod_annotations.contains_key(annotations::STATUS) {
        return Some(SkipReason::AlreadyInjected);
    }
    if config.selection == Selection::ByLabels
        && let Some(reason) = unselected(namespace, pod_labels, config)
    {
        return Some(reason);
    }
    by_wish(pod_labels, pod_annotations, config)
}

/// What the selectors of the webhooks say.
fn unselected(namespace: &Labels, pod: &Labels, config: &InjectConfig) -> Option<SkipReason> {
    let own = |revision: &String| {
        *revision == config.revision || config.revision.is_empty() && revision == "default"
    };
    let is_default = matches!(config.revision.as_str(), "" | "default");
    let opted_out = pod.get(labels::INJECT).is_some_and(|v| v == "false");
    let namespace_injection = namespace.get(labels::INJECTION).map(String::as_str);
    let decide = |selected: bool, otherwise: SkipReason| match (selected, opted_out) {
        (true, true) => Some(SkipReason::OptedOut),
        (true, false) => None,
        (false, _) => Some(otherwise),
    };
    // The old label of a namespace wins over its revision, and is the default revision's.
    match (namespace_injection, namespace.get(labels::REVISION)) {
        (Some("enabled"), _) => decide(is_default, SkipReason::OtherRevision),
        (Some(_), _) => Some(SkipReason::NotLabelled),
        (None, Some(revision)) => decide(own(revision), SkipReason::OtherRevision),
        (None, None) => match pod.get(labels::REVISION) {
            Some(revision) => decide(own(revision), SkipReason::OtherRevision),
            None => {
                let asked = pod.get(labels::INJECT).is_some_and(|v| v == "true");
                let everywhere = config.values.sidecar_injector_webhook.enable_namespaces_by_default;
                decide(is_default && (asked || everywhere), SkipReason::NotLabelled)
            }
        },
    }
}

/// What the injector makes of label, annotation, selectors and policy.
fn by_wish(pod: &Labels, pod_annotations: &Labels, config: &InjectConfig) -> Option<SkipReason> {
    let said = pod.get(labels::INJECT).or_else(|| pod_annotations.get(annotations::INJECT));
    let wish = match said.map(|v| v.to_lowercase()).as_deref() {
        None | Some("") => Wish::Nothing,
        Some("y" | "yes" | "true" | "on") => Wish::Yes,
        Some(_) => Wish::No,
    };
    match wish {
        Wish::Yes => None,
        Wish::No => Some(SkipReason::OptedOut),
        Wish::Nothing if config.never_inject.iter().any(|s| s.matches(pod)) => {
            Some(SkipReason::NeverSelected)
        }
        Wish::Nothing if config.always_inject.iter().any(|s| s.matches(pod)) => None,
        Wish::Nothing => (config.policy == Policy::Disabled).then_some(SkipReason::PolicyDisabled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `namespace labels | pod labels | annotations` → reason.
    fn check(case: &str, expect: Option<SkipReason>) {
        let mut parts = case.split('|').map(|part| {
            let pairs = part.split_whitespace().filter_map(|pair| pair.split_once('='));
            pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect::<Labels>()
        });
        let (namespace, labels, annotations) = (
            parts.next().unwrap_or_default(),
            parts.next().unwrap_or_default(),
            parts.next().unwrap_or_default(),
        );
        let mut pod = Pod::default();
        pod.metadata.labels = Some(labels);
        pod.metadata.annotations = Some(annotations);
        pod.spec = Some(k8s_openapi::api::core::v1::PodSpec::default());
        assert_eq!(skip(&pod, &namespace, &InjectConfig::default()), expect, "{case}");
    }

    #[test]
    fn labels_decide() {
        check("istio-injection=enabled", None);
        check("", Some(SkipReason::NotLabelled));
        check("istio-injection=disabled | sidecar.istio.io/inject=true", Some(SkipReason::NotLabelled));
        check("| sidecar.istio.io/inject=true", None);
        check("istio-injection=enabled | sidecar.istio.io/inject=false", Some(SkipReason::OptedOut));
        check("istio-injection=enabled || sidecar.istio.io/inject=false", Some(SkipReason::OptedOut));
        check("istio-injection=enabled | sidecar.istio.io/inject=true | sidecar.istio.io/inject=false", None);
        check("istio.io/rev=default", None);
        check("istio.io/rev=canary", Some(SkipReason::OtherRevision));
        check("istio-injection=enabled istio.io/rev=canary", None);
        check("| istio.io/rev=default", None);
        check("| istio.io/rev=canary sidecar.istio.io/inject=true", Some(SkipReason::OtherRevision));
    }
}
