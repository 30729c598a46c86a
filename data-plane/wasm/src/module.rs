//! A module together with the functions that it may call.

use std::sync::Arc;

use hashbrown::HashSet;
use wasmtime::{ExternType, InstancePre, Linker, Val};

use crate::Error;
use crate::abi::Status;
use crate::engine::{Abi, Code};
use crate::imports;
use crate::state::State;

/// WASI's `ENOSYS`: there is no such function.
const ENOSYS: i32 = 52;
/// WASI's `ENOTCAPABLE`: it is not allowed.
const ENOTCAPABLE: i32 = 76;

/// What a module may call and may be called for: everything, or what is named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(Option<HashSet<Box<str>>>);

impl Capabilities {
    /// Only these; none for all, as configurations have it.
    pub fn only<S: Into<Box<str>>>(names: impl IntoIterator<Item = S>) -> Self {
        let names: HashSet<Box<str>> = names.into_iter().map(Into::into).collect();
        Self((!names.is_empty()).then_some(names))
    }

    pub(crate) fn allows(&self, name: &str) -> bool {
        self.0.as_ref().is_none_or(|names| names.contains(name))
    }

    /// Whether the module is told: what starts a runtime is no capability.
    pub(crate) fn allows_hook(&self, name: &str) -> bool {
        !name.starts_with("proxy_") || self.allows(name)
    }
}

/// See the module's documentation.
#[derive(Clone)]
pub struct Module {
    pub(crate) pre: InstancePre<State>,
    pub(crate) abi: Abi,
    pub(crate) capabilities: Arc<Capabilities>,
}

impl std::fmt::Debug for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Module").field("abi", &self.abi).finish_non_exhaustive()
    }
}

impl Code {
    /// Links the module; fails if it asks for what there is none of.
    pub fn link(&self, capabilities: &Arc<Capabilities>) -> Result<Module, Error> {
        let link = |error: wasmtime::Error| Error::Link(format!("{error:#}"));
        let mut linker = Linker::new(self.module.engine());
        linker.allow_shadowing(true);
        imports::define(&mut linker).map_err(link)?;
        for import in self.module.imports() {
            let wasi = matches!(import.module(), "wasi_snapshot_preview1" | "wasi_unstable");
            let ExternType::Func(kind) = import.ty() else { continue };
            let result = if !capabilities.allows(import.name()) {
                Some(if wasi { ENOTCAPABLE } else { Status::InternalFailure as i32 })
            } else if wasi && !imports::WASI.contains(&import.name()) {
                // Languages' runtimes ask for more than they use.
                Some(ENOSYS)
            } else {
                None
            };
            let returns_number = kind.results().len() == 1 && kind.results().all(|kind| kind.is_i32());
            if let Some(result) = result
                && (returns_number || kind.results().len() == 0)
            {
                let refusal = move |_: wasmtime::Caller<'_, State>, _: &[Val], results: &mut [Val]| {
                    if let Some(place) = results.first_mut() {
                        *place = Val::I32(result);
                    }
                    Ok(())
                };
                linker.func_new(import.module(), import.name(), kind, refusal).map_err(link)?;
            }
        }
        let pre = linker.instantiate_pre(&self.module).map_err(link)?;
        Ok(Module { pre, abi: self.abi, capabilities: capabilities.clone() })
    }
}
