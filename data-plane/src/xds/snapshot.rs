//! Converted parts, by name, and the snapshot that they make for workers.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use sail_proxy_config::cluster::{Cluster, Discovery};
use sail_proxy_config::discovered::Extension;
use sail_proxy_config::hcm::Scopes;
use sail_proxy_config::listener::Listener;
use sail_proxy_config::secret::Secret;
use sail_proxy_config::{Kind, Snapshot};
use sail_proxy_decide::host::{Endpoints, HealthFlag, Host, Locality};
use sail_proxy_decide::lb::LocalZone;
use sail_proxy_decide::route::RouteTable;
use tokio::io::AsyncWriteExt;

use super::convert::{Around, Converter};
use crate::cluster::shared::hosts_of;
use crate::dial::{self, ClientTls, Connect};
use crate::dns::Dns;
use crate::health::{HealthChecks, Tls};
use crate::outlier::Outliers;
use crate::stats::Store;
use crate::tls::context::Contexts;
use crate::worker::{BindError, Workers};

/// What is converted and in force, and what the main thread does for it.
pub struct Parts {
    pub(super) endpoints: RefCell<BTreeMap<Arc<str>, Arc<Endpoints>>>,
    pub(super) routes: RefCell<BTreeMap<Arc<str>, Arc<RouteTable>>>,
    scopes: RefCell<Arc<Scopes>>,
    pub(super) secrets: RefCell<BTreeMap<Arc<str>, Secret>>,
    pub(super) extensions: RefCell<BTreeMap<Arc<str>, Arc<Extension>>>,
    pub(super) dns: Rc<Dns>,
    pub(super) convert: Converter,
    health: HealthChecks,
    outliers: Outliers,
    contexts: Rc<Contexts>,
    workers: Rc<RefCell<Workers>>,
    current: RefCell<Arc<Snapshot>>,
    /// Whence health checks take their certificates.
    checking: Rc<RefCell<Arc<Snapshot>>>,
    dirty: Rc<Cell<bool>>,
    local: RefCell<Option<(Arc<str>, Arc<Locality>)>>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("version", &self.current.borrow().version).finish_non_exhaustive()
    }
}

impl Parts {
    /// Nothing yet. `changed` is called when something is new that did not come by discovery.
    pub fn new(store: Arc<Store>, workers: Workers, around: Around, changed: impl Fn() + 'static) -> Self {
        let dirty = Rc::new(Cell::new(false));
        let flag = dirty.clone();
        let changed = Rc::new(changed);
        let (ring, on_round) = (changed.clone(), changed.clone());
        let dns = Dns::new(store.clone(), move || {
            flag.set(true);
            ring();
        });
        let workers = Rc::new(RefCell::new(workers));
        let (flag, told) = (dirty.clone(), workers.clone());
        let on_failure = Rc::new(move |cluster: &Cluster, host: &Host| {
            if cluster.close_connections_on_host_health_failure {
                told.borrow().host_failed(&cluster.name, &host.address);
            }
            // It was kept for its health alone.
            if host.state.has(HealthFlag::PendingDynamicRemoval) {
                flag.set(true);
                changed();
            }
        });
        tokio::task::spawn_local(workers.borrow().dns_caches().clone().run());
        let registry = workers.borrow().clusters().clone();
        Self {
            endpoints: RefCell::default(),
            routes: RefCell::default(),
            scopes: RefCell::default(),
            secrets: RefCell::default(),
            extensions: RefCell::default(),
            dns,
            convert: Converter::new(around),
            health: HealthChecks::new(store.clone(), on_failure, Rc::new(move || on_round())),
            outliers: Outliers::new(store, registry),
            contexts: Rc::new(Contexts::default()),
            workers,
            current: RefCell::default(),
            checking: Rc::default(),
            dirty,
            local: RefCell::default(),
        }
    }

    /// What workers run.
    pub fn current(&self) -> Arc<Snapshot> {
        self.current.borrow().clone()
    }

