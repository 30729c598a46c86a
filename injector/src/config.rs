//! What an installation says about injection: the part of Istio's `values` that its templates read, and MeshConfig.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_api::mesh_config::{LabelSelector, MeshConfigError};
use mesh_api::proxy_config::ProxyConfigResource;
use mesh_api::{Finding, MeshConfig, Object, Severity};
use serde::Deserialize;

use crate::error::Error;

/// Everything that decides about injection beside the pod itself.
#[derive(Debug, Clone)]
pub struct InjectConfig {
    /// The mesh's settings.
    pub mesh: Arc<MeshConfig>,
    /// The installation's.
    pub values: Values,
    /// Which pods are considered.
    pub selection: Selection,
    /// The revision of this control plane; `default` (or empty) also answers to `istio-injection=enabled`.
    pub revision: String,
    /// What happens to pods that say nothing.
    pub policy: Policy,
    /// Pods that are not injected unless they say so.
    pub never_inject: Vec<LabelSelector>,
    /// Pods that are injected unless they say no.
    pub always_inject: Vec<LabelSelector>,
    /// Annotations for every injected pod.
    pub injected_annotations: BTreeMap<String, String>,
    /// Objects of the kind ProxyConfig, of all namespaces.
    pub proxy_configs: Vec<Arc<Object<ProxyConfigResource>>>,
}

impl Default for InjectConfig {
    fn default() -> Self {
        Self {
            mesh: Arc::default(),
            values: Values::default(),
            selection: Selection::ByLabels,
            revision: "default".to_owned(),
            policy: Policy::Enabled,
            never_inject: Vec::new(),
            always_inject: Vec::new(),
            injected_annotations: BTreeMap::new(),
            proxy_configs: Vec::new(),
        }
    }
}

impl InjectConfig {
    /// Takes over what the key `config` of the ConfigMap `istio-sidecar-injector` says. The result is what could not be
    /// taken over, in words for the operator.
    pub fn apply_injector_config(&mut self, text: &str) -> Result<Vec<String>, Error> {
        let value: Option<serde_json::Value> = serde_norway::from_str(text)?;
        let mut warnings = Vec::new();
        let mut cx = mesh_api::field::Cx::new();
        for (key, value) in value.as_ref().and_then(|v| v.as_object()).into_iter().flatten() {
            cx.field(key, |cx| match key.as_str() {
                "policy" => match value.as_str() {
                    Some("enabled") => self.policy = Policy::Enabled,
                    Some("disabled") => self.policy = Policy::Disabled,
                    _ => cx.error("must be enabled or disabled"),
                },
                "neverInjectSelector" => self.never_inject = decoded(value, cx),
                "alwaysInjectSelector" => self.always_inject = decoded(value, cx),
                "injectedAnnotations" => self.injected_annotations = decoded(value, cx),
                // The templates are code here: these say what Istio's own would.
                "templates" | "defaultTemplates" | "aliases" | "rawTemplates" => {
                    warnings.push(format!("{key} has no effect: templates are built in"));
                }
                _ => warnings.push(format!("{key} is unknown and has no effect")),
            });
        }
        let fields: Vec<Finding> =
            cx.into_findings().into_iter().filter(|f| f.severity == Severity::Error).collect();
        if fields.is_empty() { Ok(warnings) } else { Err(Error::InjectorConfig(MeshConfigError { fields })) }
    }
}

fn decoded<T: mesh_api::Decode + Default>(value: &serde_json::Value, cx: &mut mesh_api::field::Cx) -> T {
    T::decode(value, cx).unwrap_or_default()
}

/// Which pods are considered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// Those that the labels of namespace and pod ask for: what the webhooks' selectors say.
    ByLabels,
    /// All that do not say no: the webhooks' selectors have chosen already, or a user injects a manifest by hand.
    Always,
}

/// What happens to pods that say nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// They are injected.
    Enabled,
    /// They are not.
    Disabled,
}

/// The values of an installation. What injection does not use is not read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Values {
    /// `global`
    pub global: GlobalValues,
    /// `sidecarInjectorWebhook`
    pub sidecar_injector_webhook: WebhookValues,
    /// `istio_cni`
    #[serde(rename = "istio_cni")]
    pub istio_cni: CniValues,
}

/// `global`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GlobalValues {
    /// The registry and path of images.
    pub hub: String,
    /// The tag of images.
    pub tag: String,
    /// `imagePullPolicy` of the containers; empty: Kubernetes' default.
    pub image_pull_policy: String,
    /// Secrets for pulling images.
    pub image_pull_secrets: Vec<String>,
    /// The control plane's namespace.
    pub istio_namespace: String,
    /// The certificate authority; empty: the control plane.
    pub ca_address: String,
    /// Who signs the control plane's certificate.
    pub pilot_cert_provider: String,
    /// The network of the cluster.
    pub network: String,
    /// The mesh; empty: the trust domain.
    #[serde(rename = "meshID")]
    pub mesh_id: String,
    /// `multiCluster.clusterName` is the cluster's name.
    pub multi_cluster: MultiClusterValues,
    /// `proxy`
    pub proxy: ProxyValues,
    /// `proxy_init`
    #[serde(rename = "proxy_init")]
    pub proxy_init: ProxyInitValues,
    /// Logging of the agent, as `default:info`.
    pub logging: LoggingValues,
}

