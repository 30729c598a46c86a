//! Discovery as a whole: which resources there are, who still waits for what, which servers are asked for what, and
//! when workers get a new snapshot.
//!
//! Each resource is taken whole or not at all; a refused one leaves its last good version in force, and its server is
//! told which it was and why. A response's good resources become active together, in one snapshot.

mod shown;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use base::task::Supervised;
use bytes::Bytes;
use prost::Message;
use sail_proxy_config::cluster::Cluster as RunCluster;
use sail_proxy_decide::host::Locality;
use tokio::sync::Notify;
use xds_api::codec::Codec;
use xds_api::envoy::config::bootstrap::v3::{Bootstrap, bootstrap::StaticResources};
use xds_api::envoy::config::cluster::v3::Cluster;
use xds_api::envoy::config::endpoint::v3::ClusterLoadAssignment;
use xds_api::type_url;

use super::draining::Draining;
use super::layers::Layers;
use super::needs::{self, Need, Source};
use super::raw::Kind;
use super::resources::{DNS, HEALTH, Resources, has};
use super::servers::{Server, ServerKey};
use super::snapshot::Parts;
use super::subscriptions::Subscriptions;
use super::warm::Promoted;
use super::{certificates, checks, convert, inline};
use crate::dial::Target;
use crate::server::Main;
use crate::stats::sets::{cds, cluster_manager, control_plane, lds, listener_manager};
use crate::worker::BindError;

/// Why the bootstrap cannot be run: the field's path and what is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct Error {
    path: String,
    reason: String,
}

impl Error {
    pub(super) fn new(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { path: path.into(), reason: reason.into() }
    }
}

/// How long a cluster waits for its names.
const DNS_TIMEOUT: Duration = Duration::from_secs(5);

/// Where initialization stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Clusters of the bootstrap.
    Primary,
    /// Layers of the runtime.
    Runtime,
    /// Clusters of CDS, and their endpoints.
    Clusters,
    /// Listeners, and their routes.
    Listeners,
    /// Workers run.
    Running,
}

/// A discovery of all resources of a type (CDS, LDS): waited for until its first response or its timeout.
#[derive(Clone, Debug)]
pub(super) struct Whole {
    pub(super) source: Source,
    pub(super) timeout: Option<Duration>,
    pub(super) since: Option<Instant>,
    pub(super) settled: bool,
}

/// See the module.
pub struct Manager {
    pub(super) main: Rc<Main>,
    parts: Rc<Parts>,
    /// The bootstrap's clusters, encoded: they are seldom looked at, and take much less room so.
    statics: OnceCell<BTreeMap<String, Bytes>>,
    statics_listen: BTreeSet<String>,
    pub(super) ads: Option<Source>,
    pub(super) phase: Cell<Phase>,
    pub(super) layers: Layers,
    pub(super) cds: RefCell<Option<Whole>>,
    pub(super) lds: RefCell<Option<Whole>>,
    pub(super) resources: RefCell<Resources>,
    pub(super) servers: RefCell<BTreeMap<ServerKey, Server>>,
    pub(super) subscriptions: RefCell<Subscriptions>,
    pub(super) files: RefCell<BTreeMap<(String, String), Supervised<()>>>,
    /// Listeners that are in force no more.
    pub(super) draining: RefCell<Draining>,
    changed: Notify,
    /// Conversions may have read other files than before.
    converted: Notify,
    pub(super) this: Weak<Self>,
    pub(super) stats: Stats,
    /// Looks for fields that are not known, where those are refused.
    pub(super) strict: Option<Codec>,
}

/// Statistics of discovery.
pub(super) struct Stats {
    pub(super) clusters: cluster_manager::Scope,
    pub(super) listeners: listener_manager::Scope,
    /// There from the beginning, though nobody asks for clusters or listeners.
    _whole: (cds::Scope, lds::Scope),
    pub(super) control_plane: control_plane::Scope,
}

impl std::fmt::Debug for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Manager").field("phase", &self.phase.get()).finish_non_exhaustive()
    }
}

