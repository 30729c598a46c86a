//! TLS (by SNI) and TCP routes.

use std::collections::BTreeMap;

use super::Destination;

message! {
    /// `TLSRoute`.
    pub struct TlsRoute {
        r#match: Vec<TlsMatch>,
        route: Vec<RouteDestination>,
    }
}

message! {
    /// `TLSMatchAttributes`: all that is set must hold.
    pub struct TlsMatch {
        sni_hosts: Vec<String>,
        destination_subnets: Vec<String>,
        port: Option<u16>,
        source_labels: BTreeMap<String, String>,
        gateways: Vec<String>,
        source_namespace: String,
        /// Accepted, without effect, as in Istio.
        source_subnet: String,
    }
}

message! {
    /// `TCPRoute`.
    pub struct TcpRoute {
        r#match: Vec<L4Match>,
        route: Vec<RouteDestination>,
    }
}

message! {
    /// `L4MatchAttributes`: all that is set must hold.
    pub struct L4Match {
        destination_subnets: Vec<String>,
        port: Option<u16>,
        source_subnet: String,
        source_labels: BTreeMap<String, String>,
        gateways: Vec<String>,
        source_namespace: String,
    }
}

message! {
    /// A weighted destination of a connection.
    pub struct RouteDestination {
        destination: Destination,
        weight: i32,
    }
}
