//! The route configurations of a gateway.

use std::collections::BTreeMap;

use saild_model::{Mesh, ProxyView};

use super::{BoundServer, is_bound, servers, virtual_services};
use crate::route::{Caller, Otherwise, RouteInputs, VirtualHostInputs, rules_of};
use crate::warning::Warning;

/// The route configuration of that name; nothing if no server has it.
pub(crate) fn routes(
    mesh: &Mesh,
    proxy: &ProxyView,
    name: &str,
    warnings: &mut Vec<Warning>,
) -> Option<RouteInputs> {
    let servers: Vec<BoundServer> = servers(mesh, proxy)
        .into_iter()
        .filter(|server| server.route_name().as_deref() == Some(name))
        .collect();
    if servers.is_empty() {
        return None;
    }
    let scope = mesh.scope(proxy);
    let objects = virtual_services(mesh, proxy);
    let mut hosts: BTreeMap<String, VirtualHostInputs> = BTreeMap::new();
    for server in &servers {
        let gateways = [server.gateway_name()];
        let port = server.server.port.number;
        let caller = Caller { mesh, scope: &scope, proxy, gateways: &gateways, port };
        for object in objects.iter().filter(|o| is_bound(&o.spec, server) && !o.spec.http.is_empty()) {
            let served = server.hosts_of(object);
            if served.is_empty() {
                warnings.push(Warning {
                    kind: "VirtualService".to_owned(),
                    namespace: object.meta.namespace.clone(),
                    name: object.meta.name.clone(),
                    message: format!("Gateway {} has no server for its hosts", gateways[0]),
                });
            }
            for host in served {
                // Several VirtualServices may serve one host at a gateway: the older one's rules come first.
                let rules = rules_of(object, &caller);
                virtual_host(&mut hosts, &host, port).rules.extend(rules);
            }
        }
        if server.server.tls.as_ref().is_some_and(|tls| tls.https_redirect) {
            for host in server.hosts() {
                virtual_host(&mut hosts, host, port).require_tls = true;
            }
            redirect_covered(server, &mut hosts);
        }
    }
    let virtual_hosts: Vec<VirtualHostInputs> =
        hosts.into_values().filter(|host| !host.rules.is_empty() || host.require_tls).collect();
    Some(RouteInputs { name: name.to_owned(), virtual_hosts, otherwise: Otherwise::NotFound })
}

fn virtual_host<'a>(
    hosts: &'a mut BTreeMap<String, VirtualHostInputs>,
    host: &str,
    port: u16,
) -> &'a mut VirtualHostInputs {
    hosts.entry(host.to_ascii_lowercase()).or_insert_with(|| VirtualHostInputs {
        name: format!("{host}:{port}"),
        domains: vec![host.to_owned()],
        rules: Vec::new(),
        require_tls: false,
    })
}

/// A server that sends everybody to HTTPS does so for hosts below its wildcards, too.
fn redirect_covered(server: &BoundServer, hosts: &mut BTreeMap<String, VirtualHostInputs>) {
    for own in server.hosts() {
        for (host, virtual_host) in hosts.iter_mut() {
            if saild_model::hostname::covers(own, host) {
                virtual_host.require_tls = true;
            }
        }
    }
}
