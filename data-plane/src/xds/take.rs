//! What becomes of resources that come, type by type: each is taken whole or not at all, and who sent it is told which
//! was refused and why.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use prost::Message;
use sail_proxy_config::Kind;
use sail_proxy_config::listener::Listener as RunListener;
use xds_api::codec::TypedStructs;
use xds_api::envoy::config::cluster::v3::Cluster;
use xds_api::envoy::config::listener::v3::Listener;
use xds_api::envoy::config::route::v3::RouteConfiguration;
use xds_api::envoy::service::runtime::v3::Runtime;
use xds_api::google::protobuf::Struct;
use xds_api::type_url;
use xds_stream::client::{Received, Rejection};
use xds_stream::resource::Resource;

use super::manager::{Manager, Phase};
use super::needs::{self, Source};
use super::resources::Resources;
use super::subscriptions::Outcome;
use super::{checks, inline};
use crate::stats::sets::{cluster_manager, listener_manager};

/// What became of a response's resources.
#[derive(Default)]
struct Taken<'a> {
    /// Names of those that were refused, and why.
    failures: Vec<(String, String)>,
    /// Names of those that are others than before.
    changed: HashSet<&'a str>,
}

/// Whether everything that there is of a type is asked for.
fn is_whole(type_url: &str) -> bool {
    matches!(type_url, type_url::CLUSTER | type_url::LISTENER)
}

/// A resource with its extensions spelled out.
fn plain<'a>(
    expected: &str,
    resource: &'a Resource,
    structs: Option<&TypedStructs>,
) -> Result<Cow<'a, [u8]>, String> {
    let Resource { type_url, body, .. } = resource;
    if type_url.is_empty() {
        return Err("it has no body".to_owned());
    }
    if &**type_url != expected {
        return Err(format!("type {type_url} where {expected} was expected"));
    }
    let Some(structs) = structs else { return Ok(Cow::Borrowed(body)) };
    let resolved = structs.resolve(type_url::message(expected), body).map_err(|error| error.to_string())?;
    Ok(resolved.map_or(Cow::Borrowed(body), Cow::Owned))
}

impl Manager {
    /// Takes resources from wherever they came.
    pub(super) fn apply(&self, source: &Source, received: &Received) -> Result<(), Rejection> {
        let started = Instant::now();
        let mut taken = {
            let mut resources = self.resources.borrow_mut();
            // A listener may come to the address of one that goes.
            let first = received.type_url == type_url::LISTENER;
            let mut gone = first && self.remove(&mut resources, received);
            let taken = self.take_all(&mut resources, source, received);
            gone |= !first && self.remove(&mut resources, received);
            let kind = resources.kinds.entry(received.type_url.clone()).or_default();
            // Of clusters and listeners that is the version which changed something.
            if !is_whole(&received.type_url) || gone || !taken.changed.is_empty() || kind.version.is_empty() {
                kind.version.clone_from(&received.version);
            }
            if received.complete {
                kind.refused.retain(|name, _| received.resources.iter().any(|one| one.name == *name));
            }
            taken
        };
        self.settle(&received.type_url);
        // What waits for nothing is in force before the server hears of it; if it cannot listen, the server hears that.
        for error in self.step() {
            if received.type_url == type_url::LISTENER
                && received.resources.iter().any(|resource| resource.name == error.listener)
            {
                taken.failures.push((error.listener.to_string(), error.to_string()));
            }
        }
        self.ring();
        let Taken { failures, changed } = taken;
        let refused = failures.iter().map(|(name, _)| name.as_str()).collect();
        let all = self.with_kind(&received.type_url, |kind| kind.map_or(0, |kind| kind.held.len()));
        let outcome = Outcome { received, refused, changed, all, took: started.elapsed() };
        self.subscriptions.borrow_mut().count(source, &outcome);
        match failures.as_slice() {
            [] => Ok(()),
            failures => Err(Rejection::of(&received.type_url, failures)),
        }
    }

