//! Wasm plugins: modules are compiled once for the process, each worker has its own VMs, and what modules ask for is
//! carried out by the worker that runs them. Nothing of this costs anything until a configuration names a module.

mod call;
mod code;
mod grpc;
mod host;
mod metrics;
mod plugin;
mod property;

pub(crate) use code::load;
pub(crate) use host::attach;
pub(crate) use plugin::{Plugin, Running, Turn, Use, Wake};
pub(crate) use property::of_stream;

use std::sync::OnceLock;

use xds_api::envoy::config::core::v3::Node;

static NODE: OnceLock<Node> = OnceLock::new();

/// Says who we are, for modules that ask.
pub(crate) fn announce(node: &Node) {
    let _ = NODE.set(node.clone());
}
