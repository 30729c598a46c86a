//! The ports of a pod in the mesh and of the control plane.

/// The proxy's admin interface, on localhost.
pub const PROXY_ADMIN: u16 = 15000;
/// Captured outbound traffic.
pub const OUTBOUND: u16 = 15001;
/// The probe of the capture rules' own validation.
pub const CAPTURE_PROBE: u16 = 15002;
/// The agent's tap of the control plane's debug pages, where older tools look for it.
pub const XDS_DEBUG: u16 = 15004;
/// Captured inbound traffic.
pub const INBOUND: u16 = 15006;
/// HBONE.
pub const HBONE: u16 = 15008;
/// HBONE without TLS, on a node's proxy.
pub const HBONE_PLAINTEXT: u16 = 15009;
/// The agent's status server: readiness, probes of the application, merged metrics.
pub const STATUS: u16 = 15020;
/// The proxy's health listener, which leads to the agent's readiness.
pub const HEALTH: u16 = 15021;
/// The agent's DNS server, on localhost.
pub const DNS: u16 = 15053;
/// The proxy's metrics for Prometheus.
pub const PROXY_PROMETHEUS: u16 = 15090;
/// Gateways: traffic between networks, routed by SNI.
pub const SNI_CROSS_NETWORK: u16 = 15443;

/// xDS and certificates without TLS.
pub const DISCOVERY_PLAINTEXT: u16 = 15010;
/// xDS and certificates over TLS.
pub const DISCOVERY_TLS: u16 = 15012;
/// The control plane's metrics and version.
pub const CONTROL_PLANE_MONITORING: u16 = 15014;
/// The control plane's webhooks.
pub const WEBHOOK: u16 = 15017;
/// The control plane's debug pages and readiness.
pub const CONTROL_PLANE_HTTP: u16 = 8080;

/// Ports that inbound capture never takes: metrics, health, status.
pub const NEVER_CAPTURED_INBOUND: [u16; 3] = [PROXY_PROMETHEUS, HEALTH, STATUS];

/// Ports that belong to the mesh: an application or a listener of a user must not claim them.
pub const RESERVED: [u16; 12] = [
    PROXY_ADMIN,
    OUTBOUND,
    CAPTURE_PROBE,
    XDS_DEBUG,
    INBOUND,
    HBONE,
    HBONE_PLAINTEXT,
    STATUS,
    HEALTH,
    DNS,
    PROXY_PROMETHEUS,
    SNI_CROSS_NETWORK,
];

/// The user and group of the proxy, whose traffic is not captured again.
pub const PROXY_UID: u32 = 1337;
/// See [`PROXY_UID`].
pub const PROXY_GID: u32 = 1337;

/// The source address of the proxy's connections to its own application, which marks them as not to be captured.
pub const INBOUND_PASSTHROUGH_BIND_V4: &str = "127.0.0.6";
/// See [`INBOUND_PASSTHROUGH_BIND_V4`].
pub const INBOUND_PASSTHROUGH_BIND_V6: &str = "::6";
