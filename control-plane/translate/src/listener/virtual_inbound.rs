//! The listener that captured inbound connections come to: what each port of the workload accepts.

use mesh_api::peer_authentication::MutualTlsMode;
use saild_model::{InterceptionMode, Mesh, Protocol, ProxyView};

use super::{
    Chain, ChainMatch, Class, Common, Direction, Filters, HttpInputs, Inspector, ListenerInputs, Routes,
    TcpInputs, Tls, virtual_outbound,
};
use crate::route::InboundRouteInputs;
use crate::tls::{ALPN_EXCHANGE, ALPN_ISTIO, ALPN_ISTIO_HTTP};
use crate::warning::Warning;
use crate::workload::{Inbound, InboundPort};
use crate::{authn, authz, naming};

const RAW: &str = "raw_buffer";
const TLS: &str = "tls";

pub(super) fn inputs(
    mesh: &Mesh,
    proxy: &ProxyView,
    common: &Common,
    warnings: &mut Vec<Warning>,
) -> Vec<ListenerInputs> {
    let gather = Gather {
        mesh,
        proxy,
        common,
        trust_domains: crate::tls::trust_domains(mesh),
        jwt: authn::jwt_inputs(mesh, proxy),
        authz: authz::inputs(mesh, proxy, warnings),
    };
    let inbound = Inbound::of(mesh, proxy);
    if inbound.ports.iter().any(|port| port.protocol.is_tcp()) {
        warnings.extend(gather.authz.iter().flat_map(authz::not_for_tcp));
    }
    let mut out = Vec::new();
    for port in inbound.ports.iter().filter(|port| port.bind.is_some()) {
        out.push(gather.own_listener(port));
    }
    if proxy.interception_mode != InterceptionMode::None {
        out.push(gather.captured(&inbound));
    }
    out
}

struct Gather<'a> {
    mesh: &'a Mesh,
    proxy: &'a ProxyView,
    common: &'a Common,
    trust_domains: Vec<String>,
    jwt: Option<authn::JwtInputs>,
    authz: Vec<authz::AuthzInputs>,
}

/// What the chains of one port have in common.
struct PortChains {
    name: String,
    /// The name of chains that read requests, where it is another.
    http_name: String,
    port: Option<u16>,
    mode: MutualTlsMode,
    protocol: Protocol,
    tls: Option<Tls>,
    http: HttpInputs,
    tcp: TcpInputs,
}

