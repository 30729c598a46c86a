//! One rule of an AuthorizationPolicy: any of its sources, any of its operations, all of its conditions.

use mesh_api::authorization_policy::{Condition, Operation, Rule, Source};
use xds_api::envoy::config::rbac::v3 as rbac;
use xds_api::envoy::config::rbac::v3::permission::Rule as PermissionRule;
use xds_api::envoy::config::rbac::v3::principal::Identifier;

use super::Layer;
use super::value;

/// What a rule is read with.
pub(super) struct Context<'a> {
    pub(super) namespace: &'a str,
    pub(super) trust_domains: &'a [String],
    pub(super) layer: Layer,
    pub(super) allow: bool,
}

/// Values of one attribute: some must match, none of the others may.
struct Attribute<'a> {
    key: &'a str,
    values: &'a [String],
    not_values: &'a [String],
}

/// What an attribute becomes.
enum Conjunct {
    Principal(Vec<rbac::Principal>),
    Permission(Vec<rbac::Permission>),
    /// It cannot be known here.
    Unknown,
}

impl Context<'_> {
    /// The rule as a policy; nothing if it can never match.
    ///
    /// Attributes of requests are not known on a TCP port. An ALLOW rule with one then allows nothing; another rule does
    /// without it, and so matches more: both err on the side of refusing.
    pub(super) fn policy(&self, rule: &Rule) -> Option<rbac::Policy> {
        let mut when_principals = Vec::new();
        let mut when_permissions = Vec::new();
        for condition in &rule.when {
            match self.conjuncts(&of_condition(condition)) {
                Conjunct::Principal(mut list) => when_principals.append(&mut list),
                Conjunct::Permission(mut list) => when_permissions.append(&mut list),
                Conjunct::Unknown if self.allow => return None,
                Conjunct::Unknown => {}
            }
        }
        let mut principals = Vec::new();
        for source in rule.from.iter().filter_map(|from| from.source.as_ref()) {
            principals.push(all_ids(self.source(source)?, &when_principals));
        }
        if principals.is_empty() {
            principals.push(all_ids(Vec::new(), &when_principals));
        }
        let mut permissions = Vec::new();
        for operation in rule.to.iter().filter_map(|to| to.operation.as_ref()) {
            permissions.push(all_rules(self.operation(operation)?, &when_permissions));
        }
        if permissions.is_empty() {
            permissions.push(all_rules(Vec::new(), &when_permissions));
        }
        Some(rbac::Policy { permissions, principals, ..Default::default() })
    }

    fn source(&self, source: &Source) -> Option<Vec<rbac::Principal>> {
        let attributes = [
            ("source.principal", &source.principals, &source.not_principals),
            ("request.auth.principal", &source.request_principals, &source.not_request_principals),
            ("source.namespace", &source.namespaces, &source.not_namespaces),
            ("source.serviceAccount", &source.service_accounts, &source.not_service_accounts),
            ("source.trustDomain", &source.trust_domains, &source.not_trust_domains),
            ("source.ip", &source.ip_blocks, &source.not_ip_blocks),
            ("remote.ip", &source.remote_ip_blocks, &source.not_remote_ip_blocks),
        ];
        let mut out = Vec::new();
        for (key, values, not_values) in attributes {
            match self.conjuncts(&Attribute { key, values, not_values }) {
                Conjunct::Principal(mut list) => out.append(&mut list),
                Conjunct::Unknown if self.allow => return None,
                Conjunct::Permission(_) | Conjunct::Unknown => {}
            }
        }
        Some(out)
    }

    fn operation(&self, operation: &Operation) -> Option<Vec<rbac::Permission>> {
        let attributes = [
            ("hosts", &operation.hosts, &operation.not_hosts),
            ("methods", &operation.methods, &operation.not_methods),
            ("paths", &operation.paths, &operation.not_paths),
            ("destination.port", &operation.ports, &operation.not_ports),
        ];
        let mut out = Vec::new();
        for (key, values, not_values) in attributes {
            match self.conjuncts(&Attribute { key, values, not_values }) {
                Conjunct::Permission(mut list) => out.append(&mut list),
                Conjunct::Unknown if self.allow => return None,
                Conjunct::Principal(_) | Conjunct::Unknown => {}
            }
        }
        Some(out)
    }

    fn conjuncts(&self, attribute: &Attribute<'_>) -> Conjunct {
        if attribute.values.is_empty() && attribute.not_values.is_empty() {
            return Conjunct::Principal(Vec::new());
        }
        if self.layer == Layer::Tcp && is_http_only(attribute.key) {
            return Conjunct::Unknown;
        }
        if is_permission(attribute.key) {
            let one = |text: &String| value::permission(attribute.key, text);
            let mut out = Vec::new();
            if !attribute.values.is_empty() {
                out.push(any_rule(attribute.values.iter().filter_map(one).collect()));
            }
            if !attribute.not_values.is_empty() {
                let any = any_rule(attribute.not_values.iter().filter_map(one).collect());
                out.push(permission(PermissionRule::NotRule(Box::new(any))));
            }
            return Conjunct::Permission(out);
        }
        let one = |text: &String| value::principals(self, attribute.key, text);
        let mut out = Vec::new();
        if !attribute.values.is_empty() {
            out.push(any_id(attribute.values.iter().flat_map(one).collect()));
        }
        if !attribute.not_values.is_empty() {
            let any = any_id(attribute.not_values.iter().flat_map(one).collect());
            out.push(principal(Identifier::NotId(Box::new(any))));
        }
        Conjunct::Principal(out)
    }
}