    /// Takes what is new in a response, one by one.
    fn take_all<'a>(&self, resources: &mut Resources, source: &Source, received: &'a Received) -> Taken<'a> {
        let (now, mut taken, mut seen) = (SystemTime::now(), Taken::default(), HashSet::new());
        let bodies = received.resources.iter().map(|resource| &*resource.body);
        let structs = TypedStructs::within(type_url::message(&received.type_url), bodies);
        for resource in &received.resources {
            let name = &resource.name;
            if !seen.insert(name) {
                // The first one holds; it may be what is in force.
                let reason = format!("the name {name} is there twice");
                tracing::warn!(resource = %name, type_url = received.type_url, reason, "refused");
                taken.failures.push((name.to_string(), reason));
                continue;
            }
            let body = plain(&received.type_url, resource, structs.as_ref());
            if body.is_ok() && self.is_static(&received.type_url, name) {
                // Servers that send it to everybody are to hear no complaint from those who have their own.
                tracing::warn!(resource = %name, type_url = received.type_url, "ignored: the bootstrap has one of this name");
                continue;
            }
            let outcome = body.as_ref().map_err(String::clone).and_then(|body| {
                let is_new = self.take(resources, source, &received.type_url, name, body)?;
                Ok((is_new, body))
            });
            // What waits itself is nothing to fall back on.
            let in_force = resources.is_active(&received.type_url, name);
            let kind = resources.kinds.entry(received.type_url.clone()).or_default();
            match outcome {
                Ok((is_new, body)) => {
                    let old = kind.accept(name, &resource.version, body, now);
                    if let Some(old) = old.filter(|_| in_force) {
                        kind.before.entry(name.clone()).or_insert(old);
                    }
                    taken.changed.extend(is_new.then_some(&**name));
                }
                Err(reason) => {
                    tracing::warn!(resource = %name, type_url = received.type_url, reason, "refused");
                    let body = body.as_deref().unwrap_or(&resource.body);
                    kind.refuse(name, &resource.version, body, reason.clone(), now);
                    taken.failures.push((name.to_string(), reason));
                }
            }
        }
        taken
    }

    /// Takes away what is gone; true if any of it was there.
    fn remove(&self, resources: &mut Resources, received: &Received) -> bool {
        let mut any = false;
        for name in &received.removed {
            let was_there = match received.type_url.as_str() {
                _ if self.is_static(&received.type_url, name) => false,
                type_url::CLUSTER => resources.clusters.contains(name),
                type_url::LISTENER => resources.listeners.contains(name),
                _ => false,
            };
            if was_there {
                match received.type_url == type_url::CLUSTER {
                    true => self.stats.clusters.inc(cluster_manager::cluster_removed),
                    false => self.stats.listeners.inc(listener_manager::listener_removed),
                }
            }
            any |= was_there;
            if received.type_url == type_url::RUNTIME {
                self.main.runtime.borrow_mut().discovered(name, &Struct::default());
            }
            if was_there && received.type_url == type_url::LISTENER {
                self.drain(resources, name);
            }
            if was_there || !is_whole(&received.type_url) {
                resources.gone(&received.type_url, name, self.parts());
            } else if let Some(kind) = resources.kinds.get_mut(&received.type_url) {
                kind.remove(name);
            }
        }
        any
    }

    /// A listener that goes drains, if it is in force.
    fn drain(&self, resources: &mut Resources, name: &str) {
        let is_active = resources.is_active(type_url::LISTENER, name);
        let Some(kind) = resources.kinds.get(type_url::LISTENER).filter(|_| is_active) else { return };
        if let Some((name, held)) = kind.before.get_key_value(name).or_else(|| kind.held.get_key_value(name))
        {
            let until = Instant::now() + self.drain_time();
            self.draining.borrow_mut().remove(name, held.clone(), until);
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
        checks::is_called(type_url, name, body)?;
        let changed = match type_url {
            type_url::CLUSTER => self.take_cluster(resources, source, name, body)?,
            type_url::LISTENER => self.take_listener(resources, source, name, body)?,
            type_url::ENDPOINT => self.parts().take_endpoints(name, body)?,
            type_url::ROUTE => {
                let is_new = resources.is_new(type_url, name, body);
                let table = RouteConfiguration::decode(body).map_err(|e| e.to_string())?;
                // Of tables that come by themselves only those are looked at that say so.
                if is_new && table.validate_clusters.is_some() {
                    inline::check_clusters(&table, |cluster| resources.clusters.contains(cluster))
                        .map_err(|reason| reason.trim_start_matches("route_config.").to_owned())?;
                }
                self.parts().take_route(name, body)?
            }
            type_url::SCOPED_ROUTE => self.parts().take_scope(body)?,
            type_url::SECRET => {
                let needs = resources.clusters.needs().chain(resources.listeners.needs());
                checks::is_wanted_kind(name, body, needs)?;
                self.parts().take_secret(name, body)?
            }
            type_url::EXTENSION_CONFIG => self.parts().take_extension(name, body)?,
            type_url::RUNTIME => {
                let layer = Runtime::decode(body).map_err(|e| e.to_string())?;
                self.main.runtime.borrow_mut().discovered(name, &layer.layer.unwrap_or_default());
                resources.is_new(type_url, name, body)
            }
            other => return Err(format!("resources of type {other} are not supported")),
        };
        resources.absent.remove(&(type_url.to_owned(), name.to_string()));
        Ok(changed)
    }

    /// Refuses a resource with fields that are not known, where the command line asks for that.
    fn check_fields(&self, type_url: &str, body: &[u8]) -> Result<(), String> {
        let Some(codec) = &self.strict else { return Ok(()) };
        let Some((message, numbers)) =
            codec.unknown_fields(type_url::message(type_url), body).map_err(|e| e.to_string())?
        else {
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
        let needs::OfListener { own, tables_of_scopes, inline_routes } =
            needs::of_listener(&listener, source)?;
        if resources.is_new(type_url::LISTENER, name, body) {
            for table in &inline_routes {
                inline::check_clusters(table, |cluster| resources.clusters.contains(cluster))?;
            }
        }
        drop(inline_routes);
        let counter = if resources.listeners.contains(name) {
            listener_manager::listener_modified
        } else {
            listener_manager::listener_added
        };
        let Some(built) = self.parts().convert.listener(body)? else { return Ok(false) };
        let free = checks::has_own_addresses(&built, resources.listeners.all());
        free.and_then(|()| self.can_listen(&built)).inspect_err(|_| {
            // So that the same thing is refused again.
            self.parts().convert.remove(Kind::Listener, &built.name);
        })?;
        resources.tables_of_scopes.extend(tables_of_scopes);
        self.stats.listeners.inc(counter);
        // Envoy does so with listeners that have chains, once there are workers.
        let same_frame = |old: &Arc<_>| RunListener::is_in_place(old, &built);
        if self.phase.get() == Phase::Running && resources.listeners.newest(name).is_some_and(same_frame) {
            self.stats.listeners.inc(listener_manager::listener_in_place_updated);
        }
        resources.listeners.insert(name, built, own, Instant::now());
        Ok(true)
    }

    /// Whether it could listen now: its server is to hear that also of one that has to wait for its routes.
    fn can_listen(&self, listener: &RunListener) -> Result<(), String> {
        self.parts().workers().probe(listener).map_err(|error| {
            self.stats.listeners.inc(listener_manager::listener_create_failure);
            error.to_string()
        })
    }
}
