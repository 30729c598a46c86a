//! What the admin pages show of discovery, beside the resources themselves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use prost::Message;
use sail_proxy_config::Snapshot;
use xds_api::envoy::config::bootstrap::v3::Bootstrap;
use xds_api::envoy::config::cluster::v3::Cluster;
use xds_api::envoy::config::listener::v3::Listener;
use xds_api::envoy::config::route::v3::RouteConfiguration;
use xds_api::envoy::extensions::filters::network::http_connection_manager::v3::ScopedRoutes;
use xds_api::type_url;

use super::{Manager, Phase};
use crate::xds::needs;
use crate::xds::raw::Held;

impl Manager {
    /// What is in force; before anything is, what clusters there are already.
    pub fn known(&self) -> Arc<Snapshot> {
        if self.phase.get() == Phase::Running {
            return self.parts.current();
        }
        let resources = self.resources.borrow();
        Arc::new(self.parts.snapshot(&mut resources.clusters.active().map(|(_, value)| value)))
    }

    /// The bootstrap's clusters.
    pub fn static_clusters(&self) -> impl Iterator<Item = Cluster> {
        self.statics().values().filter_map(|body| Cluster::decode(body.clone()).ok())
    }

    /// The bootstrap's listeners.
    pub fn static_listeners(&self) -> Vec<Listener> {
        let bootstrap = Bootstrap::decode(self.main.bootstrap.clone()).unwrap_or_default();
        bootstrap.static_resources.map(|fixed| fixed.listeners).unwrap_or_default()
    }

    /// Route configurations that stand in listeners.
    pub fn static_routes(&self) -> Vec<RouteConfiguration> {
        self.in_listeners(needs::inline_routes)
    }

    /// What listeners say of scoped routes.
    pub fn scoped_routes(&self) -> Vec<ScopedRoutes> {
        self.in_listeners(needs::scoped_routes)
    }

    /// What is found in the listeners of the bootstrap, and in those that came.
    fn in_listeners<T>(&self, find: impl Fn(&Listener) -> Vec<T>) -> Vec<T> {
        let mut all: Vec<T> = self.static_listeners().iter().flat_map(&find).collect();
        self.with_kind(type_url::LISTENER, |kind| {
            for held in kind.into_iter().flat_map(|kind| kind.held.values()) {
                if let Ok(listener) = Listener::decode(held.body.clone()) {
                    all.extend(find(&listener));
                }
            }
        });
        all
    }

    /// Whether a new version of this cluster or listener still warms.
    pub fn is_warming(&self, type_url: &str, name: &str) -> bool {
        let resources = self.resources.borrow();
        match type_url {
            type_url::CLUSTER => resources.clusters.is_warming(name),
            type_url::LISTENER => resources.listeners.is_warming(name),
            _ => false,
        }
    }

    /// Listeners that drain, as they came.
    pub fn draining_listeners(&self) -> Vec<(Arc<str>, Held)> {
        let draining = self.draining.borrow();
        let all = draining.listeners(Instant::now());
        all.map(|(name, held)| (name.clone(), held.clone())).collect()
    }

    /// Secrets that somebody asks for and nobody has brought yet.
    pub fn missing_secrets(&self) -> BTreeSet<String> {
        let resources = self.resources.borrow();
        let held = resources.kinds.get(type_url::SECRET);
        let needs = resources.clusters.needs().chain(resources.listeners.needs());
        let missing = needs.filter(|need| {
            need.type_url == type_url::SECRET
                && held.is_none_or(|kind| !kind.held.contains_key(need.name.as_str()))
        });
        missing.map(|need| need.name.clone()).collect()
    }
}
