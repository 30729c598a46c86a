//! The kinds that the local mesh keeps, and the names by which users call them.

use std::fmt;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One kind: API group (empty for the core) and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Kind {
    pub(crate) group: String,
    pub(crate) name: String,
}

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Key {
    pub(crate) kind: Kind,
    /// Empty for what belongs to no namespace.
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// Group, kind, plural, short name.
const KNOWN: &[(&str, &str, &str, &str)] = &[
    ("", "Namespace", "namespaces", "ns"),
    ("", "ServiceAccount", "serviceaccounts", "sa"),
    ("", "ConfigMap", "configmaps", "cm"),
    ("", "Secret", "secrets", ""),
    ("", "Service", "services", "svc"),
    ("", "Pod", "pods", "po"),
    ("", "Node", "nodes", "no"),
    ("discovery.k8s.io", "EndpointSlice", "endpointslices", ""),
    ("apps", "Deployment", "deployments", "deploy"),
    ("networking.istio.io", "VirtualService", "virtualservices", "vs"),
    ("networking.istio.io", "DestinationRule", "destinationrules", "dr"),
    ("networking.istio.io", "Gateway", "gateways", "gw"),
    ("networking.istio.io", "ServiceEntry", "serviceentries", "se"),
    ("networking.istio.io", "Sidecar", "sidecars", ""),
    ("networking.istio.io", "EnvoyFilter", "envoyfilters", ""),
    ("networking.istio.io", "WorkloadEntry", "workloadentries", "we"),
    ("networking.istio.io", "WorkloadGroup", "workloadgroups", "wg"),
    ("networking.istio.io", "ProxyConfig", "proxyconfigs", ""),
    ("security.istio.io", "PeerAuthentication", "peerauthentications", "pa"),
    ("security.istio.io", "RequestAuthentication", "requestauthentications", "ra"),
    ("security.istio.io", "AuthorizationPolicy", "authorizationpolicies", "ap"),
    ("telemetry.istio.io", "Telemetry", "telemetries", ""),
    ("extensions.istio.io", "WasmPlugin", "wasmplugins", ""),
];

impl Kind {
    pub(crate) fn core(name: &str) -> Self {
        Self { group: String::new(), name: name.to_owned() }
    }

    pub(crate) fn deployment() -> Self {
        Self { group: "apps".into(), name: "Deployment".into() }
    }

    /// Whether the control plane is asked before such an object is stored.
    pub(crate) fn is_mesh(&self) -> bool {
        self.group.ends_with(".istio.io") || self.group == "gateway.networking.k8s.io"
    }

    pub(crate) fn is_namespaced(&self) -> bool {
        !matches!((self.group.as_str(), self.name.as_str()), ("", "Namespace" | "Node") | (_, "GatewayClass"))
    }

    /// The folder of such objects' files.
    pub(crate) fn folder(&self) -> String {
        match KNOWN.iter().find(|(group, name, ..)| *group == self.group && *name == self.name) {
            Some(_) => self.name.to_lowercase(),
            None => format!("{}.{}", self.name.to_lowercase(), self.group),
        }
    }

    /// Finds a kind by what a user types.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let lower = text.to_lowercase();
        let (word, group) = lower.split_once('.').unwrap_or((&lower, ""));
        let found = KNOWN.iter().find(|(known_group, name, plural, short)| {
            let named =
                word == name.to_lowercase() || word == *plural || (!short.is_empty() && word == *short);
            named && (group.is_empty() || group == *known_group)
        });
        match found {
            Some((group, name, ..)) => Ok(Self { group: (*group).into(), name: (*name).into() }),
            None => {
                let known: Vec<&str> = KNOWN.iter().map(|(_, _, plural, _)| *plural).collect();
                bail!("unknown kind {text:?}; there are {}", known.join(", "))
            }
        }
    }

    /// The kind of an object.
    pub(crate) fn of(object: &Value) -> anyhow::Result<Self> {
        let name =
            object["kind"].as_str().filter(|kind| !kind.is_empty()).context("field kind is missing")?;
        let version = object["apiVersion"].as_str().context("field apiVersion is missing")?;
        let group = version.split_once('/').map_or("", |(group, _)| group);
        let kind = Self { group: group.to_owned(), name: name.to_owned() };
        let known = KNOWN.iter().any(|(group, name, ..)| *group == kind.group && *name == kind.name);
        if known || kind.is_mesh() {
            return Ok(kind);
        }
        bail!("kind {name} of {version} is not one that the local mesh runs")
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name.to_lowercase())?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        Ok(())
    }
}

impl Key {
    pub(crate) fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        let namespace = if kind.is_namespaced() { namespace } else { "" };
        Self { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    pub(crate) fn core(kind: &str, namespace: &str, name: &str) -> Self {
        Self::new(Kind::core(kind), namespace, name)
    }

    pub(crate) fn pod(namespace: &str, name: &str) -> Self {
        Self::core("Pod", namespace, name)
    }

    /// The key of an object; its namespace is `default` unless it says so.
    pub(crate) fn of(object: &Value) -> anyhow::Result<Self> {
        let kind = Kind::of(object)?;
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
        for (field, value) in [("name", name), ("namespace", namespace)] {
            let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
            if value.is_empty() || value.len() > 253 || value.starts_with('.') || !value.chars().all(legal) {
                bail!(
                    "{kind}: metadata.{field} {value:?} must be lower-case letters, digits, dashes and dots"
                );
            }
        }
        Ok(Self::new(kind, namespace, name))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)?;
        if !self.namespace.is_empty() && self.namespace != "default" {
            write!(f, " in namespace {}", self.namespace)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn kinds_have_many_names() {
        for text in ["po", "pod", "pods", "Pod"] {
            assert_eq!(Kind::parse(text).unwrap(), Kind::core("Pod"));
        }
        assert_eq!(Kind::parse("vs").unwrap().to_string(), "virtualservice.networking.istio.io");
        assert_eq!(Kind::parse("deploy").unwrap(), Kind::deployment());
        assert!(Kind::parse("jobs").unwrap_err().to_string().starts_with("unknown kind \"jobs\""));
    }

    #[test]
    fn keys_refuse_names_that_would_leave_their_folder() {
        let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "../x"}});
        assert!(Key::of(&object).is_err());
        let object = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}});
        assert_eq!(
            Key::of(&object).unwrap_err().to_string(),
            "kind Job of batch/v1 is not one that the local mesh runs"
        );
    }
}
