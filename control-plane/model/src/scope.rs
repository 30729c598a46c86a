//! What one proxy sees: the services and routes that are exported to its namespace, narrowed by its Sidecar.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use mesh_api::Object;
use mesh_api::sidecar::{CaptureMode, Sidecar, SidecarPort};
use mesh_api::virtual_service::{MESH_GATEWAY, VirtualService};

use crate::mesh::config::{is_selective, selects};
use crate::{ExportTo, Labels, Mesh, Service, Source, hostname};

/// What a proxy sees.
#[derive(Debug)]
pub struct Scope {
    /// The namespace that is looked from.
    pub namespace: String,
    /// The Sidecar that narrows the view.
    pub sidecar: Option<Arc<Object<Sidecar>>>,
    /// The Sidecar's egress listeners; one that takes all ports, if it names none.
    pub egress: Vec<Egress>,
    /// Every service that is seen, once a host name, in the order of host names.
    pub services: Vec<Arc<Service>>,
    by_hostname: HashMap<Arc<str>, usize>,
}

/// One egress listener.
#[derive(Debug)]
pub struct Egress {
    /// The port it is for; all ports that no other listener is for, if absent.
    pub port: Option<SidecarPort>,
    /// The address it is bound to, where it says so.
    pub bind: String,
    /// Whether its traffic is captured.
    pub capture_mode: CaptureMode,
    /// The services behind it.
    pub services: Vec<Arc<Service>>,
    /// The VirtualServices that apply to it, those of the client's namespace first.
    pub virtual_services: Vec<Arc<Object<VirtualService>>>,
}

impl Scope {
    /// The view of a workload.
    pub(crate) fn new(mesh: &Mesh, namespace: &str, sidecar: Option<Arc<Object<Sidecar>>>) -> Self {
        let visible = visible_services(mesh, namespace);
        let routes = visible_routes(mesh, namespace);
        let listeners = sidecar.as_ref().map(|s| s.spec.egress.as_slice()).unwrap_or_default();
        let egress = if listeners.is_empty() {
            vec![Egress {
                port: None,
                bind: String::new(),
                capture_mode: CaptureMode::Default,
                services: unique(visible, namespace),
                virtual_services: routes,
            }]
        } else {
            let view = View { namespace, services: &visible, routes: &routes };
            listeners.iter().map(|listener| view.narrowed(listener)).collect()
        };
        let mut services: Vec<Arc<Service>> = Vec::new();
        let mut by_hostname = HashMap::new();
        for service in egress.iter().flat_map(|listener| &listener.services) {
            by_hostname.entry(service.hostname.clone()).or_insert_with(|| {
                services.push(service.clone());
                services.len() - 1
            });
        }
        if egress.len() > 1 {
            services.sort_by(|a, b| a.hostname.cmp(&b.hostname));
            by_hostname = services.iter().enumerate().map(|(i, s)| (s.hostname.clone(), i)).collect();
        }
        Self { namespace: namespace.to_owned(), sidecar, egress, services, by_hostname }
    }

    /// The service of a host name.
    pub fn service(&self, hostname: &str) -> Option<&Arc<Service>> {
        self.by_hostname.get(hostname).map(|index| &self.services[*index])
    }
}

/// The Sidecar of a workload: the oldest that selects it, else the one of its namespace, else that of the root namespace.
pub(crate) fn sidecar_of(mesh: &Mesh, namespace: &str, labels: &Labels) -> Option<Arc<Object<Sidecar>>> {
    let sidecars = &mesh.config().sidecars;
    let selected = |o: &&Arc<Object<Sidecar>>| {
        let selector = o.spec.workload_selector.as_ref();
        is_selective(selector) && selects(selector, labels)
    };
    let general = |o: &&Arc<Object<Sidecar>>| !is_selective(o.spec.workload_selector.as_ref());
    sidecars
        .in_namespace(namespace)
        .find(selected)
        .or_else(|| sidecars.in_namespace(namespace).find(general))
        .or_else(|| sidecars.in_namespace(mesh.root_namespace()).find(general))
        .cloned()
}

fn visible_services(mesh: &Mesh, namespace: &str) -> Vec<Arc<Service>> {
    let visible = |s: &&Arc<Service>| ExportTo::visible(&s.export_to, &s.namespace, namespace);
    mesh.services().iter().filter(visible).cloned().collect()
}