    /// The workers.
    pub fn workers(&self) -> std::cell::Ref<'_, Workers> {
        self.workers.borrow()
    }

    // Each of these takes a resource, and says whether it is another than before.

    pub(super) fn take_endpoints(&self, name: &Arc<str>, body: &[u8]) -> Result<bool, String> {
        let Some(endpoints) = self.convert.endpoints(body)? else { return Ok(false) };
        self.endpoints.borrow_mut().insert(name.clone(), endpoints);
        self.set_dirty();
        Ok(true)
    }

    pub(super) fn take_route(&self, name: &Arc<str>, body: &[u8]) -> Result<bool, String> {
        let Some(table) = self.convert.route(body)? else { return Ok(false) };
        self.routes.borrow_mut().insert(name.clone(), table);
        self.set_dirty();
        Ok(true)
    }

    pub(super) fn take_scope(&self, body: &[u8]) -> Result<bool, String> {
        let Some(scopes) = self.convert.scope(body)? else { return Ok(false) };
        self.scopes.replace(scopes);
        self.set_dirty();
        Ok(true)
    }

    pub(super) fn remove_scope(&self, name: &str) {
        self.convert.remove(Kind::Scope, name);
        self.scopes.replace(self.convert.scopes());
    }

    /// The route tables that scopes name.
    pub(super) fn tables_of_scopes(&self) -> Vec<Arc<str>> {
        self.scopes.borrow().values().filter_map(|scope| scope.rds().cloned()).collect()
    }

    pub(super) fn take_secret(&self, name: &Arc<str>, body: &[u8]) -> Result<bool, String> {
        let Some(secret) = self.convert.secret(body)? else { return Ok(false) };
        self.secrets.borrow_mut().insert(name.clone(), secret);
        self.set_dirty();
        Ok(true)
    }

    pub(super) fn take_extension(&self, name: &Arc<str>, body: &[u8]) -> Result<bool, String> {
        let Some(extension) = self.convert.extension(body)? else { return Ok(false) };
        self.extensions.borrow_mut().insert(name.clone(), extension);
        self.set_dirty();
        Ok(true)
    }

    /// Without its resource a filter's default holds again.
    pub(super) fn remove_extension(&self, name: &str) {
        self.convert.remove(Kind::Extension, name);
        if self.extensions.borrow_mut().remove(name).is_some() {
            self.set_dirty();
        }
    }

    /// Reads certificates that came from files again. What cannot be used leaves its last good version in force.
    pub(super) fn refresh_files(&self) {
        let refreshed = self.convert.refresh_files();
        for problem in &refreshed.problems {
            tracing::warn!("{problem}; the last good version stays in use");
        }
        if refreshed.changed {
            tracing::info!("certificates were read from their files again");
            self.set_dirty();
        }
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.dirty.get()
    }

    pub(super) fn set_dirty(&self) {
        self.dirty.set(true);
    }

    /// The TLS that this cluster is spoken to with, for the main thread's own calls.
    pub(super) fn client_tls(&self, cluster: &Cluster) -> Result<Option<ClientTls>, String> {
        // A cluster may be called before there is a whole snapshot: to ask for one.
        let secrets =
            self.secrets.borrow().iter().map(|(name, secret)| (name.clone(), secret.clone())).collect();
        let snapshot = Snapshot { secrets, files: self.convert.files(), ..Snapshot::default() };
        dial::client_tls(&self.contexts, &snapshot, &cluster.socket, &cluster.name)
    }

    /// Puts clusters and listeners in force, with everything that they refer to. Listeners that cannot listen are left
    /// out, and said.
    pub(super) fn publish(
        &self,
        clusters: &mut dyn Iterator<Item = &Arc<Cluster>>,
        listeners: &mut dyn Iterator<Item = &Arc<Listener>>,
    ) -> Vec<BindError> {
        self.dirty.set(false);
        let before = self.current();
        let mut snapshot = Snapshot {
            version: before.version + 1,
            listeners: listeners.cloned().collect(),
            ..self.snapshot(clusters)
        };
        self.health.keep_healthy(&mut snapshot);
        snapshot.local_zone = self.local_zone(&snapshot);
        let mut failed = Vec::new();
        loop {
            let whole = Arc::new(snapshot);
            let applied = self.workers.borrow_mut().apply(&whole);
            match applied {
                Ok(()) => {
                    self.preresolve(&whole);
                    self.checking.replace(whole.clone());
                    self.health.update(&whole, &self.health_tls());
                    self.outliers.update(&whole);
                    self.current.replace(whole);
                    return failed;
                }
                Err(errors) => {
                    snapshot = Arc::unwrap_or_clone(whole);
                    for error in errors {
                        tracing::error!("{error}");
                        let again = failed.iter().any(|known: &BindError| known.listener == error.listener);
                        // The version before cannot listen either: without it, then.
                        let old = if again { None } else { before.listener(&error.listener) };
                        replace(&mut snapshot.listeners, &error.listener, old);
                        failed.push(error);
                    }
                }
            }
        }
    }

    /// These clusters, with everything that they refer to.
    pub(super) fn snapshot(&self, clusters: &mut dyn Iterator<Item = &Arc<Cluster>>) -> Snapshot {
        fn all<T: Clone, C: FromIterator<(Arc<str>, T)>>(parts: &RefCell<BTreeMap<Arc<str>, T>>) -> C {
            parts.borrow().iter().map(|(name, part)| (name.clone(), part.clone())).collect()
        }
        let given: Vec<_> = all(&self.endpoints);
        Snapshot {
            clusters: clusters.map(|cluster| (cluster.name.clone(), cluster.clone())).collect(),
            assignments: given.into_iter().chain(self.dns.found()).collect(),
            route_tables: all(&self.routes),
            scopes: self.scopes.borrow().clone(),
            secrets: all(&self.secrets),
            extensions: all(&self.extensions),
            files: self.convert.files(),
            ..Snapshot::default()
        }
    }

    /// Checks the hosts of clusters that are not in force before that was done once.
    pub(super) fn check_first(&self, clusters: &mut dyn Iterator<Item = &Arc<Cluster>>) {
        let mut clusters = clusters.peekable();
        if clusters.peek().is_none() {
            return;
        }
        let snapshot = Arc::new(self.snapshot(&mut clusters));
        self.checking.replace(snapshot.clone());
        self.health.warm(&snapshot, &self.health_tls());
    }

    /// Whether the hosts of a cluster that waits for it were checked once.
    pub(super) fn is_checked(&self, cluster: &str) -> bool {
        self.health.is_warm(cluster)
    }

    /// Tells which cluster the proxy itself is a host of, and where it is.
    pub(super) fn set_local(&self, cluster: &str, locality: Arc<Locality>) {
        *self.local.borrow_mut() = (!cluster.is_empty()).then(|| (Arc::from(cluster), locality));
    }

    /// Resolves what caches of names are to know from the start.
    fn preresolve(&self, snapshot: &Snapshot) {
        for cluster in snapshot.clusters.values() {
            if let Discovery::DynamicForwardProxy(cache) = &cluster.discovery {
                self.workers.borrow().dns_caches().preresolve(cache);
            }
        }
    }

    fn local_zone(&self, snapshot: &Snapshot) -> Option<LocalZone> {
        let local = self.local.borrow();
        let (name, locality) = local.as_ref()?;
        let endpoints = hosts_of(snapshot, snapshot.clusters.get(name)?)?.clone();
        Some(LocalZone { endpoints, locality: locality.clone() })
    }

    /// Puts a cluster's transport socket round a health check's connection.
    fn health_tls(&self) -> Tls {
        let contexts = self.contexts.clone();
        let checking = self.checking.clone();
        Rc::new(move |cluster: Arc<Cluster>, host: Arc<Host>, mut stream: Box<dyn Connect>| {
            let check = cluster.health_checks.first();
            let criteria =
                check.and_then(|check| check.socket_criteria.clone()).map(serde_json::Value::Object);
            let socket = match &criteria {
                Some(criteria) => cluster.socket_by(Some(criteria)),
                None => cluster.socket_for(&host.metadata),
            };
            let (header, socket) = dial::own_header(socket);
            let mut tls = dial::client_tls(&contexts, &checking.borrow(), socket, &host.hostname);
            if let (Ok(Some((config, _))), Some(check)) = (&mut tls, check)
                && !check.alpn_protocols.is_empty()
            {
                let names = check.alpn_protocols.iter().map(|name| name.as_bytes().to_vec());
                Arc::make_mut(config).alpn_protocols = names.collect();
            }
            Box::pin(async move {
                if let Some(header) = header {
                    stream.write_all(&header).await?;
                }
                dial::wrap(stream, tls.map_err(std::io::Error::other)?).await
            })
        })
    }
}

/// Another version of a listener in its place, or nothing where there is none or where it is the same.
fn replace(listeners: &mut Vec<Arc<Listener>>, name: &Arc<str>, with: Option<&Arc<Listener>>) {
    let Some(place) = listeners.iter().position(|listener| listener.name == *name) else { return };
    match with.filter(|old| !Arc::ptr_eq(old, &listeners[place])) {
        Some(old) => listeners[place] = old.clone(),
        None => {
            listeners.remove(place);
        }
    }
}
