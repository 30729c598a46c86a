//! What the server needs from its host: who may connect, and the resources for whom.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use saild_model::ChangeSet;
use tonic::Status;
use xds_api::envoy::config::core::v3::Node;
use xds_stream::resource::Resource;
use xds_stream::session::Demand;

/// A caller that was recognized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its namespace.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.service_account)
    }
}

/// What a change may alter for one proxy and type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Affected {
    /// Nothing.
    Nothing,
    /// These resources only.
    Names(BTreeSet<String>),
    /// Any resource.
    Anything,
}

/// The process that the server runs in.
#[async_trait]
pub trait Host: Send + Sync + 'static {
    /// Whether there is something to serve. While there is not, proxies are told to come back.
    fn ready(&self) -> bool;

    /// Who opens a stream, from the extensions of its request. `None`: the port asks nobody.
    async fn authenticate(&self, extensions: &::http::Extensions) -> Result<Option<Identity>, Status>;

    /// Lets a proxy in, if it is whom it was authenticated as.
    async fn connect(&self, node: &Node, identity: Option<&Identity>) -> Result<Arc<dyn View>, Status>;
}

/// One connected proxy, seen from the configuration.
pub trait View: Send + Sync + 'static {
    /// What a change may alter of a type. `names` are those that the proxy watches by name.
    fn affected(&self, change: &ChangeSet, type_url: &str, names: &BTreeSet<String>) -> Affected;

    /// A generator on the configuration of this moment.
    fn now(&self) -> Box<dyn Generator + '_>;
}

/// Makes resources from one configuration, which stays the same while it is held.
pub trait Generator: Send {
    /// The configuration's version, as people see it.
    fn version(&self) -> String;

    /// The resources that exist of what is demanded.
    fn generate(&self, type_url: &str, demand: &Demand) -> Vec<Resource>;
}