/// The VirtualServices for sidecars: the client's own namespace first, as it has the last word on its calls.
fn visible_routes(mesh: &Mesh, namespace: &str) -> Vec<Arc<Object<VirtualService>>> {
    let default: Vec<ExportTo> =
        mesh.settings().default_virtual_service_export_to.iter().map(|e| ExportTo::parse(e)).collect();
    let mut routes: Vec<Arc<Object<VirtualService>>> = mesh
        .config()
        .virtual_services
        .all()
        .iter()
        .filter(|o| o.spec.gateways_or_mesh().any(|name| name == MESH_GATEWAY))
        .filter(|o| {
            let own: Vec<ExportTo> = o.spec.export_to.iter().map(|e| ExportTo::parse(e)).collect();
            let export = if own.is_empty() { &default } else { &own };
            ExportTo::visible(export, &o.meta.namespace, namespace)
        })
        .cloned()
        .collect();
    routes.sort_by_key(|o| o.meta.namespace != namespace);
    routes
}

/// One service a host name: that of the client's namespace, else a Kubernetes Service, else the oldest. Ports that only
/// others of its namespace have are added to it.
fn unique(services: Vec<Arc<Service>>, namespace: &str) -> Vec<Arc<Service>> {
    let rank = |s: &Service| (*s.namespace != *namespace, s.source != Source::Kubernetes);
    let mut out: Vec<Arc<Service>> = Vec::with_capacity(services.len());
    for group in services.chunk_by(|a, b| a.hostname == b.hostname) {
        // The first of equal rank is the oldest: the list is ordered by age.
        let Some(best) = group.iter().min_by_key(|s| rank(s)) else { continue };
        let mut chosen = best.clone();
        for other in group.iter().filter(|s| s.namespace == best.namespace && s.resolution == best.resolution)
        {
            for port in &other.ports {
                if chosen.port(port.number).is_none() {
                    Arc::make_mut(&mut chosen).ports.push(port.clone());
                }
            }
        }
        out.push(chosen);
    }
    out
}

struct View<'a> {
    namespace: &'a str,
    services: &'a [Arc<Service>],
    routes: &'a [Arc<Object<VirtualService>>],
}

impl View<'_> {
    fn narrowed(&self, listener: &mesh_api::sidecar::EgressListener) -> Egress {
        let patterns: Vec<(&str, &str)> =
            listener.hosts.iter().filter_map(|host| host.split_once('/')).collect();
        let wanted = |namespace: &str, host: &str| {
            patterns.iter().any(|(in_namespace, pattern)| {
                let here = match *in_namespace {
                    "*" => true,
                    "." => namespace == self.namespace,
                    "~" => false,
                    name => name == namespace,
                };
                here && hostname::overlap(pattern, host)
            })
        };
        let routes: Vec<_> = self
            .routes
            .iter()
            .filter(|o| o.spec.hosts.iter().any(|host| wanted(&o.meta.namespace, host)))
            .cloned()
            .collect();
        let destinations: HashSet<&str> = routes.iter().flat_map(|o| destinations(&o.spec)).collect();
        let mut services: Vec<Arc<Service>> = self
            .services
            .iter()
            .filter(|s| wanted(&s.namespace, &s.hostname) || destinations.contains(&*s.hostname))
            .cloned()
            .collect();
        drop(destinations);
        if let Some(port) = &listener.port {
            // A listener with a port is for that port of its services, if they have it.
            services = services.into_iter().filter_map(|s| with_port(&s, port.number)).collect();
        }
        Egress {
            port: listener.port.clone(),
            bind: listener.bind.clone(),
            capture_mode: listener.capture_mode,
            services: unique(services, self.namespace),
            virtual_services: routes,
        }
    }
}

fn with_port(service: &Arc<Service>, number: u16) -> Option<Arc<Service>> {
    let port = service.port(number)?.clone();
    if service.ports.len() == 1 {
        return Some(service.clone());
    }
    let mut narrowed = (**service).clone();
    narrowed.ports = vec![port];
    Some(Arc::new(narrowed))
}

/// Every host that a VirtualService sends traffic to.
pub fn destinations(spec: &VirtualService) -> impl Iterator<Item = &str> {
    let http = spec.http.iter().flat_map(|route| {
        let routes = route.route.iter().map(|r| r.destination.host.as_str());
        routes.chain(route.all_mirrors().map(|(destination, _)| destination.host.as_str()))
    });
    let tls = spec.tls.iter().flat_map(|route| route.route.iter().map(|r| r.destination.host.as_str()));
    let tcp = spec.tcp.iter().flat_map(|route| route.route.iter().map(|r| r.destination.host.as_str()));
    http.chain(tls).chain(tcp)
}
