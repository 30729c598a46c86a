//! `envoy.filters.http.dynamic_forward_proxy`: requests wait until the name of their host is resolved; the cluster then
//! finds it in the cache that both name.

use std::sync::Arc;

use http::StatusCode;
use sail_proxy_config::cluster::Discovery;
use sail_proxy_config::http_filter::{ForwardHost, ForwardNames, ForwardProxy};
use sail_proxy_decide::host::Host;

use super::{Flow, HttpFilter, Request};
use crate::cluster::default_port;
use crate::dns::cache::{Error, split};
use crate::http::exchange::Exchange;
use crate::http::local_reply::LocalReply;
use crate::stream_info::ResponseFlag;

/// Keys of filter state: the host and the port of the upstream, and where the request goes for them.
const HOST: &str = "envoy.upstream.dynamic_host";
const PORT: &str = "envoy.upstream.dynamic_port";
pub(crate) const ADDRESS: &str = "envoy.stream.upstream_address";

/// The filter.
pub(crate) struct Filter(pub(crate) Arc<ForwardProxy>);

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let Request { name, exchange, head, .. } = request;
        let found = exchange.routed.get();
        let cluster = found
            .as_ref()
            .and_then(|found| found.cluster.as_ref())
            .and_then(|name| exchange.active.cluster(name));
        // Requests to other clusters need no name.
        let Some(cluster) = cluster else { return Flow::Continue };
        let Discovery::DynamicForwardProxy(own) = &cluster.config.discovery else { return Flow::Continue };
        let (cache, limit) = match &self.0.names {
            ForwardNames::Cache(cache) => (cache.clone(), None),
            ForwardNames::SubClusters(limit) => (own.clone(), Some(*limit)),
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
        let default = default_port(&cluster.config.socket);
        let named = self.0.host_from_filter_state.then(|| from_state(exchange, head.authority(), default));
        let Some((host, port)) = named.flatten().or_else(|| owned(split(head.authority(), default)?)) else {
            return Flow::Reply(Box::new(failed(Error::Failed)));
        };
        let caches = &exchange.connection.worker.shared.dns_caches;
        if let Some(found) = caches.found(&cache.name, &host, port) {
            self.note(exchange, &found);
            return Flow::Continue;
        }
        let caches = caches.clone();
        Flow::Wait(Box::pin(async move {
            let resolve = caches.resolve(&cache, &host, port);
            let resolved = match limit {
                None => resolve.await,
                Some(limit) => match tokio::time::timeout(limit, resolve).await {
                    Err(_) => return Flow::Reply(Box::new(sub_cluster(WARMING))),
                    // A sub cluster without hosts is one: the router says so.
                    Ok(Err(Error::Failed)) => return Flow::Continue,
                    Ok(Err(Error::Full)) => return Flow::Reply(Box::new(sub_cluster(OVERFLOW))),
                    Ok(resolved) => resolved,
                },
            };
            match resolved {
                Ok(found) => {
                    self.note(exchange, &found);
                    Flow::Continue
                }
                Err(error) => Flow::Reply(Box::new(failed(error))),
            }
        }))
    }
}

impl Filter {
    /// Keeps the address for those who judge or log it.
    fn note(&self, exchange: &Exchange, host: &Host) {
        if self.0.save_upstream_address {
            let state = &mut exchange.info.borrow_mut().filter_state;
            state.push((ADDRESS.into(), host.address.to_string().into()));
        }
    }
}

/// The host and the port as filter state has them, what is missing as the request has it: noted for the choice of a
/// host.
fn from_state(exchange: &Exchange, authority: &str, default: u16) -> Option<(String, u16)> {
    let info = exchange.info.borrow();
    let (host, port) = (info.filter_state(HOST), info.filter_state(PORT));
    if host.is_none() && port.is_none() {
        return None;
    }
    let (own_host, own_port) = split(authority, default).unwrap_or(("", default));
    let host = host.filter(|host| !host.is_empty()).unwrap_or(own_host).to_owned();
    let port = port.and_then(|port| port.trim().parse().ok()).unwrap_or(own_port);
    drop(info);
    let bracketed = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    exchange.set_upstream_authority(bracketed);
    Some((host, port))
}

fn owned((host, port): (&str, u16)) -> Option<(String, u16)> {
    Some((host.to_owned(), port))
}

const WARMING: (&str, &str) = ("Sub cluster warming timeout", "sub_cluster_warming_timeout");
const OVERFLOW: (&str, &str) = ("Sub cluster overflow", "sub_cluster_overflow");

fn sub_cluster((body, details): (&'static str, &'static str)) -> LocalReply {
    LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, body, details)
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
