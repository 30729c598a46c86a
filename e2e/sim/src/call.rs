//! The calling side: from the application's connection to the endpoint that it leads to.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use sail_proxy_config::cluster::{Cluster, Discovery};
use sail_proxy_config::decide::filter_chain::Connection;
use sail_proxy_config::decide::fraction::NoRuntime;
use sail_proxy_config::decide::head::RequestHead;
use sail_proxy_config::decide::host::{Health, Host};
use sail_proxy_config::decide::route::{Action, Draw, RouteContext, RouteTable};
use sail_proxy_config::hcm::Hcm;
use sail_proxy_config::listener::{Listener, ListenerFilterKind};
use sail_proxy_config::network_filter::NetworkFilter;
use sail_proxy_config::tls::UpstreamSocket;

use crate::Proxy;

/// What an application sends.
#[derive(Debug, Clone)]
pub struct Call {
    /// The address that it connects to.
    pub to: SocketAddr,
    /// What it speaks.
    pub protocol: Protocol,
    /// The host that it asks for, with or without a port.
    pub authority: String,
    /// The method.
    pub method: String,
    /// The path, with the query.
    pub path: String,
    /// Further headers.
    pub headers: HeaderMap,
    /// The number that stands in for chance.
    pub random: u64,
}

/// What an application speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http,
    /// TLS with a server name.
    Tls(String),
    /// Bytes.
    Tcp,
}

impl Call {
    /// `GET path` of a host at an address.
    pub fn get(to: SocketAddr, authority: &str, path: &str) -> Self {
        Self {
            to,
            protocol: Protocol::Http,
            authority: authority.to_owned(),
            method: "GET".to_owned(),
            path: path.to_owned(),
            headers: HeaderMap::new(),
            random: 0,
        }
    }

    /// The head as decisions see it.
    pub fn head(&self) -> RequestHead<'_> {
        RequestHead {
            method: &self.method,
            scheme: "http",
            authority: &self.authority,
            path: &self.path,
            protocol: None,
            headers: &self.headers,
        }
    }
}

/// How the calling proxy decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Route {
    /// The listener.
    pub listener: String,
    /// The filter chain, by its name; empty where it has none.
    pub chain: String,
    /// The virtual host.
    pub virtual_host: Option<String>,
    /// The route.
    pub route: Option<String>,
    /// The cluster.
    pub cluster: Option<String>,
}

/// Where a call ends for its proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// At this endpoint.
    Endpoint {
        /// Its address.
        address: SocketAddr,
        /// Whether the connection is in TLS.
        tls: bool,
    },
    /// Where it wanted to go, past the mesh.
    Passthrough {
        /// Where that is.
        address: SocketAddr,
        /// Whether the connection is in TLS.
        tls: bool,
    },
    /// At a name that DNS resolves.
    Name(String),
    /// With the proxy's own answer.
    Answer(u16),
    /// Nowhere: the connection is closed.
    Closed(&'static str),
}

/// Sends a call through its proxy.
pub fn call(proxy: &Proxy, call: &Call) -> (Route, Outcome) {
    let mut route = Route::default();
    let outcome = walk(proxy, call, &mut route);
    (route, outcome)
}

fn walk(proxy: &Proxy, call: &Call, route: &mut Route) -> Outcome {
    let snapshot = &proxy.snapshot;
    let Some(listener) = captured(&snapshot.listeners, call.to) else {
        return Outcome::Closed("no listener");
    };
    route.listener = listener.name.to_string();
    let source = proxy.view.addresses.first().map(|ip| (*ip, 40_000));
    let Some(chain) = listener.find_chain(&connection(listener, call, source).borrow().get()) else {
        return Outcome::Closed("no filter chain");
    };
    route.chain = chain.name.to_string();
    for filter in &chain.filters {
        match filter {
            NetworkFilter::HttpConnectionManager(hcm) => return request(proxy, hcm, call, route),
            NetworkFilter::TcpProxy(tcp) => {
                let Some((name, _)) = tcp.cluster.choose(call.random) else {
                    return Outcome::Closed("no cluster");
                };
                route.cluster = Some(name.to_string());
                return upstream(proxy, name, call, None);
            }
            _ => {}
        }
    }
    Outcome::Closed("the chain has no end")
}

/// The listener that a captured connection is handed to: that of its address and port, that of its port, the one that
/// captures.
fn captured(listeners: &[Arc<Listener>], to: SocketAddr) -> Option<&Arc<Listener>> {
    let at = |ip: IpAddr| {
        let address = SocketAddr::new(ip, to.port());
        listeners.iter().find(|l| l.addresses.iter().any(|a| a.socket_addr() == Some(address)))
    };
    let any: IpAddr = std::net::Ipv4Addr::UNSPECIFIED.into();
    at(to.ip()).or_else(|| at(any)).or_else(|| listeners.iter().find(|l| l.use_original_dst))
}

/// What is known of a connection once a listener's filters looked at it.
pub(crate) struct Seen {
    destination: SocketAddr,
    source: Option<(IpAddr, u16)>,
    server_name: String,
    transport: &'static str,
    alpn: Vec<String>,
}

impl Seen {
    /// With what the TLS inspector finds in the mesh's mutual TLS.
    pub(crate) fn mutual(destination: SocketAddr, source: IpAddr, alpn: &[&str]) -> Self {
        Self {
            destination,
            source: Some((source, 40_000)),
            server_name: "outbound_".to_owned(),
            transport: "tls",
            alpn: alpn.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    /// Asks something with a borrowed view.
    pub(crate) fn borrow(&self) -> BorrowedConnection<'_> {
        BorrowedConnection { seen: self, alpn: self.alpn.iter().map(String::as_str).collect() }
    }
}

pub(crate) struct BorrowedConnection<'a> {
    seen: &'a Seen,
    alpn: Vec<&'a str>,
}

