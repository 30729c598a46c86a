//! The route configurations of a sidecar: one for each port that HTTP is spoken on, one for each sniffed service.

use std::sync::Arc;

use hashbrown::HashSet;
use mesh_api::Object;
use mesh_api::virtual_service::VirtualService;
use saild_model::{Egress, Mesh, Protocol, ProxyView, Scope, Service, hostname};

use super::{Caller, Otherwise, RouteInputs, VirtualHostInputs, domains, rules_of};

const MESH: &str = "mesh";

/// The route configuration of that name: `9080`, `host:9080` or `http_proxy`.
pub(super) fn sidecar(mesh: &Mesh, proxy: &ProxyView, name: &str) -> Option<RouteInputs> {
    let scope = mesh.scope(proxy);
    let gateways = [MESH.to_owned()];
    if let Some((host, port)) = name.rsplit_once(':') {
        let port: u16 = port.parse().ok()?;
        let service = scope.service(host)?;
        service.port(port)?;
        let egress =
            scope.egress.iter().find(|e| e.services.iter().any(|s| s.hostname == service.hostname))?;
        let caller = Caller { mesh, scope: &scope, proxy, gateways: &gateways, port };
        let mut virtual_host = of_service(service, egress, &caller);
        // Nothing else can be meant on this listener.
        virtual_host.domains = vec!["*".to_owned()];
        return Some(RouteInputs {
            name: name.to_owned(),
            virtual_hosts: vec![virtual_host],
            otherwise: Otherwise::NotFound,
        });
    }
    let (port, egress) = if name == "http_proxy" {
        (None, scope.egress.first()?)
    } else {
        let port: u16 = name.parse().ok()?;
        let own = scope.egress.iter().find(|e| e.port.as_ref().is_some_and(|p| p.number == port));
        (Some(port), own.or_else(|| scope.egress.iter().find(|e| e.port.is_none()))?)
    };
    let table = Table { mesh, scope: &scope, proxy, gateways: &gateways, egress };
    Some(RouteInputs {
        name: name.to_owned(),
        virtual_hosts: table.virtual_hosts(port),
        otherwise: crate::outbound_policy::otherwise(mesh, &scope),
    })
}

struct Table<'a> {
    mesh: &'a Mesh,
    scope: &'a Scope,
    proxy: &'a ProxyView,
    gateways: &'a [String],
    egress: &'a Egress,
}

impl Table<'_> {
    /// The virtual hosts of a port; of all ports, for the proxy that is asked by URL.
    fn virtual_hosts(&self, port: Option<u16>) -> Vec<VirtualHostInputs> {
        let mut out = Vec::new();
        let mut seen: HashSet<String> = HashSet::new();
        let mut add = |mut host: VirtualHostInputs| {
            // Two virtual hosts must not share a domain: the first keeps it.
            host.domains.retain(|domain| seen.insert(domain.to_ascii_lowercase()));
            if !host.domains.is_empty() && !host.rules.is_empty() {
                out.push(host);
            }
        };
        for service in &self.egress.services {
            let wanted = |p: u16| port.is_none_or(|port| port == p);
            for p in service.ports.iter().filter(|p| wanted(p.number) && speaks_http(p.protocol)) {
                let caller = self.caller(p.number);
                let mut host = of_service(service, self.egress, &caller);
                if port.is_none() {
                    host.domains =
                        host.domains.iter().map(|domain| format!("{domain}:{}", p.number)).collect();
                }
                add(host);
            }
        }
        if port == Some(80) {
            for host in self.of_unknown_hosts() {
                add(host);
            }
        }
        out
    }

    fn caller(&self, port: u16) -> Caller<'_> {
        Caller { mesh: self.mesh, scope: self.scope, proxy: self.proxy, gateways: self.gateways, port }
    }

    /// Hosts that VirtualServices name and that no service has: they are taken to be asked for on port 80.
    fn of_unknown_hosts(&self) -> Vec<VirtualHostInputs> {
        let mut out = Vec::new();
        for object in self.egress.virtual_services.iter().filter(|o| !o.spec.http.is_empty()) {
            for host in &object.spec.hosts {
                let known = self.egress.services.iter().any(|s| hostname::covers(host, &s.hostname));
                if !known {
                    out.push(VirtualHostInputs {
                        name: format!("{host}:80"),
                        domains: domains::of_host(host, &self.proxy.dns_domain),
                        rules: rules_of(object, &self.caller(80)),
                        require_tls: false,
                    });
                }
            }
        }
        out
    }
}

/// Whether requests to such a port are found in the table of its number.
fn speaks_http(protocol: Protocol) -> bool {
    protocol.is_http() || protocol.is_auto()
}

fn of_service(service: &Service, egress: &Egress, caller: &Caller<'_>) -> VirtualHostInputs {
    let port = caller.port;
    let rules = match virtual_service(service, egress) {
        Some(object) => rules_of(&object, caller),
        None => vec![caller.default_rule(service, port)],
    };
    let auto = caller.proxy.dns_auto_allocate;
    VirtualHostInputs {
        name: format!("{}:{port}", service.hostname),
        domains: domains::of_service(service, &caller.proxy.dns_domain, auto),
        rules,
        require_tls: false,
    }
}

/// The VirtualService with HTTP routes for a host: the one with the most specific host, of these the first.
fn virtual_service(service: &Service, egress: &Egress) -> Option<Arc<Object<VirtualService>>> {
    let mut best: Option<(bool, usize)> = None;
    let mut chosen = None;
    for object in egress.virtual_services.iter().filter(|o| !o.spec.http.is_empty()) {
        let hosts = object.spec.hosts.iter().filter(|host| hostname::covers(host, &service.hostname));
        let Some(found) = hosts.map(|host| hostname::specificity(host)).max() else { continue };
        if best.is_none_or(|known| found > known) {
            best = Some(found);
            chosen = Some(object.clone());
        }
    }
    chosen
}
