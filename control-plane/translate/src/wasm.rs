//! WasmPlugins: which of them a proxy runs, where they stand among its filters, and the extension configurations (ECDS)
//! that they are.

use std::sync::Arc;

use mesh_api::Object;
use mesh_api::telemetry::WorkloadMode;
use mesh_api::wasm_plugin::{
    EnvValueSource, FailStrategy, PluginPhase, PluginType, PullPolicy, TrafficSelector, WasmPlugin,
};
use prost::{Message, Name};
use saild_model::mesh::Attachment;
use saild_model::{Mesh, ProxyView};
use xds_api::any::pack;
use xds_api::envoy::config::core::v3 as core;
use xds_api::envoy::extensions::filters::http::fault::v3 as fault;
use xds_api::envoy::extensions::filters::http::rbac::v3::Rbac;
use xds_api::envoy::extensions::filters::http::wasm::v3::Wasm;
use xds_api::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use xds_api::envoy::extensions::wasm::v3 as wasm;
use xds_api::google::protobuf::StringValue;

use crate::cache::version_of;
use crate::listener::Class;
use crate::pb;
use crate::resource::{Generated, NamedResource, Names};
use crate::traits::Traits;
use crate::warning::Warning;

/// What stands before a plugin's namespace and name in the name of its resource.
const PREFIX: &str = "extensions.istio.io/wasmplugin/";

/// How long a module may take to be fetched.
const FETCH: std::time::Duration = std::time::Duration::from_secs(30);

/// The cluster of modules that are fetched: none, for the agent fetches them.
const NO_CLUSTER: &str = "_";

/// A plugin as a filter: everything else is its extension configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PluginInputs {
    /// The resource's name.
    pub name: String,
    /// Where among the filters it stands.
    pub phase: PluginPhase,
    /// It cannot run, and must not be passed without: requests are refused.
    pub refuses: bool,
}

/// A plugin that a proxy runs, and on which of its listeners.
#[derive(Debug, Clone)]
pub(crate) struct Plugin {
    inputs: PluginInputs,
    selectors: Vec<TrafficSelector>,
}

impl Plugin {
    /// Whether it sees the traffic of a listener; a port that is not known is none of those that are named.
    fn sees(&self, class: Class, port: Option<u16>) -> bool {
        let side = |mode: WorkloadMode| match class {
            Class::Gateway => true,
            Class::SidecarInbound => mode != WorkloadMode::Client,
            Class::SidecarOutbound => mode != WorkloadMode::Server,
        };
        let fits = |selector: &TrafficSelector| {
            let ports = &selector.ports;
            side(selector.mode.into())
                && (ports.is_empty() || port.is_some_and(|port| ports.iter().any(|it| it.number == port)))
        };
        self.selectors.is_empty() || self.selectors.iter().any(fits)
    }
}

/// Those of a listener.
pub(crate) fn of_listener(plugins: &[Plugin], class: Class, port: Option<u16>) -> Vec<PluginInputs> {
    plugins.iter().filter(|plugin| plugin.sees(class, port)).map(|plugin| plugin.inputs.clone()).collect()
}

/// The plugins on a proxy's way, in the order in which they stand: the higher priority first, then the older.
pub(crate) fn plugins(mesh: &Mesh, proxy: &ProxyView) -> Vec<Plugin> {
    let can = Traits::of(proxy).wasm;
    let runs = |spec: &WasmPlugin| can && why_not(spec).is_none();
    let mut objects: Vec<_> =
        meant(mesh, proxy).into_iter().filter(|object| runs(&object.spec) || closes(&object.spec)).collect();
    // What is meant for a proxy comes by age; a stable sort leaves it so.
    objects.sort_by_key(|object| std::cmp::Reverse(object.spec.priority.unwrap_or(0)));
    objects
        .into_iter()
        .map(|object| Plugin {
            inputs: PluginInputs {
                name: resource_name(object),
                phase: object.spec.phase,
                refuses: !runs(&object.spec),
            },
            selectors: object.spec.r#match.clone(),
        })
        .collect()
}

/// Plugins that are attached to a proxy: the mesh's and its namespace's.
fn meant<'a>(mesh: &'a Mesh, proxy: &ProxyView) -> Vec<&'a Arc<Object<WasmPlugin>>> {
    let near = |namespace: &str| namespace == proxy.namespace || namespace == mesh.root_namespace();
    let is_for = |object: &&Arc<Object<WasmPlugin>>| {
        let namespace = &object.meta.namespace;
        near(namespace) && Attachment::from(&object.spec).is_for(namespace, proxy)
    };
    mesh.config().wasm_plugins.all().iter().filter(is_for).collect()
}

/// Whether no request may pass where the plugin cannot run.
fn closes(spec: &WasmPlugin) -> bool {
    spec.fail_strategy != FailStrategy::FailOpen && spec.r#type != PluginType::Network
}

fn resource_name(object: &Object<WasmPlugin>) -> String {
    format!("{PREFIX}{}.{}", object.meta.namespace, object.meta.name)
}

/// Why a plugin cannot be run by anybody.
pub fn why_not(spec: &WasmPlugin) -> Option<String> {
    let scheme = spec.url.split_once("://").map_or("oci", |(scheme, _)| scheme);
    if spec.r#type == PluginType::Network {
        return Some("type NETWORK is not run: only HTTP plugins are".to_owned());
    }
    match scheme {
        "oci" => Some(format!(
            "url {:?}: images are not pulled: give the module by http://, https:// or file://",
            spec.url
        )),
        "http" | "https" if spec.sha256.is_empty() => Some(
            "sha256 must be given for a module that is fetched by http:// or https://: proxies check it"
                .to_owned(),
        ),
        _ => None,
    }
}

