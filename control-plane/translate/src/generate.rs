//! The way in: the resources of one type for one proxy.

use std::collections::BTreeSet;
use std::sync::Arc;

use saild_model::proxy::RawNode;
use saild_model::{Locality, Mesh, ProxyView};
use xds_api::envoy::config::core::v3::Node;
use xds_api::google::protobuf::Any;

use crate::{Cache, pb};

/// Which resources a proxy asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    /// All that are meant for it (`*`).
    Wildcard,
    /// These.
    Set(BTreeSet<String>),
}

/// A resource, encoded.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedResource {
    /// Its name.
    pub name: Arc<str>,
    /// Differs where the resource differs; the same for all proxies that get the same.
    pub version: String,
    /// Its type and bytes.
    pub any: Any,
}

/// Something in the configuration that has no effect, or another than its author may think.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Warning {
    /// The kind of the object.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What is wrong, and what to do.
    pub message: String,
}

/// What a proxy gets.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Generated {
    /// The resources: for a wildcard all there are, else those of the names asked for that exist.
    pub resources: Vec<Arc<NamedResource>>,
    /// Names asked for that do not exist.
    pub removed: Vec<String>,
    /// What users should know.
    pub warnings: Vec<Warning>,
}

/// Why a node is not served.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the node cannot be understood")]
pub struct NodeError(#[from] saild_model::proxy::Error);

/// Reads a node as it comes over xDS. The caller then puts what it authenticated into `namespace` and
/// `service_account`.
pub fn proxy_view(node: &Node) -> Result<ProxyView, NodeError> {
    let metadata = node
        .metadata
        .as_ref()
        .map(|fields| fields.fields.iter().map(|(key, value)| (key.clone(), pb::to_json(value))).collect());
    let locality = node.locality.clone().unwrap_or_default();
    let raw = RawNode {
        id: &node.id,
        metadata: metadata.unwrap_or_default(),
        locality: Locality { region: locality.region, zone: locality.zone, subzone: locality.sub_zone },
        extensions: node.extensions.iter().map(|extension| extension.name.clone()).collect(),
    };
    Ok(ProxyView::parse(raw)?)
}

/// The resources of a type for a proxy. An unknown type gives nothing.
pub fn generate(mesh: &Mesh, proxy: &ProxyView, type_url: &str, names: &Names, cache: &Cache) -> Generated {
    let _ = (mesh, proxy, type_url, names, cache);
    Generated::default()
}

/// Whether a change may alter a proxy's resources of a type.
pub fn affected(change: &saild_model::ChangeSet, proxy: &ProxyView, type_url: &str) -> bool {
    if change.full {
        return true;
    }
    let _ = proxy;
    match type_url {
        xds_api::type_url::ENDPOINT => true,
        _ => !change.only_endpoints(),
    }
}
