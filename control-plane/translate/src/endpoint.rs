//! Endpoints of a cluster, grouped by locality.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_api::destination_rule::LocalityLbSetting;
use saild_model::mesh::EndpointList;
use saild_model::{
    Address, Endpoint, Health, Labels, Locality, Mesh, ProxyType, ProxyView, Resolution, TlsMode,
};
use xds_api::envoy::config::core::v3 as core;
use xds_api::envoy::config::endpoint::v3 as eds;

use crate::resource::{Generated, Names};
use crate::warning::Warning;
use crate::{Cache, naming, pb};

/// What an EDS resource is made of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EndpointInputs {
    /// The cluster's name.
    pub cluster: String,
    /// Every endpoint of the service's port.
    pub endpoints: EndpointList,
    /// The labels of the subset.
    pub subset: Labels,
    /// Endpoints whose PeerAuthentication refuses mutual TLS, by their place in the list.
    pub plain: Vec<usize>,
    /// How localities are preferred, where they are.
    pub preference: Option<Preference>,
    /// Endpoints that are not ready are sent too.
    pub send_unhealthy: bool,
    /// Only endpoints in the mesh's mutual TLS can be reached this way.
    pub only_mutual: bool,
}

/// Which localities a client prefers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Preference {
    /// Where the client is.
    pub locality: Locality,
    /// The client's labels and node, which `failoverPriority` compares.
    pub labels: Labels,
    /// The rules.
    pub setting: LocalityLbSetting,
}

/// The EDS resources of those names.
pub(crate) fn endpoints(mesh: &Mesh, proxy: &ProxyView, names: &Names, cache: &Cache) -> Generated {
    let mut out = Generated::default();
    let all;
    let wanted: &mut dyn Iterator<Item = &str> = match names {
        Names::Set(names) => &mut names.iter().map(String::as_str),
        Names::Wildcard => {
            all = all_names(mesh, proxy);
            &mut all.iter().map(String::as_str)
        }
    };
    let scope = mesh.scope(proxy);
    for name in wanted {
        let inputs = naming::parse_outbound(name).and_then(|parts| {
            let service = scope.service(parts.host).cloned();
            let service = service.or_else(|| mesh.services_of_host(parts.host).next().cloned())?;
            inputs(mesh, proxy, name, &parts, &service)
        });
        match inputs {
            Some(inputs) => {
                out.warnings.extend(other_networks(proxy, &inputs));
                out.resources.push(cache.endpoints.get(name, inputs, assignment));
            }
            None => out.removed.push(name.to_owned()),
        }
    }
    out
}

/// What is said where endpoints are in another network than the proxy: they are called at their own addresses, as network
/// gateways are not known.
fn other_networks(proxy: &ProxyView, inputs: &EndpointInputs) -> Option<Warning> {
    if proxy.network.is_empty() {
        return None;
    }
    let found = inputs.endpoints.iter().find(|e| !e.network.is_empty() && e.network != proxy.network)?;
    Some(Warning {
        kind: "Service".to_owned(),
        namespace: found.service_namespace.to_string(),
        name: found.service.to_string(),
        message: format!(
            "has endpoints in network {:?}, which proxies of network {:?} call directly: network gateways are not \
             supported by this release",
            found.network, proxy.network
        ),
    })
}

fn all_names(mesh: &Mesh, proxy: &ProxyView) -> Vec<String> {
    let scope = mesh.scope(proxy);
    let mut names = Vec::new();
    for service in scope.services.iter().filter(|s| s.resolution == Resolution::ClientSide) {
        let rule = mesh.destination_rule(&proxy.namespace, &proxy.labels, service);
        let subsets = rule.iter().flat_map(|rule| &rule.subsets).map(|subset| subset.name.as_str());
        for subset in [""].into_iter().chain(subsets) {
            names.extend(service.ports.iter().map(|p| naming::outbound(p.number, subset, &service.hostname)));
        }
    }
    names
}

