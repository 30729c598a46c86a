//! Outbound listeners: one for each port that HTTP is spoken on, one for each address and port of the others.

use std::collections::BTreeMap;

use mesh_api::sidecar::CaptureMode;
use saild_model::{Egress, InterceptionMode, Mesh, Port, Protocol, ProxyType, ProxyView, Scope, Service};

use super::outbound_chains::ChainMaker;
use super::{Chain, ChainMatch, Class, Common, Direction, Filters, Inspector, ListenerInputs, Routes};
use crate::outbound_policy;

const WILDCARD: &str = "0.0.0.0";

/// Every outbound listener of a sidecar but the one that captures.
pub(super) fn inputs(mesh: &Mesh, proxy: &ProxyView, common: &Common) -> Vec<ListenerInputs> {
    let scope = mesh.scope(proxy);
    let mut gather = Gather { mesh, proxy, common, scope: &scope, slots: BTreeMap::new() };
    // A port that a Sidecar gives a listener of its own belongs to that one.
    let locked: Vec<u16> = scope.egress.iter().filter_map(|e| e.port.as_ref().map(|p| p.number)).collect();
    for egress in &scope.egress {
        gather.egress(egress, if egress.port.is_some() { &[] } else { &locked });
    }
    let mut out: Vec<ListenerInputs> =
        std::mem::take(&mut gather.slots).into_iter().map(|(key, slot)| gather.listener(key, slot)).collect();
    out.extend(gather.http_proxy());
    out
}

/// Where a listener stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    address: String,
    port: u16,
}

/// What was found for one listener so far.
#[derive(Debug, Default)]
struct Slot {
    /// The route configuration of requests.
    http: Option<String>,
    /// Requests are told from other bytes by looking at them.
    sniffed: bool,
    /// Chains that carry bytes.
    tcp: Vec<Chain>,
    /// It is bound, as nothing is captured for it.
    bound: bool,
    grpc_web: bool,
}

struct Gather<'a> {
    mesh: &'a Mesh,
    proxy: &'a ProxyView,
    common: &'a Common,
    scope: &'a Scope,
    slots: BTreeMap<Key, Slot>,
}

