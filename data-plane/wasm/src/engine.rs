//! The engine: one for the process, made when the first module is compiled.

use std::sync::OnceLock;

use wasmtime::{Config, Strategy};

use crate::Error;

static ENGINE: OnceLock<wasmtime::Engine> = OnceLock::new();

/// A handle on the engine.
#[derive(Clone)]
pub struct Engine(wasmtime::Engine);

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine")
    }
}

impl Engine {
    /// The engine, made if nobody has asked for it yet.
    pub fn get() -> Result<Self, Error> {
        if let Some(engine) = ENGINE.get() {
            return Ok(Self(engine.clone()));
        }
        let mut config = Config::new();
        config.strategy(Strategy::Cranelift).epoch_interruption(true).max_wasm_stack(1024 * 1024);
        let engine = wasmtime::Engine::new(&config).map_err(|error| Error::Compile(format!("{error:#}")))?;
        Ok(Self(ENGINE.get_or_init(|| engine).clone()))
    }

    /// Compiles a module, given as binary or as text.
    pub fn compile(&self, bytes: &[u8]) -> Result<Code, Error> {
        let module =
            wasmtime::Module::new(&self.0, bytes).map_err(|error| Error::Compile(format!("{error:#}")))?;
        let versions = [
            ("proxy_abi_version_0_2_1", Abi::V021),
            ("proxy_abi_version_0_2_0", Abi::V020),
            ("proxy_abi_version_0_1_0", Abi::V010),
        ];
        let exported = |name: &str| module.get_export(name).is_some();
        let abi = versions.into_iter().find(|(name, _)| exported(name)).ok_or(Error::Abi)?.1;
        if !exported("memory") || !(exported("proxy_on_memory_allocate") || exported("malloc")) {
            return Err(Error::Memory);
        }
        Ok(Code { module, abi })
    }
}

/// Moves the clock by which modules that do not return are interrupted. Whoever runs VMs calls it regularly.
pub fn tick() {
    if let Some(engine) = ENGINE.get() {
        engine.increment_epoch();
    }
}

/// Versions of the ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Abi {
    V010,
    V020,
    V021,
}

/// A compiled module.
#[derive(Clone)]
pub struct Code {
    pub(crate) module: wasmtime::Module,
    pub(crate) abi: Abi,
}

impl std::fmt::Debug for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Code").field("abi", &self.abi).finish_non_exhaustive()
    }
}