impl Default for GlobalValues {
    fn default() -> Self {
        Self {
            hub: "ironsail".to_owned(),
            tag: env!("CARGO_PKG_VERSION").to_owned(),
            image_pull_policy: String::new(),
            image_pull_secrets: Vec::new(),
            istio_namespace: "istio-system".to_owned(),
            ca_address: String::new(),
            pilot_cert_provider: "istiod".to_owned(),
            network: String::new(),
            mesh_id: String::new(),
            multi_cluster: MultiClusterValues::default(),
            proxy: ProxyValues::default(),
            proxy_init: ProxyInitValues::default(),
            logging: LoggingValues::default(),
        }
    }
}

/// `global.multiCluster`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MultiClusterValues {
    /// Empty: `Kubernetes`.
    pub cluster_name: String,
}

/// `global.logging`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LoggingValues {
    /// Empty: nothing is said.
    pub level: String,
}

/// `global.proxy`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProxyValues {
    /// The image's name below the hub, or all of it if it has a slash.
    pub image: String,
    /// The domain of the cluster.
    pub cluster_domain: String,
    /// Requests and limits.
    pub resources: Resources,
    /// Log level of the proxy.
    pub log_level: String,
    /// Log levels of its components.
    pub component_log_level: String,
    /// Outbound ranges that are captured.
    #[serde(rename = "includeIPRanges")]
    pub include_ip_ranges: String,
    /// Outbound ranges that are not.
    #[serde(rename = "excludeIPRanges")]
    pub exclude_ip_ranges: String,
    /// Inbound ports that are captured.
    pub include_inbound_ports: String,
    /// Inbound ports that are not.
    pub exclude_inbound_ports: String,
    /// Outbound ports that are captured in any case.
    pub include_outbound_ports: String,
    /// Outbound ports that are not.
    pub exclude_outbound_ports: String,
    /// Whether the container is privileged.
    pub privileged: bool,
    /// The agent's port.
    pub status_port: u16,
    /// `readinessProbe.initialDelaySeconds`
    pub readiness_initial_delay_seconds: i32,
    /// `readinessProbe.periodSeconds`
    pub readiness_period_seconds: i32,
    /// `readinessProbe.failureThreshold`
    pub readiness_failure_threshold: i32,
    /// The startup probe.
    pub startup_probe: StartupProbeValues,
    /// Whether the application starts only when the proxy is ready.
    pub hold_application_until_proxy_starts: bool,
    /// Lifecycle of the container, in place of the one that would be made.
    pub lifecycle: Option<k8s_openapi::api::core::v1::Lifecycle>,
}

impl Default for ProxyValues {
    fn default() -> Self {
        Self {
            image: "proxyv2".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            resources: Resources::standard(),
            log_level: "warning".to_owned(),
            component_log_level: "misc:error".to_owned(),
            include_ip_ranges: "*".to_owned(),
            exclude_ip_ranges: String::new(),
            include_inbound_ports: "*".to_owned(),
            exclude_inbound_ports: String::new(),
            include_outbound_ports: String::new(),
            exclude_outbound_ports: String::new(),
            privileged: false,
            status_port: agent_contract::ports::STATUS,
            readiness_initial_delay_seconds: 0,
            readiness_period_seconds: 15,
            readiness_failure_threshold: 4,
            startup_probe: StartupProbeValues::default(),
            hold_application_until_proxy_starts: false,
            lifecycle: None,
        }
    }
}

/// `global.proxy.startupProbe`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StartupProbeValues {
    /// Whether there is one.
    pub enabled: bool,
    /// How often it may fail, once a second.
    pub failure_threshold: i32,
}

impl Default for StartupProbeValues {
    fn default() -> Self {
        Self { enabled: true, failure_threshold: 600 }
    }
}

/// `global.proxy_init`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProxyInitValues {
    /// The image; empty: the proxy's.
    pub image: String,
    /// Requests and limits; absent: the proxy's.
    pub resources: Option<Resources>,
}

/// Requests and limits of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// What it gets.
    pub requests: BTreeMap<String, String>,
    /// What it may use at most.
    pub limits: BTreeMap<String, String>,
}

impl Resources {
    fn standard() -> Self {
        let of = |cpu: &str, memory: &str| {
            BTreeMap::from([("cpu".to_owned(), cpu.to_owned()), ("memory".to_owned(), memory.to_owned())])
        };
        Self { requests: of("100m", "128Mi"), limits: of("2000m", "1024Mi") }
    }
}

/// `sidecarInjectorWebhook`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WebhookValues {
    /// Whether probes of the application go through the agent.
    #[serde(rename = "rewriteAppHTTPProbe")]
    pub rewrite_app_http_probe: bool,
    /// Whether namespaces without a label are injected.
    pub enable_namespaces_by_default: bool,
}

impl Default for WebhookValues {
    fn default() -> Self {
        Self { rewrite_app_http_probe: true, enable_namespaces_by_default: false }
    }
}

/// `istio_cni`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CniValues {
    /// Whether a CNI plugin applies the capture rules, so that the init container only checks them.
    pub enabled: bool,
}

impl Values {
    /// Reads values as YAML.
    pub fn from_yaml(text: &str) -> Result<Self, Error> {
        Ok(serde_norway::from_str::<Option<Self>>(text)?.unwrap_or_default())
    }
}
