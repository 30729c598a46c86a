//! Wasm plugins (`envoy.extensions.wasm.v3`): what is run, and with what.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use xds_api::envoy::extensions::wasm::v3 as proto;
use xds_api::google::protobuf::{BytesValue, StringValue, Struct};

use crate::callout::{self, HttpTarget};
use crate::convert::{Cx, arc, type_name, values};
use crate::pb;

/// The first pause before a failed VM is made anew where nothing is said.
const RELOAD_PAUSE: Duration = Duration::from_secs(1);

/// `PluginConfig`
#[derive(Clone, Debug)]
pub struct Plugin {
    /// `name`
    pub name: Arc<str>,
    /// `root_id`
    pub root_id: Arc<str>,
    /// `configuration`, as the module reads it.
    pub configuration: Bytes,
    /// What becomes of requests once the VM has failed.
    pub failure_policy: FailurePolicy,
    /// `allow_on_headers_stop_iteration`
    pub allow_stop_iteration: bool,
    /// What it runs in.
    pub vm: Vm,
}

/// `FailurePolicy`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailurePolicy {
    /// They are refused.
    Closed,
    /// They pass as if the filter were not there.
    Open,
    /// They get a new VM, but not more often than that.
    Reload(Duration),
}

/// `VmConfig`
#[derive(Clone, Debug)]
pub struct Vm {
    /// `vm_id`
    pub id: Arc<str>,
    /// The engine that is asked for; statistics bear its name.
    pub runtime: &'static str,
    /// The module.
    pub code: Code,
    /// `configuration`, as the module reads it.
    pub configuration: Bytes,
    /// `environment_variables`, by name.
    pub environment: Vec<(String, String)>,
    /// What the module may use; empty for all.
    pub capabilities: Vec<Box<str>>,
}

/// Where a module comes from.
#[derive(Clone, Debug)]
pub enum Code {
    /// It is there.
    Local(Loaded),
    /// It is fetched when it is needed.
    Remote(Arc<Remote>),
}

/// A module that whoever runs it has looked at, in its own form.
#[derive(Clone)]
pub struct Loaded(pub Arc<dyn Any + Send + Sync>);

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Loaded")
    }
}

/// `RemoteDataSource`
#[derive(Debug)]
pub struct Remote {
    /// Where.
    pub target: HttpTarget,
    /// What its SHA-256 must be, in hexadecimal.
    pub sha256: Box<str>,
    /// How often it is tried again.
    pub retries: u32,
    /// How long before it is.
    pub pause: Duration,
}

const V8: &str = "envoy.wasm.runtime.v8";
const RUNTIMES: [&str; 3] = [V8, "envoy.wasm.runtime.wasmtime", "envoy.wasm.runtime.wamr"];

/// `PluginConfig`
pub(crate) fn plugin(cx: &mut Cx<'_>, value: proto::PluginConfig) -> Option<Plugin> {
    let failure_policy = failure_policy(cx, &value);
    let proto::PluginConfig {
        name,
        root_id,
        vm,
        configuration,
        fail_open: _,
        failure_policy: _,
        reload_config: _,
        capability_restriction_config,
        allow_on_headers_stop_iteration,
    } = value;
    let Some(proto::plugin_config::Vm::VmConfig(vm)) = vm else {
        cx.error("vm_config", "it must be set");
        return None;
    };
    let configuration = cx.within("configuration", |cx| bytes_of(cx, configuration));
    let (vm, code) = cx.within("vm_config", |cx| self::vm(cx, vm, capability_restriction_config))?;
    let mut plugin = Plugin {
        name: arc(name),
        root_id: arc(root_id),
        configuration: configuration?,
        failure_policy: failure_policy?,
        allow_stop_iteration: values::bool_or(allow_on_headers_stop_iteration, false),
        vm,
    };
    let checked = cx.sources.wasm(&plugin, code.as_deref());
    let loaded = cx.ok("vm_config.code", checked)?;
    if code.is_some() {
        plugin.vm.code = Code::Local(loaded);
    }
    Some(plugin)
}

fn failure_policy(cx: &mut Cx<'_>, value: &proto::PluginConfig) -> Option<FailurePolicy> {
    use proto::FailurePolicy as Policy;
    let fail_open = value.fail_open;
    let policy = Policy::try_from(value.failure_policy);
    let reload = value.reload_config.unwrap_or_default();
    let pause = cx.within("reload_config.backoff", |cx| {
        reload.backoff.and_then(|backoff| values::duration(cx, "base_interval", backoff.base_interval))
    });
    match policy {
        Ok(Policy::Unspecified) if fail_open => Some(FailurePolicy::Open),
        Ok(_) if fail_open => {
            cx.error("failure_policy", "only one of fail_open or failure_policy can be set");
            None
        }
        Ok(Policy::Unspecified | Policy::FailClosed) => Some(FailurePolicy::Closed),
        Ok(Policy::FailOpen) => Some(FailurePolicy::Open),
        Ok(Policy::FailReload) => Some(FailurePolicy::Reload(pause.unwrap_or(RELOAD_PAUSE))),
        Err(_) => {
            cx.error("failure_policy", format_args!("there is no {}", value.failure_policy));
            None
        }
    }
}

