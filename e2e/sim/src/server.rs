//! The called side: from the connection that reaches a pod to its workload.

use std::net::{IpAddr, SocketAddr};

use sail_proxy_config::decide::head::RequestHead;
use sail_proxy_config::decide::rbac::{Input, Peer, RbacConfig};
use sail_proxy_config::hcm::Hcm;
use sail_proxy_config::http_filter::HttpFilterKind;
use sail_proxy_config::listener::Listener;
use sail_proxy_config::network_filter::NetworkFilter;

use crate::call::{Seen, connection, decide};
use crate::{Call, Protocol, Proxy, Route};

/// What a pod's proxy makes of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    /// The workload gets it.
    Served,
    /// A policy refuses it.
    Denied {
        /// The policy that matched; none where no ALLOW policy did.
        policy: Option<String>,
    },
    /// With the proxy's own answer.
    Answer(u16),
    /// The connection is closed.
    Closed(&'static str),
}

/// ALPN that a mesh client offers.
const HTTP: [&str; 3] = ["istio-http/1.1", "istio", "http/1.1"];
const TCP: [&str; 2] = ["istio-peer-exchange", "istio"];

impl Server {
    /// Receives a call at a pod's address. `identity` is the SPIFFE id of a client in mutual TLS; none is plain text.
    pub fn receive(proxy: &Proxy, call: &Call, from: IpAddr, identity: Option<&str>) -> (Route, Self) {
        let mut route = Route::default();
        let server = receive(proxy, call, from, identity, &mut route);
        (route, server)
    }
}

fn receive(proxy: &Proxy, call: &Call, from: IpAddr, identity: Option<&str>, route: &mut Route) -> Server {
    let Some(listener) = proxy.snapshot.listener(saild_translate::naming::VIRTUAL_INBOUND) else {
        return Server::Closed("nothing captures");
    };
    route.listener = listener.name.to_string();
    let seen = seen(listener, call, from, identity.is_some());
    let Some(chain) = listener.find_chain(&seen.borrow().get()) else {
        return Server::Closed("no filter chain");
    };
    route.chain = chain.name.to_string();
    let sans: Vec<String> = identity.iter().map(|id| (*id).to_owned()).collect();
    for filter in &chain.filters {
        match filter {
            NetworkFilter::Rbac(rbac) => {
                if let Some(denied) = denied(&rbac.config, &Facts { call, from, sans: &sans, http: false }) {
                    return denied;
                }
            }
            NetworkFilter::HttpConnectionManager(hcm) => {
                return request(proxy, hcm, call, from, &sans, route);
            }
            NetworkFilter::TcpProxy(tcp) => {
                route.cluster = tcp.cluster.choose(call.random).map(|(name, _)| name.to_string());
                return reached(route);
            }
            _ => {}
        }
    }
    Server::Closed("the chain has no end")
}

fn seen(listener: &Listener, call: &Call, from: IpAddr, mutual: bool) -> Seen {
    if mutual {
        let alpn: &[&str] = if call.protocol == Protocol::Http { &HTTP } else { &TCP };
        return Seen::mutual(call.to, from, alpn);
    }
    connection(listener, call, Some((from, 40_000)))
}

fn request(
    proxy: &Proxy,
    hcm: &Hcm,
    call: &Call,
    from: IpAddr,
    sans: &[String],
    route: &mut Route,
) -> Server {
    for filter in hcm.http_filters.iter() {
        if let HttpFilterKind::Rbac(rbac) = &filter.kind
            && let Some(denied) = denied(rbac, &Facts { call, from, sans, http: true })
        {
            return denied;
        }
    }
    let Some(table) = proxy.snapshot.route_table(hcm) else { return Server::Closed("no routes") };
    match decide(table, call, &call.head(), route) {
        Ok(_) => reached(route),
        Err(status) => Server::Answer(status.as_u16()),
    }
}

fn reached(route: &Route) -> Server {
    match route.cluster.as_deref() {
        None | Some(saild_translate::naming::BLACK_HOLE) => Server::Closed("no cluster"),
        Some(_) => Server::Served,
    }
}

fn denied(config: &RbacConfig, facts: &Facts<'_>) -> Option<Server> {
    let verdict = config.rules.as_ref()?.decide(facts);
    (!verdict.allowed).then(|| Server::Denied { policy: verdict.policy.map(|name| name.to_string()) })
}

struct Facts<'a> {
    call: &'a Call,
    from: IpAddr,
    sans: &'a [String],
    http: bool,
}

impl Input for Facts<'_> {
    fn head(&self) -> Option<RequestHead<'_>> {
        self.http.then(|| self.call.head())
    }
    fn destination(&self) -> Option<(IpAddr, u16)> {
        let to: SocketAddr = self.call.to;
        Some((to.ip(), to.port()))
    }
    fn source_ip(&self) -> Option<IpAddr> {
        Some(self.from)
    }
    fn direct_remote_ip(&self) -> Option<IpAddr> {
        Some(self.from)
    }
    fn remote_ip(&self) -> Option<IpAddr> {
        Some(self.from)
    }
    fn requested_server_name(&self) -> &str {
        match &self.call.protocol {
            Protocol::Tls(name) => name,
            Protocol::Http | Protocol::Tcp => "",
        }
    }
    fn peer(&self) -> Option<Peer<'_>> {
        (!self.sans.is_empty()).then_some(Peer { uri_sans: self.sans, dns_sans: &[], subject: "" })
    }
    fn is_tls(&self) -> bool {
        !self.sans.is_empty()
    }
}
