//! What users are told of a configuration that is taken nevertheless.

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

impl Warning {
    /// A warning about an object.
    pub(crate) fn of(kind: &str, meta: &mesh_api::ObjectMeta, message: impl Into<String>) -> Self {
        Self {
            kind: kind.to_owned(),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            message: message.into(),
        }
    }
}
