//! What configuration says of spans: tags and names.

use std::sync::Arc;

use http::HeaderName;

use crate::format::{Format, MetadataSource};

/// What a route says of its spans, beside the connection manager.
#[derive(Clone, Debug)]
pub struct RouteSpans {
    /// Tags, before those of the same name.
    pub custom_tags: Box<[CustomTag]>,
    /// The span's name.
    pub operation: Option<Format>,
    /// The name of the spans of tries.
    pub upstream_operation: Option<Format>,
}

/// `CustomTag`
#[derive(Clone, Debug)]
pub struct CustomTag {
    /// Its name.
    pub tag: Arc<str>,
    /// Where its value comes from.
    pub source: CustomTagSource,
}

/// Where a tag's value comes from.
#[derive(Clone, Debug)]
pub enum CustomTagSource {
    /// From here, or from the environment when configuration was read.
    Literal(Arc<str>),
    /// From an environment variable, read when it is used: name and default.
    Environment(Arc<str>, Arc<str>),
    /// From a request header: name and default.
    RequestHeader(HeaderName, Arc<str>),
    /// From metadata: whose, namespace, path and default.
    Metadata(MetadataSource, Arc<str>, Box<[Box<str>]>, Arc<str>),
    /// From operators.
    Format(Format),
}
