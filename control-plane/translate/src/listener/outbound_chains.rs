//! Chains of outbound connections that are carried as bytes: TCP and TLS, with the routes of VirtualServices.

use mesh_api::virtual_service::RouteDestination;
use saild_model::{Egress, Mesh, Port, ProxyView, Scope, Service, hostname};

use super::outbound::Target;
use super::{Chain, ChainMatch, Class, Common, Filters, TcpInputs};
use crate::route::Caller;
use crate::{naming, pb};

const MESH: &str = "mesh";

/// Makes the chains of one listener's services.
pub(super) struct ChainMaker<'a> {
    pub(super) mesh: &'a Mesh,
    pub(super) proxy: &'a ProxyView,
    pub(super) common: &'a Common,
    pub(super) scope: &'a Scope,
    pub(super) egress: &'a Egress,
}

impl ChainMaker<'_> {
    /// The chains of a service's port at an address.
    pub(super) fn chains(&self, service: &Service, port: &Port, target: &Target) -> Vec<Chain> {
        let gateways = [MESH.to_owned()];
        let caller = Caller {
            mesh: self.mesh,
            scope: self.scope,
            proxy: self.proxy,
            gateways: &gateways,
            port: port.number,
        };
        let mut out = Vec::new();
        if port.protocol.is_tls() && self.by_server_name(service, target, &caller, &mut out) {
            return out;
        }
        if !port.protocol.is_tls() && self.by_address(service, target, &caller, &mut out) {
            return out;
        }
        let cluster = naming::outbound(port.number, "", &service.hostname);
        let mut matches = ChainMatch { networks: target.networks.clone(), ..ChainMatch::default() };
        if port.protocol.is_tls() && !target.exact && target.networks.is_empty() {
            // On all addresses a service is told by the name that the client asks for.
            matches.server_names = server_names(&service.hostname);
            matches.transport = "tls";
        }
        let mut tcp = self.common.tcp(Class::SidecarOutbound, &cluster, vec![(cluster.clone(), 1)]);
        let rule = self.mesh.destination_rule(&self.proxy.namespace, &self.proxy.labels, service);
        tcp.follow(crate::cluster::policy_of(rule.as_deref(), "", port.number, self.mesh));
        out.push(chain(matches, tcp));
        out
    }

    /// Chains of `tls` routes. Whether one of them is for every connection.
    fn by_server_name(
        &self,
        service: &Service,
        target: &Target,
        caller: &Caller<'_>,
        out: &mut Vec<Chain>,
    ) -> bool {
        let mut named = false;
        for object in &self.egress.virtual_services {
            if !object.spec.hosts.iter().any(|host| hostname::overlap(host, &service.hostname)) {
                continue;
            }
            for route in &object.spec.tls {
                for matches in &route.r#match {
                    let caller_fits = caller.fits(
                        &matches.gateways,
                        matches.port,
                        &matches.source_labels,
                        &matches.source_namespace,
                    );
                    let hosts =
                        matches.sni_hosts.iter().filter(|sni| hostname::overlap(sni, &service.hostname));
                    let hosts: Vec<String> = hosts.flat_map(|sni| server_names(sni)).collect();
                    if !caller_fits || hosts.is_empty() {
                        continue;
                    }
                    named |= matches.sni_hosts.iter().any(|sni| hostname::covers(sni, &service.hostname));
                    let matches = ChainMatch {
                        networks: networks(&matches.destination_subnets, target),
                        server_names: hosts,
                        transport: "tls",
                        ..ChainMatch::default()
                    };
                    out.push(chain(matches, self.weighted(service, &route.route, caller)));
                }
            }
        }
        named
    }

    /// Chains of `tcp` routes. Whether one of them is for every connection.
    fn by_address(
        &self,
        service: &Service,
        target: &Target,
        caller: &Caller<'_>,
        out: &mut Vec<Chain>,
    ) -> bool {
        for object in &self.egress.virtual_services {
            if !object.spec.hosts.iter().any(|host| hostname::covers(host, &service.hostname)) {
                continue;
            }
            for route in &object.spec.tcp {
                let tcp = || self.weighted(service, &route.route, caller);
                if route.r#match.is_empty() {
                    let matches = ChainMatch { networks: target.networks.clone(), ..ChainMatch::default() };
                    out.push(chain(matches, tcp()));
                    return true;
                }
                for matches in &route.r#match {
                    let fits = caller.fits(
                        &matches.gateways,
                        matches.port,
                        &matches.source_labels,
                        &matches.source_namespace,
                    );
                    if !fits {
                        continue;
                    }
                    let all = matches.destination_subnets.is_empty();
                    let matches = ChainMatch {
                        networks: networks(&matches.destination_subnets, target),
                        ..ChainMatch::default()
                    };
                    out.push(chain(matches, tcp()));
                    if all {
                        return true;
                    }
                }
            }
        }
        false
    }

    fn weighted(&self, service: &Service, routes: &[RouteDestination], caller: &Caller<'_>) -> TcpInputs {
        let clusters = caller.shares(routes);
        let prefix = match clusters.as_slice() {
            [(only, _)] => only.clone(),
            _ => naming::outbound(caller.port, "", &service.hostname),
        };
        let mut tcp = self.common.tcp(Class::SidecarOutbound, &prefix, clusters);
        // The first destination speaks for all: the settings are the connection's, not the cluster's.
        if let Some(first) = routes.first() {
            tcp.follow(caller.policy(&first.destination));
        }
        tcp
    }
}

fn chain(matches: ChainMatch, tcp: TcpInputs) -> Chain {
    Chain { name: String::new(), matches, tls: None, filters: Filters::Tcp(Box::new(tcp)) }
}

fn networks(subnets: &[String], target: &Target) -> Vec<ipnet::IpNet> {
    if subnets.is_empty() {
        return target.networks.clone();
    }
    subnets.iter().filter_map(|subnet| pb::parse_net(subnet)).collect()
}

/// A host name as server names are matched. `*` means all, which is no condition.
pub(crate) fn server_names(host: &str) -> Vec<String> {
    if host == "*" { Vec::new() } else { vec![host.to_owned()] }
}
