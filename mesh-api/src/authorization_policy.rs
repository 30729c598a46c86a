//! `AuthorizationPolicy`: who may do what.

mod validate;

use std::collections::BTreeMap;

use crate::field::Cx;
use crate::kind::Kind;
use crate::object::{ObjectMeta, Spec};
use crate::selector::{PolicyTargetReference, WorkloadSelector};

/// The annotation that makes a policy only report what it would do.
pub const DRY_RUN_ANNOTATION: &str = "istio.io/dry-run";

message! {
    /// `security.istio.io/AuthorizationPolicy`.
    pub struct AuthorizationPolicy {
        selector: Option<WorkloadSelector>,
        /// Deprecated: `targetRefs`.
        target_ref: Option<PolicyTargetReference>,
        target_refs: Vec<PolicyTargetReference>,
        /// Any of these; none matches nothing (an ALLOW policy without rules denies everything).
        rules: Vec<Rule>,
        action: Action,
        /// Who decides, when the action is CUSTOM.
        provider: Option<ExtensionProviderRef>,
    }
}

enumeration! {
    /// What happens to a request that a rule matches.
    pub enum Action {
        #[default]
        Allow = "ALLOW" = 0,
        Deny = "DENY" = 1,
        Audit = "AUDIT" = 2,
        Custom = "CUSTOM" = 3,
    }
}

message! {
    /// A provider of MeshConfig's `extensionProviders`.
    pub struct ExtensionProviderRef {
        name: String,
    }
}

message! {
    /// All of the three must hold; an empty one always does.
    pub struct Rule {
        from: Vec<From>,
        to: Vec<To>,
        when: Vec<Condition>,
    }
}

message! {
    /// One source.
    pub struct From {
        source: Option<Source>,
    }
}

message! {
    /// One operation.
    pub struct To {
        operation: Option<Operation>,
    }
}

message! {
    /// Who is asking.
    pub struct Source {
        principals: Vec<String>,
        not_principals: Vec<String>,
        request_principals: Vec<String>,
        not_request_principals: Vec<String>,
        namespaces: Vec<String>,
        not_namespaces: Vec<String>,
        service_accounts: Vec<String>,
        not_service_accounts: Vec<String>,
        trust_domains: Vec<String>,
        not_trust_domains: Vec<String>,
        ip_blocks: Vec<String>,
        not_ip_blocks: Vec<String>,
        remote_ip_blocks: Vec<String>,
        not_remote_ip_blocks: Vec<String>,
    }
}

message! {
    /// What is asked for.
    pub struct Operation {
        hosts: Vec<String>,
        not_hosts: Vec<String>,
        ports: Vec<String>,
        not_ports: Vec<String>,
        methods: Vec<String>,
        not_methods: Vec<String>,
        paths: Vec<String>,
        not_paths: Vec<String>,
    }
}

message! {
    /// A further attribute.
    pub struct Condition {
        key: String,
        values: Vec<String>,
        not_values: Vec<String>,
    }
}

impl Spec for AuthorizationPolicy {
    const KIND: Kind = Kind::AuthorizationPolicy;
    fn validate(&self, meta: &ObjectMeta, cx: &mut Cx) {
        validate::authorization_policy(self, meta, cx);
    }
}

/// Whether the annotations make the policy report only.
pub fn is_dry_run(annotations: &BTreeMap<String, String>) -> bool {
    annotations.get(DRY_RUN_ANNOTATION).is_some_and(|v| v == "true")
}
