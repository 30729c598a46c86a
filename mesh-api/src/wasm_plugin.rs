//! `WasmPlugin`: a filter in WebAssembly.

use serde_json::Value;

use crate::check;
use crate::field::Cx;
use crate::kind::Kind;
use crate::object::{ObjectMeta, Spec};
use crate::selector::{PolicyTargetReference, WorkloadSelector};
use crate::telemetry::WorkloadMode;

message! {
    /// `extensions.istio.io/WasmPlugin`.
    pub struct WasmPlugin {
        selector: Option<WorkloadSelector>,
        /// Deprecated: `targetRefs`.
        target_ref: Option<PolicyTargetReference>,
        target_refs: Vec<PolicyTargetReference>,
        /// `oci://` (the default), `http://`, `https://` or `file://`.
        url: String,
        sha256: String,
        image_pull_policy: PullPolicy,
        image_pull_secret: String,
        verification_key: String,
        plugin_config: Option<Value>,
        plugin_name: String,
        phase: PluginPhase,
        priority: Option<i32>,
        fail_strategy: FailStrategy,
        vm_config: Option<VmConfig>,
        r#match: Vec<TrafficSelector>,
        r#type: PluginType,
    }
}

enumeration! {
    /// When the image is fetched.
    pub enum PullPolicy {
        #[default]
        Unspecified = "UNSPECIFIED_POLICY" = 0,
        IfNotPresent = "IfNotPresent" = 1,
        Always = "Always" = 2,
    }
}

enumeration! {
    /// Where among the filters the plugin runs.
    pub enum PluginPhase {
        #[default]
        Unspecified = "UNSPECIFIED_PHASE" = 0,
        Authn = "AUTHN" = 1,
        Authz = "AUTHZ" = 2,
        Stats = "STATS" = 3,
    }
}

enumeration! {
    /// What happens to requests when the plugin is broken.
    pub enum FailStrategy {
        #[default]
        FailClose = "FAIL_CLOSE" = 0,
        FailOpen = "FAIL_OPEN" = 1,
        FailReload = "FAIL_RELOAD" = 2,
    }
}

enumeration! {
    /// Whether the plugin is an HTTP or a network filter.
    pub enum PluginType {
        #[default]
        Unspecified = "UNSPECIFIED_PLUGIN_TYPE" = 0,
        Http = "HTTP" = 1,
        Network = "NETWORK" = 2,
    }
}

message! {
    /// Settings of the virtual machine.
    pub struct VmConfig {
        env: Vec<EnvVar>,
    }
}

message! {
    /// A variable of the plugin's environment.
    pub struct EnvVar {
        name: String,
        value_from: EnvValueSource,
        value: String,
    }
}

enumeration! {
    /// Where the value comes from.
    pub enum EnvValueSource {
        #[default]
        Inline = "INLINE" = 0,
        Host = "HOST" = 1,
    }
}

message! {
    /// Which traffic the plugin sees.
    pub struct TrafficSelector {
        mode: WorkloadModeOrUndefined,
        ports: Vec<PortSelector>,
    }
}

enumeration! {
    /// A side of a call, or not said.
    pub enum WorkloadModeOrUndefined {
        #[default]
        Undefined = "UNDEFINED" = 0,
        Client = "CLIENT" = 1,
        Server = "SERVER" = 2,
        ClientAndServer = "CLIENT_AND_SERVER" = 3,
    }
}

impl std::convert::From<WorkloadModeOrUndefined> for WorkloadMode {
    fn from(mode: WorkloadModeOrUndefined) -> Self {
        match mode {
            WorkloadModeOrUndefined::Client => Self::Client,
            WorkloadModeOrUndefined::Server => Self::Server,
            WorkloadModeOrUndefined::Undefined | WorkloadModeOrUndefined::ClientAndServer => {
                Self::ClientAndServer
            }
        }
    }
}

message! {
    /// A port by number.
    pub struct PortSelector {
        number: u16,
    }
}

impl Spec for WasmPlugin {
    const KIND: Kind = Kind::WasmPlugin;
    fn validate(&self, _: &ObjectMeta, cx: &mut Cx) {
        check::selector("selector", self.selector.as_ref(), cx);
        check::targets(self.selector.as_ref(), self.target_ref.as_ref(), &self.target_refs, cx);
        if self.url.is_empty() {
            cx.error_at("url", "must be set");
        } else if let Some((scheme, _)) = self.url.split_once("://")
            && !matches!(scheme, "oci" | "http" | "https" | "file")
        {
            cx.error_at("url", format!("the scheme {scheme:?} is none of oci, http, https, file"));
        }
        let hex = self.sha256.len() == 64 && self.sha256.chars().all(|c| c.is_ascii_hexdigit());
        if !self.sha256.is_empty() && !hex {
            cx.error_at("sha256", "must be 64 hexadecimal digits");
        }
        cx.some("pluginConfig", self.plugin_config.as_ref(), |cx, config| {
            if !config.is_object() {
                cx.error("must be an object");
            }
        });
        cx.some("vmConfig", self.vm_config.as_ref(), |cx, vm| cx.each("env", &vm.env, env));
        cx.each("match", &self.r#match, |cx, selector| {
            cx.each("ports", &selector.ports, |cx, port| {
                cx.field("number", |cx| check::port(port.number, cx))
            });
        });
    }
}

fn env(cx: &mut Cx, var: &EnvVar) {
    if var.name.is_empty() {
        cx.error_at("name", "must be set");
    }
    if var.value_from == EnvValueSource::Host && !var.value.is_empty() {
        cx.error_at("value", "is taken from the host when valueFrom is HOST: remove it");
    }
}
