//! All resources as they were last accepted, and the snapshot of them.
//!
//! A resource that is refused changes nothing: what was there before goes on running.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hashbrown::HashMap;
use prost::Message;
use sail_proxy_decide::host::Endpoints;
use xds_api::google::protobuf::Any;

use crate::cluster::{CircuitBreakers, Cluster, Discovery, UpstreamHttp};
use crate::convert::{Cx, Sources, hash};
use crate::diagnostics::{Diagnostic, Diagnostics, Severity};
use crate::hcm::RouteSource;
use crate::http_filter::HttpFilterKind;
use crate::kind::Kind;
use crate::listener::{Listener, ListenerFilterKind};
use crate::network_filter::NetworkFilter;
use crate::pb;
use crate::secret::{FileBacked, Refreshed, Rereads};
use crate::snapshot::Snapshot;
use crate::source::{ConfigSource, ResourceRef};
use crate::tls::{CertificateSource, CommonTls, Tickets, UpstreamSocket};
use crate::{cluster, discovered, hcm, listener, route, secret};

/// What became of a resource that was put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Its name.
    pub name: Arc<str>,
    /// Whether it differs from what was there.
    pub changed: bool,
    /// Findings that do not refuse it.
    pub warnings: Vec<Diagnostic>,
}

/// Resources that accepted ones refer to and that come from elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// EDS.
    pub assignments: BTreeSet<ResourceRef>,
    /// RDS.
    pub route_tables: BTreeSet<ResourceRef>,
    /// SDS.
    pub secrets: BTreeSet<ResourceRef>,
    /// ECDS.
    pub extensions: BTreeSet<ResourceRef>,
}

/// All resources as they were last accepted.
pub struct State {
    sources: Box<dyn Sources + Send>,
    snapshot: Snapshot,
    /// Hashes of the bytes of accepted secrets and assignments, which hold none themselves.
    versions: HashMap<(Kind, Arc<str>), u64>,
    rereads: Rereads,
    shared: Common,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("version", &self.snapshot.version).finish_non_exhaustive()
    }
}

impl State {
    /// Without resources. `sources` reads the files that resources name.
    pub fn new(sources: Box<dyn Sources + Send>) -> Self {
        Self {
            sources,
            snapshot: Snapshot::default(),
            versions: HashMap::new(),
            rereads: Rereads::default(),
            shared: Common::default(),
        }
    }

