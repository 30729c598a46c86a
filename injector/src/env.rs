//! The environment of the proxy's container.

use agent_contract::env::{self, EnvVar as Name};
use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EnvVar, EnvVarSource, ObjectFieldSelector, ResourceFieldSelector,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use mesh_api::Encode;
use mesh_api::mesh_config::{InterceptionMode, ProxyConfig};
use serde_json::{Map, Value, json};

use crate::settings::Settings;
use crate::volumes;

/// A variable with a value.
pub(crate) fn plain(name: &str, value: impl Into<String>) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.into()), value_from: None }
}

fn field(name: Name, path: &str) -> EnvVar {
    let selector = ObjectFieldSelector { api_version: None, field_path: path.to_owned() };
    let source = EnvVarSource { field_ref: Some(selector), ..EnvVarSource::default() };
    EnvVar { name: name.name.to_owned(), value: None, value_from: Some(source) }
}

fn limit(name: &str, resource: &str, divisor: Option<&str>) -> EnvVar {
    let selector = ResourceFieldSelector {
        container_name: None,
        divisor: divisor.map(|d| Quantity(d.to_owned())),
        resource: resource.to_owned(),
    };
    let source = EnvVarSource { resource_field_ref: Some(selector), ..EnvVarSource::default() };
    EnvVar { name: name.to_owned(), value: None, value_from: Some(source) }
}

/// All variables, in Istio's order.
pub(crate) fn of_proxy(settings: &Settings<'_>, apps: &[Container]) -> Vec<EnvVar> {
    let global = &settings.values.global;
    let ca = match global.ca_address.as_str() {
        "" => settings.proxy.discovery_address.clone(),
        address => address.to_owned(),
    };
    let cluster = match global.multi_cluster.cluster_name.as_str() {
        "" => env::ISTIO_META_CLUSTER_ID.default,
        name => name,
    };
    let trust_domain = &settings.config.mesh.trust_domain;
    let mesh_id =
        [&global.mesh_id, &settings.proxy.mesh_id, trust_domain].into_iter().find(|id| !id.is_empty());
    let mut out = vec![
        plain(env::PILOT_CERT_PROVIDER.name, &global.pilot_cert_provider),
        plain(env::CA_ADDR.name, ca),
        field(env::POD_NAME, "metadata.name"),
        field(env::POD_NAMESPACE, "metadata.namespace"),
        field(env::INSTANCE_IP, "status.podIP"),
        field(env::SERVICE_ACCOUNT, "spec.serviceAccountName"),
        field(env::HOST_IP, "status.hostIP"),
        limit(env::ISTIO_CPU_LIMIT.name, "limits.cpu", Some("1")),
        plain(env::PROXY_CONFIG.name, proxy_config(settings)),
        plain(env::ISTIO_META_POD_PORTS.name, pod_ports(apps)),
        plain(env::ISTIO_META_APP_CONTAINERS.name, app_containers(apps)),
        limit(env::GOMEMLIMIT.name, "limits.memory", None),
        plain(env::ISTIO_META_CLUSTER_ID.name, cluster),
        field(env::ISTIO_META_NODE_NAME, "spec.nodeName"),
        plain(env::ISTIO_META_INTERCEPTION_MODE.name, interception(settings.interception)),
    ];
    if !global.network.is_empty() {
        out.push(plain(env::ISTIO_META_NETWORK.name, &global.network));
    }
    out.push(plain(env::ISTIO_META_WORKLOAD_NAME.name, &settings.workload.name));
    out.push(plain(env::ISTIO_META_OWNER.name, settings.workload.owner_url(&settings.namespace)));
    if settings.annotation(agent_contract::annotations::BOOTSTRAP_OVERRIDE).is_some() {
        out.push(plain(env::ISTIO_BOOTSTRAP_OVERRIDE.name, volumes::CUSTOM_BOOTSTRAP_FILE));
    }
    out.extend(mesh_id.map(|id| plain(env::ISTIO_META_MESH_ID.name, id)));
    out.push(plain(env::TRUST_DOMAIN.name, trust_domain));
    for (name, value) in &settings.proxy.proxy_metadata {
        out.retain(|var| var.name != *name);
        out.push(plain(name, value));
    }
    out
}

/// The word for a mode.
pub(crate) fn interception(mode: InterceptionMode) -> &'static str {
    mode.as_str()
}

/// What differs from the defaults, which the agent has too.
fn proxy_config(settings: &Settings<'_>) -> String {
    let mut proxy = settings.proxy.clone();
    if settings.status_port != 0 {
        proxy.status_port = settings.status_port;
    }
    proxy.interception_mode = settings.interception;
    let defaults = ProxyConfig::default().encode();
    let mut map = match proxy.encode() {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    map.retain(|key, value| defaults.get(key) != Some(value));
    Value::Object(map).to_string()
}

fn pod_ports(apps: &[Container]) -> String {
    let ports = apps.iter().flat_map(|c| c.ports.iter().flatten()).map(|port: &ContainerPort| {
        let mut map = Map::new();
        if let Some(name) = &port.name {
            map.insert("name".to_owned(), json!(name));
        }
        map.insert("containerPort".to_owned(), json!(port.container_port));
        if let Some(protocol) = &port.protocol {
            map.insert("protocol".to_owned(), json!(protocol));
        }
        Value::Object(map)
    });
    Value::Array(ports.collect()).to_string()
}

fn app_containers(apps: &[Container]) -> String {
    apps.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(",")
}
