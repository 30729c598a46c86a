//! The node: id, cluster, locality and metadata, as the control plane reads them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use agent_contract::{AgentEnv, labels};
use serde_json::{Map, Value};

use super::pod_info::PodInfo;
use super::proxy_config::ProxyConfig;
use super::{locality, namespace};
use crate::cli::Role;

/// Annotations that are long and of no use to anybody on the other side.
const DROPPED_ANNOTATIONS: &[&str] =
    &["kubectl.kubernetes.io/last-applied-configuration", "kubernetes.io/config.source"];

/// Who the proxy says that it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// `sidecar~10.0.0.1~reviews-1.default~default.svc.cluster.local`
    pub id: String,
    /// `reviews.default`
    pub cluster: String,
    /// Region, zone and subzone.
    pub locality: Option<[String; 3]>,
    /// NAME, NAMESPACE, LABELS …
    pub metadata: Map<String, Value>,
    /// The pod's addresses, the main one first.
    pub addresses: Vec<IpAddr>,
}

impl Node {
    /// Builds the node.
    pub fn new(
        role: Role,
        env: &AgentEnv,
        proxy: &ProxyConfig,
        pod: &PodInfo,
        addresses: &[IpAddr],
        domain: &str,
    ) -> Self {
        let namespace = namespace(env);
        let pod_name = if env.pod_name.is_empty() { "unknown" } else { &env.pod_name };
        let address = addresses.first().map_or_else(|| "127.0.0.1".to_owned(), ToString::to_string);
        Self {
            id: format!("{}~{address}~{pod_name}.{namespace}~{domain}", role.as_str()),
            cluster: cluster(proxy, pod, namespace),
            locality: locality(&pod.labels),
            metadata: metadata(env, proxy, pod, addresses),
            addresses: addresses.to_vec(),
        }
    }

    /// Whether the proxy's main address is of the older family.
    pub fn is_ipv4(&self) -> bool {
        self.addresses.first().is_none_or(IpAddr::is_ipv4)
    }
}

/// The given address, then those of the interfaces that are neither loopback nor link-local.
pub fn addresses(instance: Option<IpAddr>) -> Vec<IpAddr> {
    let mut all: Vec<IpAddr> = instance.into_iter().collect();
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return all };
    for address in interfaces.filter_map(|interface| interface.address) {
        let v4 = address.as_sockaddr_in().map(|sockaddr| IpAddr::V4(sockaddr.ip()));
        let v6 = address.as_sockaddr_in6().map(|sockaddr| IpAddr::V6(sockaddr.ip()));
        let Some(ip) = v4.or(v6) else { continue };
        let link_local = match ip {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        if !ip.is_loopback() && !link_local && !ip.is_unspecified() && !all.contains(&ip) {
            all.push(ip);
        }
    }
    all
}

fn cluster(proxy: &ProxyConfig, pod: &PodInfo, namespace: &str) -> String {
    let configured = proxy.raw.get("serviceCluster").and_then(Value::as_str).unwrap_or_default();
    if !configured.is_empty() && configured != "istio-proxy" {
        return configured.to_owned();
    }
    let named = [labels::APP_KUBERNETES_NAME, labels::APP, labels::CANONICAL_NAME];
    // Istio looks at `app` first, so that dashboards keep their names.
    let name = [named[1], named[0], named[2]].iter().find_map(|label| pod.labels.get(*label));
    format!("{}.{namespace}", name.map_or("istio-proxy", String::as_str))
}

fn metadata(env: &AgentEnv, proxy: &ProxyConfig, pod: &PodInfo, addresses: &[IpAddr]) -> Map<String, Value> {
    let mut meta = Map::new();
    let mut set = |key: &str, value: Value| {
        if !matches!(&value, Value::String(text) if text.is_empty()) {
            meta.insert(key.to_owned(), value);
        }
    };
    let join: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    set("NAME", env.pod_name.clone().into());
    set("NAMESPACE", namespace(env).into());
    set("INSTANCE_IPS", join.join(",").into());
    set("SERVICE_ACCOUNT", env.service_account.clone().into());
    set("CLUSTER_ID", "Kubernetes".into());
    set("INTERCEPTION_MODE", "REDIRECT".into());
    set("ISTIO_VERSION", agent_contract::ISTIO_VERSION.into());
    set("ENVOY_STATUS_PORT", env.health_port.into());
    set("ENVOY_PROMETHEUS_PORT", env.prometheus_port.into());
    set("PILOT_SAN", Value::Array(vec![istiod_host(env, proxy).into()]));
    set("LABELS", object(&pod.labels, &[]));
    set("ANNOTATIONS", object(&pod.annotations, DROPPED_ANNOTATIONS));
    set("PROXY_CONFIG", proxy.raw.clone());
    if proxy.raw.get("meshId").is_some_and(Value::is_string) {
        set("MESH_ID", proxy.raw["meshId"].clone());
    }
    for (key, value) in &env.metadata {
        set(key, value.clone().into());
    }
    for (key, value) in &env.metadata_json {
        set(key, value.clone());
    }
    meta
}

fn istiod_host(env: &AgentEnv, proxy: &ProxyConfig) -> String {
    if !env.istiod_san.is_empty() {
        return env.istiod_san.clone();
    }
    proxy.discovery_address.rsplit_once(':').map_or("", |(host, _)| host).to_owned()
}

fn object(map: &BTreeMap<String, String>, dropped: &[&str]) -> Value {
    let kept = map.iter().filter(|(key, _)| !dropped.contains(&key.as_str()));
    Value::Object(kept.map(|(key, value)| (key.clone(), value.clone().into())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::proxy_config::{ProxyConfig, parse_yaml};

    #[test]
    fn says_who_it_is() {
        let vars = [
            ("POD_NAME", "reviews-1"),
            ("POD_NAMESPACE", "default"),
            ("INSTANCE_IP", "10.0.0.7"),
            ("ISTIO_META_CLUSTER_ID", "c2"),
            ("ISTIO_META_MESH_ID", "mesh"),
        ];
        let vars = vars.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let env = AgentEnv::from_vars(&vars).unwrap();
        let proxy = ProxyConfig::from_value(parse_yaml("", "").unwrap()).unwrap();
        let labels = [("app", "reviews"), (labels::LOCALITY, "eu.eu-1.a")];
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let pod = PodInfo { labels, annotations: BTreeMap::new() };
        let addresses = ["10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap()];
        let node = Node::new(Role::Sidecar, &env, &proxy, &pod, &addresses, "default.svc.cluster.local");
        assert_eq!(node.id, "sidecar~10.0.0.7~reviews-1.default~default.svc.cluster.local");
        assert_eq!(node.cluster, "reviews.default");
        assert_eq!(node.locality, Some(["eu", "eu-1", "a"].map(str::to_owned)));
        assert_eq!(node.metadata["INSTANCE_IPS"], "10.0.0.7,fd00::7");
        assert_eq!(node.metadata["CLUSTER_ID"], "c2");
        assert_eq!(node.metadata["LABELS"]["app"], "reviews");
        assert_eq!(node.metadata["PROXY_CONFIG"]["statusPort"], 15020);
    }
}
