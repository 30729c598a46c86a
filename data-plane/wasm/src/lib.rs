//! The host of proxy-wasm modules (ABI 0.2.1, 0.2.0 and 0.1.0): linear memory, host functions, contexts and hooks.
//!
//! A [`Code`] is a module compiled once for the process, a [`Module`] is the same linked with what it may call, a [`Vm`]
//! is one thread's instance of it. What a module asks for beyond its own memory goes through two traits: [`Host`] is the
//! proxy, [`Stream`] the request or connection that a context stands for. Nothing here does I/O or reads a clock.

mod abi;
mod engine;
mod host;
mod imports;
mod memory;
mod module;
mod pairs;
mod shared;
mod state;
mod vm;

pub use abi::{BufferKind, DataAction, HeadersAction, LogLevel, MapKind, MetricKind, Status, StreamKind};
pub use engine::{Code, Engine, tick};
pub use host::{GrpcCall, GrpcEvent, Host, HttpCall, HttpCallResponse, LocalResponse, Pairs, Stream};
pub use module::{Capabilities, Module};
pub use pairs::{decode as decode_pairs, encode as encode_pairs};
pub use shared::{QueueReady, Shared};
pub use state::Plugin;
pub use vm::{Context, Peer, Vm, VmOptions};

/// Why a module cannot be run, or runs no longer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no module.
    #[error("the module cannot be compiled: {0}")]
    Compile(String),
    /// None of the versions that there are.
    #[error(
        "the module exports no proxy-wasm ABI version that is known (proxy_abi_version_0_1_0, 0_2_0, 0_2_1)"
    )]
    Abi,
    /// It asks for a function that there is none of, or in another form.
    #[error("the module cannot be linked: {0}")]
    Link(String),
    /// An exported function has another form than the ABI gives it.
    #[error("the module's function {0} is not of the ABI's form: {1}")]
    Export(&'static str, String),
    /// It cannot allocate memory for its host.
    #[error("the module exports neither proxy_on_memory_allocate nor malloc, or no memory")]
    Memory,
    /// It broke off.
    #[error("the module's function {function} failed: {cause}")]
    Trap {
        /// Where.
        function: &'static str,
        /// What happened.
        cause: String,
    },
    /// It does not want to start.
    #[error("proxy_on_vm_start returned false")]
    Start,
    /// It does not want its configuration.
    #[error("proxy_on_configure returned false")]
    Configure,
    /// It failed before.
    #[error("the VM has failed")]
    Failed,
}

#[cfg(test)]
mod tests;