fn inputs(
    mesh: &Mesh,
    proxy: &ProxyView,
    name: &str,
    parts: &naming::Outbound<'_>,
    service: &saild_model::Service,
) -> Option<EndpointInputs> {
    let listed = service.resolution == Resolution::ClientSide
        || proxy.kind == ProxyType::Router && service.is_headless();
    let port = service.port(parts.port).filter(|_| listed)?;
    let rule = mesh.destination_rule(&proxy.namespace, &proxy.labels, service);
    let subset = match parts.subset {
        "" => Labels::new(),
        subset => rule.as_ref()?.subsets.iter().find(|s| s.name == subset)?.labels.clone(),
    };
    let policy = crate::cluster::policy_of(rule.as_deref(), parts.subset, parts.port, mesh);
    let endpoints = mesh.endpoints(service, &port.name);
    let any_disabled = crate::authn::any_disabled(mesh);
    let plain = endpoints
        .iter()
        .enumerate()
        .filter(|(_, e)| any_disabled && crate::authn::disabled(mesh, &e.namespace, &e.labels, e.port));
    let settings = &mesh.settings().locality_lb_setting;
    let preference = policy.locality_aware(settings.enabled.unwrap_or(true)).then(|| Preference {
        locality: proxy.locality.clone(),
        labels: proxy.labels.clone(),
        setting: policy
            .load_balancer
            .as_ref()
            .and_then(|lb| lb.locality_lb_setting.clone())
            .unwrap_or_else(|| settings.clone()),
    });
    Some(EndpointInputs {
        cluster: name.to_owned(),
        plain: plain.map(|(index, _)| index).collect(),
        endpoints,
        subset,
        preference,
        send_unhealthy: policy.outlier_detection.as_ref().is_some_and(|o| o.min_health_percent > 0),
        only_mutual: parts.sni,
    })
}

/// The resource of these inputs.
pub fn assignment(inputs: &EndpointInputs) -> eds::ClusterLoadAssignment {
    let mut groups: BTreeMap<(u32, Locality), Group> = BTreeMap::new();
    for (index, endpoint) in inputs.endpoints.iter().enumerate() {
        if !inputs.subset.iter().all(|(key, value)| endpoint.labels.get(key) == Some(value)) {
            continue;
        }
        let mutual = endpoint.tls_mode == TlsMode::Istio && !inputs.plain.contains(&index);
        if inputs.only_mutual && !mutual {
            continue;
        }
        let Some(health) = health(endpoint, inputs.send_unhealthy) else { continue };
        let priority = inputs.preference.as_ref().map_or(0, |preference| preference.priority(endpoint));
        let group = groups.entry((priority, endpoint.locality.clone())).or_default();
        group.weight += endpoint.weight.max(1);
        group.endpoints.push(lb_endpoint(endpoint, health, mutual));
    }
    let weights = inputs.preference.as_ref().and_then(|p| p.distribution(groups.keys().map(|(_, l)| l)));
    let mut rank = Rank::default();
    let endpoints = groups.into_iter().filter_map(|((priority, locality), group)| {
        let weight = match &weights {
            // A locality that gets no share gets no traffic.
            Some(weights) => weights.get(&locality).copied().filter(|weight| *weight > 0)?,
            None => group.weight,
        };
        Some(group.into_locality(&locality, weight, rank.of(priority)))
    });
    eds::ClusterLoadAssignment {
        cluster_name: inputs.cluster.clone(),
        endpoints: endpoints.collect(),
        ..Default::default()
    }
}

/// Priorities without gaps, as Envoy wants them.
#[derive(Default)]
struct Rank {
    last: Option<(u32, u32)>,
}

impl Rank {
    fn of(&mut self, priority: u32) -> u32 {
        let rank = match self.last {
            None => 0,
            Some((known, rank)) if known == priority => rank,
            Some((_, rank)) => rank + 1,
        };
        self.last = Some((priority, rank));
        rank
    }
}

#[derive(Default)]
struct Group {
    weight: u32,
    endpoints: Vec<eds::LbEndpoint>,
}

impl Group {
    fn into_locality(self, locality: &Locality, weight: u32, priority: u32) -> eds::LocalityLbEndpoints {
        eds::LocalityLbEndpoints {
            locality: Some(core::Locality {
                region: locality.region.clone(),
                zone: locality.zone.clone(),
                sub_zone: locality.subzone.clone(),
            }),
            lb_endpoints: self.endpoints,
            load_balancing_weight: pb::u32v(weight),
            priority,
            ..Default::default()
        }
    }
}

impl Preference {
    fn priority(&self, endpoint: &Endpoint) -> u32 {
        if !self.setting.distribute.is_empty() {
            return 0;
        }
        if !self.setting.failover_priority.is_empty() {
            return self.label_priority(endpoint);
        }
        let (own, its) = (&self.locality, &endpoint.locality);
        if own.region != its.region {
            let failover = self.setting.failover.iter().find(|f| f.from == own.region);
            return match failover {
                Some(failover) if failover.to != its.region => 4,
                _ => 3,
            };
        }
        match (own.zone == its.zone, own.subzone == its.subzone) {
            (true, true) => 0,
            (true, false) => 1,
            (false, _) => 2,
        }
    }

    /// The number of labels from the first on that differs.
    fn label_priority(&self, endpoint: &Endpoint) -> u32 {
        let labels = &self.setting.failover_priority;
        let same = labels.iter().take_while(|label| match label.split_once('=') {
            Some((key, value)) => endpoint.labels.get(key).is_some_and(|v| v == value),
            None => {
                topology(&self.labels, &self.locality, label)
                    == topology(&endpoint.labels, &endpoint.locality, label)
            }
        });
        u32::try_from(labels.len() - same.count()).unwrap_or(u32::MAX)
    }

