//! Resources as they go out: encoded, named, with what users should know of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use xds_api::google::protobuf::Any;

use crate::warning::Warning;

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
