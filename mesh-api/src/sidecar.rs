//! `Sidecar`: what a workload's proxy accepts and what it may reach.

mod validate;

use crate::destination_rule::ConnectionPool;
use crate::field::Cx;
use crate::gateway::ServerTls;
use crate::kind::Kind;
use crate::mesh_config::OutboundTrafficMode;
use crate::object::{ObjectMeta, Spec};
use crate::selector::WorkloadSelector;
use crate::virtual_service::Destination;

message! {
    /// `networking.istio.io/Sidecar`.
    pub struct Sidecar {
        workload_selector: Option<WorkloadSelector>,
        ingress: Vec<IngressListener>,
        egress: Vec<EgressListener>,
        inbound_connection_pool: Option<ConnectionPool>,
        outbound_traffic_policy: Option<SidecarOutboundTrafficPolicy>,
    }
}

impl Spec for Sidecar {
    const KIND: Kind = Kind::Sidecar;
    fn validate(&self, meta: &ObjectMeta, cx: &mut Cx) {
        validate::sidecar(self, meta, cx);
    }
}

message! {
    /// A port of the workload.
    pub struct SidecarPort {
        number: u16,
        protocol: String,
        name: String,
        /// Without effect, as in Istio.
        target_port: Option<u16>,
    }
}

message! {
    /// `IstioIngressListener`.
    pub struct IngressListener {
        port: Option<SidecarPort>,
        bind: String,
        capture_mode: CaptureMode,
        /// `127.0.0.1:p`, `0.0.0.0:p`, `[::1]:p`, `[::]:p` or `unix:///path`.
        default_endpoint: String,
        tls: Option<ServerTls>,
        connection_pool: Option<ConnectionPool>,
    }
}

message! {
    /// `IstioEgressListener`.
    pub struct EgressListener {
        port: Option<SidecarPort>,
        bind: String,
        capture_mode: CaptureMode,
        /// `namespace/dnsName`, where the namespace may be `*`, `.` or `~`.
        hosts: Vec<String>,
    }
}

enumeration! {
    /// Whether traffic to a listener is captured.
    pub enum CaptureMode {
        #[default]
        Default = "DEFAULT" = 0,
        Iptables = "IPTABLES" = 1,
        None = "NONE" = 2,
    }
}

message! {
    /// What happens with traffic to unknown destinations.
    pub struct SidecarOutboundTrafficPolicy {
        mode: SidecarOutboundMode,
        egress_proxy: Option<Destination>,
    }
}

enumeration! {
    /// Whether unknown destinations are reachable.
    pub enum SidecarOutboundMode {
        #[default]
        RegistryOnly = "REGISTRY_ONLY" = 0,
        AllowAny = "ALLOW_ANY" = 1,
    }
}

impl From<SidecarOutboundMode> for OutboundTrafficMode {
    fn from(mode: SidecarOutboundMode) -> Self {
        match mode {
            SidecarOutboundMode::RegistryOnly => Self::RegistryOnly,
            SidecarOutboundMode::AllowAny => Self::AllowAny,
        }
    }
}