impl Manager {
    /// Takes the bootstrap's static resources, of which `clusters` are encoded, and learns where the others come from.
    /// Nothing is asked for yet.
    pub fn new(
        main: &Rc<Main>,
        bootstrap: &Bootstrap,
        clusters: Vec<Bytes>,
        make: impl FnOnce(Box<dyn Fn()>) -> Parts,
    ) -> Result<Rc<Self>, Error> {
        let dynamic = bootstrap.dynamic_resources.clone().unwrap_or_default();
        let ads = dynamic.ads_config.as_ref().map(needs::api_source).transpose();
        let ads = ads.map_err(|e| Error::new("dynamic_resources.ads_config", e))?;
        if dynamic.ads_config.as_ref().is_some_and(|api| api.rate_limit_settings.is_some()) {
            tracing::warn!(
                "dynamic_resources.ads_config.rate_limit_settings has no effect: requests are few, one for each change"
            );
        }
        let whole = |config: Option<&_>, field: &str| {
            let Some(config) = config else { return Ok(None) };
            let (source, timeout) = needs::source(Some(config), &Source::Ads)
                .map_err(|e| Error::new(format!("dynamic_resources.{field}"), e))?;
            Ok(Some(Whole { source, timeout, since: None, settled: false }))
        };
        let (cds, lds) = (
            whole(dynamic.cds_config.as_ref(), "cds_config")?,
            whole(dynamic.lds_config.as_ref(), "lds_config")?,
        );
        let layers = Layers::new(bootstrap.layered_runtime.as_ref())?;
        let mut resources = Resources::default();
        for (kind, whole) in [(type_url::CLUSTER, &cds), (type_url::LISTENER, &lds)] {
            let parent = whole.as_ref().map_or(Source::Ads, |whole| whole.source.clone());
            resources.parents.insert(kind, parent);
        }
        let empty = Default::default();
        let fixed = bootstrap.static_resources.as_ref().unwrap_or(&empty);
        let manager = Rc::new_cyclic(|this| Self {
            main: main.clone(),
            strict: main.cli.reject_unknown_dynamic_fields.then(Codec::new),
            parts: Rc::new(make(bell(this))),
            statics: OnceCell::new(),
            statics_listen: fixed.listeners.iter().map(|listener| listener.name.clone()).collect(),
            ads,
            phase: Cell::new(Phase::Primary),
            layers,
            cds: RefCell::new(cds),
            lds: RefCell::new(lds),
            resources: RefCell::new(resources),
            servers: RefCell::default(),
            subscriptions: RefCell::new(Subscriptions::new(main.stats.clone())),
            files: RefCell::default(),
            draining: RefCell::default(),
            changed: Notify::new(),
            converted: Notify::new(),
            this: this.clone(),
            stats: Stats {
                clusters: main.stats.pinned(""),
                listeners: main.stats.pinned(""),
                _whole: (main.stats.pinned(""), main.stats.pinned("")),
                control_plane: main.stats.pinned(""),
            },
        });
        if bootstrap.dynamic_resources.is_some() {
            manager.stats.control_plane.set(control_plane::connected_state, 0);
        }
        let local = bootstrap.cluster_manager.as_ref().map_or("", |config| &config.local_cluster_name);
        let place = main.node.locality.clone().unwrap_or_default();
        let place = Locality {
            region: place.region.into(),
            zone: place.zone.into(),
            sub_zone: place.sub_zone.into(),
        };
        manager.parts.set_local(local, Arc::new(place));
        manager.take_static(fixed, clusters)?;
        Ok(manager)
    }

    /// Runs discovery until it is dropped.
    pub async fn run(self: Rc<Self>) {
        let _certificates = Supervised::spawn_local(certificates::watch(self.this.clone()));
        loop {
            let _ = self.step();
            let deadline = self.deadline();
            tokio::select! {
                () = self.changed.notified() => {}
                () = sleep_until(deadline) => {}
            }
        }
    }

