//! The name table: which names are known, and what they resolve to from this pod.

use std::collections::HashMap;
use std::net::IpAddr;

use arc_swap::ArcSwap;
use xds_api::istio::nds::NameTable;

const KUBERNETES: &str = "Kubernetes";

/// Where the pod is: short names are relative to this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodDomain {
    /// The pod's namespace.
    pub namespace: String,
    /// The cluster's domain, as `cluster.local`.
    pub cluster: String,
}

impl PodDomain {
    /// Reads the agent's `--domain`: `<namespace>.svc.<cluster domain>`.
    pub fn parse(domain: &str, namespace: &str) -> Self {
        let cluster = domain.split_once(".svc.").map_or("cluster.local", |(_, cluster)| cluster);
        Self { namespace: namespace.to_owned(), cluster: cluster.trim_end_matches('.').to_owned() }
    }
}

/// What a name resolves to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// All addresses of the host, of both families.
    pub addresses: Vec<IpAddr>,
    /// Where the query was a search-domain form: the name that it stands for.
    pub alias_of: Option<String>,
}

/// Lower-case names without the last dot.
#[derive(Debug, Default)]
struct Index {
    hosts: HashMap<String, Vec<IpAddr>>,
    /// Without the leading `*.`.
    wildcards: HashMap<String, Vec<IpAddr>>,
    /// As received, for the debug page.
    table: NameTable,
}

/// The table in use, replaced as a whole.
#[derive(Debug)]
pub struct NameTables {
    domain: PodDomain,
    /// Search domains of the pod.
    search: Vec<String>,
    index: ArcSwap<Index>,
}

impl NameTables {
    /// Empty until the control plane sends one.
    pub fn new(domain: PodDomain, search: Vec<String>) -> Self {
        Self { domain, search, index: ArcSwap::default() }
    }

    /// Takes over a table.
    pub fn replace(&self, table: NameTable) {
        let mut index = Index::default();
        for (host, info) in &table.table {
            let addresses: Vec<IpAddr> = info.ips.iter().filter_map(|ip| ip.parse().ok()).collect();
            let host = normalize(host);
            if let Some(rest) = host.strip_prefix("*.") {
                index.wildcards.insert(rest.to_owned(), addresses);
                continue;
            }
            if info.registry == KUBERNETES && !info.shortname.is_empty() && !info.namespace.is_empty() {
                for alias in self.aliases(&info.shortname, &info.namespace) {
                    // A host that somebody named so outright comes first.
                    if !table.table.contains_key(&alias) {
                        index.hosts.insert(alias, addresses.clone());
                    }
                }
            }
            for alias in deprecated_aliases(info) {
                index.hosts.entry(normalize(alias)).or_insert_with(|| addresses.clone());
            }
            index.hosts.insert(host, addresses);
        }
        tracing::debug!(hosts = table.table.len(), "name table replaced");
        index.table = table;
        self.index.store(index.into());
    }

    /// What a query's name resolves to; `None` where the name is not the mesh's.
    pub fn lookup(&self, name: &str) -> Option<Found> {
        let index = self.index.load();
        let name = normalize(name);
        if let Some(addresses) = index.exact_or_wildcard(&name) {
            return Some(Found { addresses: addresses.clone(), alias_of: None });
        }
        // Resolvers try `example.com.default.svc.cluster.local` first when names with few dots are searched for.
        for domain in &self.search {
            let Some(host) = name.strip_suffix(domain.as_str()).and_then(|rest| rest.strip_suffix('.'))
            else {
                continue;
            };
            if let Some(addresses) = index.exact_or_wildcard(host) {
                return Some(Found { addresses: addresses.clone(), alias_of: Some(host.to_owned()) });
            }
        }
        None
    }

    /// The table as it was received.
    pub fn dump(&self) -> serde_json::Value {
        let index = self.index.load();
        let mut hosts: Vec<_> = index.table.table.iter().collect();
        hosts.sort_by_key(|(host, _)| host.as_str());
        let entry = |(host, info): (&String, &xds_api::istio::nds::name_table::NameInfo)| {
            let value = serde_json::json!({
                "ips": info.ips,
                "registry": info.registry,
                "shortname": info.shortname,
                "namespace": info.namespace,
            });
            (host.clone(), value)
        };
        serde_json::json!({ "table": serde_json::Map::from_iter(hosts.into_iter().map(entry)) })
    }

    fn aliases(&self, service: &str, namespace: &str) -> Vec<String> {
        let (service, namespace) = (normalize(service), normalize(namespace));
        let mut aliases = vec![
            format!("{service}.{namespace}"),
            format!("{service}.{namespace}.svc"),
            format!("{service}.{namespace}.svc.{}", self.domain.cluster),
        ];
        if namespace == self.domain.namespace {
            aliases.push(service);
        }
        aliases
    }
}

impl Index {
    fn exact_or_wildcard(&self, name: &str) -> Option<&Vec<IpAddr>> {
        if let Some(addresses) = self.hosts.get(name) {
            return Some(addresses);
        }
        if self.wildcards.is_empty() {
            return None;
        }
        let mut rest = name;
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(addresses) = self.wildcards.get(parent) {
                return Some(addresses);
            }
            rest = parent;
        }
        None
    }
}

#[expect(deprecated, reason = "older control planes send them")]
fn deprecated_aliases(info: &xds_api::istio::nds::name_table::NameInfo) -> &[String] {
    &info.alt_hosts
}

fn normalize(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}