fn of_condition(condition: &Condition) -> Attribute<'_> {
    Attribute { key: &condition.key, values: &condition.values, not_values: &condition.not_values }
}

fn is_http_only(key: &str) -> bool {
    key.starts_with("request.") || matches!(key, "hosts" | "methods" | "paths")
}

fn is_permission(key: &str) -> bool {
    matches!(key, "hosts" | "methods" | "paths" | "destination.port" | "destination.ip" | "connection.sni")
        || key.starts_with("experimental.")
}

pub(super) fn principal(identifier: Identifier) -> rbac::Principal {
    rbac::Principal { identifier: Some(identifier) }
}

pub(super) fn permission(rule: PermissionRule) -> rbac::Permission {
    rbac::Permission { rule: Some(rule) }
}

pub(super) fn and_ids(ids: Vec<rbac::Principal>) -> rbac::Principal {
    principal(Identifier::AndIds(rbac::principal::Set { ids }))
}

/// No alternative that can be told: nothing matches.
fn any_id(ids: Vec<rbac::Principal>) -> rbac::Principal {
    if ids.is_empty() {
        return principal(Identifier::NotId(Box::new(principal(Identifier::Any(true)))));
    }
    principal(Identifier::OrIds(rbac::principal::Set { ids }))
}

fn any_rule(rules: Vec<rbac::Permission>) -> rbac::Permission {
    if rules.is_empty() {
        return permission(PermissionRule::NotRule(Box::new(permission(PermissionRule::Any(true)))));
    }
    permission(PermissionRule::OrRules(rbac::permission::Set { rules }))
}

fn all_ids(mut own: Vec<rbac::Principal>, more: &[rbac::Principal]) -> rbac::Principal {
    own.extend_from_slice(more);
    if own.is_empty() {
        own.push(principal(Identifier::Any(true)));
    }
    and_ids(own)
}

fn all_rules(mut own: Vec<rbac::Permission>, more: &[rbac::Permission]) -> rbac::Permission {
    own.extend_from_slice(more);
    if own.is_empty() {
        own.push(permission(PermissionRule::Any(true)));
    }
    permission(PermissionRule::AndRules(rbac::permission::Set { rules: own }))
}
