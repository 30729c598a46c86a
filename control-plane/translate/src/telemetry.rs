//! What a proxy reports: Telemetry over MeshConfig, as access logs, traces and metrics.

pub(crate) mod access_log;
pub(crate) mod metrics;
pub(crate) mod tracing;

use std::sync::Arc;

use mesh_api::Object;
use mesh_api::mesh_config::Provider;
use mesh_api::telemetry::{ModeMatch, ProviderRef, Telemetry, WorkloadMode};
use saild_model::mesh::Attachment;
use saild_model::{Mesh, ProxyView};

use crate::provider;
use crate::warning::Warning;

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
    let general = |namespace: &str| {
        let found = all.in_namespace(namespace).find(|o| !Attachment::from(&o.spec).is_selective());
        found.cloned()
    };
    let root = mesh.root_namespace();
    let mut layers: Vec<Arc<Object<Telemetry>>> = general(root).into_iter().collect();
    if proxy.namespace != root {
        layers.extend(general(&proxy.namespace));
    }
    let own = all.in_namespace(&proxy.namespace).find(|o| {
        let attachment = Attachment::from(&o.spec);
        attachment.is_selective() && attachment.is_for(&proxy.namespace, proxy)
    });
    layers.extend(own.cloned());
    layers
}

/// What Telemetry objects ask for and do not get: providers that are unknown, or of another purpose.
pub(crate) fn problems(mesh: &Mesh, proxy: &ProxyView) -> Vec<Warning> {
    let mut out = Vec::new();
    for layer in layers(mesh, proxy) {
        let mut check = |field: &str, providers: &[ProviderRef], fits: fn(&Provider) -> bool| {
            for name in providers.iter().map(|provider| provider.name.as_str()) {
                let message = match provider::find(mesh, name) {
                    Some(found) if fits(&found) => continue,
                    Some(_) => {
                        format!("{field}.providers: {name:?} is a provider that is not supported here")
                    }
                    None => format!("{field}.providers: MeshConfig has no extensionProviders[{name}]"),
                };
                out.push(Warning::of("Telemetry", &layer.meta, message));
            }
        };
        for tracing in &layer.spec.tracing {
            check("tracing", &tracing.providers, |p| {
                matches!(p, Provider::Zipkin(_) | Provider::Opentelemetry(_))
            });
        }
        for metrics in &layer.spec.metrics {
            check("metrics", &metrics.providers, |p| matches!(p, Provider::Prometheus(_)));
        }
        for logging in &layer.spec.access_logging {
            check("accessLogging", &logging.providers, access_log::is_log);
        }
    }
    out
}
