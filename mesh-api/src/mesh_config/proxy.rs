//! `ProxyConfig`: the settings of one proxy, as users write them: every field, checked.
//!
//! The agent reads the same with a reader of its own, and takes from it only what it acts upon: it stands on the data
//! plane's side, which does not know the user's API, and it must start on settings of a newer control plane.

use std::time::Duration;

use serde_json::Value;

use super::Strings;
use super::proxy_parts::{
    ControlPlaneAuthPolicy, GatewayTopology, PrivateKeyProvider, ProxyHeaders, ProxyStatsMatcher,
    RemoteService, TracerConfig,
};
use crate::proxy_config::ProxyImage;
use crate::workload_group::ReadinessProbe;

message! {
    defaults;
    /// What an agent and its proxy are told; the annotation `proxy.istio.io/config` overlays it.
    pub struct ProxyConfig {
        config_path: String,
        binary_path: String,
        /// Empty: derived from the workload's labels.
        service_cluster: String,
        tracing_service_name: Option<String>,
        drain_duration: Duration,
        termination_drain_duration: Duration,
        discovery_address: String,
        statsd_udp_address: String,
        proxy_admin_port: u16,
        control_plane_auth_policy: ControlPlaneAuthPolicy,
        custom_config_file: String,
        stat_name_length: u32,
        /// Absent: the CPU limit. 0: all cores.
        concurrency: Option<i32>,
        proxy_bootstrap_template_path: String,
        interception_mode: InterceptionMode,
        tracing: Option<TracerConfig>,
        envoy_access_log_service: Option<RemoteService>,
        envoy_metrics_service: Option<RemoteService>,
        proxy_metadata: Strings,
        runtime_values: Strings,
        status_port: u16,
        extra_stat_tags: Vec<String>,
        gateway_topology: Option<GatewayTopology>,
        mesh_id: String,
        readiness_probe: Option<ReadinessProbe>,
        proxy_stats_matcher: Option<ProxyStatsMatcher>,
        hold_application_until_proxy_starts: bool,
        ca_certificates_pem: Vec<String>,
        image: Option<ProxyImage>,
        private_key_provider: Option<PrivateKeyProvider>,
        proxy_headers: Option<ProxyHeaders>,
        file_flush_interval: Option<Duration>,
        file_flush_min_size_kb: Option<u32>,
        stats_compression: Option<bool>,
        connection_settings: Option<Value>,
        /// Deprecated and without effect.
        zipkin_address: String,
        /// Deprecated and without effect.
        proxy_http_port: Option<u16>,
        /// Deprecated and without effect.
        parent_shutdown_duration: Option<Duration>,
        /// Deprecated and without effect.
        discovery_refresh_delay: Option<Duration>,
        /// Deprecated and without effect.
        connect_timeout: Option<Duration>,
        /// Deprecated and without effect.
        availability_zone: String,
        /// Deprecated and without effect.
        sds: Option<Value>,
        /// Deprecated and without effect.
        envoy_metrics_service_address: String,
    }
}

enumeration! {
    /// How traffic is captured.
    pub enum InterceptionMode {
        #[default]
        Redirect = "REDIRECT" = 0,
        Tproxy = "TPROXY" = 1,
        None = "NONE" = 2,
    }
}
