//! Gateways: the servers of the Gateway objects that select a proxy, as listeners and routes.

mod passthrough;
mod server;
mod table;

use std::collections::{BTreeMap, BTreeSet};

use mesh_api::Object;
use mesh_api::gateway::{Gateway, Server, ServerTls, ServerTlsMode};
use mesh_api::mesh_config::ProxyConfig;
use mesh_api::virtual_service::VirtualService;
use saild_model::{ExportTo, Mesh, Protocol, ProxyView, Scope, hostname};
use std::sync::Arc;

pub(crate) use server::server_tls;
pub(crate) use table::routes;

use crate::listener::{
    Chain, ChainMatch, Class, Common, Direction, Filters, HttpInputs, Inspector, ListenerInputs, Routes,
    TcpInputs,
};
use crate::warning::Warning;
use crate::{authn, authz};

/// A server, with the Gateway that it is of.
#[derive(Debug, Clone)]
pub(crate) struct BoundServer {
    pub(crate) gateway: Arc<Object<Gateway>>,
    pub(crate) server: Server,
    /// The port that the proxy listens on.
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
}

impl BoundServer {
    /// `namespace/name` of the Gateway, as VirtualServices name it.
    fn gateway_name(&self) -> String {
        format!("{}/{}", self.gateway.meta.namespace, self.gateway.meta.name)
    }

    fn mode(&self) -> Option<ServerTlsMode> {
        self.server.tls.as_ref().filter(|tls| !is_only_redirect(tls, self.protocol)).map(|tls| tls.mode)
    }

    /// Requests are read, in plain text.
    fn is_plain_http(&self) -> bool {
        self.protocol.is_http()
    }

    /// TLS is terminated here.
    fn terminates(&self) -> bool {
        !matches!(self.mode(), None | Some(ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough))
    }

    /// Requests are read, after TLS.
    fn is_https(&self) -> bool {
        self.protocol == Protocol::Https && self.terminates()
    }

    /// The name of the route configuration.
    fn route_name(&self) -> Option<String> {
        let bind = &self.server.bind;
        let bind = if bind.is_empty() { String::new() } else { format!(".{bind}") };
        if self.is_plain_http() {
            return Some(format!("http.{}{bind}", self.port));
        }
        let (port, meta) = (&self.server.port, &self.gateway.meta);
        self.is_https()
            .then(|| format!("https.{}.{}.{}.{}{bind}", port.number, port.name, meta.name, meta.namespace))
    }

    /// The hosts without their namespaces.
    fn hosts(&self) -> impl Iterator<Item = &str> {
        self.server.hosts.iter().map(|host| host.split_once('/').map_or(host.as_str(), |(_, host)| host))
    }

    /// The hosts that a VirtualService serves here: what both name.
    fn hosts_of(&self, object: &Object<VirtualService>) -> Vec<String> {
        let mut out = Vec::new();
        for entry in &self.server.hosts {
            let (namespace, host) = entry.split_once('/').unwrap_or(("*", entry));
            let namespace = if namespace == "." { self.gateway.meta.namespace.as_str() } else { namespace };
            if namespace != "*" && namespace != object.meta.namespace {
                continue;
            }
            for own in &object.spec.hosts {
                let narrower = if hostname::covers(host, own) {
                    own
                } else if hostname::covers(own, host) {
                    host
                } else {
                    continue;
                };
                if !out.iter().any(|known| known == narrower) {
                    out.push(narrower.to_owned());
                }
            }
        }
        out
    }
}

/// TLS settings of a plain HTTP server, which say no more than that it sends everybody to HTTPS.
fn is_only_redirect(tls: &ServerTls, protocol: Protocol) -> bool {
    protocol.is_http() && tls.https_redirect
}

/// The servers of a proxy, the oldest Gateway's first.
pub(crate) fn servers(mesh: &Mesh, proxy: &ProxyView) -> Vec<BoundServer> {
    let mut out = Vec::new();
    for gateway in mesh.config().gateways.all() {
        let selected = gateway.spec.selector.iter().all(|(key, value)| proxy.labels.get(key) == Some(value));
        if !selected {
            continue;
        }
        for server in &gateway.spec.servers {
            out.push(BoundServer {
                gateway: gateway.clone(),
                port: listening_port(mesh, proxy, server.port.number),
                // A gateway does not guess: what is not declared is carried as bytes.
                protocol: Protocol::parse(&server.port.protocol).unwrap_or(Protocol::Tcp),
                server: server.clone(),
            });
        }
    }
    out
}

