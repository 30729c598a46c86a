//! The seam to the pure crates: protobuf is converted here, and the parts become a snapshot for workers.

use std::cell::Cell;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use xds_api::envoy::config::cluster::v3::Cluster;
use xds_api::envoy::config::endpoint::v3::ClusterLoadAssignment;
use xds_api::envoy::config::listener::v3::Listener;
use xds_api::envoy::config::route::v3::RouteConfiguration;
use xds_api::envoy::extensions::transport_sockets::tls::v3::Secret;

/// An object, converted.
#[derive(Debug)]
pub struct Converted<T> {
    /// As it came.
    pub message: T,
    /// Whether it came by discovery.
    pub added_via_api: bool,
}

/// Everything converted, by name.
#[derive(Debug, Default)]
pub struct Parts {
    endpoints: RefCell<BTreeMap<String, Arc<ClusterLoadAssignment>>>,
    routes: RefCell<BTreeMap<String, Arc<RouteConfiguration>>>,
    secrets: RefCell<BTreeMap<String, Arc<Secret>>>,
    dirty: Cell<bool>,
}

impl Parts {
    pub(super) fn cluster(
        &self,
        message: &Cluster,
        added_via_api: bool,
    ) -> Result<Converted<Cluster>, String> {
        Ok(Converted { message: message.clone(), added_via_api })
    }

    pub(super) fn listener(
        &self,
        message: &Listener,
        added_via_api: bool,
    ) -> Result<Converted<Listener>, String> {
        Ok(Converted { message: message.clone(), added_via_api })
    }

    pub(super) fn endpoints(&self, name: &str, body: &[u8]) -> Result<(), String> {
        let endpoints = ClusterLoadAssignment::decode(body).map_err(|e| e.to_string())?;
        self.endpoints.borrow_mut().insert(name.to_owned(), Arc::new(endpoints));
        self.set_dirty();
        Ok(())
    }

    pub(super) fn route(&self, name: &str, body: &[u8]) -> Result<(), String> {
        let route = RouteConfiguration::decode(body).map_err(|e| e.to_string())?;
        self.routes.borrow_mut().insert(name.to_owned(), Arc::new(route));
        self.set_dirty();
        Ok(())
    }

    pub(super) fn secret(&self, name: &str, secret: &Secret) -> Result<(), String> {
        self.secrets.borrow_mut().insert(name.to_owned(), Arc::new(secret.clone()));
        self.set_dirty();
        Ok(())
    }

    /// The TLS that this cluster is spoken to with, for the main thread's own calls.
    pub(super) fn client_tls(&self, _cluster: &Cluster) -> Option<(Arc<ClientConfig>, ServerName<'static>)> {
        None
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.dirty.get()
    }

    pub(super) fn set_dirty(&self) {
        self.dirty.set(true);
    }

    pub(super) fn publish(
        &self,
        clusters: &mut dyn Iterator<Item = &Arc<Converted<Cluster>>>,
        listeners: &mut dyn Iterator<Item = &Arc<Converted<Listener>>>,
    ) {
        self.dirty.set(false);
        tracing::debug!(clusters = clusters.count(), listeners = listeners.count(), "a new snapshot");
    }
}
