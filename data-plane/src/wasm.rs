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

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::OnceLock;

use sail_proxy_config::Snapshot;
use sail_proxy_config::discovered::Discoverable as _;
use sail_proxy_config::http_filter::{HttpFilter, HttpFilterKind};
use sail_proxy_config::network_filter::NetworkFilter;

use xds_api::envoy::config::core::v3::Node;

use crate::worker::state::Worker;

static NODE: OnceLock<Node> = OnceLock::new();

/// Says who we are, for modules that ask.
pub(crate) fn announce(node: &Node) {
    let _ = NODE.set(node.clone());
}

thread_local! {
    /// The plugins of the configuration in force.
    static IN_FORCE: RefCell<Vec<Rc<Plugin>>> = RefCell::default();
}

/// Starts the plugins of a configuration, before requests ask for them; those that it shares with the one before go on.
pub(crate) fn prepare(worker: &Worker, snapshot: &Snapshot) {
    let store = &worker.shared.store;
    let plugin = |kind: &HttpFilterKind| match kind {
        HttpFilterKind::Wasm(config) => Some(Plugin::of(config, store)),
        _ => None,
    };
    let mut plugins = Vec::new();
    let mut all = |filters: &[HttpFilter]| {
        plugins.extend(filters.iter().filter_map(|filter| plugin(&filter.kind)));
    };
    for listener in &snapshot.listeners {
        for chain in listener.filter_chains.iter().chain(&listener.default_filter_chain) {
            if let Some(NetworkFilter::HttpConnectionManager(hcm)) = chain.filters.last() {
                all(&hcm.http_filters);
                hcm.http_filters.iter().for_each(|filter| {
                    if let HttpFilterKind::Router(router) = &filter.kind {
                        all(&router.upstream_filters);
                    }
                });
            }
        }
    }
    snapshot.clusters.values().for_each(|cluster| all(&cluster.upstream_filters));
    let discovered = snapshot.extensions.values().filter_map(|extension| HttpFilterKind::of(&extension.kind));
    plugins.extend(discovered.filter_map(plugin));
    IN_FORCE.set(plugins);
}
