//! `envoy.filters.http.dynamic_forward_proxy`: requests wait until the name of their host is resolved; the cluster then
//! finds it in the cache that both name.

use std::sync::Arc;

use http::StatusCode;
use sail_proxy_config::cluster::{Discovery, DnsCache};
use sail_proxy_config::http_filter::ForwardHost;
use sail_proxy_config::tls::UpstreamSocket;

use super::{Flow, HttpFilter, Request};
use crate::dns::cache::{Error, split};
use crate::http::local_reply::LocalReply;
use crate::stream_info::ResponseFlag;

/// The filter, with its cache.
pub(crate) struct Filter(pub(crate) Arc<DnsCache>);

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let Request { name, exchange, head, .. } = request;
        let found = exchange.routed.get();
        let cluster = found
            .as_ref()
            .and_then(|found| found.cluster.as_ref())
            .and_then(|name| exchange.active.cluster(name));
        // Requests to other clusters need no name.
        let Some(cluster) =
            cluster.filter(|cluster| matches!(cluster.config.discovery, Discovery::DynamicForwardProxy(_)))
        else {
            return Flow::Continue;
        };
        let host = exchange.per_filter(name).and_then(|config| config.get::<ForwardHost>());
        match host.as_deref() {
            Some(ForwardHost::Literal(value)) => head.authority = value.clone(),
            Some(ForwardHost::Header(name)) => {
                if let Some(value) = head.headers.get(name) {
                    head.authority = value.clone();
                }
            }
            None => {}
        }
        let default = if matches!(cluster.config.socket, UpstreamSocket::Raw) { 80 } else { 443 };
        let Some((host, port)) = split(head.authority(), default) else {
            return Flow::Reply(Box::new(failed(Error::Failed)));
        };
        let caches = &exchange.connection.worker.shared.dns_caches;
        if caches.found(&self.0.name, host, port).is_some() {
            return Flow::Continue;
        }
        let (host, caches) = (host.to_owned(), caches.clone());
        Flow::Wait(Box::pin(async move {
            match caches.resolve(&self.0, &host, port).await {
                Ok(_) => Flow::Continue,
                Err(error) => Flow::Reply(Box::new(failed(error))),
            }
        }))
    }
}

fn failed(error: Error) -> LocalReply {
    let (body, details, flag) = match error {
        Error::Failed => {
            ("DNS resolution failure", "dns_resolution_failure", Some(ResponseFlag::DnsResolutionFailed))
        }
        Error::Full => ("DNS cache overflow", "dns_cache_overflow", None),
        Error::Pending => (
            "Dynamic forward proxy pending request overflow",
            "dynamic_forward_proxy_pending_request_overflow",
            Some(ResponseFlag::UpstreamOverflow),
        ),
    };
    let reply = LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, body, details);
    match flag {
        Some(flag) => reply.flag(flag),
        None => reply,
    }
}
