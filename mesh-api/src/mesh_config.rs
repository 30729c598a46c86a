//! `MeshConfig`: the settings of the whole mesh, with Istio's defaults.

mod defaults;
mod parts;
mod providers;
mod proxy;
mod proxy_parts;

pub use parts::{
    AccessLogEncoding, CertificateData, ConfigSource, DefaultProviders, DefaultTrafficPolicy,
    HttpRetryPolicy, InboundTrafficMode, InboundTrafficPolicy, IngressControllerMode, LabelSelector,
    LabelSelectorRequirement, MeshCa, MeshH2UpgradePolicy, OutboundTrafficMode, OutboundTrafficPolicy,
    PathNormalization, ProxyPathNormalization, ServiceScope, ServiceScopeConfig, ServiceSettings,
    ServiceSettingsSettings, TlsConfig, TlsProtocolVersion,
};
pub use providers::{
    DatadogProvider, EnvoyAccessLog, EnvoyAls, EnvoyOtelAls, ExtAuthz, ExtAuthzHeaders, ExtAuthzRequestBody,
    ExtensionProvider, FileAccessLogFormat, OpenTelemetryGrpc, OpenTelemetryHttp, OpenTelemetryProvider,
    PrometheusProvider, Provider, ProviderHeader, ResourceDetectors, SdsProvider, SkywalkingProvider,
    StackdriverProvider, ZipkinProvider,
};
pub use proxy::{InterceptionMode, ProxyConfig};
pub use proxy_parts::{
    ControlPlaneAuthPolicy, ForwardClientCertDetails, GatewayTopology, MetadataExchangeMode,
    PrivateKeyProvider, ProxyHeaders, ProxyStatsMatcher, RemoteService, Topology, TracerConfig,
};

use std::time::Duration;

use crate::decode::Decode;
use crate::destination_rule::{LocalityLbSetting, TcpKeepalive, ZoneAwareLbSetting};
use crate::field::{Cx, Finding, Severity};
use crate::virtual_service::Retry;
use serde_json::Value;
use std::collections::BTreeMap;

message! {
    defaults;
    /// `MeshConfig`.
    pub struct MeshConfig {
        proxy_listen_port: u16,
        proxy_inbound_listen_port: u16,
        proxy_http_port: u16,
        connect_timeout: Duration,
        protocol_detection_timeout: Duration,
        tcp_keepalive: Option<TcpKeepalive>,
        dns_refresh_rate: Duration,
        ingress_class: String,
        ingress_service: String,
        ingress_selector: String,
        ingress_controller_mode: IngressControllerMode,
        enable_tracing: bool,
        /// Empty: no access log.
        access_log_file: String,
        /// Empty: Istio's format.
        access_log_format: String,
        access_log_encoding: AccessLogEncoding,
        enable_envoy_access_log_service: bool,
        disable_envoy_listener_log: bool,
        default_config: ProxyConfig,
        outbound_traffic_policy: OutboundTrafficPolicy,
        inbound_traffic_policy: InboundTrafficPolicy,
        config_sources: Vec<ConfigSource>,
        enable_auto_mtls: bool,
        trust_domain: String,
        trust_domain_aliases: Vec<String>,
        ca_certificates: Vec<CertificateData>,
        default_service_export_to: Vec<String>,
        default_virtual_service_export_to: Vec<String>,
        default_destination_rule_export_to: Vec<String>,
        root_namespace: String,
        locality_lb_setting: LocalityLbSetting,
        zone_aware_lb_setting: Option<ZoneAwareLbSetting>,
        h2_upgrade_policy: MeshH2UpgradePolicy,
        inbound_cluster_stat_name: String,
        outbound_cluster_stat_name: String,
        service_settings: Vec<ServiceSettings>,
        enable_prometheus_merge: bool,
        extension_providers: Vec<ExtensionProvider>,
        default_providers: DefaultProviders,
        discovery_selectors: Vec<LabelSelector>,
        path_normalization: ProxyPathNormalization,
        default_http_retry_policy: Option<Retry>,
        default_inbound_http_retry_policy: Option<Retry>,
        default_traffic_policy: Option<DefaultTrafficPolicy>,
        mesh_mtls: Option<TlsConfig> = "meshMTLS" | "meshMtls" | "mesh_mtls",
        tls_defaults: Option<TlsConfig>,
        ca: Option<MeshCa>,
        hbone_idle_timeout: Option<Duration>,
        service_scope_configs: Vec<ServiceScopeConfig>,
        service_entry_visibility: Option<Value>,
        /// Accepted for old installations; without effect.
        auth_policy: Option<Value>,
        /// Accepted for old installations; without effect.
        rds_refresh_delay: Option<Duration>,
        /// Accepted for old installations; without effect.
        sds_uds_path: String,
        /// Accepted for old installations; without effect.
        mixer_check_server: String,
        /// Accepted for old installations; without effect.
        mixer_report_server: String,
        /// Accepted for old installations; without effect.
        disable_policy_checks: Option<bool>,
        /// Accepted for old installations; without effect.
        enable_client_side_policy_check: Option<bool>,
        /// Accepted for old installations; without effect.
        disable_mixer_http_reports: Option<bool>,
        /// Accepted for old installations; without effect.
        disable_report_batch: Option<bool>,
        /// Accepted for old installations; without effect.
        report_batch_max_entries: Option<u32>,
        /// Accepted for old installations; without effect.
        report_batch_max_time: Option<Duration>,
        /// Accepted for old installations; without effect.
        policy_check_fail_open: Option<bool>,
        /// Accepted for old installations; without effect.
        sds_refresh_delay: Option<Duration>,
        /// Accepted for old installations; without effect.
        certificates: Vec<Value>,
        /// Accepted for old installations; without effect.
        thrift_config: Option<Value>,
        /// Accepted for old installations; without effect.
        verify_certificate_at_client: Option<bool>,
        /// Accepted for old installations; without effect.
        enable_sds_token_mount: Option<bool>,
        /// Accepted for old installations; without effect.
        sds_use_k8s_sa_jwt: Option<bool>,
    }
}