impl Gather<'_> {
    fn captured(&self, inbound: &Inbound) -> ListenerInputs {
        let port = self.mesh.settings().proxy_inbound_listen_port;
        let name = naming::VIRTUAL_INBOUND.to_owned();
        let mut listener = ListenerInputs::new(name, "0.0.0.0", port, Direction::Inbound, self.common);
        listener.transparent = self.proxy.interception_mode == InterceptionMode::Tproxy;
        let ports: Vec<&InboundPort> = inbound.ports.iter().filter(|port| port.bind.is_none()).collect();
        listener.inspectors.push(Inspector::OriginalDst);
        if listener.transparent {
            listener.inspectors.push(Inspector::OriginalSrc);
        }
        listener.inspectors.push(Inspector::Tls);
        // Where the protocol is declared there is nothing to find out, and a server that speaks first is not kept waiting.
        let except = ports.iter().filter(|port| !port.protocol.is_auto()).map(|port| port.number);
        listener.inspectors.push(Inspector::Http { except: except.collect() });
        listener.inspection_timeout = Some(self.common.inspection_timeout);
        let mut blackhole =
            virtual_outbound::chain("virtualInbound-blackhole", Some(port), naming::BLACK_HOLE, self.common);
        if let Filters::Tcp(tcp) = &mut blackhole.filters {
            **tcp = self.common.tcp(
                Class::SidecarInbound,
                naming::BLACK_HOLE,
                vec![(naming::BLACK_HOLE.to_owned(), 1)],
            );
            tcp.exchange = false;
        }
        listener.chains.push(blackhole);
        let known: Vec<u16> = ports.iter().map(|port| port.number).collect();
        for own in authn::ports(self.mesh, &self.proxy.namespace, &self.proxy.labels) {
            if !known.contains(&own) {
                listener.chains.extend(self.passthrough(Some(own)).chains());
            }
        }
        listener.chains.extend(self.passthrough(None).chains());
        for port in ports {
            listener.chains.extend(self.port(port).chains());
        }
        listener
    }

    /// A listener that a Sidecar asks for at an address of its own.
    fn own_listener(&self, port: &InboundPort) -> ListenerInputs {
        let address = port.bind.as_deref().unwrap_or("0.0.0.0");
        let name = format!("{address}_{}", port.number);
        let mut listener = ListenerInputs::new(name, address, port.number, Direction::Inbound, self.common);
        listener.inspectors.push(Inspector::Tls);
        if port.protocol.is_auto() {
            listener.inspectors.push(Inspector::Http { except: Vec::new() });
            listener.inspection_timeout = Some(self.common.inspection_timeout);
        }
        let mut chains = self.port(port);
        chains.port = None;
        listener.chains = chains.chains();
        listener
    }

    fn port(&self, port: &InboundPort) -> PortChains {
        let cluster = naming::inbound(port.number);
        let mode = authn::mode(self.mesh, &self.proxy.namespace, &self.proxy.labels, Some(port.number));
        let host = port.services.first().map_or_else(|| "localhost".to_owned(), |s| s.hostname.to_string());
        let name = format!("0.0.0.0_{}", port.number);
        let route = InboundRouteInputs {
            cluster: cluster.clone(),
            port: port.service_port,
            operation: format!("{host}:{}/*", port.service_port),
            retry: !port.protocol.is_grpc(),
            retry_policy: self.mesh.settings().default_inbound_http_retry_policy.clone(),
        };
        let mut chains = PortChains {
            http_name: name.clone(),
            port: Some(port.number),
            mode,
            protocol: port.protocol,
            tls: None,
            http: self.http(&name, Routes::Inbound(route)),
            tcp: self.tcp(&cluster),
            name,
        };
        chains.http.grpc_web = port.protocol == Protocol::GrpcWeb;
        chains.http.wasm = self.common.wasm(Class::SidecarInbound, port.number);
        if let Some(pool) = &port.connection_pool {
            chains.tcp.idle_timeout = pool.tcp.as_ref().and_then(|tcp| tcp.idle_timeout);
        }
        if let Some(tls) = &port.tls {
            chains.tls = crate::gateway::server_tls(tls, chains.protocol.is_http(), &self.trust_domains);
        }
        if chains.tls.is_none() {
            chains.tls = Some(Tls::Mesh { http: false, trust_domains: self.trust_domains.clone() });
        } else {
            // The Sidecar terminates TLS that clients outside the mesh speak: nothing else is accepted.
            chains.mode = MutualTlsMode::Strict;
        }
        chains
    }

    /// Ports that no service leads to.
    fn passthrough(&self, port: Option<u16>) -> PortChains {
        let cluster = naming::INBOUND_PASSTHROUGH;
        let mode = authn::mode(self.mesh, &self.proxy.namespace, &self.proxy.labels, port);
        let routes = Routes::Passthrough(cluster.to_owned());
        PortChains {
            name: naming::VIRTUAL_INBOUND.to_owned(),
            http_name: "virtualInbound-catchall-http".to_owned(),
            port,
            mode,
            protocol: Protocol::Auto,
            tls: Some(Tls::Mesh { http: false, trust_domains: self.trust_domains.clone() }),
            http: self.http(cluster, routes),
            tcp: self.tcp(cluster),
        }
    }

    fn http(&self, name: &str, routes: Routes) -> HttpInputs {
        HttpInputs {
            jwt: self.jwt.clone(),
            authz: self.authz.clone(),
            ..self.common.http(Class::SidecarInbound, format!("inbound_{name};"), routes)
        }
    }

    fn tcp(&self, cluster: &str) -> TcpInputs {
        let mut tcp = self.common.tcp(Class::SidecarInbound, cluster, vec![(cluster.to_owned(), 1)]);
        tcp.authz.clone_from(&self.authz);
        tcp
    }
}