/// The port of the proxy's pod that its Service leads a port to.
fn listening_port(mesh: &Mesh, proxy: &ProxyView, number: u16) -> u16 {
    let endpoints = proxy.addresses.iter().flat_map(|ip| mesh.endpoints_at(*ip));
    for endpoint in endpoints {
        for service in mesh.services_of_host(&endpoint.service) {
            let port = service.port_named(&endpoint.service_port_name);
            if port.is_some_and(|port| port.number == number) {
                return endpoint.port;
            }
        }
    }
    number
}

/// Whether a server routes by names that other proxies write.
pub(crate) fn auto_passthrough(mesh: &Mesh, proxy: &ProxyView) -> bool {
    servers(mesh, proxy).iter().any(|server| server.mode() == Some(ServerTlsMode::AutoPassthrough))
}

/// The VirtualServices for gateways that are exported to a proxy's namespace.
pub(crate) fn virtual_services(mesh: &Mesh, proxy: &ProxyView) -> Vec<Arc<Object<VirtualService>>> {
    let default: Vec<ExportTo> =
        mesh.settings().default_virtual_service_export_to.iter().map(|e| ExportTo::parse(e)).collect();
    let all = mesh.config().virtual_services.all().iter();
    let visible = all.filter(|o| {
        let own: Vec<ExportTo> = o.spec.export_to.iter().map(|e| ExportTo::parse(e)).collect();
        let export = if own.is_empty() { &default } else { &own };
        ExportTo::visible(export, &o.meta.namespace, &proxy.namespace)
    });
    visible.cloned().collect()
}

/// Whether a VirtualService is bound to a server's Gateway.
fn is_bound(object: &VirtualService, server: &BoundServer) -> bool {
    let name = server.gateway_name();
    object.gateways_or_mesh().any(|gateway| gateway == name)
}

/// Every listener of a gateway.
pub(crate) fn listeners(mesh: &Mesh, proxy: &ProxyView, warnings: &mut Vec<Warning>) -> Vec<ListenerInputs> {
    let mut by_port: BTreeMap<(String, u16), Vec<BoundServer>> = BTreeMap::new();
    for server in servers(mesh, proxy) {
        let bind =
            if server.server.bind.is_empty() { "0.0.0.0".to_owned() } else { server.server.bind.clone() };
        by_port.entry((bind, server.port)).or_default().push(server);
    }
    let scope = mesh.scope(proxy);
    let gather = Gather {
        mesh,
        proxy,
        scope: &scope,
        common: Common::new(mesh, proxy),
        jwt: authn::jwt_inputs(mesh, proxy),
        authz: authz::inputs(mesh, proxy, warnings),
        trusted_hops: trusted_hops(mesh, proxy),
        virtual_services: virtual_services(mesh, proxy),
    };
    by_port
        .into_iter()
        .filter_map(|((bind, port), servers)| gather.listener(&bind, port, servers, warnings))
        .collect()
}

fn trusted_hops(mesh: &Mesh, proxy: &ProxyView) -> u32 {
    let own =
        proxy.proxy_config.pointer("/gatewayTopology/numTrustedProxies").and_then(serde_json::Value::as_u64);
    let of_mesh = |config: &ProxyConfig| config.gateway_topology.as_ref().map(|t| t.num_trusted_proxies);
    let own = own.and_then(|hops| u32::try_from(hops).ok());
    own.or_else(|| of_mesh(&mesh.settings().default_config)).unwrap_or_default()
}

struct Gather<'a> {
    mesh: &'a Mesh,
    proxy: &'a ProxyView,
    scope: &'a Scope,
    common: Common,
    jwt: Option<authn::JwtInputs>,
    authz: Vec<authz::AuthzInputs>,
    trusted_hops: u32,
    virtual_services: Vec<Arc<Object<VirtualService>>>,
}

