//! What becomes of resources that come, type by type: each is taken whole or not at all, and who sent it is told which
//! was refused and why.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use prost::Message;
use xds_api::envoy::config::cluster::v3::Cluster;
use xds_api::envoy::config::listener::v3::Listener;
use xds_api::type_url;
use xds_stream::client::{Received, Rejection};

use super::manager::Manager;
use super::needs::{self, Source};
use super::resources::Resources;
use super::subscriptions::Outcome;
use crate::stats::sets::{cluster_manager, listener_manager};

impl Manager {
    /// Takes resources from wherever they came.
    pub(super) fn apply(&self, source: &Source, received: &Received) -> Result<(), Rejection> {
        let (now, started) = (SystemTime::now(), Instant::now());
        let (mut failures, mut changed) = (Vec::new(), HashSet::new());
        {
            let mut resources = self.resources.borrow_mut();
            let mut seen = HashSet::new();
            for resource in &received.resources {
                let (name, body) = (&resource.name, &resource.body);
                if !seen.insert(name) {
                    // The first one holds; it may be what is in force.
                    let reason = format!("the name {name} is there twice");
                    tracing::warn!(resource = %name, type_url = received.type_url, reason, "refused");
                    failures.push((name.to_string(), reason));
                    continue;
                }
                let taken = if &*resource.type_url == received.type_url.as_str() {
                    self.take(&mut resources, source, &received.type_url, name, body)
                } else {
                    Err(format!("type {} where {} was expected", resource.type_url, received.type_url))
                };
                let kind = resources.kinds.entry(received.type_url.clone()).or_default();
                match taken {
                    Ok(is_new) => {
                        kind.accept(name, &resource.version, body, now);
                        changed.extend(is_new.then_some(&**name));
                    }
                    Err(reason) => {
                        tracing::warn!(resource = %name, type_url = received.type_url, reason, "refused");
                        kind.refuse(name, &resource.version, body, reason.clone(), now);
                        failures.push((name.to_string(), reason));
                    }
                }
            }
            for name in &received.removed {
                resources.gone(&received.type_url, name, self.parts());
            }
            resources
                .kinds
                .entry(received.type_url.clone())
                .or_default()
                .version
                .clone_from(&received.version);
        }
        self.settle(&received.type_url);
        // What waits for nothing is in force before the server hears of it; if it cannot listen, the server hears that.
        for error in self.step() {
            if received.type_url == type_url::LISTENER
                && received.resources.iter().any(|resource| resource.name == error.listener)
            {
                failures.push((error.listener.to_string(), error.to_string()));
            }
        }
        self.ring();
        let refused = failures.iter().map(|(name, _)| name.as_str()).collect();
        let outcome = Outcome { received, refused, changed, took: started.elapsed() };
        self.subscriptions.borrow_mut().count(source, &outcome);
        match failures.as_slice() {
            [] => Ok(()),
            failures => Err(Rejection::of(&received.type_url, failures)),
        }
    }

    /// Takes a resource; true if it is another than before.
    fn take(
        &self,
        resources: &mut Resources,
        source: &Source,
        type_url: &str,
        name: &Arc<str>,
        body: &[u8],
    ) -> Result<bool, String> {
        self.check_fields(type_url, body)?;
        let changed = match type_url {
            type_url::CLUSTER => self.take_cluster(resources, source, name, body)?,
            type_url::LISTENER => self.take_listener(resources, source, name, body)?,
            type_url::ENDPOINT => self.parts().take_endpoints(name, body)?,
            type_url::ROUTE => self.parts().take_route(name, body)?,
            type_url::SCOPED_ROUTE => self.parts().take_scope(body)?,
            type_url::SECRET => self.parts().take_secret(name, body)?,
            type_url::EXTENSION_CONFIG => self.parts().take_extension(name, body)?,
            other => return Err(format!("resources of type {other} are not supported")),
        };
        resources.absent.remove(&(type_url.to_owned(), name.to_string()));
        Ok(changed)
    }

    /// Refuses a resource with fields that are not known, where the command line asks for that.
    fn check_fields(&self, type_url: &str, body: &[u8]) -> Result<(), String> {
        let Some(codec) = &self.strict else { return Ok(()) };
        let name = type_url.rsplit('/').next().unwrap_or(type_url);
        let Some((message, numbers)) = codec.unknown_fields(name, body).map_err(|e| e.to_string())? else {
            return Ok(());
        };
        let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
        let set = numbers.join(", ");
        Err(format!("Protobuf message (type {message} with unknown field set {{{set}}}) has unknown fields"))
    }

    fn take_cluster(
        &self,
        resources: &mut Resources,
        source: &Source,
        name: &Arc<str>,
        body: &[u8],
    ) -> Result<bool, String> {
        if self.is_static_cluster(name) {
            return Err("a static cluster has this name".to_owned());
        }
        let cluster = Cluster::decode(body).map_err(|e| e.to_string())?;
        let needs = needs::of_cluster(&cluster, source)?;
        let counter = if resources.clusters.contains(name) {
            cluster_manager::cluster_modified
        } else {
            cluster_manager::cluster_added
        };
        let Some(built) = self.parts().convert.cluster(cluster, body)? else { return Ok(false) };
        let needs = self.with_hosts(&built, needs);
        self.stats.clusters.inc(counter);
        resources.clusters.insert(name, built, needs, Instant::now());
        Ok(true)
    }

    fn take_listener(
        &self,
        resources: &mut Resources,
        source: &Source,
        name: &Arc<str>,
        body: &[u8],
    ) -> Result<bool, String> {
        let listener = Listener::decode(body).map_err(|e| e.to_string())?;
        let needs::OfListener { own, tables_of_scopes, .. } = needs::of_listener(&listener, source)?;
        let counter = if resources.listeners.contains(name) {
            listener_manager::listener_modified
        } else {
            listener_manager::listener_added
        };
        let Some(built) = self.parts().convert.listener(body)? else { return Ok(false) };
        resources.tables_of_scopes.extend(tables_of_scopes);
        self.stats.listeners.inc(counter);
        resources.listeners.insert(name, built, own, Instant::now());
        Ok(true)
    }
}
