//! What a proxy reports: Telemetry over MeshConfig, as access logs, traces and metrics.

pub(crate) mod access_log;
pub(crate) mod metrics;
pub(crate) mod tracing;

use std::sync::Arc;

use mesh_api::Object;
use mesh_api::mesh_config::{ExtensionProvider, Provider};
use mesh_api::telemetry::{ModeMatch, Telemetry, WorkloadMode};
use saild_model::mesh::{is_selective, selects};
use saild_model::{Mesh, ProxyView, hostname};

/// The side of a call that a listener stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Side {
    /// It calls: outbound listeners, and gateways.
    Client,
    /// It is called: inbound listeners.
    Server,
}

impl Side {
    fn is(self, matched: Option<&ModeMatch>) -> bool {
        self.is_mode(matched.map(|m| m.mode).unwrap_or_default())
    }

    fn is_mode(self, mode: WorkloadMode) -> bool {
        match mode {
            WorkloadMode::ClientAndServer => true,
            WorkloadMode::Client => self == Self::Client,
            WorkloadMode::Server => self == Self::Server,
        }
    }
}

/// The Telemetry objects for a workload, the widest first: root namespace, namespace, workload.
pub(crate) fn layers(mesh: &Mesh, proxy: &ProxyView) -> Vec<Arc<Object<Telemetry>>> {
    let all = &mesh.config().telemetries;
    let targeted = |o: &Telemetry| o.target_ref.is_some() || !o.target_refs.is_empty();
    let general = |namespace: &str| {
        let found = all
            .in_namespace(namespace)
            .find(|o| !is_selective(o.spec.selector.as_ref()) && !targeted(&o.spec));
        found.cloned()
    };
    let root = mesh.root_namespace();
    let mut layers: Vec<Arc<Object<Telemetry>>> = general(root).into_iter().collect();
    if proxy.namespace != root {
        layers.extend(general(&proxy.namespace));
    }
    let own = all.in_namespace(&proxy.namespace).find(|o| {
        let selector = o.spec.selector.as_ref();
        is_selective(selector) && selects(selector, &proxy.labels)
    });
    layers.extend(own.cloned());
    layers
}

/// A provider by its name: one of MeshConfig's, or one that every mesh has.
pub(crate) fn provider(mesh: &Mesh, name: &str) -> Option<Provider> {
    let own = mesh.settings().extension_providers.iter().find(|provider| provider.name == name);
    own.map(|provider| provider.provider.clone()).or_else(|| Provider::built_in(name))
}

/// The host and port of a provider's service, as a Kubernetes name or `namespace/host`.
pub(crate) fn service_host(mesh: &Mesh, service: &str) -> String {
    let (namespace, host) = service.split_once('/').unwrap_or((mesh.root_namespace(), service));
    if mesh.services_of_host(host).next().is_some() {
        return host.to_owned();
    }
    let labels: Vec<&str> = host.split('.').collect();
    // "zipkin.istio-system" and "zipkin.istio-system.svc" are short for the full name.
    match labels.as_slice() {
        [name] => hostname::resolve(name, namespace, mesh.domain()),
        [name, ns] | [name, ns, "svc"] => format!("{name}.{ns}.svc.{}", mesh.domain()),
        _ => host.to_owned(),
    }
}

/// The hosts that providers of MeshConfig send to: each proxy has a cluster for them.
pub(crate) fn provider_hosts(mesh: &Mesh) -> Vec<String> {
    let service = |provider: &ExtensionProvider| match &provider.provider {
        Provider::Zipkin(settings) => Some(settings.service.clone()),
        Provider::Opentelemetry(settings) => Some(settings.service.clone()),
        _ => None,
    };
    let settings = mesh.settings();
    let mut hosts: Vec<String> =
        settings.extension_providers.iter().filter_map(service).map(|s| service_host(mesh, &s)).collect();
    let legacy = settings.default_config.tracing.as_ref().and_then(|t| t.zipkin.as_ref());
    hosts.extend(legacy.and_then(|z| z.address.rsplit_once(':')).map(|(host, _)| service_host(mesh, host)));
    hosts.sort();
    hosts.dedup();
    hosts
}
