//! Which DestinationRule is for a service, seen from a client.

use std::sync::Arc;

use hashbrown::HashMap;
use mesh_api::Object;
use mesh_api::destination_rule::{DestinationRule, Subset, TrafficPolicy};

use super::config::{Objects, is_selective, selects};
use crate::{ExportTo, Labels, Service, hostname};

/// The rules for one host, as one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rule {
    /// The namespace and name of the first of them.
    pub origin: (String, String),
    /// What holds for the whole host.
    pub traffic_policy: Option<TrafficPolicy>,
    /// Its subsets.
    pub subsets: Vec<Subset>,
}

/// DestinationRules by namespace and host.
#[derive(Debug, Default)]
pub(super) struct Rules {
    exact: HashMap<(String, String), Vec<Arc<Object<DestinationRule>>>>,
    wildcard: HashMap<String, Vec<Arc<Object<DestinationRule>>>>,
    default_export: Vec<ExportTo>,
}

impl Rules {
    pub(super) fn new(objects: &Objects<DestinationRule>, default_export: &[String]) -> Self {
        let mut rules = Self {
            default_export: default_export.iter().map(|e| ExportTo::parse(e)).collect(),
            ..Self::default()
        };
        for object in objects.all() {
            let namespace = object.meta.namespace.clone();
            if hostname::is_wildcard(&object.spec.host) {
                rules.wildcard.entry(namespace).or_default().push(object.clone());
            } else {
                rules.exact.entry((namespace, object.spec.host.clone())).or_default().push(object.clone());
            }
        }
        for list in rules.wildcard.values_mut() {
            list.sort_by_key(|object| std::cmp::Reverse(object.spec.host.len()));
        }
        rules
    }

    /// The client's namespace decides, then the service's, then the root namespace; in each the most specific host.
    pub(super) fn find(&self, client: &Client<'_>, root: &str, service: &Service) -> Option<Arc<Rule>> {
        let namespaces = [client.namespace, &service.namespace, root];
        for (index, namespace) in namespaces.into_iter().enumerate() {
            if namespaces[..index].contains(&namespace) {
                continue;
            }
            let exact = self.exact.get(&(namespace.to_owned(), service.hostname.to_string()));
            if let Some(rule) = exact.and_then(|list| self.merge(list, client)) {
                return Some(rule);
            }
            let wildcard = self.wildcard.get(namespace).map(Vec::as_slice).unwrap_or_default();
            let fits = |o: &&Arc<Object<DestinationRule>>| hostname::covers(&o.spec.host, &service.hostname);
            if let Some(first) = wildcard.iter().find(|o| fits(o) && self.applies(o, client)) {
                let same: Vec<_> =
                    wildcard.iter().filter(|o| o.spec.host == first.spec.host).cloned().collect();
                return self.merge(&same, client);
            }
        }
        None
    }

    fn applies(&self, object: &Object<DestinationRule>, client: &Client<'_>) -> bool {
        let own: Vec<ExportTo> = object.spec.export_to.iter().map(|entry| ExportTo::parse(entry)).collect();
        let export = if own.is_empty() { &self.default_export } else { &own };
        let selector = object.spec.workload_selector.as_ref();
        // A rule with a selector is for workloads of its own namespace.
        let selected = !is_selective(selector)
            || object.meta.namespace == client.namespace && selects(selector, client.labels);
        selected && ExportTo::visible(export, &object.meta.namespace, client.namespace)
    }

    fn merge(&self, list: &[Arc<Object<DestinationRule>>], client: &Client<'_>) -> Option<Arc<Rule>> {
        let mut applicable: Vec<_> = list.iter().filter(|object| self.applies(object, client)).collect();
        applicable.sort_by_key(|object| !is_selective(object.spec.workload_selector.as_ref()));
        let first = applicable.first()?;
        let mut rule = Rule {
            origin: (first.meta.namespace.clone(), first.meta.name.clone()),
            traffic_policy: first.spec.traffic_policy.clone(),
            subsets: first.spec.subsets.clone(),
        };
        if !is_selective(first.spec.workload_selector.as_ref()) {
            for more in &applicable[1..] {
                rule.traffic_policy = rule.traffic_policy.or_else(|| more.spec.traffic_policy.clone());
                for subset in &more.spec.subsets {
                    if rule.subsets.iter().all(|known| known.name != subset.name) {
                        rule.subsets.push(subset.clone());
                    }
                }
            }
        }
        Some(Arc::new(rule))
    }
}

/// Who calls.
#[derive(Debug, Clone, Copy)]
pub struct Client<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its labels.
    pub labels: &'a Labels,
}
