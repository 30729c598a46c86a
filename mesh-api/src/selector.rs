//! Which workloads or targets a configuration is for.

use std::collections::BTreeMap;

message! {
    /// Workloads by label. Networking kinds say `labels`, the others `matchLabels`: both read into this type.
    pub struct WorkloadSelector {
        match_labels: BTreeMap<String, String> = "matchLabels" | "labels",
    }
}

impl WorkloadSelector {
    /// Whether a workload with these labels is selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

message! {
    /// An object that a policy is attached to (a Gateway, a Service, a ServiceEntry).
    pub struct PolicyTargetReference {
        group: String,
        kind: String,
        name: String,
        namespace: String,
    }
}
