//! Chains of a gateway that carry bytes: TCP, and TLS that somebody else terminates.

use mesh_api::virtual_service::RouteDestination;
use saild_model::{Mesh, ProxyView, Scope};

use super::{BoundServer, Gather, is_bound};
use crate::listener::{Chain, ChainMatch, Class, Common, Filters};
use crate::route::Caller;
use crate::tls::{ALPN_EXCHANGE, ALPN_ISTIO, ALPN_ISTIO_HTTP};
use crate::{naming, pb};

impl Gather<'_> {
    /// Chains by the name that a client asks for.
    pub(super) fn by_server_name(&self, server: &BoundServer) -> Vec<Chain> {
        let gateways = [server.gateway_name()];
        let caller = self.caller(server, &gateways);
        let mut out = Vec::new();
        for object in self.virtual_services.iter().filter(|o| is_bound(&o.spec, server)) {
            let hosts = server.hosts_of(object);
            for route in &object.spec.tls {
                for matches in &route.r#match {
                    let fits = caller.fits(&matches.gateways, matches.port, &matches.source_labels, "");
                    let names: Vec<String> = matches
                        .sni_hosts
                        .iter()
                        .filter(|sni| hosts.iter().any(|host| saild_model::hostname::overlap(host, sni)))
                        .filter(|sni| *sni != "*")
                        .cloned()
                        .collect();
                    let all = matches.sni_hosts.iter().any(|sni| sni == "*");
                    if !fits || hosts.is_empty() || names.is_empty() && !all {
                        continue;
                    }
                    let matches = ChainMatch {
                        networks: matches
                            .destination_subnets
                            .iter()
                            .filter_map(|s| pb::parse_net(s))
                            .collect(),
                        server_names: names,
                        transport: "tls",
                        ..ChainMatch::default()
                    };
                    out.push(self.chain(matches, &route.route, &caller));
                }
            }
        }
        out
    }

    /// Chains by nothing but port and address.
    pub(super) fn by_address(&self, server: &BoundServer) -> Vec<Chain> {
        let gateways = [server.gateway_name()];
        let caller = self.caller(server, &gateways);
        let mut out = Vec::new();
        for object in self.virtual_services.iter().filter(|o| is_bound(&o.spec, server)) {
            if server.hosts_of(object).is_empty() {
                continue;
            }
            for route in &object.spec.tcp {
                if route.r#match.is_empty() {
                    out.push(self.chain(ChainMatch::default(), &route.route, &caller));
                }
                for matches in &route.r#match {
                    if !caller.fits(&matches.gateways, matches.port, &matches.source_labels, "") {
                        continue;
                    }
                    let networks =
                        |subnets: &[String]| subnets.iter().filter_map(|s| pb::parse_net(s)).collect();
                    let source = std::slice::from_ref(&matches.source_subnet);
                    let matches = ChainMatch {
                        networks: networks(&matches.destination_subnets),
                        sources: networks(source),
                        ..ChainMatch::default()
                    };
                    out.push(self.chain(matches, &route.route, &caller));
                }
            }
        }
        out
    }

    fn caller<'a>(&'a self, server: &BoundServer, gateways: &'a [String]) -> Caller<'a> {
        Caller {
            mesh: self.mesh,
            scope: self.scope,
            proxy: self.proxy,
            gateways,
            port: server.server.port.number,
        }
    }

    fn chain(&self, matches: ChainMatch, routes: &[RouteDestination], caller: &Caller<'_>) -> Chain {
        let clusters = caller.shares(routes);
        let prefix = clusters.first().map(|(name, _)| name.clone()).unwrap_or_default();
        let mut tcp = self.tcp(&prefix, clusters);
        if let Some(first) = routes.first() {
            tcp.follow(caller.policy(&first.destination));
        }
        Chain { name: String::new(), matches, tls: None, filters: Filters::Tcp(Box::new(tcp)) }
    }
}

/// Chains for the names that the mesh's own clients write: each is the name of a cluster.
pub(super) fn automatic(mesh: &Mesh, scope: &Scope, proxy: &ProxyView, common: &Common) -> Vec<Chain> {
    let mut out = Vec::new();
    for service in scope.services.iter().filter(|s| s.location == saild_model::Location::Internal) {
        let rule = mesh.destination_rule(&proxy.namespace, &proxy.labels, service);
        let subsets = rule.iter().flat_map(|rule| &rule.subsets).map(|subset| subset.name.as_str());
        for subset in [""].into_iter().chain(subsets) {
            for port in &service.ports {
                let name = naming::outbound_sni(port.number, subset, &service.hostname);
                let alpn = [ALPN_ISTIO, ALPN_EXCHANGE].into_iter().chain(ALPN_ISTIO_HTTP);
                let matches = ChainMatch {
                    server_names: vec![name.clone()],
                    transport: "tls",
                    alpn: alpn.map(str::to_owned).collect(),
                    ..ChainMatch::default()
                };
                let tcp = common.tcp(Class::Gateway, &name, vec![(name.clone(), 1)]);
                out.push(Chain {
                    name: String::new(),
                    matches,
                    tls: None,
                    filters: Filters::Tcp(Box::new(tcp)),
                });
            }
        }
    }
    out
}
