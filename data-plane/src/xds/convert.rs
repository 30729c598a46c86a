//! The seam to `sail-proxy-config`: protobuf in, runtime types out, or why not.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use sail_proxy_config::cluster::Cluster;
use sail_proxy_config::discovered::Extension;
use sail_proxy_config::hcm::{Hcm, Scopes};
use sail_proxy_config::http_filter::HttpFilterKind;
use sail_proxy_config::http_filter::lua::Script;
use sail_proxy_config::listener::Listener;
use sail_proxy_config::network_filter::NetworkFilter;
use sail_proxy_config::secret::{FileBacked, Refreshed, Secret};
use sail_proxy_config::wasm;
use sail_proxy_config::{Accepted, Diagnostics, Kind, Sources, State, version};
use sail_proxy_decide::host::Endpoints;
use sail_proxy_decide::route::RouteTable;
use xds_api::envoy::config::cluster::v3 as pb;
use xds_api::envoy::config::trace::v3::tracing::Http;
use xds_api::google::protobuf::Any;

use crate::observe::{Environment, check_istio_stats};

/// What conversions read besides messages and files.
pub struct Around {
    /// Variables of the process.
    pub environment: Environment,
    /// `tracing.http` of the bootstrap.
    pub tracer: Option<Http>,
}

impl Sources for Around {
    fn file(&self, path: &str) -> Result<Vec<u8>, String> {
        std::fs::read(path).map_err(|error| format!("cannot read {path}: {error}"))
    }

    fn environment(&self, name: &str) -> Option<String> {
        self.environment.get(name).cloned()
    }

    fn tracer(&self) -> Option<Http> {
        self.tracer.clone()
    }

    #[cfg(feature = "wasm")]
    fn wasm(&self, plugin: &wasm::Plugin, code: Option<&[u8]>) -> Result<wasm::Loaded, String> {
        crate::wasm::load(plugin, code)
    }

    #[cfg(not(feature = "wasm"))]
    fn wasm(&self, _: &wasm::Plugin, _: Option<&[u8]>) -> Result<wasm::Loaded, String> {
        Err("this sail-proxy was built without wasm (cargo feature wasm)".to_owned())
    }

    fn lua(&self, script: &Script) -> Result<(), String> {
        crate::filters::check_script(script)
    }
}

/// Converts resources, and remembers what it converted: what did not change is not converted again, and hosts keep
/// their state.
#[derive(Debug)]
pub(super) struct Converter(RefCell<State>);

impl Converter {
    pub(super) fn new(around: Around) -> Self {
        Self(RefCell::new(State::new(Box::new(around))))
    }

    /// A cluster that is decoded already. `None`: it is what it was.
    pub(super) fn cluster(&self, message: pb::Cluster, body: &[u8]) -> Result<Option<Arc<Cluster>>, String> {
        let accepted = said(Kind::Cluster, self.0.borrow_mut().put_cluster(message, version(body)))?;
        let state = self.0.borrow();
        Ok(state.current().clusters.get(&accepted.name).filter(|_| accepted.changed).cloned())
    }

    /// `None`: it is what it was.
    pub(super) fn listener(&self, body: &[u8]) -> Result<Option<Arc<Listener>>, String> {
        let accepted = self.put(Kind::Listener, body)?;
        let found = self.0.borrow().current().listener(&accepted.name).filter(|_| accepted.changed).cloned();
        if let Some(listener) = &found
            && let Err(reason) = check_listener(listener)
        {
            // So that the same thing is refused again.
            self.remove(Kind::Listener, &accepted.name);
            return Err(reason);
        }
        Ok(found)
    }

    pub(super) fn endpoints(&self, body: &[u8]) -> Result<Option<Arc<Endpoints>>, String> {
        let accepted = self.put(Kind::Assignment, body)?;
        let state = self.0.borrow();
        Ok(state.current().assignments.get(&accepted.name).filter(|_| accepted.changed).cloned())
    }

