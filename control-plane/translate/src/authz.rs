//! AuthorizationPolicy as RBAC: which policies are for a workload, and their filters for HTTP and TCP.

mod custom;
mod rule;
mod value;

use std::collections::{BTreeMap, HashMap};

use mesh_api::authorization_policy::{Action, Rule, is_dry_run};
use saild_model::mesh::Attachment;
use saild_model::{Mesh, ProxyView};
use xds_api::envoy::config::rbac::v3 as rbac;
use xds_api::envoy::extensions::filters::http::rbac::v3::Rbac as HttpRbac;
use xds_api::envoy::extensions::filters::network::rbac::v3::Rbac as TcpRbac;

use crate::warning::Warning;

pub(crate) use custom::External;
pub(crate) use custom::{HTTP_FILTER as EXT_AUTHZ, TCP_FILTER as TCP_EXT_AUTHZ};

/// One filter: the policies of one action.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AuthzInputs {
    /// What a match means.
    pub action: Action,
    /// Those that decide.
    pub enforced: Vec<AuthzPolicy>,
    /// Those that only report what they would decide.
    pub dry_run: Vec<AuthzPolicy>,
    /// Who decides, of CUSTOM policies.
    pub external: Option<External>,
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

/// The filters of a workload, in the order in which they stand: CUSTOM (one of each provider), AUDIT, DENY, ALLOW.
pub(crate) fn inputs(mesh: &Mesh, proxy: &ProxyView, warnings: &mut Vec<Warning>) -> Vec<AuthzInputs> {
    let policies = &mesh.config().authorization_policies;
    let root = mesh.root_namespace();
    let own = (proxy.namespace != root).then_some(proxy.namespace.as_str());
    let trust_domains = crate::tls::trust_domains(mesh);
    let filter = |action, external| AuthzInputs {
        action,
        enforced: Vec::new(),
        dry_run: Vec::new(),
        external,
        trust_domains: trust_domains.clone(),
    };
    let mut custom: BTreeMap<String, AuthzInputs> = BTreeMap::new();
    let mut filters = [Action::Audit, Action::Deny, Action::Allow].map(|action| filter(action, None));
    for namespace in [root].into_iter().chain(own) {
        for object in
            policies.in_namespace(namespace).filter(|o| Attachment::from(&o.spec).is_for(namespace, proxy))
        {
            let policy = AuthzPolicy {
                namespace: object.meta.namespace.clone(),
                name: object.meta.name.clone(),
                rules: object.spec.rules.clone(),
            };
            let mut warn = |message: String| {
                warnings.push(Warning::of("AuthorizationPolicy", &object.meta, message));
            };
            let dry_run = is_dry_run(&object.meta.annotations);
            if object.spec.action == Action::Custom {
                if dry_run {
                    warn(
                        "istio.io/dry-run is not supported for the action CUSTOM: the policy has no effect"
                            .into(),
                    );
                    continue;
                }
                let (external, problem) = custom::external(mesh, object.spec.provider.as_ref());
                if let Some(why) = problem {
                    warn(format!("action CUSTOM: {why}; all requests are refused"));
                }
                let name = external.provider.clone();
                let entry = custom.entry(name).or_insert_with(|| filter(Action::Custom, Some(external)));
                entry.enforced.push(policy);
                continue;
            }
            let Some(filter) = filters.iter_mut().find(|f| f.action == object.spec.action) else { continue };
            let list = if dry_run { &mut filter.dry_run } else { &mut filter.enforced };
            list.push(policy);
        }
    }
    let all = custom.into_values().chain(filters);
    all.filter(|filter| !filter.enforced.is_empty() || !filter.dry_run.is_empty()).collect()
}

/// What is said of policies whose provider is asked about requests alone, where a port carries bytes.
pub(crate) fn not_for_tcp(inputs: &AuthzInputs) -> Vec<Warning> {
    if !inputs.external.as_ref().is_some_and(External::is_http_only) {
        return Vec::new();
    }
    let of = |policy: &AuthzPolicy| Warning {
        kind: "AuthorizationPolicy".to_owned(),
        namespace: policy.namespace.clone(),
        name: policy.name.clone(),
        message: "action CUSTOM has no effect on TCP ports: an HTTP provider is asked about requests alone \
            (envoyExtAuthzGrpc is asked about connections too)"
            .to_owned(),
    };
    inputs.enforced.iter().map(of).collect()
}

impl AuthzInputs {
    /// The HTTP filter.
    pub(crate) fn http(&self) -> HttpRbac {
        let (rules, shadow_rules, shadow_rules_stat_prefix) = self.parts(Layer::Http);
        HttpRbac { rules, shadow_rules, shadow_rules_stat_prefix, ..Default::default() }
    }

    /// The network filter.
    pub(crate) fn tcp(&self) -> TcpRbac {
        let (rules, shadow_rules, shadow_rules_stat_prefix) = self.parts(Layer::Tcp);
        let stat_prefix = "tcp.".to_owned();
        TcpRbac { rules, shadow_rules, shadow_rules_stat_prefix, stat_prefix, ..Default::default() }
    }

    /// What is enforced, what is only noted, and the prefix of the latter.
    fn parts(&self, layer: Layer) -> (Option<rbac::Rbac>, Option<rbac::Rbac>, String) {
        match &self.external {
            // What matches is noted; the filter behind asks.
            Some(external) if external.service.is_some() => {
                (None, self.rules(&self.enforced, layer), custom::SHADOW_PREFIX.to_owned())
            }
            Some(_) => (Some(custom::deny_all()), None, String::new()),
            None => {
                (self.rules(&self.enforced, layer), self.rules(&self.dry_run, layer), self.shadow_prefix())
            }
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
            Action::Deny | Action::Custom => rbac::rbac::Action::Deny,
            Action::Audit => rbac::rbac::Action::Log,
        };
        let prefix = self.external.as_ref().map(|e| custom::policy_prefix(&e.provider)).unwrap_or_default();
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
                    let key =
                        format!("{prefix}ns[{}]-policy[{}]-rule[{index}]", policy.namespace, policy.name);
                    out.insert(key, built);
                }
            }
        }
        Some(rbac::Rbac { action: action as i32, policies: out, ..Default::default() })
    }
}
