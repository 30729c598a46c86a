//! `istio.alpn`: which ALPN values go upstream, by the protocol of the upstream request.

use std::sync::Arc;

use xds_api::istio::alpn as proto;

use super::{Entry, HttpFilterKind};

pub(super) const ENTRY: Entry = Entry {
    name: "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
    convert: |cx, any| Some(HttpFilterKind::Alpn(Arc::new(alpn_override(cx.unpack(any)?)))),
    per_route: None,
};

/// `istio.alpn`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlpnOverride {
    /// For HTTP/1.0.
    pub http10: Box<[Box<str>]>,
    /// For HTTP/1.1.
    pub http11: Box<[Box<str>]>,
    /// For HTTP/2.
    pub http2: Box<[Box<str>]>,
}

fn alpn_override(value: proto::FilterConfig) -> AlpnOverride {
    use proto::filter_config::Protocol;
    let mut result = AlpnOverride::default();
    for entry in value.alpn_override {
        let list: Box<[Box<str>]> = entry.alpn_override.into_iter().map(Box::from).collect();
        match Protocol::try_from(entry.upstream_protocol) {
            Ok(Protocol::Http10) | Err(_) => result.http10 = list,
            Ok(Protocol::Http11) => result.http11 = list,
            Ok(Protocol::Http2) => result.http2 = list,
        }
    }
    result
}