    pub(super) fn route(&self, body: &[u8]) -> Result<Option<Arc<RouteTable>>, String> {
        let accepted = self.put(Kind::RouteTable, body)?;
        let state = self.0.borrow();
        Ok(state.current().route_tables.get(&accepted.name).filter(|_| accepted.changed).cloned())
    }

    /// All scopes, if they changed with this one.
    pub(super) fn scope(&self, body: &[u8]) -> Result<Option<Arc<Scopes>>, String> {
        let accepted = self.put(Kind::Scope, body)?;
        Ok(Some(self.scopes()).filter(|_| accepted.changed))
    }

    /// All scopes.
    pub(super) fn scopes(&self) -> Arc<Scopes> {
        self.0.borrow().current().scopes.clone()
    }

    pub(super) fn secret(&self, body: &[u8]) -> Result<Option<Secret>, String> {
        let accepted = self.put(Kind::Secret, body)?;
        let state = self.0.borrow();
        Ok(state.current().secrets.get(&accepted.name).filter(|_| accepted.changed).cloned())
    }

    pub(super) fn extension(&self, body: &[u8]) -> Result<Option<Arc<Extension>>, String> {
        let accepted = self.put(Kind::Extension, body)?;
        let state = self.0.borrow();
        Ok(state.current().extensions.get(&accepted.name).filter(|_| accepted.changed).cloned())
    }

    /// Current versions of certificates that came from files.
    pub(super) fn files(&self) -> Arc<FileBacked> {
        self.0.borrow().files().clone()
    }

    /// Reads these files again.
    pub(super) fn refresh_files(&self) -> Refreshed {
        self.0.borrow_mut().refresh_files()
    }

    /// Directories in which a change asks for that.
    pub(super) fn watched_directories(&self) -> BTreeSet<PathBuf> {
        self.0.borrow().watched_directories()
    }

    pub(super) fn remove(&self, kind: Kind, name: &str) {
        self.0.borrow_mut().remove(kind, name);
    }

    fn put(&self, kind: Kind, body: &[u8]) -> Result<Accepted, String> {
        let any = Any { type_url: kind.type_url().to_owned(), value: body.to_vec() };
        said(kind, self.0.borrow_mut().put(&any))
    }
}

/// Logs the warnings, and spells out the errors.
fn said(kind: Kind, outcome: Result<Accepted, Diagnostics>) -> Result<Accepted, String> {
    let accepted = outcome.map_err(|diagnostics| errors(&diagnostics))?;
    for warning in &accepted.warnings {
        tracing::debug!(resource = &*accepted.name, %kind, "{warning}");
    }
    Ok(accepted)
}

/// What is wrong, field by field; the name stands before it already.
fn errors(diagnostics: &Diagnostics) -> String {
    let all: Vec<String> = diagnostics.errors().map(ToString::to_string).collect();
    all.join("; ")
}

/// What the conversion leaves to this crate to check: what it can express and this build cannot run.
fn check_listener(listener: &Listener) -> Result<(), String> {
    let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
    for chain in chains {
        for filter in chain.filters.iter() {
            let checked = match filter {
                NetworkFilter::IstioStats(config) => {
                    check_istio_stats(config).map_err(|reason| format!("istio.stats: {reason}"))
                }
                NetworkFilter::HttpConnectionManager(hcm) => check_hcm(hcm),
                _ => Ok(()),
            };
            checked.map_err(|reason| format!("filter chain {:?}: {reason}", chain.name))?;
        }
    }
    Ok(())
}

fn check_hcm(hcm: &Hcm) -> Result<(), String> {
    for filter in hcm.http_filters.iter() {
        if let HttpFilterKind::IstioStats(config) = &filter.kind {
            check_istio_stats(config).map_err(|reason| format!("istio.stats: {reason}"))?;
        }
    }
    Ok(())
}

/// Whether the cluster's hosts are names to resolve.
pub(super) fn is_dns(cluster: &Arc<Cluster>) -> bool {
    use sail_proxy_config::cluster::Discovery;
    matches!(cluster.discovery, Discovery::StrictDns(_) | Discovery::LogicalDns(_))
}