/// Plugins for a proxy that have no effect, or less than they say.
pub(crate) fn problems(mesh: &Mesh, proxy: &ProxyView) -> Vec<Warning> {
    let can = Traits::of(proxy).wasm;
    let mut out = Vec::new();
    for object in meant(mesh, proxy) {
        let spec = &object.spec;
        let mut warn = |message: String| out.push(Warning::of("WasmPlugin", &object.meta, message));
        let why = why_not(spec).or_else(|| (!can).then(|| "the proxy does not run WebAssembly".to_owned()));
        if let Some(why) = why {
            let effect = if closes(spec) {
                "requests are refused, since failStrategy is not FAIL_OPEN"
            } else {
                "it has no effect"
            };
            warn(format!("{effect}: {why}"));
        }
        if !spec.verification_key.is_empty() {
            warn("verificationKey is not looked at: give sha256".to_owned());
        }
        if spec.image_pull_policy == PullPolicy::Always {
            warn("imagePullPolicy Always: a module is fetched once for each sha256".to_owned());
        }
    }
    out
}

/// The filter that stands for a plugin's extension configuration, or for a plugin that cannot run.
pub(crate) fn filter(inputs: &PluginInputs) -> hcm::HttpFilter {
    if inputs.refuses {
        return hcm::HttpFilter {
            name: inputs.name.clone(),
            config_type: Some(hcm::http_filter::ConfigType::TypedConfig(pack(&nobody()))),
            ..Default::default()
        };
    }
    let source = core::ExtensionConfigSource {
        config_source: pb::ads(),
        // The others stand in the plugin's place while its module is not to be had.
        type_urls: vec![Wasm::type_url(), Rbac::type_url(), fault::HttpFault::type_url()],
        ..Default::default()
    };
    hcm::HttpFilter {
        name: inputs.name.clone(),
        config_type: Some(hcm::http_filter::ConfigType::ConfigDiscovery(source)),
        ..Default::default()
    }
}

/// Answers every request as Envoy does where a plugin is broken.
fn nobody() -> fault::HttpFault {
    let abort = fault::FaultAbort {
        percentage: Some(pb::millionths(1_000_000)),
        error_type: Some(fault::fault_abort::ErrorType::HttpStatus(503)),
        response_body: "wasm plugin unavailable".to_owned(),
    };
    fault::HttpFault { abort: Some(abort), ..Default::default() }
}

/// The extension configurations of those names.
pub(crate) fn extensions(mesh: &Mesh, proxy: &ProxyView, names: &Names) -> Generated {
    let mut out = Generated::default();
    let Names::Set(names) = names else { return out };
    let can = Traits::of(proxy).wasm;
    let plugins = meant(mesh, proxy);
    for name in names {
        let found = plugins.iter().find(|object| can && resource_name(object) == *name);
        match found.filter(|object| why_not(&object.spec).is_none()) {
            Some(object) => {
                let config = extension(name, &object.spec);
                let version = version_of(&config.encode_to_vec());
                let resource = NamedResource { name: name.as_str().into(), version, any: pack(&config) };
                out.resources.push(Arc::new(resource));
            }
            None => out.removed.push(name.clone()),
        }
    }
    out
}

fn extension(name: &str, spec: &WasmPlugin) -> core::TypedExtensionConfig {
    use wasm::FailurePolicy as Policy;
    let configuration = spec.plugin_config.as_ref().map(|config| {
        let text = StringValue { value: config.to_string() };
        pack(&text)
    });
    let failure_policy = match spec.fail_strategy {
        FailStrategy::FailClose => Policy::FailClosed,
        FailStrategy::FailOpen => Policy::FailOpen,
        FailStrategy::FailReload => Policy::FailReload,
    };
    let config = wasm::PluginConfig {
        name: name.to_owned(),
        root_id: spec.plugin_name.clone(),
        vm: Some(wasm::plugin_config::Vm::VmConfig(vm(spec))),
        configuration,
        failure_policy: failure_policy as i32,
        ..Default::default()
    };
    core::TypedExtensionConfig {
        name: name.to_owned(),
        typed_config: Some(pack(&Wasm { config: Some(config) })),
    }
}

fn vm(spec: &WasmPlugin) -> wasm::VmConfig {
    use core::async_data_source::Specifier;
    let specifier = match spec.url.strip_prefix("file://") {
        Some(path) => Specifier::Local(core::DataSource {
            specifier: Some(core::data_source::Specifier::Filename(path.to_owned())),
            ..Default::default()
        }),
        None => Specifier::Remote(core::RemoteDataSource {
            http_uri: Some(core::HttpUri {
                uri: spec.url.clone(),
                timeout: pb::duration(FETCH),
                http_upstream_type: Some(core::http_uri::HttpUpstreamType::Cluster(NO_CLUSTER.to_owned())),
            }),
            sha256: spec.sha256.clone(),
            ..Default::default()
        }),
    };
    let mut variables = wasm::EnvironmentVariables::default();
    for var in spec.vm_config.iter().flat_map(|vm| &vm.env) {
        match var.value_from {
            EnvValueSource::Host => variables.host_env_keys.push(var.name.clone()),
            EnvValueSource::Inline => {
                variables.key_values.insert(var.name.clone(), var.value.clone());
            }
        }
    }
    let some = !variables.host_env_keys.is_empty() || !variables.key_values.is_empty();
    wasm::VmConfig {
        runtime: "envoy.wasm.runtime.v8".to_owned(),
        code: Some(core::AsyncDataSource { specifier: Some(specifier) }),
        environment_variables: some.then_some(variables),
        ..Default::default()
    }
}
