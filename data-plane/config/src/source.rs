//! Where resources come from: the type of `ConfigSource`.

use std::sync::Arc;

/// `ConfigSource`
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConfigSource {
    /// The aggregated stream.
    Ads,
    /// The server that the resource with this field came from.
    SelfSource,
    /// A server of its own.
    Api(Arc<ApiSource>),
    /// A watched file.
    Path(Arc<str>),
}

/// `ApiConfigSource`
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ApiSource {
    /// The cluster of the server.
    pub cluster: Arc<str>,
    /// Whether the stream is incremental.
    pub delta: bool,
    /// Headers of the stream.
    pub initial_metadata: Vec<(Arc<str>, Arc<str>)>,
}

/// A resource to be fetched.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceRef {
    /// Its name.
    pub name: Arc<str>,
    /// Where it comes from.
    pub source: ConfigSource,
}