impl Gather<'_> {
    fn listener(
        &self,
        bind: &str,
        port: u16,
        servers: Vec<BoundServer>,
        warnings: &mut Vec<Warning>,
    ) -> Option<ListenerInputs> {
        let name = format!("{bind}_{port}");
        let mut listener = ListenerInputs::new(name, bind, port, Direction::Outbound, &self.common);
        // Plain HTTP and anything else cannot share a port: the first server decides which it is.
        let plain = servers.first()?.is_plain_http();
        let mut hosts: BTreeSet<String> = BTreeSet::new();
        for server in servers {
            if server.is_plain_http() != plain {
                warnings.push(conflict(&server, "another server of this port speaks another protocol"));
                continue;
            }
            // As in Istio, the older Gateway's server has them, and the other is left out whole.
            if server.mode().is_some() && server.hosts().any(|host| hosts.contains(host)) {
                warnings.push(conflict(&server, "another server of this port serves the same hosts"));
                continue;
            }
            if server.mode().is_some() {
                hosts.extend(server.hosts().map(str::to_owned));
            }
            for chain in self.chains(&server) {
                if listener.chains.iter().all(|known| known.matches != chain.matches) {
                    listener.chains.push(chain);
                } else if !plain {
                    warnings.push(conflict(&server, "another server of this port serves the same hosts"));
                }
            }
        }
        let by_tls = |chain: &Chain| chain.tls.is_some() || !chain.matches.server_names.is_empty();
        if listener.chains.iter().any(by_tls) {
            listener.inspectors.push(Inspector::Tls);
        }
        (!listener.chains.is_empty()).then_some(listener)
    }

    fn chains(&self, server: &BoundServer) -> Vec<Chain> {
        if let Some(route) = server.route_name() {
            let https = server.is_https();
            let prefix = format!("outbound_0.0.0.0_{};", server.port);
            let http = HttpInputs {
                jwt: self.jwt.clone(),
                authz: self.authz.clone(),
                wasm: self.common.wasm(Class::Gateway, server.port),
                trusted_hops: self.trusted_hops,
                grpc_web: server.protocol == Protocol::GrpcWeb,
                client_certificates: https,
                ..self.common.http(Class::Gateway, prefix, Routes::Rds(route))
            };
            let filters = Filters::Http(Box::new(http));
            if !https {
                let (name, matches) = (String::new(), ChainMatch::default());
                return vec![Chain { name, matches, tls: None, filters }];
            }
            return self.terminated(server, filters).into_iter().collect();
        }
        match server.mode() {
            Some(ServerTlsMode::AutoPassthrough) => {
                passthrough::automatic(self.mesh, self.scope, self.proxy, &self.common)
            }
            Some(ServerTlsMode::Passthrough) => self.by_server_name(server),
            Some(_) => {
                let Some(tcp) = self.by_address(server).into_iter().next() else { return Vec::new() };
                self.terminated(server, tcp.filters).into_iter().collect()
            }
            None => self.by_address(server),
        }
    }

    /// The chain that terminates TLS for a server's hosts.
    fn terminated(&self, server: &BoundServer, filters: Filters) -> Option<Chain> {
        let domains = crate::tls::trust_domains(self.mesh);
        let tls = server_tls(server.server.tls.as_ref()?, server.is_https(), &domains)?;
        let any = server.hosts().any(|host| host == "*");
        let mut names: Vec<String> =
            if any { Vec::new() } else { server.hosts().map(str::to_owned).collect() };
        names.sort();
        names.dedup();
        let matches = ChainMatch { server_names: names, transport: "", ..ChainMatch::default() };
        Some(Chain { name: String::new(), matches, tls: Some(tls), filters })
    }

    fn tcp(&self, prefix: &str, clusters: Vec<(String, u32)>) -> TcpInputs {
        let mut tcp = self.common.tcp(Class::Gateway, prefix, clusters);
        tcp.authz.clone_from(&self.authz);
        tcp
    }
}

fn conflict(server: &BoundServer, reason: &str) -> Warning {
    Warning {
        kind: "Gateway".to_owned(),
        namespace: server.gateway.meta.namespace.clone(),
        name: server.gateway.meta.name.clone(),
        message: format!(
            "server {:?} on port {} is left out: {reason}",
            server.server.port.name, server.server.port.number
        ),
    }
}
