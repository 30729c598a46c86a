//! `DestinationRule`: how the endpoints of a host are spoken to.

mod connection_pool;
mod load_balancer;
mod tls;
mod validate;

pub use connection_pool::{
    ConnectionPool, H2UpgradePolicy, Http2KeepAlive, HttpSettings, OutlierDetection, TcpKeepalive,
    TcpSettings,
};
pub use load_balancer::{
    BackendUtilization, ConsistentHash, ConsistentHashKey, CookieAttribute, Distribute, Failover,
    HashAlgorithm, HttpCookie, LoadBalancer, LocalityLbSetting, MagLev, RingHash, SimpleLb, Warmup,
    ZoneAwareLbSetting,
};
pub use tls::{ClientTls, ClientTlsMode};
pub(crate) use validate::connection_pool as validate_connection_pool;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::field::Cx;
use crate::kind::Kind;
use crate::number::Float;
use crate::object::{ObjectMeta, Spec};
use crate::selector::WorkloadSelector;

message! {
    /// `networking.istio.io/DestinationRule`.
    pub struct DestinationRule {
        host: String,
        traffic_policy: Option<TrafficPolicy>,
        subsets: Vec<Subset>,
        export_to: Vec<String>,
        workload_selector: Option<WorkloadSelector>,
    }
}

impl Spec for DestinationRule {
    const KIND: Kind = Kind::DestinationRule;
    fn validate(&self, meta: &ObjectMeta, cx: &mut Cx) {
        validate::destination_rule(self, meta, cx);
    }
}

message! {
    /// Endpoints of the host that carry these labels.
    pub struct Subset {
        name: String,
        labels: BTreeMap<String, String>,
        traffic_policy: Option<TrafficPolicy>,
    }
}

message! {
    /// `TrafficPolicy`.
    pub struct TrafficPolicy {
        load_balancer: Option<LoadBalancer>,
        connection_pool: Option<ConnectionPool>,
        outlier_detection: Option<OutlierDetection>,
        tls: Option<ClientTls>,
        port_level_settings: Vec<PortTrafficPolicy>,
        tunnel: Option<Tunnel>,
        proxy_protocol: Option<ProxyProtocol>,
        retry_budget: Option<RetryBudget>,
    }
}

message! {
    legacy(super::virtual_service::port_selector_of_destination);
    /// The policy of one port: replaces the whole of the destination's.
    pub struct PortTrafficPolicy {
        port: Option<u16>,
        load_balancer: Option<LoadBalancer>,
        connection_pool: Option<ConnectionPool>,
        outlier_detection: Option<OutlierDetection>,
        tls: Option<ClientTls>,
    }
}

message! {
    /// Connections tunnelled over HTTP.
    pub struct Tunnel {
        /// Empty: CONNECT.
        protocol: String,
        target_host: String,
        target_port: u16,
    }
}

message! {
    /// A PROXY header before each upstream connection.
    pub struct ProxyProtocol {
        version: ProxyProtocolVersion,
    }
}

enumeration! {
    /// Version of the PROXY protocol.
    pub enum ProxyProtocolVersion {
        #[default]
        V1 = "V1" = 0,
        V2 = "V2" = 1,
    }
}

message! {
    /// How many retries may be in flight.
    pub struct RetryBudget {
        /// Absent: 20.
        percent: Option<Float>,
        budget_interval: Option<Duration>,
        /// Absent: 3.
        min_retry_concurrency: Option<u32>,
    }
}