/// The VM, and its code if it is at hand.
fn vm(
    cx: &mut Cx<'_>,
    value: proto::VmConfig,
    of_plugin: Option<proto::CapabilityRestrictionConfig>,
) -> Option<(Vm, Option<Vec<u8>>)> {
    let proto::VmConfig {
        vm_id,
        runtime,
        code,
        configuration,
        // There is no such code for this engine; the module itself is run.
        allow_precompiled: _,
        nack_on_code_cache_miss,
        environment_variables,
        capability_restriction_config,
    } = value;
    let runtime = if runtime.is_empty() { V8 } else { &*runtime };
    let Some(runtime) = RUNTIMES.into_iter().find(|known| *known == runtime) else {
        cx.error("runtime", format_args!("there is no {runtime:?} (there are {})", RUNTIMES.join(", ")));
        return None;
    };
    cx.unserved("nack_on_code_cache_miss", &nack_on_code_cache_miss);
    let configuration = cx.within("configuration", |cx| bytes_of(cx, configuration));
    let environment = cx.within("environment_variables", |cx| environment(cx, environment_variables));
    let (code, bytes) = cx.required("code", code, self::code)?;
    // What each is restricted to is not looked at, as the field's documentation says.
    let restriction = capability_restriction_config.or(of_plugin).unwrap_or_default();
    let mut capabilities: Vec<Box<str>> =
        restriction.allowed_capabilities.into_keys().map(Into::into).collect();
    capabilities.sort_unstable();
    let id = arc(vm_id);
    let (configuration, environment) = (configuration?, environment?);
    Some((Vm { id, runtime, code, configuration, environment, capabilities }, bytes))
}

fn code(cx: &mut Cx<'_>, value: pb::core::AsyncDataSource) -> Option<(Code, Option<Vec<u8>>)> {
    use pb::core::async_data_source::Specifier;
    match value.specifier {
        Some(Specifier::Local(source)) => {
            let (bytes, _) = cx.within("local", |cx| values::data(cx, source))?;
            // What is in its place until somebody has looked at it.
            Some((Code::Local(Loaded(Arc::new(()))), Some(bytes)))
        }
        Some(Specifier::Remote(source)) => {
            let remote = cx.within("remote", |cx| remote(cx, source))?;
            Some((Code::Remote(Arc::new(remote)), None))
        }
        None => {
            cx.error("specifier", "one of local and remote must be set");
            None
        }
    }
}

fn remote(cx: &mut Cx<'_>, value: pb::core::RemoteDataSource) -> Option<Remote> {
    let pb::core::RemoteDataSource { http_uri, sha256, retry_policy } = value;
    if sha256.is_empty() {
        cx.error("sha256", "it must be set");
    }
    let policy = retry_policy.unwrap_or_default();
    let back_off = policy.retry_back_off.unwrap_or_default();
    let pause = cx.within("retry_policy.retry_back_off", |cx| {
        values::duration(cx, "base_interval", back_off.base_interval)
    });
    Some(Remote {
        target: cx.required("http_uri", http_uri, callout::http_uri)?,
        sha256: sha256.to_ascii_lowercase().into(),
        retries: values::u32_or(policy.num_retries, 1),
        pause: pause.unwrap_or(Duration::from_secs(1)),
    })
}

fn environment(cx: &mut Cx<'_>, value: Option<proto::EnvironmentVariables>) -> Option<Vec<(String, String)>> {
    let proto::EnvironmentVariables { host_env_keys, key_values } = value.unwrap_or_default();
    let mut pairs: Vec<(String, String)> = key_values.into_iter().collect();
    for key in host_env_keys {
        if pairs.iter().any(|(other, _)| *other == key) {
            cx.error("host_env_keys", format_args!("{key:?} is there twice"));
            return None;
        }
        if let Some(value) = cx.sources.environment(&key) {
            pairs.push((key, value));
        }
    }
    pairs.sort_unstable();
    Some(pairs)
}

/// A configuration as modules read it: JSON, text, or the message's bytes.
fn bytes_of(cx: &mut Cx<'_>, value: Option<pb::Any>) -> Option<Bytes> {
    let Some(any) = value else { return Some(Bytes::new()) };
    match type_name(&any) {
        "google.protobuf.StringValue" => cx.unpack::<StringValue>(&any).map(|text| text.value.into()),
        "google.protobuf.BytesValue" => cx.unpack::<BytesValue>(&any).map(|bytes| bytes.value.into()),
        "google.protobuf.Struct" => {
            let value = cx.unpack::<Struct>(&any)?;
            Some(serde_json::Value::Object(values::object(value)).to_string().into())
        }
        _ => Some(any.value.into()),
    }
}
