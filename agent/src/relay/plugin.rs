//! A plugin whose module is fetched: its resource, the same with a file in the URL's place, and what stands in its place while
//! there is no module.

use std::path::Path;

use prost::{Message, Name};
use xds_api::any;
use xds_api::envoy::config::core::v3::async_data_source::Specifier;
use xds_api::envoy::config::core::v3::{DataSource, RemoteDataSource, TypedExtensionConfig, data_source};
use xds_api::envoy::extensions::filters::http::fault::v3::{FaultAbort, HttpFault, fault_abort};
use xds_api::envoy::extensions::filters::http::rbac::v3::Rbac;
use xds_api::envoy::extensions::filters::http::wasm::v3::Wasm;
use xds_api::envoy::extensions::wasm::v3::plugin_config::Vm;
use xds_api::envoy::extensions::wasm::v3::{FailurePolicy, PluginConfig, VmConfig};
use xds_api::envoy::service::discovery::v3::Resource;
use xds_api::envoy::r#type::v3::{FractionalPercent, fractional_percent};

/// What requests are answered where a plugin that must not be passed by has no module: as where a module breaks.
const UNAVAILABLE: u32 = 503;

/// A plugin that names its module by URL.
#[derive(Clone, Debug)]
pub(super) struct Plugin {
    resource: Resource,
    config: TypedExtensionConfig,
    wasm: Wasm,
    remote: RemoteDataSource,
}

impl Plugin {
    /// `None`: the resource is something else, and is the proxy's to judge.
    pub(super) fn of(resource: &Resource) -> Option<Self> {
        let config: TypedExtensionConfig = any::unpack(resource.resource.as_ref()?).ok()?;
        let mut wasm: Wasm = any::unpack(config.typed_config.as_ref()?).ok()?;
        let Specifier::Remote(remote) = code(&mut wasm)?.clone() else { return None };
        Some(Self { resource: resource.clone(), config, wasm, remote })
    }

    pub(super) fn name(&self) -> &str {
        &self.resource.name
    }

    /// Where its module is.
    pub(super) fn remote(&self) -> &RemoteDataSource {
        &self.remote
    }

    /// The same, of a file.
    pub(super) fn of_file(&self, path: &Path) -> Resource {
        let mut wasm = self.wasm.clone();
        if let Some(code) = code(&mut wasm) {
            let file = data_source::Specifier::Filename(path.to_string_lossy().into_owned());
            *code = Specifier::Local(DataSource { specifier: Some(file), ..Default::default() });
        }
        self.with(&wasm, self.resource.version.clone())
    }

    /// What its failure policy says: a filter that lets every request pass, or none. It has no version, so that a proxy on
    /// another stream does not claim to have the plugin.
    pub(super) fn stand_in(&self) -> Resource {
        if self.wasm.config.as_ref().is_some_and(fails_open) {
            return self.with(&Rbac::default(), String::new());
        }
        let always = FractionalPercent {
            numerator: 100,
            denominator: fractional_percent::DenominatorType::Hundred as i32,
        };
        let abort = FaultAbort {
            percentage: Some(always),
            error_type: Some(fault_abort::ErrorType::HttpStatus(UNAVAILABLE)),
            response_body: "wasm plugin unavailable".to_owned(),
        };
        self.with(&HttpFault { abort: Some(abort), ..Default::default() }, String::new())
    }

    fn with<M: Message + Name>(&self, filter: &M, version: String) -> Resource {
        let config = TypedExtensionConfig { typed_config: Some(any::pack(filter)), ..self.config.clone() };
        Resource { version, resource: Some(any::pack(&config)), ..self.resource.clone() }
    }
}

fn code(wasm: &mut Wasm) -> Option<&mut Specifier> {
    let Some(Vm::VmConfig(VmConfig { code: Some(code), .. })) = wasm.config.as_mut()?.vm.as_mut() else {
        return None;
    };
    code.specifier.as_mut()
}

#[expect(deprecated, reason = "older control planes say it so")]
fn fails_open(config: &PluginConfig) -> bool {
    config.fail_open || config.failure_policy == FailurePolicy::FailOpen as i32
}
