//! `istio.alpn`: tells the upstream's sidecar, by ALPN, which protocol goes through the tunnel.

use std::sync::Arc;

use http::Version;
use sail_proxy_config::http_filter::AlpnOverride;

use super::{Flow, HttpFilter, Request};
use crate::pool::connect::Protocol;

/// What to offer in place of the cluster's list.
pub(crate) struct Override {
    http1: Arc<[Vec<u8>]>,
    http2: Arc<[Vec<u8>]>,
}

impl Override {
    /// The list for a protocol; `None` leaves the cluster's own.
    pub(crate) fn of(&self, protocol: Protocol) -> Option<Arc<[Vec<u8>]>> {
        let list = match protocol {
            Protocol::Http1 => &self.http1,
            Protocol::Http2 => &self.http2,
            Protocol::Negotiated | Protocol::Tcp => return None,
        };
        (!list.is_empty()).then(|| list.clone())
    }
}

impl HttpFilter for AlpnOverride {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let Request { exchange, head, .. } = request;
        let found = exchange.routed.get();
        let cluster = found
            .as_ref()
            .and_then(|found| found.cluster.as_ref())
            .and_then(|name| exchange.active.cluster(name));
        let Some(cluster) = cluster else { return Flow::Continue };
        let metadata = cluster.config.metadata.as_ref();
        let flag = metadata.and_then(|all| all.get("istio")?.get("alpn_override")?.as_str());
        if flag == Some("false") || !cluster.may_use_tls() {
            return Flow::Continue;
        }
        let http1 = if head.version == Version::HTTP_10 { &self.http10 } else { &self.http11 };
        exchange.state().alpn = Some(Override { http1: list(http1), http2: list(&self.http2) });
        Flow::Continue
    }
}

fn list(names: &[Box<str>]) -> Arc<[Vec<u8>]> {
    names.iter().map(|name| name.as_bytes().to_vec()).collect()
}
