//! The parts of MeshConfig that are no providers and no proxy settings.

use std::time::Duration;

use crate::destination_rule::{ClientTls, ConnectionPool, OutlierDetection};
use crate::mesh_config::Strings;

enumeration! {
    /// Which Ingress objects are served.
    pub enum IngressControllerMode {
        Unspecified = "UNSPECIFIED" = 0,
        Off = "OFF" = 1,
        Default = "DEFAULT" = 2,
        #[default]
        Strict = "STRICT" = 3,
    }
}

enumeration! {
    /// How access logs are written.
    pub enum AccessLogEncoding {
        #[default]
        Text = "TEXT" = 0,
        Json = "JSON" = 1,
    }
}

enumeration! {
    /// Whether HTTP/1.1 is upgraded to HTTP/2 between proxies.
    pub enum MeshH2UpgradePolicy {
        #[default]
        DoNotUpgrade = "DO_NOT_UPGRADE" = 0,
        Upgrade = "UPGRADE" = 1,
    }
}

message! {
    /// What happens with traffic to unknown destinations.
    pub struct OutboundTrafficPolicy {
        mode: OutboundTrafficMode,
        tls: Option<ClientTls>,
    }
}

enumeration! {
    /// Whether unknown destinations are reachable. Unlike the enum of Sidecar, the default is ALLOW_ANY.
    pub enum OutboundTrafficMode {
        RegistryOnly = "REGISTRY_ONLY" = 0,
        #[default]
        AllowAny = "ALLOW_ANY" = 1,
        AllowAnyDynamicDns = "ALLOW_ANY_DYNAMIC_DNS" = 2,
    }
}

message! {
    /// Where a sidecar sends what it receives.
    pub struct InboundTrafficPolicy {
        mode: InboundTrafficMode,
    }
}

enumeration! {
    /// To the address that was asked for, or to localhost.
    pub enum InboundTrafficMode {
        #[default]
        Passthrough = "PASSTHROUGH" = 0,
        Localhost = "LOCALHOST" = 1,
    }
}

message! {
    /// A further source of configuration.
    pub struct ConfigSource {
        address: String,
        tls_settings: Option<ClientTls>,
        subscribed_resources: Vec<String>,
    }
}

message! {
    /// A root that is trusted beside the mesh's own.
    pub struct CertificateData {
        pem: String,
        spiffe_bundle_url: String,
        cert_signers: Vec<String>,
        trust_domains: Vec<String>,
    }
}

message! {
    /// Settings of the services of some hosts.
    pub struct ServiceSettings {
        settings: Option<ServiceSettingsSettings>,
        hosts: Vec<String>,
    }
}

message! {
    /// The settings.
    pub struct ServiceSettingsSettings {
        cluster_local: bool,
    }
}

message! {
    /// The providers used where no Telemetry names one.
    pub struct DefaultProviders {
        tracing: Vec<String>,
        metrics: Vec<String>,
        access_logging: Vec<String>,
    }
}

message! {
    /// A Kubernetes label selector.
    pub struct LabelSelector {
        match_labels: Strings,
        match_expressions: Vec<LabelSelectorRequirement>,
    }
}

message! {
    /// One requirement of a label selector.
    pub struct LabelSelectorRequirement {
        key: String,
        /// `In`, `NotIn`, `Exists`, `DoesNotExist`.
        operator: String,
        values: Vec<String>,
    }
}

impl LabelSelector {
    /// Whether labels are selected. An unknown operator selects nothing.
    pub fn matches(&self, labels: &Strings) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| requirement.holds(labels))
    }
}

impl LabelSelectorRequirement {
    fn holds(&self, labels: &Strings) -> bool {
        let value = labels.get(&self.key);
        match self.operator.as_str() {
            "In" => value.is_some_and(|v| self.values.contains(v)),
            "NotIn" => value.is_none_or(|v| !self.values.contains(v)),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    }
}

message! {
    /// How paths are normalised before they are matched.
    pub struct ProxyPathNormalization {
        normalization: PathNormalization,
    }
}

enumeration! {
    /// The steps.
    pub enum PathNormalization {
        /// As BASE.
        #[default]
        Default = "DEFAULT" = 0,
        None = "NONE" = 1,
        Base = "BASE" = 2,
        MergeSlashes = "MERGE_SLASHES" = 3,
        DecodeAndMergeSlashes = "DECODE_AND_MERGE_SLASHES" = 4,
    }
}

message! {
    /// Traffic policy of services that no DestinationRule speaks of.
    pub struct DefaultTrafficPolicy {
        connection_pool: Option<ConnectionPool>,
        outlier_detection: Option<OutlierDetection>,
    }
}

/// Retries of the mesh.
pub type HttpRetryPolicy = crate::virtual_service::Retry;

message! {
    /// TLS of proxies.
    pub struct TlsConfig {
        min_protocol_version: TlsProtocolVersion,
        ecdh_curves: Vec<String>,
        cipher_suites: Vec<String>,
    }
}

enumeration! {
    /// The least version of TLS.
    pub enum TlsProtocolVersion {
        #[default]
        TlsAuto = "TLS_AUTO" = 0,
        TlsV1_2 = "TLSV1_2" = 1,
        TlsV1_3 = "TLSV1_3" = 2,
    }
}

message! {
    /// A CA outside of the control plane.
    pub struct MeshCa {
        address: String,
        tls_settings: Option<ClientTls>,
        request_timeout: Option<Duration>,
        istiod_side: bool,
    }
}

message! {
    /// Which services are local and which global (ambient).
    pub struct ServiceScopeConfig {
        namespace_selector: Option<LabelSelector>,
        services_selector: Option<LabelSelector>,
        scope: ServiceScope,
    }
}

enumeration! {
    /// How far a service is visible.
    pub enum ServiceScope {
        #[default]
        Local = "LOCAL" = 0,
        Global = "GLOBAL" = 1,
    }
}
