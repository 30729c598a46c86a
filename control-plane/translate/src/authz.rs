//! AuthorizationPolicy as RBAC: which policies are for a workload, and their filters for HTTP and TCP.

mod rule;
mod value;

use std::collections::HashMap;

use mesh_api::authorization_policy::{Action, AuthorizationPolicy, Rule, is_dry_run};
use saild_model::mesh::selects;
use saild_model::{Mesh, ProxyView};
use xds_api::envoy::config::rbac::v3 as rbac;
use xds_api::envoy::extensions::filters::http::rbac::v3::Rbac as HttpRbac;
use xds_api::envoy::extensions::filters::network::rbac::v3::Rbac as TcpRbac;

use crate::generate::Warning;

/// One filter: the policies of one action.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AuthzInputs {
    /// What a match means.
    pub action: Action,
    /// Those that decide.
    pub enforced: Vec<AuthzPolicy>,
    /// Those that only report what they would decide.
    pub dry_run: Vec<AuthzPolicy>,
    /// The trust domain and its aliases.
    pub trust_domains: Vec<String>,
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AuthzPolicy {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// Where a filter stands: attributes of requests are known to HTTP filters only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layer {
    /// In an HTTP filter chain.
    Http,
    /// In a network filter chain.
    Tcp,
}

/// The filters of a workload, in the order in which they stand: AUDIT, CUSTOM, DENY, ALLOW.
pub(crate) fn inputs(mesh: &Mesh, proxy: &ProxyView, warnings: &mut Vec<Warning>) -> Vec<AuthzInputs> {
    let policies = &mesh.config().authorization_policies;
    let root = mesh.root_namespace();
    let own = (proxy.namespace != root).then_some(proxy.namespace.as_str());
    let mut filters: Vec<AuthzInputs> = [Action::Audit, Action::Custom, Action::Deny, Action::Allow]
        .into_iter()
        .map(|action| AuthzInputs {
            action,
            enforced: Vec::new(),
            dry_run: Vec::new(),
            trust_domains: crate::cluster::trust_domains(mesh),
        })
        .collect();
    for namespace in [root].into_iter().chain(own) {
        for object in policies.in_namespace(namespace).filter(|o| applies(&o.spec, proxy)) {
            let policy = AuthzPolicy {
                namespace: object.meta.namespace.clone(),
                name: object.meta.name.clone(),
                rules: object.spec.rules.clone(),
            };
            if object.spec.action == Action::Custom {
                warnings.push(Warning {
                    kind: "AuthorizationPolicy".to_owned(),
                    namespace: object.meta.namespace.clone(),
                    name: object.meta.name.clone(),
                    message: "action CUSTOM is not supported yet: requests that it matches are refused"
                        .to_owned(),
                });
            }
            let Some(filter) = filters.iter_mut().find(|f| f.action == object.spec.action) else { continue };
            let list =
                if is_dry_run(&object.meta.annotations) { &mut filter.dry_run } else { &mut filter.enforced };
            list.push(policy);
        }
    }
    filters.retain(|filter| !filter.enforced.is_empty() || !filter.dry_run.is_empty());
    filters
}

fn applies(policy: &AuthorizationPolicy, proxy: &ProxyView) -> bool {
    let targeted = policy.target_ref.is_some() || !policy.target_refs.is_empty();
    !targeted && selects(policy.selector.as_ref(), &proxy.labels)
}

impl AuthzInputs {
    /// The HTTP filter.
    pub(crate) fn http(&self) -> HttpRbac {
        HttpRbac {
            rules: self.rules(&self.enforced, Layer::Http),
            shadow_rules: self.rules(&self.dry_run, Layer::Http),
            shadow_rules_stat_prefix: self.shadow_prefix(),
            ..Default::default()
        }
    }

    /// The network filter.
    pub(crate) fn tcp(&self) -> TcpRbac {
        TcpRbac {
            rules: self.rules(&self.enforced, Layer::Tcp),
            shadow_rules: self.rules(&self.dry_run, Layer::Tcp),
            shadow_rules_stat_prefix: self.shadow_prefix(),
            stat_prefix: "tcp.".to_owned(),
            ..Default::default()
        }
    }

    fn shadow_prefix(&self) -> String {
        match (self.dry_run.is_empty(), self.action) {
            (true, _) => String::new(),
            (false, Action::Allow) => "istio_dry_run_allow_".to_owned(),
            (false, _) => "istio_dry_run_deny_".to_owned(),
        }
    }

    fn rules(&self, policies: &[AuthzPolicy], layer: Layer) -> Option<rbac::Rbac> {
        if policies.is_empty() {
            return None;
        }
        let action = match self.action {
            Action::Allow => rbac::rbac::Action::Allow,
            // Who should decide cannot be asked yet: refused.
            Action::Deny | Action::Custom => rbac::rbac::Action::Deny,
            Action::Audit => rbac::rbac::Action::Log,
        };
        let mut out = HashMap::new();
        for policy in policies {
            let context = rule::Context {
                namespace: &policy.namespace,
                trust_domains: &self.trust_domains,
                layer,
                allow: self.action == Action::Allow,
            };
            for (index, rule) in policy.rules.iter().enumerate() {
                if let Some(built) = context.policy(rule) {
                    let key = format!("ns[{}]-policy[{}]-rule[{index}]", policy.namespace, policy.name);
                    out.insert(key, built);
                }
            }
        }
        Some(rbac::Rbac { action: action as i32, policies: out, ..Default::default() })
    }
}