impl PortChains {
    /// The chains, by mode and protocol. Where the protocol is not declared, the ALPN of the mesh's mutual TLS tells it,
    /// and in plain text the first bytes do.
    fn chains(&self) -> Vec<Chain> {
        let mesh: Vec<&str> = [ALPN_ISTIO, ALPN_EXCHANGE].into_iter().chain(ALPN_ISTIO_HTTP).collect();
        let sniffed = ["http/1.1", "h2c"];
        let (http, tcp, auto) = (self.protocol.is_http(), self.protocol.is_tcp(), self.protocol.is_auto());
        match self.mode {
            MutualTlsMode::Strict if http => vec![self.http_mutual(&[])],
            MutualTlsMode::Strict if tcp => vec![self.tcp_mutual(&[])],
            MutualTlsMode::Strict => vec![self.http_mutual(&ALPN_ISTIO_HTTP), self.tcp_mutual(&[])],
            MutualTlsMode::Disable if http => vec![self.http_plain(&[])],
            MutualTlsMode::Disable if auto => vec![self.http_plain(&sniffed), self.tcp_plain("")],
            MutualTlsMode::Disable => vec![self.tcp_plain("")],
            MutualTlsMode::Permissive | MutualTlsMode::Unset if http => {
                vec![self.http_mutual(&mesh), self.http_plain(&[])]
            }
            MutualTlsMode::Permissive | MutualTlsMode::Unset if tcp => {
                vec![self.tcp_mutual(&mesh), self.tcp_plain(TLS), self.tcp_plain(RAW)]
            }
            MutualTlsMode::Permissive | MutualTlsMode::Unset => vec![
                self.http_mutual(&ALPN_ISTIO_HTTP),
                self.http_plain(&sniffed),
                self.tcp_mutual(&[ALPN_EXCHANGE, ALPN_ISTIO]),
                self.tcp_plain(RAW),
                self.tcp_plain(TLS),
            ],
        }
    }

    fn matches(&self, transport: &'static str, alpn: &[&str]) -> ChainMatch {
        ChainMatch {
            port: self.port,
            transport,
            alpn: alpn.iter().map(|name| (*name).to_owned()).collect(),
            ..ChainMatch::default()
        }
    }

    fn mutual(&self, reads_http: bool) -> Option<Tls> {
        match self.tls.clone() {
            Some(Tls::Mesh { trust_domains, .. }) => Some(Tls::Mesh { http: reads_http, trust_domains }),
            other => other,
        }
    }

    fn http_mutual(&self, alpn: &[&str]) -> Chain {
        let mut http = self.http.clone();
        http.client_certificates = true;
        let filters = Filters::Http(Box::new(http));
        Chain {
            name: self.http_name.clone(),
            matches: self.matches(TLS, alpn),
            tls: self.mutual(true),
            filters,
        }
    }

    fn tcp_mutual(&self, alpn: &[&str]) -> Chain {
        let filters = Filters::Tcp(Box::new(self.tcp.clone()));
        Chain { name: self.name.clone(), matches: self.matches(TLS, alpn), tls: self.mutual(false), filters }
    }

    fn http_plain(&self, alpn: &[&str]) -> Chain {
        let filters = Filters::Http(Box::new(self.http.clone()));
        Chain { name: self.http_name.clone(), matches: self.matches(RAW, alpn), tls: None, filters }
    }

    fn tcp_plain(&self, transport: &'static str) -> Chain {
        let mut tcp = self.tcp.clone();
        // Only mesh peers know of the exchange, and they come in mutual TLS.
        tcp.exchange = false;
        let filters = Filters::Tcp(Box::new(tcp));
        Chain { name: self.name.clone(), matches: self.matches(transport, &[]), tls: None, filters }
    }
}
