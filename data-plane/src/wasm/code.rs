//! Modules: compiled and tried when a configuration brings them, shared by all that use the same.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;
use sail_proxy_config::wasm::{FailurePolicy, Loaded, Plugin};
use sail_proxy_wasm::{Capabilities, Code, Engine, Error, Module, Shared, Vm, VmOptions};
use sha2::{Digest as _, Sha256};

use super::host::Canary;

/// Modules that are not called back for so long are interrupted at the next tick but some.
const TICK: Duration = Duration::from_millis(100);

/// What VMs share.
static SHARED: OnceLock<Arc<Shared>> = OnceLock::new();

/// Modules by their SHA-256.
static CODES: Mutex<Option<HashMap<Box<str>, Weak<Code>>>> = Mutex::new(None);

/// A module that is ready to run, as the configuration holds it.
#[derive(Clone)]
pub(crate) struct Ready {
    pub(super) module: Module,
    /// Names the VM: plugins with the same one share it.
    pub(super) key: Arc<str>,
    /// Keeps the module in the table.
    _code: Arc<Code>,
}

/// What a plugin is that failed when it was tried, and may.
pub(super) struct Bypassed;

pub(super) fn shared() -> Arc<Shared> {
    SHARED.get_or_init(Arc::default).clone()
}

/// Looks at a plugin's module before its configuration is accepted: compiles and links it, and starts it once.
pub(crate) fn load(plugin: &Plugin, code: Option<&[u8]>) -> Result<Loaded, String> {
    let Some(code) = code else { return Ok(Loaded(Arc::new(()))) };
    match ready(plugin, code).and_then(|ready| attempt(plugin, &ready).map(|()| ready)) {
        Ok(ready) => Ok(Loaded(Arc::new(ready))),
        Err(error) if plugin.failure_policy == FailurePolicy::Open => {
            tracing::error!("wasm plugin {:?} is passed by: {error}", plugin.name);
            Ok(Loaded(Arc::new(Bypassed)))
        }
        Err(error) => Err(format!("the plugin {:?} cannot be run: {error}", plugin.name)),
    }
}

/// Compiles and links a plugin's module.
pub(super) fn ready(plugin: &Plugin, bytes: &[u8]) -> Result<Ready, Error> {
    let hash: Box<str> = hex::encode(Sha256::digest(bytes)).into();
    let known = CODES.lock().as_ref().and_then(|codes| codes.get(&hash)?.upgrade());
    let code = match known {
        Some(code) => code,
        None => {
            // Two may compile the same at once; that is only a waste.
            let code = Arc::new(Engine::get()?.compile(bytes)?);
            let mut codes = CODES.lock();
            let codes = codes.get_or_insert_default();
            codes.retain(|_, code| code.strong_count() > 0);
            codes.insert(hash.clone(), Arc::downgrade(&code));
            start_clock();
            code
        }
    };
    let vm = &plugin.vm;
    let capabilities = Arc::new(Capabilities::only(vm.capabilities.iter().cloned()));
    let module = code.link(&capabilities)?;
    let key = format!(
        "{hash}|{}|{}|{:?}|{:?}|{:?}",
        vm.runtime, vm.id, vm.configuration, vm.environment, vm.capabilities
    );
    Ok(Ready { module, key: key.into(), _code: code })
}

/// Starts the plugin where it can do no harm.
fn attempt(plugin: &Plugin, ready: &Ready) -> Result<(), Error> {
    let mut vm = Vm::new(&ready.module, options(plugin, Box::new(Canary)))?;
    vm.start(root(plugin)).map(|_| ())
}

pub(super) fn options(plugin: &Plugin, host: Box<dyn sail_proxy_wasm::Host>) -> VmOptions {
    let vm = &plugin.vm;
    VmOptions {
        vm_id: (*vm.id).into(),
        environment: vm.environment.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        configuration: vm.configuration.clone(),
        shared: shared(),
        host,
    }
}

pub(super) fn root(plugin: &Plugin) -> Arc<sail_proxy_wasm::Plugin> {
    Arc::new(sail_proxy_wasm::Plugin {
        name: (*plugin.name).into(),
        root_id: (*plugin.root_id).into(),
        configuration: plugin.configuration.clone(),
        allow_stop_iteration: plugin.allow_stop_iteration,
    })
}

/// The clock by which modules are interrupted.
fn start_clock() {
    static CLOCK: OnceLock<()> = OnceLock::new();
    CLOCK.get_or_init(|| {
        let clock = || {
            loop {
                std::thread::sleep(TICK);
                sail_proxy_wasm::tick();
            }
        };
        if let Err(error) = std::thread::Builder::new().name("wasm_clock".to_owned()).spawn(clock) {
            tracing::error!("wasm modules that do not return will not be interrupted: {error}");
        }
    });
}