/// Why a mesh configuration cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("mesh configuration: {}", .fields.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct MeshConfigError {
    /// Every wrong field.
    pub fields: Vec<Finding>,
}

impl MeshConfig {
    /// Lays YAML over the defaults. An empty text gives the defaults.
    pub fn from_yaml(text: &str) -> Result<Self, MeshConfigError> {
        let value = serde_norway::from_str::<Value>(text).map_err(|e| MeshConfigError {
            fields: vec![Finding {
                field: "(yaml)".to_owned(),
                message: e.to_string(),
                severity: Severity::Error,
            }],
        })?;
        let value = if value.is_null() { Value::Object(serde_json::Map::new()) } else { value };
        let mut cx = Cx::new();
        let config = Self::decode(&value, &mut cx);
        if let Some(config) = &config {
            crate::check::positive("connectTimeout", Some(config.connect_timeout), &mut cx);
        }
        let errors: Vec<_> =
            cx.into_findings().into_iter().filter(|f| f.severity == Severity::Error).collect();
        match config {
            Some(config) if errors.is_empty() => Ok(config),
            _ => Err(MeshConfigError { fields: errors }),
        }
    }

    /// The trust domain and its aliases.
    pub fn trust_domains(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.trust_domain.as_str())
            .chain(self.trust_domain_aliases.iter().map(String::as_str))
    }

    /// The provider of this name, built-in ones included.
    pub fn provider(&self, name: &str) -> Option<Provider> {
        let configured = self.extension_providers.iter().find(|p| p.name == name);
        configured.map(|p| p.provider.clone()).or_else(|| Provider::built_in(name))
    }
}

impl ProxyConfig {
    /// Lays an overlay (the annotation `proxy.istio.io/config`, or an object of the same shape) over this. Maps are
    /// merged by key; everything else that the overlay names is replaced.
    pub fn overlaid(&self, overlay: &str) -> Result<Self, MeshConfigError> {
        let error = |fields: Vec<Finding>| MeshConfigError { fields };
        let overlay = serde_norway::from_str::<Value>(overlay).map_err(|e| {
            error(vec![Finding {
                field: "(yaml)".to_owned(),
                message: e.to_string(),
                severity: Severity::Error,
            }])
        })?;
        if overlay.is_null() {
            return Ok(self.clone());
        }
        let mut cx = Cx::new();
        // Read alone first, so that messages speak of what the user wrote.
        Self::decode(&overlay, &mut cx);
        let mut base = crate::decode::Encode::encode(self);
        merge(&mut base, &overlay);
        let merged = if cx.has_errors() { None } else { Self::decode(&base, &mut cx) };
        let errors: Vec<_> =
            cx.into_findings().into_iter().filter(|f| f.severity == Severity::Error).collect();
        merged.filter(|_| errors.is_empty()).ok_or_else(|| error(errors))
    }
}

/// Lays `over` on `base`: objects by key (in either spelling), anything else replaces.
fn merge(base: &mut Value, over: &Value) {
    let (Value::Object(base), Value::Object(over)) = (&mut *base, over) else {
        *base = over.clone();
        return;
    };
    for (key, value) in over {
        let camel = crate::decode::camel(key);
        let name = if base.contains_key(&camel) { camel } else { key.clone() };
        match base.get_mut(&name) {
            Some(slot) => merge(slot, value),
            None => {
                base.insert(name, value.clone());
            }
        }
    }
}

/// String maps of the configuration.
pub type Strings = BTreeMap<String, String>;