impl Gather<'_> {
    fn egress(&mut self, egress: &Egress, locked: &[u16]) {
        let not_captured = self.proxy.interception_mode == InterceptionMode::None;
        let bound = not_captured || egress.capture_mode == CaptureMode::None;
        for service in &egress.services {
            for port in &service.ports {
                if port.protocol == Protocol::Udp || locked.contains(&port.number) {
                    continue;
                }
                let protocol = match &egress.port {
                    Some(own) => Protocol::parse(&own.protocol).unwrap_or(port.protocol),
                    None => port.protocol,
                };
                let addresses = self.addresses(service, protocol, egress, bound);
                let port = Port { protocol, ..port.clone() };
                for address in addresses {
                    self.add(service, &port, egress, address, bound);
                }
            }
        }
        // A listener with a port exists even if no service has that port: VirtualServices may be for it.
        if let Some(port) = &egress.port {
            let protocol = Protocol::parse(&port.protocol).unwrap_or_default();
            if protocol.is_http() {
                let address = self.bind(egress, bound);
                let slot = self.slots.entry(Key { address, port: port.number }).or_default();
                slot.http.get_or_insert_with(|| port.number.to_string());
                slot.bound |= bound;
            }
        }
    }

    fn bind(&self, egress: &Egress, bound: bool) -> String {
        match (egress.bind.as_str(), bound) {
            ("", true) => "127.0.0.1".to_owned(),
            ("", false) => WILDCARD.to_owned(),
            (bind, _) => bind.to_owned(),
        }
    }

    /// The addresses that clients connect to for a service.
    fn addresses(&self, service: &Service, protocol: Protocol, egress: &Egress, bound: bool) -> Vec<Target> {
        let wildcard = || vec![Target { bind: self.bind(egress, bound), networks: Vec::new(), exact: false }];
        if protocol.is_http() || bound || !egress.bind.is_empty() {
            return wildcard();
        }
        let mut out = Vec::new();
        let mut networks = Vec::new();
        for net in &service.addresses {
            if net.prefix_len() == net.max_prefix_len() {
                out.push(Target { bind: net.addr().to_string(), networks: Vec::new(), exact: true });
            } else {
                networks.push(*net);
            }
        }
        if !networks.is_empty() {
            out.push(Target { bind: WILDCARD.to_owned(), networks, exact: false });
        }
        if out.is_empty() && self.proxy.dns_auto_allocate {
            let auto = service.auto_address.map(|ip| ip.to_string());
            out.extend(auto.map(|bind| Target { bind, networks: Vec::new(), exact: true }));
        }
        if out.is_empty() && service.is_headless() {
            return self.pods(service);
        }
        if out.is_empty() { wildcard() } else { out }
    }

    /// The pods of a headless service, but not the own one.
    fn pods(&self, service: &Service) -> Vec<Target> {
        let mut addresses: Vec<std::net::IpAddr> = self
            .mesh
            .all_endpoints(&service.hostname)
            .flat_map(|list| list.iter())
            .filter_map(|endpoint| endpoint.address.ip())
            .filter(|ip| !self.proxy.addresses.contains(ip))
            .collect();
        addresses.sort();
        addresses.dedup();
        let target =
            |ip: std::net::IpAddr| Target { bind: ip.to_string(), networks: Vec::new(), exact: true };
        addresses.into_iter().map(target).collect()
    }

    fn add(&mut self, service: &Service, port: &Port, egress: &Egress, target: Target, bound: bool) {
        let key = Key { address: target.bind.clone(), port: port.number };
        let maker =
            ChainMaker { mesh: self.mesh, proxy: self.proxy, common: self.common, scope: self.scope, egress };
        let chains = if port.protocol.is_http() { Vec::new() } else { maker.chains(service, port, &target) };
        let slot = self.slots.entry(key).or_default();
        slot.bound |= bound;
        slot.grpc_web |= port.protocol == Protocol::GrpcWeb;
        if port.protocol.is_http() {
            slot.http = Some(port.number.to_string());
            return;
        }
        if port.protocol.is_auto() {
            slot.sniffed = true;
            // On an address of its own the service is known; on all addresses the host name tells it.
            let name = if target.exact {
                format!("{}:{}", service.hostname, port.number)
            } else {
                port.number.to_string()
            };
            slot.http.get_or_insert(name);
        }
        for chain in chains {
            // Two services cannot be told apart where their chains are for the same: the older one keeps it.
            if slot.tcp.iter().all(|known| known.matches != chain.matches) {
                slot.tcp.push(chain);
            }
        }
    }

    fn listener(&self, key: Key, slot: Slot) -> ListenerInputs {
        let name = format!("{}_{}", key.address, key.port);
        let mut listener =
            ListenerInputs::new(name.clone(), &key.address, key.port, Direction::Outbound, self.common);
        listener.virtual_only = !slot.bound;
        listener.transparent = self.proxy.interception_mode == InterceptionMode::Tproxy && slot.bound;
        let wildcard = key.address == WILDCARD;
        let sniffs = slot.http.is_some() && (wildcard || slot.sniffed || !slot.tcp.is_empty());
        let reads_tls = slot
            .tcp
            .iter()
            .any(|chain| !chain.matches.server_names.is_empty() || !chain.matches.transport.is_empty());
        if sniffs || reads_tls {
            listener.inspectors.push(Inspector::Tls);
        }
        if sniffs {
            listener.inspectors.push(Inspector::Http { except: Vec::new() });
            listener.inspection_timeout = Some(self.common.inspection_timeout);
        }
        if let Some(route) = slot.http {
            let prefix = format!("outbound_{name};");
            let mut http = self.common.http(Class::SidecarOutbound, prefix, Routes::Rds(route));
            http.grpc_web = slot.grpc_web;
            http.wasm = self.common.wasm(Class::SidecarOutbound, key.port);
            let mut matches = ChainMatch::default();
            if sniffs {
                matches.transport = "raw_buffer";
                matches.alpn = vec!["http/1.1".to_owned(), "h2c".to_owned()];
                if self.common.http10 {
                    matches.alpn.insert(0, "http/1.0".to_owned());
                }
            }
            listener.chains.push(Chain {
                name: String::new(),
                matches,
                tls: None,
                filters: Filters::Http(Box::new(http)),
            });
        }
        listener.chains.extend(slot.tcp);
        let catches_all = listener.chains.iter().any(|chain| chain.matches == ChainMatch::default());
        if !catches_all {
            let cluster = outbound_policy::cluster(self.mesh, self.scope);
            let mut chain =
                super::virtual_outbound::chain("PassthroughFilterChain", None, &cluster, self.common);
            chain.matches = ChainMatch::default();
            listener.default_chain = Some(chain);
        }
        listener
    }

    /// The listener of applications that are told to use a proxy.
    fn http_proxy(&self) -> Option<ListenerInputs> {
        let own = self.proxy.http_proxy_port;
        let port = own.unwrap_or(self.mesh.settings().proxy_http_port);
        if port == 0 || self.proxy.kind != ProxyType::Sidecar {
            return None;
        }
        let name = format!("127.0.0.1_{port}");
        let mut listener = ListenerInputs::new(name, "127.0.0.1", port, Direction::Outbound, self.common);
        let routes = Routes::Rds("http_proxy".to_owned());
        let http = self.common.http(Class::SidecarOutbound, "http_proxy".to_owned(), routes);
        let matches = ChainMatch::default();
        listener.chains.push(Chain {
            name: String::new(),
            matches,
            tls: None,
            filters: Filters::Http(Box::new(http)),
        });
        Some(listener)
    }
}

/// An address that clients connect to.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// What the listener is bound to.
    pub(super) bind: String,
    /// The networks that are meant, on a listener for all addresses.
    pub(super) networks: Vec<ipnet::IpNet>,
    /// It is the service's own address.
    pub(super) exact: bool,
}
