//! A proxy as it presents itself over xDS, in the parts that decide about its configuration.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;

use crate::{Labels, Locality};

/// What a proxy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum ProxyType {
    /// Beside a workload.
    #[default]
    Sidecar,
    /// A gateway.
    Router,
}

/// How a pod's connections reach its proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum InterceptionMode {
    /// Redirected by iptables or nftables.
    #[default]
    Redirect,
    /// Redirected with the source address kept.
    Tproxy,
    /// Not at all: the application connects to the proxy's ports.
    None,
}

/// Why a node is not served.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The id has not four parts.
    #[error("node id {0:?} is not <type>~<ip>~<pod>.<namespace>~<domain>")]
    Id(String),
    /// The first part of the id.
    #[error("node type {0:?} is neither sidecar nor router")]
    Type(String),
}

/// A proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyView {
    /// What it is for.
    pub kind: ProxyType,
    /// Its node id as sent.
    pub node_id: String,
    /// `<pod>.<namespace>`.
    pub id: String,
    /// Its addresses: the one of the id first, then those of `INSTANCE_IPS`.
    pub addresses: Vec<IpAddr>,
    /// Its namespace: as authenticated where that is known, else as the node says.
    pub namespace: String,
    /// The domain of short names: `<namespace>.svc.cluster.local`.
    pub dns_domain: String,
    /// Labels of its workload.
    pub labels: Labels,
    /// Its service account.
    pub service_account: String,
    /// `WORKLOAD_NAME`.
    pub workload_name: String,
    /// `CLUSTER_ID`.
    pub cluster_id: String,
    /// `MESH_ID`.
    pub mesh_id: String,
    /// `NETWORK`.
    pub network: String,
    /// `NODE_NAME`.
    pub node_name: String,
    /// Where it runs.
    pub locality: Locality,
    /// How connections reach it.
    pub interception_mode: InterceptionMode,
    /// `ISTIO_VERSION`.
    pub version: String,
    /// The names of the extensions that it announces.
    pub extensions: BTreeSet<String>,
    /// `DNS_CAPTURE`: the agent answers the pod's DNS queries.
    pub dns_capture: bool,
    /// `DNS_AUTO_ALLOCATE`: names without an address get one.
    pub dns_auto_allocate: bool,
    /// `HTTP10`: HTTP/1.0 is accepted.
    pub http10: bool,
    /// `HTTP_PROXY_PORT`.
    pub http_proxy_port: Option<u16>,
    /// `PROXY_CONFIG`: the effective ProxyConfig of its pod.
    pub proxy_config: Value,
    /// All of its metadata.
    pub metadata: Value,
}

/// What a node says about itself, before it is understood.
#[derive(Debug, Clone, Default)]
pub struct RawNode<'a> {
    /// `node.id`.
    pub id: &'a str,
    /// `node.metadata` as JSON.
    pub metadata: Value,
    /// `node.locality`.
    pub locality: Locality,
    /// The names in `node.extensions`.
    pub extensions: Vec<String>,
}

impl ProxyView {
    /// Reads a node.
    pub fn parse(node: RawNode<'_>) -> Result<Self, Error> {
        let parts: Vec<&str> = node.id.split('~').collect();
        let [kind, ip, id, domain] = parts.as_slice() else { return Err(Error::Id(node.id.to_owned())) };
        let kind = match *kind {
            "sidecar" => ProxyType::Sidecar,
            "router" | "ingress" => ProxyType::Router,
            other => return Err(Error::Type(other.to_owned())),
        };
        let metadata = node.metadata;
        let text = |key: &str| metadata.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let flag = |key: &str| is_true(metadata.get(key));
        let mut addresses: Vec<IpAddr> = ip.parse().into_iter().collect();
        for more in text("INSTANCE_IPS").split(',').filter_map(|ip| ip.trim().parse().ok()) {
            if !addresses.contains(&more) {
                addresses.push(more);
            }
        }
        let labels: Labels = strings(metadata.get("LABELS"));
        let namespace = Some(text("NAMESPACE"))
            .filter(|ns| !ns.is_empty())
            .or_else(|| id.rsplit_once('.').map(|(_, ns)| ns.to_owned()))
            .unwrap_or_default();
        let interception_mode = match text("INTERCEPTION_MODE").as_str() {
            "TPROXY" => InterceptionMode::Tproxy,
            "NONE" => InterceptionMode::None,
            _ => InterceptionMode::Redirect,
        };
        let locality = if node.locality.is_empty() {
            labels.get("istio-locality").map(|l| Locality::parse(&l.replace('.', "/"))).unwrap_or_default()
        } else {
            node.locality
        };
        Ok(Self {
            kind,
            node_id: node.id.to_owned(),
            id: (*id).to_owned(),
            addresses,
            namespace,
            dns_domain: (*domain).to_owned(),
            labels,
            service_account: text("SERVICE_ACCOUNT"),
            workload_name: text("WORKLOAD_NAME"),
            cluster_id: text("CLUSTER_ID"),
            mesh_id: text("MESH_ID"),
            network: text("NETWORK"),
            node_name: text("NODE_NAME"),
            locality,
            interception_mode,
            version: text("ISTIO_VERSION"),
            extensions: node.extensions.into_iter().collect(),
            dns_capture: flag("DNS_CAPTURE"),
            dns_auto_allocate: flag("DNS_AUTO_ALLOCATE"),
            http10: flag("HTTP10"),
            http_proxy_port: text("HTTP_PROXY_PORT").parse().ok(),
            proxy_config: metadata.get("PROXY_CONFIG").cloned().unwrap_or_default(),
            metadata,
        })
    }

    /// Whether it announces an extension of that name.
    pub fn has(&self, extension: &str) -> bool {
        self.extensions.contains(extension)
    }

    /// The pod's name.
    pub fn pod(&self) -> &str {
        self.id.rsplit_once('.').map_or(self.id.as_str(), |(pod, _)| pod)
    }
}

fn is_true(value: Option<&Value>) -> bool {
    match value {
        Some(Value::Bool(flag)) => *flag,
        Some(Value::String(text)) => matches!(text.as_str(), "true" | "1" | "TRUE" | "True"),
        _ => false,
    }
}

fn strings(value: Option<&Value>) -> Labels {
    value
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_a_sidecar_node() {
        let view = ProxyView::parse(RawNode {
            id: "sidecar~10.1.0.4~reviews-v1-x.default~default.svc.cluster.local",
            metadata: json!({"LABELS": {"app": "reviews"}, "INSTANCE_IPS": "10.1.0.4,fd00::1", "DNS_CAPTURE": "true"}),
            ..RawNode::default()
        })
        .unwrap();
        assert_eq!(view.namespace, "default");
        assert_eq!(view.pod(), "reviews-v1-x");
        assert_eq!(view.addresses.len(), 2);
        assert_eq!(view.labels["app"], "reviews");
        assert!(view.dns_capture);
    }

    #[test]
    fn refuses_other_nodes() {
        assert!(matches!(ProxyView::parse(RawNode { id: "x", ..RawNode::default() }), Err(Error::Id(_))));
        assert!(matches!(
            ProxyView::parse(RawNode { id: "q~1~a.b~c", ..RawNode::default() }),
            Err(Error::Type(_))
        ));
    }
}