    /// Resolves when other files may have to be watched.
    pub(super) fn watch_changed(self: &Rc<Self>) -> impl Future<Output = ()> + 'static {
        let manager = self.clone();
        async move { manager.converted.notified().await }
    }

    /// Reads certificates that came from files again, and puts them in force.
    pub(super) fn refresh_files(&self) {
        self.parts.refresh_files();
        self.changed.notify_one();
    }

    /// What initialization waits for, in words.
    pub fn waiting_for(&self) -> Vec<String> {
        let resources = self.resources.borrow();
        let has = |need: &Need| resources.has(need, &self.parts);
        let mut all = Vec::new();
        if self.phase.get() < Phase::Running {
            for (kind, whole) in [("CDS", &self.cds), ("LDS", &self.lds)] {
                if whole.borrow().as_ref().is_some_and(|whole| !whole.settled) {
                    all.push(format!("{kind}: first response"));
                }
            }
        }
        let layers = self.missing_layers(Instant::now()).into_iter();
        all.extend(layers.map(|name| format!("runtime: layer {name}")));
        let clusters = resources.clusters.waiting(&has).map(|(name, need)| ("cluster", name, need));
        let listeners = resources.listeners.waiting(&has).map(|(name, need)| ("listener", name, need));
        for (kind, name, need) in clusters.chain(listeners) {
            let what = type_url::short_name(need.type_url);
            all.push(format!("{kind} {name}: {what} {}", need.name));
        }
        all
    }

    /// Brings gauges up to date.
    pub fn refresh_stats(&self) {
        let resources = self.resources.borrow();
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let (clusters, listeners) = (&self.stats.clusters, &self.stats.listeners);
        clusters.set(cluster_manager::active_clusters, count(resources.clusters.active().len()));
        clusters.set(cluster_manager::warming_clusters, count(resources.clusters.warming()));
        listeners.set(listener_manager::total_listeners_active, count(resources.listeners.active().len()));
        listeners.set(listener_manager::total_listeners_warming, count(resources.listeners.warming()));
        self.parts.workers().clusters().set_warming(resources.clusters.all_warming().cloned());
        let (draining, chains) = self.draining.borrow_mut().count(Instant::now());
        listeners.set(listener_manager::total_listeners_draining, count(draining));
        listeners.set(listener_manager::total_filter_chains_draining, count(chains));
    }

    /// How long a listener drains.
    pub(super) fn drain_time(&self) -> Duration {
        Duration::from_secs(self.main.cli.drain_time_s.into())
    }

    /// A type's resources, as they came.
    pub fn with_kind<T>(&self, type_url: &str, look: impl FnOnce(Option<&Kind>) -> T) -> T {
        look(self.resources.borrow().kinds.get(type_url))
    }

    fn statics(&self) -> &BTreeMap<String, Bytes> {
        self.statics.get_or_init(BTreeMap::new)
    }

    /// Whether the bootstrap has a cluster or listener of this name.
    pub(super) fn is_static(&self, type_url: &str, name: &str) -> bool {
        match type_url {
            type_url::CLUSTER => self.statics().contains_key(name),
            type_url::LISTENER => !name.is_empty() && self.statics_listen.contains(name),
            _ => false,
        }
    }

    /// Has what changed looked at.
    pub(super) fn ring(&self) {
        self.changed.notify_one();
    }

    /// Whether a cluster came by discovery.
    pub fn added_via_api(&self, cluster: &str) -> bool {
        !self.is_static(type_url::CLUSTER, cluster)
    }

    /// When static resources were taken.
    pub fn started(&self) -> SystemTime {
        self.main.started_at
    }

    /// A cluster, active or the only one there is.
    fn cluster(&self, name: &str) -> Option<Arc<RunCluster>> {
        self.resources.borrow().clusters.any(name).cloned()
    }

    /// The parts that build and hold the snapshot.
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// A cluster as the main thread calls it.
    pub fn target(&self, cluster: &str) -> Option<Target> {
        let resources = self.resources.borrow();
        let body = |kind: &str, name: &str| Some(resources.kinds.get(kind)?.held.get(name)?.body.clone());
        let fixed = self.statics().get(cluster).cloned();
        let message = Cluster::decode(fixed.or_else(|| body(type_url::CLUSTER, cluster))?).ok()?;
        let service = message.eds_cluster_config.as_ref().map(|config| config.service_name.as_str());
        let service = service.filter(|name| !name.is_empty()).unwrap_or(cluster);
        let endpoints =
            body(type_url::ENDPOINT, service).and_then(|body| ClusterLoadAssignment::decode(body).ok());
        let mut target = Target::new(&message, endpoints.as_ref());
        drop(resources);
        target.tls = match self.cluster(cluster).map(|cluster| self.parts.client_tls(&cluster)) {
            Some(Ok(tls)) => tls,
            Some(Err(reason)) => {
                tracing::warn!(cluster, reason, "cannot call the cluster");
                return None;
            }
            None => None,
        };
        Some(target)
    }

    fn take_static(&self, fixed: &StaticResources, clusters: Vec<Bytes>) -> Result<(), Error> {
        let now = Instant::now();
        let mut resources = self.resources.borrow_mut();
        for (place, secret) in fixed.secrets.iter().enumerate() {
            let wrong = |reason| Error::new(format!("static_resources.secrets[{place}]"), reason);
            self.parts.take_secret(&secret.name.as_str().into(), &secret.encode_to_vec()).map_err(wrong)?;
        }
        let mut statics = BTreeMap::new();
        for (place, body) in clusters.into_iter().enumerate() {
            let wrong = |reason| Error::new(format!("static_resources.clusters[{place}]"), reason);
            let cluster = Cluster::decode(body.clone()).map_err(|error| wrong(error.to_string()))?;
            let needs = needs::of_cluster(&cluster, &Source::Ads).map_err(wrong)?;
            if statics.insert(cluster.name.clone(), body.clone()).is_some() {
                return Err(wrong(format!("duplicate cluster '{}'", cluster.name)));
            }
            let Some(built) = self.parts.convert.cluster(cluster, &body).map_err(wrong)? else {
                continue;
            };
            let needs = self.with_hosts(&built, needs);
            self.stats.clusters.inc(cluster_manager::cluster_added);
            resources.clusters.insert(&built.name.clone(), built, needs, now);
        }
        let statics = self.statics.get_or_init(|| statics);
        for (place, listener) in fixed.listeners.iter().enumerate() {
            let wrong = |reason| Error::new(format!("static_resources.listeners[{place}]"), reason);
            let needs = needs::of_listener(listener, &Source::Ads).map_err(wrong)?;
            for table in &needs.inline_routes {
                inline::check_clusters(table, |cluster| statics.contains_key(cluster)).map_err(wrong)?;
            }
            // A table of thousands is not to be there twice while its listener is converted.
            drop(needs.inline_routes);
            let mut listener = listener.clone();
            if listener.name.is_empty() {
                // A static listener may go without; its statistics are called by its address in any case.
                listener.name = format!("static-{place}");
            }
            let Some(built) = self.parts.convert.listener(&listener.encode_to_vec()).map_err(wrong)? else {
                continue;
            };
            checks::has_own_addresses(&built, resources.listeners.all()).map_err(wrong)?;
            resources.tables_of_scopes.extend(needs.tables_of_scopes);
            self.stats.listeners.inc(listener_manager::listener_added);
            resources.listeners.insert(&built.name.clone(), built, needs.own, now);
        }
        Ok(())
    }

    /// A cluster of names waits until they were resolved once; one whose hosts are checked, until they were.
    pub(super) fn with_hosts(&self, cluster: &Arc<RunCluster>, mut needs: Vec<Need>) -> Vec<Need> {
        self.parts.dns.ensure(cluster);
        let need = |type_url, timeout| Need::new(type_url, cluster.name.to_string(), Source::Ads, timeout);
        if convert::is_dns(cluster) {
            needs.push(need(DNS, Some(DNS_TIMEOUT)));
        }
        if !cluster.health_checks.is_empty() {
            // Each check has a timeout of its own.
            needs.push(need(HEALTH, None));
        }
        if !cluster.wait_for_warm_on_init && self.phase.get() < Phase::Running {
            needs.iter_mut().for_each(|need| need.timeout = Some(Duration::ZERO));
        }
        needs
    }

    /// The first response of a whole type is there; other files may have to be watched.
    pub(super) fn settle(&self, type_url: &str) {
        self.converted.notify_one();
        let whole = match type_url {
            type_url::CLUSTER => &self.cds,
            type_url::LISTENER => &self.lds,
            _ => return,
        };
        if let Some(whole) = whole.borrow_mut().as_mut() {
            whole.settled = true;
        }
    }

    /// Goes as far as it can: promotes, asks, publishes.
    pub(super) fn step(&self) -> Vec<BindError> {
        let now = Instant::now();
        let changed = self.promote(now);
        let mut failed = Vec::new();
        while self.advance(now, &mut failed) {}
        self.subscribe();
        if self.phase.get() == Phase::Running && (changed || self.parts.is_dirty()) {
            failed.extend(self.publish());
        }
        for error in &failed {
            self.stats.listeners.inc(listener_manager::listener_create_failure);
            // It may come again when the address is free.
            if self.statics_listen.contains(&*error.listener) {
                self.main.fail(error.to_string());
            }
        }
        failed
    }

    fn promote(&self, now: Instant) -> bool {
        let mut guard = self.resources.borrow_mut();
        let Resources { kinds, clusters, listeners, absent, .. } = &mut *guard;
        let has = |need: &Need| has(kinds, absent, need, &self.parts);
        self.parts.check_first(&mut clusters.but_for(HEALTH, now, &has));
        // Listeners refer to clusters: they follow.
        let ready = self.phase.get() >= Phase::Listeners;
        let promoted = clusters.promote(now, &has);
        let activated = if ready { listeners.promote(now, &has) } else { Vec::new() };
        for Promoted { name, old, new } in &activated {
            let Some(old) = old else { continue };
            let held = kinds.get_mut(type_url::LISTENER).and_then(|kind| kind.before.remove(name));
            self.draining.borrow_mut().replace(old, new, held, now + self.drain_time());
        }
        let mut forget = |type_url: &str, is_warming: &dyn Fn(&str) -> bool| {
            if let Some(kind) = kinds.get_mut(type_url) {
                kind.before.retain(|name, _| is_warming(name));
            }
        };
        forget(type_url::CLUSTER, &|name| clusters.is_warming(name));
        forget(type_url::LISTENER, &|name| listeners.is_warming(name));
        !promoted.is_empty() || !activated.is_empty()
    }

    /// Enters the next phase if this one is over.
    fn advance(&self, now: Instant, failed: &mut Vec<BindError>) -> bool {
        let settled = |whole: &RefCell<Option<Whole>>| {
            let mut whole = whole.borrow_mut();
            whole.as_mut().is_none_or(|whole| {
                let since = *whole.since.get_or_insert(now);
                whole.settled |= whole.timeout.is_some_and(|t| now.saturating_duration_since(since) >= t);
                whole.settled
            })
        };
        let next = match self.phase.get() {
            Phase::Primary if self.resources.borrow().clusters.is_settled() => {
                self.layers.begin(now);
                Phase::Runtime
            }
            Phase::Runtime if self.missing_layers(now).is_empty() => Phase::Clusters,
            Phase::Clusters if settled(&self.cds) && self.resources.borrow().clusters.is_settled() => {
                Phase::Listeners
            }
            Phase::Listeners => {
                self.promote(now);
                if !settled(&self.lds) || !self.resources.borrow().listeners.is_settled() {
                    return false;
                }
                self.phase.set(Phase::Running);
                failed.extend(self.publish());
                self.main.set_initialized();
                return false;
            }
            _ => return false,
        };
        tracing::debug!(phase = ?next, "initialization");
        self.phase.set(next);
        true
    }

    /// Layers of the runtime that are waited for.
    fn missing_layers(&self, now: Instant) -> Vec<String> {
        if self.phase.get() > Phase::Runtime {
            return Vec::new();
        }
        let resources = self.resources.borrow();
        let missing = self.layers.missing(now, |need| resources.has(need, &self.parts));
        missing.map(|need| need.name.clone()).collect()
    }

    fn publish(&self) -> Vec<BindError> {
        let resources = self.resources.borrow();
        self.parts.publish(
            &mut resources.clusters.active().map(|(_, value)| value),
            &mut resources.listeners.active().map(|(_, value)| value),
        )
    }

    fn deadline(&self) -> Option<Instant> {
        let now = Instant::now();
        let resources = self.resources.borrow();
        let has = |need: &Need| resources.has(need, &self.parts);
        let whole = |whole: &RefCell<Option<Whole>>| {
            let whole = whole.borrow();
            let whole = whole.as_ref().filter(|whole| !whole.settled)?;
            Some(whole.since? + whole.timeout?)
        };
        let all = [
            whole(&self.cds),
            whole(&self.lds),
            resources.clusters.deadline(now, &has),
            resources.listeners.deadline(now, &has),
            resources.leaving.deadline(),
            self.layers.deadline(now),
            self.subscriptions.borrow().deadline(),
        ];
        all.into_iter().flatten().min()
    }
}

/// Wakes the manager up.
fn bell(manager: &Weak<Manager>) -> Box<dyn Fn()> {
    let manager = manager.clone();
    Box::new(move || {
        if let Some(manager) = manager.upgrade() {
            manager.changed.notify_one();
        }
    })
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
