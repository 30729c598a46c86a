//! What a sidecar's own workload serves: its ports, and the services behind them.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_api::destination_rule::ConnectionPool;
use mesh_api::gateway::ServerTls;
use mesh_api::sidecar::{CaptureMode, Sidecar};
use saild_model::{Mesh, Protocol, ProxyView, Service};

/// The inbound side of a workload.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    /// By number.
    pub(crate) ports: Vec<InboundPort>,
}

/// A port of the workload.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct InboundPort {
    /// The port that the workload listens on.
    pub(crate) number: u16,
    /// What it speaks.
    pub(crate) protocol: Protocol,
    /// The services that lead here.
    pub(crate) services: Vec<Arc<Service>>,
    /// The port of the first of these services.
    pub(crate) service_port: u16,
    /// The Sidecar's `bind`, where it has a listener of its own.
    pub(crate) bind: Option<String>,
    /// The Sidecar's `defaultEndpoint`.
    pub(crate) endpoint: Option<String>,
    /// Limits, from the Sidecar.
    pub(crate) connection_pool: Option<ConnectionPool>,
    /// TLS that the Sidecar says in place of the mesh's.
    pub(crate) tls: Option<ServerTls>,
}

impl Inbound {
    /// The ports of a proxy's workload: those of its Sidecar's `ingress`, else those that services lead to.
    pub(crate) fn of(mesh: &Mesh, proxy: &ProxyView) -> Self {
        let by_services = of_services(mesh, proxy);
        let scope = mesh.scope(proxy);
        let Some(sidecar) = &scope.sidecar else { return Self { ports: by_services } };
        let pool = &sidecar.spec.inbound_connection_pool;
        let mut ports = if sidecar.spec.ingress.is_empty() {
            by_services
        } else {
            of_sidecar(&sidecar.spec, &by_services)
        };
        for port in &mut ports {
            if port.connection_pool.is_none() {
                port.connection_pool.clone_from(pool);
            }
        }
        Self { ports }
    }
}

fn of_services(mesh: &Mesh, proxy: &ProxyView) -> Vec<InboundPort> {
    let mut ports: BTreeMap<u16, InboundPort> = BTreeMap::new();
    let mut found = Vec::new();
    for endpoint in proxy.addresses.iter().flat_map(|ip| mesh.endpoints_at(*ip)) {
        let services = mesh.services_of_host(&endpoint.service);
        let Some(service) = services.into_iter().find(|s| s.namespace == endpoint.service_namespace) else {
            continue;
        };
        // Entries for hosts outside may carry a workload's address; they are no services of it.
        if service.location == saild_model::Location::External {
            continue;
        }
        let Some(port) = service.port_named(&endpoint.service_port_name) else { continue };
        if port.protocol != Protocol::Udp {
            found.push((service, port, endpoint.port));
        }
    }
    // Where services disagree about a port, the oldest is believed.
    found.sort_by(|(a, ..), (b, ..)| (a.created, &a.hostname).cmp(&(b.created, &b.hostname)));
    for (service, port, target) in found {
        let entry = ports.entry(target).or_insert_with(|| InboundPort {
            number: target,
            protocol: port.protocol,
            services: Vec::new(),
            service_port: port.number,
            bind: None,
            endpoint: None,
            connection_pool: None,
            tls: None,
        });
        if entry.services.iter().all(|known| known.hostname != service.hostname) {
            entry.services.push(service.clone());
        }
    }
    ports.into_values().collect()
}

fn of_sidecar(sidecar: &Sidecar, by_services: &[InboundPort]) -> Vec<InboundPort> {
    let listeners = sidecar.ingress.iter().filter_map(|listener| {
        let port = listener.port.as_ref()?;
        let known = by_services.iter().find(|known| known.number == port.number);
        let own = !listener.bind.is_empty() || listener.capture_mode == CaptureMode::None;
        Some(InboundPort {
            number: port.number,
            protocol: Protocol::parse(&port.protocol).unwrap_or_default(),
            services: known.map(|known| known.services.clone()).unwrap_or_default(),
            service_port: known.map_or(port.number, |known| known.service_port),
            bind: own
                .then(|| if listener.bind.is_empty() { "0.0.0.0".to_owned() } else { listener.bind.clone() }),
            endpoint: Some(listener.default_endpoint.clone()).filter(|endpoint| !endpoint.is_empty()),
            connection_pool: listener.connection_pool.clone(),
            tls: listener.tls.clone(),
        })
    });
    listeners.collect()
}