impl BorrowedConnection<'_> {
    pub(crate) fn get(&self) -> Connection<'_> {
        Connection {
            destination: Some((self.seen.destination.ip(), self.seen.destination.port())),
            source: self.seen.source,
            direct_source: self.seen.source.map(|(ip, _)| ip),
            server_name: &self.seen.server_name,
            transport_protocol: self.seen.transport,
            application_protocols: &self.alpn,
        }
    }
}

/// What a listener's filters find in a call.
pub(crate) fn connection(listener: &Listener, call: &Call, source: Option<(IpAddr, u16)>) -> Seen {
    let port = call.to.port();
    let runs = |wanted: fn(&ListenerFilterKind) -> bool| {
        let mut filters = listener.listener_filters.iter();
        filters.any(|f| wanted(&f.kind) && !f.disabled.as_ref().is_some_and(|d| d.is_match(Some(port))))
    };
    let tls = runs(|kind| matches!(kind, ListenerFilterKind::TlsInspector { .. }));
    let http = runs(|kind| matches!(kind, ListenerFilterKind::HttpInspector));
    let (server_name, transport, alpn) = match &call.protocol {
        Protocol::Tls(name) if tls => (name.clone(), "tls", Vec::new()),
        Protocol::Http if http => (String::new(), "raw_buffer", vec!["http/1.1".to_owned()]),
        _ => (String::new(), "raw_buffer", Vec::new()),
    };
    Seen { destination: call.to, source, server_name, transport, alpn }
}

fn request(proxy: &Proxy, hcm: &Hcm, call: &Call, route: &mut Route) -> Outcome {
    let Some(table) = proxy.snapshot.route_table(hcm) else { return Outcome::Closed("no routes") };
    let head = call.head();
    match decide(table, call, &head, route) {
        Ok(cluster) => upstream(proxy, &cluster, call, Some(StatusCode::SERVICE_UNAVAILABLE)),
        Err(status) => Outcome::Answer(status.as_u16()),
    }
}

/// The cluster of a request, or the status that it is answered with.
pub(crate) fn decide(
    table: &RouteTable,
    call: &Call,
    head: &RequestHead<'_>,
    route: &mut Route,
) -> Result<String, StatusCode> {
    let context = RouteContext { random: call.random, ..RouteContext::default() };
    let found = table.find(head, &context).ok_or(StatusCode::NOT_FOUND)?;
    route.virtual_host = Some(found.virtual_host.name.to_string());
    let chosen = found.route.ok_or(StatusCode::NOT_FOUND)?;
    route.route = Some(chosen.name.to_string());
    match &chosen.action {
        Action::Route(action) => {
            let draw = Draw { random: call.random, hash: None, runtime: &NoRuntime };
            let choice = action.cluster.choose(head, &draw).ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
            route.cluster = Some(choice.name.as_str().to_owned());
            Ok(choice.name.as_str().to_owned())
        }
        Action::Redirect(redirect) => Err(redirect.status),
        Action::DirectResponse(response) => Err(response.status),
        Action::NonForwarding => Err(StatusCode::NOT_FOUND),
    }
}

/// The endpoint of a cluster; `refused` is the answer where there is none.
fn upstream(proxy: &Proxy, name: &str, call: &Call, refused: Option<StatusCode>) -> Outcome {
    let none = |why| refused.map_or(Outcome::Closed(why), |status| Outcome::Answer(status.as_u16()));
    let Some(cluster) = proxy.snapshot.cluster(name) else { return none("no such cluster") };
    match &cluster.discovery {
        Discovery::OriginalDst(_) => {
            let tls = is_tls(&cluster.socket);
            if name == saild_translate::naming::PASSTHROUGH {
                Outcome::Passthrough { address: call.to, tls }
            } else {
                Outcome::Endpoint { address: call.to, tls }
            }
        }
        Discovery::StrictDns(dns) | Discovery::LogicalDns(dns) => {
            let first = dns.groups.iter().flat_map(|group| group.targets.iter()).next();
            first.map_or_else(
                || none("no endpoint"),
                |target| Outcome::Name(format!("{}:{}", target.address, target.port)),
            )
        }
        _ => match pick(proxy, cluster, call.random) {
            Some(host) => {
                let tls = is_tls(cluster.socket_for(&host.metadata));
                let address = host.address.socket_addr();
                address.map_or_else(|| none("a Unix socket"), |address| Outcome::Endpoint { address, tls })
            }
            None => none("no endpoint"),
        },
    }
}

/// One of the healthy hosts of the first priority that has some.
fn pick<'a>(proxy: &'a Proxy, cluster: &'a Cluster, random: u64) -> Option<&'a Arc<Host>> {
    let endpoints = proxy.snapshot.endpoints(cluster)?;
    endpoints.priorities.iter().find_map(|set| {
        let healthy: Vec<_> = set.hosts.iter().filter(|host| host.health() == Health::Healthy).collect();
        let count = u64::try_from(healthy.len()).ok().filter(|count| *count > 0)?;
        usize::try_from(random % count).ok().and_then(|index| healthy.get(index).copied())
    })
}

fn is_tls(socket: &UpstreamSocket) -> bool {
    match socket {
        UpstreamSocket::Raw => false,
        UpstreamSocket::Tls(_) => true,
        UpstreamSocket::ProxyProtocol(inner) => is_tls(&inner.inner),
        UpstreamSocket::Internal(inner) | UpstreamSocket::TcpStats(inner, _) => is_tls(inner),
    }
}