    /// What is accepted now. Cheap: what did not change is shared.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::new(self.snapshot.clone())
    }

    /// The same, to look at.
    pub fn current(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Takes a resource as xDS or the bootstrap brings it.
    pub fn put(&mut self, resource: &Any) -> Result<Accepted, Diagnostics> {
        let bytes = resource.value.as_slice();
        match Kind::from_type_url(&resource.type_url) {
            Some(Kind::Cluster) => {
                decode(Kind::Cluster, bytes).and_then(|value| self.put_cluster(value, hash(bytes)))
            }
            Some(Kind::Assignment) => {
                decode(Kind::Assignment, bytes).and_then(|value| self.put_assignment(value, hash(bytes)))
            }
            Some(Kind::Listener) => {
                decode(Kind::Listener, bytes).and_then(|value| self.put_listener(value, hash(bytes)))
            }
            Some(Kind::RouteTable) => {
                decode(Kind::RouteTable, bytes).and_then(|value| self.put_route(value, hash(bytes)))
            }
            Some(Kind::Scope) => {
                decode(Kind::Scope, bytes).and_then(|value| self.put_scope(value, hash(bytes)))
            }
            Some(Kind::Secret) => {
                decode(Kind::Secret, bytes).and_then(|value| self.put_secret(value, hash(bytes)))
            }
            Some(Kind::Extension) => {
                decode(Kind::Extension, bytes).and_then(|value| self.put_extension(value, hash(bytes)))
            }
            None => {
                Err(refused(format!("resource of type {}", resource.type_url), "there is no such resource"))
            }
        }
    }

    /// Drops a resource; says whether it was there.
    pub fn remove(&mut self, kind: Kind, name: &str) -> bool {
        self.versions.retain(|(of, key), _| *of != kind || **key != *name);
        let removed = match kind {
            Kind::Cluster => self.snapshot.clusters.remove(name).is_some(),
            Kind::Assignment => self.snapshot.assignments.remove(name).is_some(),
            Kind::Listener => {
                let before = self.snapshot.listeners.len();
                self.snapshot.listeners.retain(|listener| *listener.name != *name);
                before != self.snapshot.listeners.len()
            }
            Kind::RouteTable => self.snapshot.route_tables.remove(name).is_some(),
            Kind::Scope => {
                let before = self.snapshot.scopes.len();
                Arc::make_mut(&mut self.snapshot.scopes).retain(|_, scope| *scope.name != *name);
                before != self.snapshot.scopes.len()
            }
            Kind::Secret => self.snapshot.secrets.remove(name).is_some(),
            Kind::Extension => self.snapshot.extensions.remove(name).is_some(),
        };
        self.snapshot.version += u64::from(removed);
        removed
    }

    /// The names of accepted resources of a kind.
    pub fn names(&self, kind: Kind) -> Vec<Arc<str>> {
        match kind {
            Kind::Cluster => self.snapshot.clusters.keys().cloned().collect(),
            Kind::Assignment => self.snapshot.assignments.keys().cloned().collect(),
            Kind::Listener => {
                self.snapshot.listeners.iter().map(|listener| Arc::clone(&listener.name)).collect()
            }
            Kind::RouteTable => self.snapshot.route_tables.keys().cloned().collect(),
            Kind::Scope => self.snapshot.scopes.values().map(|scope| Arc::clone(&scope.name)).collect(),
            Kind::Secret => self.snapshot.secrets.keys().cloned().collect(),
            Kind::Extension => self.snapshot.extensions.keys().cloned().collect(),
        }
    }

    /// What accepted resources need from elsewhere.
    pub fn wanted(&self) -> Wanted {
        let mut wanted = Wanted::default();
        for cluster in self.snapshot.clusters.values() {
            if let Discovery::Eds { service_name, source } = &cluster.discovery {
                wanted
                    .assignments
                    .insert(ResourceRef { name: Arc::clone(service_name), source: source.clone() });
            }
            for socket in cluster.socket_matches.iter().map(|entry| &entry.socket).chain([&cluster.socket]) {
                upstream_secrets(socket, &mut wanted.secrets);
            }
        }
        for filter in self.snapshot.listeners.iter().flat_map(|listener| &listener.listener_filters) {
            if let ListenerFilterKind::Discovered(discovered) = &filter.kind {
                wanted.extensions.insert(discovered.resource.clone());
            }
        }
        for chain in self.snapshot.listeners.iter().flat_map(|listener| listener.chains()) {
            if let Some(tls) = chain.socket.tls() {
                secrets(&tls.common, &mut wanted.secrets);
                if let Tickets::Sds(reference) = &tls.tickets {
                    wanted.secrets.insert(reference.clone());
                }
            }
            for filter in &chain.filters {
                if let NetworkFilter::Discovered(discovered) = filter {
                    wanted.extensions.insert(discovered.resource.clone());
                }
                let NetworkFilter::HttpConnectionManager(hcm) = filter else { continue };
                match &hcm.routes {
                    RouteSource::Inline(_) => {}
                    RouteSource::Rds(reference) => {
                        wanted.route_tables.insert(reference.clone());
                    }
                    RouteSource::Scoped(scopes) => wanted.route_tables.extend(scopes.wanted()),
                }
                for filter in hcm.http_filters.iter() {
                    if let HttpFilterKind::Discovered(discovered) = &filter.kind {
                        wanted.extensions.insert(discovered.resource.clone());
                    }
                }
            }
        }
        wanted
    }

    /// `Cluster`
    pub fn put_cluster(
        &mut self,
        value: pb::cluster::Cluster,
        version: u64,
    ) -> Result<Accepted, Diagnostics> {
        let name: Arc<str> = Arc::from(&*value.name);
        let old = self.snapshot.clusters.get(&name);
        if old.is_some_and(|old| old.version == version) {
            return Ok(unchanged(name));
        }
        let hosts = old.and_then(|old| match &old.discovery {
            Discovery::Static(endpoints) => Some(Arc::clone(endpoints)),
            _ => None,
        });
        let (built, warnings) = self.convert(Kind::Cluster, &name, |cx| {
            cluster::convert::cluster(cx, value, version, hosts.as_deref())
        })?;
        let mut built: Cluster = built;
        share(&mut self.shared.http, &mut built.http);
        share(&mut self.shared.breakers, &mut built.circuit_breakers);
        self.snapshot.clusters.insert(Arc::clone(&name), Arc::new(built));
        Ok(self.accepted(name, warnings))
    }

    /// `ClusterLoadAssignment`
    pub fn put_assignment(
        &mut self,
        value: pb::endpoint::ClusterLoadAssignment,
        version: u64,
    ) -> Result<Accepted, Diagnostics> {
        let name: Arc<str> = Arc::from(&*value.cluster_name);
        let old = self.snapshot.assignments.get(&name).cloned();
        if old.as_ref().is_some_and(|old| old.version == version) {
            return Ok(unchanged(name));
        }
        let (built, warnings) = self.convert(Kind::Assignment, &name, |cx| {
            cluster::endpoint::assignment(cx, value, version, old.as_deref())
        })?;
        self.snapshot.assignments.insert(Arc::clone(&name), Arc::<Endpoints>::new(built));
        Ok(self.accepted(name, warnings))
    }

    /// `Listener`
    pub fn put_listener(
        &mut self,
        mut value: pb::listener::Listener,
        version: u64,
    ) -> Result<Accepted, Diagnostics> {
        if value.name.is_empty() {
            value.name = unnamed(&value);
        }
        let name: Arc<str> = Arc::from(&*value.name);
        let at = self.snapshot.listeners.iter().position(|listener| listener.name == name);
        if at.and_then(|at| self.snapshot.listeners.get(at)).is_some_and(|old| old.version == version) {
            return Ok(unchanged(name));
        }
        let (built, warnings) =
            self.convert(Kind::Listener, &name, |cx| listener::convert::listener(cx, value, version))?;
        let built: Arc<Listener> = Arc::new(built);
        match at.and_then(|at| self.snapshot.listeners.get_mut(at)) {
            Some(slot) => *slot = built,
            None => self.snapshot.listeners.push(built),
        }
        Ok(self.accepted(name, warnings))
    }

    /// `RouteConfiguration`
    pub fn put_route(
        &mut self,
        value: pb::route::RouteConfiguration,
        version: u64,
    ) -> Result<Accepted, Diagnostics> {
        let name: Arc<str> = Arc::from(&*value.name);
        if self.snapshot.route_tables.get(&name).is_some_and(|old| old.version == version) {
            return Ok(unchanged(name));
        }
        let (built, warnings) =
            self.convert(Kind::RouteTable, &name, |cx| route::table(cx, value, version))?;
        self.snapshot.route_tables.insert(Arc::clone(&name), Arc::new(built));
        Ok(self.accepted(name, warnings))
    }

    /// `ScopedRouteConfiguration`
    pub fn put_scope(
        &mut self,
        value: pb::route::ScopedRouteConfiguration,
        version: u64,
    ) -> Result<Accepted, Diagnostics> {
        let name: Arc<str> = Arc::from(&*value.name);
        let known = (Kind::Scope, Arc::clone(&name));
        if self.versions.get(&known) == Some(&version) {
            return Ok(unchanged(name));
        }
        let others = Arc::clone(&self.snapshot.scopes);
        let (built, warnings) = self.convert(Kind::Scope, &name, |cx| {
            let scope = hcm::scope::scope(cx, value)?;
            if let Some(other) = others.get(&scope.key).filter(|other| other.name != scope.name) {
                cx.error("key", format_args!("the scope {:?} has it, too", other.name));
            }
            Some(scope)
        })?;
        let built: hcm::Scope = built;
        self.versions.insert(known, version);
        let scopes = Arc::make_mut(&mut self.snapshot.scopes);
        scopes.retain(|_, scope| scope.name != name);
        scopes.insert(built.key.clone(), Arc::new(built));
        Ok(self.accepted(name, warnings))
    }

    /// `TypedExtensionConfig`
    pub fn put_extension(
        &mut self,
        value: pb::core::TypedExtensionConfig,
        version: u64,
    ) -> Result<Accepted, Diagnostics> {
        let name: Arc<str> = Arc::from(&*value.name);
        let key = (Kind::Extension, Arc::clone(&name));
        if self.versions.get(&key) == Some(&version) {
            return Ok(unchanged(name));
        }
        let (built, warnings) =
            self.convert(Kind::Extension, &name, |cx| discovered::extension(cx, value))?;
        self.versions.insert(key, version);
        self.snapshot.extensions.insert(Arc::clone(&name), Arc::new(built));
        Ok(self.accepted(name, warnings))
    }

    /// `Secret`. Secrets that name files are read again each time.
    pub fn put_secret(&mut self, value: pb::tls::Secret, version: u64) -> Result<Accepted, Diagnostics> {
        let name: Arc<str> = Arc::from(&*value.name);
        let (built, warnings) = self.convert(Kind::Secret, &name, |cx| secret::secret(cx, value))?;
        let version = match &built {
            secret::Secret::Certificate(certificate) => certificate.version,
            secret::Secret::Validation(context) => context.version,
            _ => version,
        };
        let key = (Kind::Secret, Arc::clone(&name));
        if self.versions.insert(key, version) == Some(version) {
            return Ok(Accepted { warnings, ..unchanged(name) });
        }
        self.snapshot.secrets.insert(Arc::clone(&name), built);
        Ok(self.accepted(name, warnings))
    }

    /// Reads certificates that came from files again. Listeners and clusters that use them stay what they are.
    pub fn refresh_files(&mut self) -> Refreshed {
        let refreshed = self.rereads.refresh(&*self.sources);
        self.snapshot.version += u64::from(refreshed.changed);
        self.snapshot.files = Arc::clone(self.rereads.current());
        refreshed
    }

    /// Current versions of certificates that came from files.
    pub fn files(&self) -> &Arc<FileBacked> {
        self.rereads.current()
    }

    /// Directories in which a change asks for [`State::refresh_files`].
    pub fn watched_directories(&self) -> BTreeSet<PathBuf> {
        self.rereads.directories().map(Path::to_owned).collect()
    }

    fn convert<T>(
        &mut self,
        kind: Kind,
        name: &str,
        build: impl FnOnce(&mut Cx<'_>) -> Option<T>,
    ) -> Result<(T, Vec<Diagnostic>), Diagnostics> {
        let mut cx = Cx::new(&*self.sources);
        let built = build(&mut cx);
        let rereads = std::mem::take(&mut cx.rereads);
        let findings = cx.into_findings();
        let mut diagnostics = Diagnostics { resource: format!("{kind} {name:?}"), findings };
        match built {
            Some(built) if !diagnostics.has_errors() => {
                self.rereads.register(rereads);
                self.snapshot.files = Arc::clone(self.rereads.current());
                Ok((built, diagnostics.findings))
            }
            _ if diagnostics.has_errors() => Err(diagnostics),
            _ => {
                diagnostics.findings.extend(refused(String::new(), "it cannot be used").findings);
                Err(diagnostics)
            }
        }
    }

    fn accepted(&mut self, name: Arc<str>, warnings: Vec<Diagnostic>) -> Accepted {
        self.snapshot.version += 1;
        Accepted { name, changed: true, warnings }
    }
}

/// A bootstrap's listener need not have a name: its address stands in, for no two can have the same.
fn unnamed(listener: &pb::listener::Listener) -> String {
    use pb::core::address::Address;
    use pb::core::socket_address::PortSpecifier;
    match listener.address.as_ref().and_then(|address| address.address.as_ref()) {
        Some(Address::SocketAddress(socket)) => match &socket.port_specifier {
            Some(PortSpecifier::PortValue(port)) => format!("{}_{port}", socket.address),
            _ => socket.address.clone(),
        },
        Some(Address::Pipe(pipe)) => pipe.path.clone(),
        Some(Address::EnvoyInternalAddress(_)) | None => String::new(),
    }
}

/// Parts that most clusters have in common, kept once.
#[derive(Default)]
struct Common {
    http: Vec<Arc<UpstreamHttp>>,
    breakers: Vec<Arc<CircuitBreakers>>,
}

/// More different ones than this are not looked for.
const COMMON: usize = 16;

/// Puts one that is equal in a part's place, if there is one.
fn share<T: PartialEq>(known: &mut Vec<Arc<T>>, part: &mut Arc<T>) {
    if let Some(same) = known.iter().find(|same| **same == *part) {
        *part = Arc::clone(same);
        return;
    }
    if known.len() >= COMMON {
        known.remove(0);
    }
    known.push(Arc::clone(part));
}

fn unchanged(name: Arc<str>) -> Accepted {
    Accepted { name, changed: false, warnings: Vec::new() }
}

fn decode<M: Message + Default>(kind: Kind, bytes: &[u8]) -> Result<M, Diagnostics> {
    M::decode(bytes).map_err(|error| refused(kind.to_string(), &format!("it does not decode: {error}")))
}

fn refused(resource: String, message: &str) -> Diagnostics {
    let finding = Diagnostic { severity: Severity::Error, field: String::new(), message: message.into() };
    Diagnostics { resource, findings: vec![finding] }
}

fn upstream_secrets(socket: &UpstreamSocket, found: &mut BTreeSet<ResourceRef>) {
    if let Some(tls) = socket.tls() {
        secrets(&tls.common, found);
    }
}

fn secrets(tls: &CommonTls, found: &mut BTreeSet<ResourceRef>) {
    let certificates = tls.certificates.iter().filter_map(|source| match source {
        CertificateSource::Sds(reference) => Some(reference),
        CertificateSource::Inline(_) => None,
    });
    // A reference without a source names one of the bootstrap's own secrets.
    let elsewhere = |reference: &&ResourceRef| reference.source != ConfigSource::Path(Arc::from(""));
    found.extend(certificates.chain(&tls.validation.sds).filter(elsewhere).cloned());
}
