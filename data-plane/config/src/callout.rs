//! Services that the proxy itself calls.

use std::sync::Arc;
use std::time::Duration;

use http::uri::{Authority, PathAndQuery, Uri};

pub use crate::access_log::GrpcTarget;
use crate::convert::{Cx, arc, values};
use crate::pb;

/// `HttpUri`: an HTTP service, by cluster.
#[derive(Clone, Debug)]
pub struct HttpTarget {
    /// The cluster.
    pub cluster: Arc<str>,
    /// Whether the URI says `https`.
    pub https: bool,
    /// `:authority`.
    pub authority: Authority,
    /// The path.
    pub path: PathAndQuery,
    /// How long a call may take.
    pub timeout: Option<Duration>,
}

/// `HttpUri`
pub(crate) fn http_uri(cx: &mut Cx<'_>, value: pb::core::HttpUri) -> Option<HttpTarget> {
    use pb::core::http_uri::HttpUpstreamType;
    let pb::core::HttpUri { uri, timeout, http_upstream_type } = value;
    let timeout = values::limit(cx, "timeout", timeout, None);
    let Some(HttpUpstreamType::Cluster(cluster)) = http_upstream_type else {
        cx.error("cluster", "it must be set");
        return None;
    };
    let whole = if uri.contains("://") { uri.clone() } else { format!("http://{uri}") };
    let parsed = whole.parse::<Uri>().ok().map(Uri::into_parts);
    let Some((authority, parts)) = parsed.and_then(|mut parts| Some((parts.authority.take()?, parts))) else {
        cx.error("uri", format_args!("{uri:?} is not a URI"));
        return None;
    };
    Some(HttpTarget {
        cluster: arc(cluster),
        https: parts.scheme.is_some_and(|scheme| scheme == http::uri::Scheme::HTTPS),
        authority,
        path: parts.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/")),
        timeout,
    })
}

/// `GrpcService`, with a time limit where it says none.
pub(crate) fn grpc(cx: &mut Cx<'_>, value: pb::core::GrpcService, limit: Duration) -> Option<GrpcTarget> {
    let mut target = crate::access_log::grpc_target(cx, value)?;
    target.timeout.get_or_insert(limit);
    Some(target)
}