    /// The weight of each locality that `distribute` says for the client's.
    fn distribution<'a>(
        &self,
        localities: impl Iterator<Item = &'a Locality>,
    ) -> Option<BTreeMap<Locality, u32>> {
        let rule = self.setting.distribute.iter().find(|rule| self.locality.lies_in(&rule.from))?;
        let mut weights = BTreeMap::new();
        for locality in localities {
            let target = rule.to.iter().filter(|(pattern, _)| locality.lies_in(pattern));
            let weight = target.max_by_key(|(pattern, _)| pattern.len()).map_or(0, |(_, weight)| *weight);
            weights.insert(locality.clone(), weight);
        }
        Some(weights)
    }
}

fn topology<'a>(labels: &'a Labels, locality: &'a Locality, label: &str) -> Option<&'a str> {
    match label {
        "topology.kubernetes.io/region" => Some(&locality.region),
        "topology.kubernetes.io/zone" => Some(&locality.zone),
        "topology.istio.io/subzone" => Some(&locality.subzone),
        other => labels.get(other).map(String::as_str),
    }
}

fn health(endpoint: &Endpoint, send_unhealthy: bool) -> Option<core::HealthStatus> {
    match endpoint.health {
        Health::Healthy => Some(core::HealthStatus::Healthy),
        Health::Draining => Some(core::HealthStatus::Draining),
        Health::Unhealthy => send_unhealthy.then_some(core::HealthStatus::Unhealthy),
        Health::Terminating => None,
    }
}

fn lb_endpoint(endpoint: &Endpoint, health: core::HealthStatus, mutual: bool) -> eds::LbEndpoint {
    let mut filter_metadata =
        vec![("istio".to_owned(), pb::fields([("workload", pb::text(workload(endpoint)))]))];
    if mutual {
        let fields = pb::fields([("tlsMode", pb::text("istio"))]);
        filter_metadata.push(("envoy.transport_socket_match".to_owned(), fields));
    }
    let address = match &endpoint.address {
        Address::Ip(ip) => pb::address(&ip.to_string(), endpoint.port),
        Address::Dns(name) => pb::address(name, endpoint.port),
        Address::Unix(path) => pb::pipe(path),
    };
    eds::LbEndpoint {
        // Healthy is what an endpoint is that nothing is said of.
        health_status: if health == core::HealthStatus::Healthy { 0 } else { health as i32 },
        metadata: Some(core::Metadata {
            filter_metadata: filter_metadata.into_iter().collect(),
            typed_filter_metadata: Default::default(),
        }),
        load_balancing_weight: pb::u32v(endpoint.weight.max(1)),
        host_identifier: Some(eds::lb_endpoint::HostIdentifier::Endpoint(eds::Endpoint {
            address,
            ..Default::default()
        })),
    }
}

/// `workload;namespace;canonical-name;canonical-revision;cluster`, from which peers' labels in metrics are known.
fn workload(endpoint: &Endpoint) -> String {
    let labels = &endpoint.labels;
    let first = |keys: &[&str]| keys.iter().find_map(|key| labels.get(*key)).cloned().unwrap_or_default();
    let name = first(&["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]);
    let name = if name.is_empty() { endpoint.workload_name.clone() } else { name };
    let revision = first(&["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"]);
    let revision = if revision == "latest" { String::new() } else { revision };
    format!("{};{};{name};{revision};{}", endpoint.workload_name, endpoint.namespace, endpoint.cluster)
}

/// The endpoints of a service that is resolved by DNS.
pub(crate) fn inline(
    cluster: &str,
    endpoints: &[Arc<Endpoint>],
    only_one: bool,
) -> eds::ClusterLoadAssignment {
    let mut groups: BTreeMap<Locality, Group> = BTreeMap::new();
    let count = if only_one { 1 } else { usize::MAX };
    for endpoint in endpoints.iter().take(count) {
        let group = groups.entry(endpoint.locality.clone()).or_default();
        group.weight += endpoint.weight.max(1);
        let mutual = endpoint.tls_mode == TlsMode::Istio;
        group.endpoints.push(lb_endpoint(endpoint, core::HealthStatus::Healthy, mutual));
    }
    eds::ClusterLoadAssignment {
        cluster_name: cluster.to_owned(),
        endpoints: groups
            .into_iter()
            .map(|(l, group)| {
                let weight = group.weight;
                group.into_locality(&l, weight, 0)
            })
            .collect(),
        ..Default::default()
    }
}
