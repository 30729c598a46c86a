//! Listener filters: what is learned of a connection, and who is turned away, before a filter chain takes it. Each
//! filter is a function in a file of its own; they run in configuration's order.

mod inspectors;
mod local_rate_limit;
mod original;
mod proxy_protocol;
mod set_filter_state;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use sail_proxy_config::listener::{ListenerFilter, ListenerFilterKind};
use sail_proxy_decide::address::Address;
use tokio::io::AsyncReadExt;

use super::Listener;
use crate::inspect;
use crate::net::Raw;
use crate::net::proxy_protocol::Tlv;
use crate::stats::sets::listener as stats;
use crate::stream_info::{DynamicMetadata, UpstreamSource};
use crate::worker::state::Worker;

/// A connection that no filter chain has taken yet.
pub(super) struct Intake {
    pub(super) raw: Raw,
    /// Bytes that were read ahead.
    pub(super) seen: BytesMut,
    /// Where the client connected to, as far as it is known.
    pub(super) local: SocketAddr,
    /// The client.
    pub(super) remote: SocketAddr,
    /// The socket's peer.
    pub(super) direct_remote: SocketAddr,
    /// The destination before the kernel redirected the connection, if it did.
    pub(super) original: Option<SocketAddr>,
    pub(super) hello: Option<inspect::tls::Hello>,
    pub(super) http: Option<inspect::http::Version>,
    /// TLVs that may be sent on.
    pub(super) tlvs: Vec<Tlv>,
    /// Whether there was a PROXY protocol header.
    pub(super) proxied: bool,
    /// Dynamic metadata.
    pub(super) metadata: DynamicMetadata,
    pub(super) upstream_source: Option<UpstreamSource>,
    /// Values by key.
    pub(super) filter_state: Vec<(Box<str>, Box<str>)>,
    bound: SocketAddr,
    /// When the connection was accepted.
    pub(super) accepted: Instant,
}

/// Why a connection is not taken any further.
#[derive(Debug)]
pub(super) enum Refused {
    /// The client went away.
    Gone,
    /// What it sent is not what a filter expects.
    Broken,
    /// There are too many.
    Limited,
}

impl From<io::Error> for Refused {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

impl Intake {
    pub(super) fn new(raw: Raw, remote: Option<SocketAddr>, accepted: Instant) -> Self {
        let unspecified = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let bound = match &raw {
            Raw::Tcp(tcp) => tcp.local_addr().unwrap_or(unspecified),
            Raw::Unix(_) => unspecified,
        };
        let remote = canonical(remote.unwrap_or(unspecified));
        Self {
            raw,
            seen: BytesMut::new(),
            local: canonical(bound),
            remote,
            direct_remote: remote,
            original: None,
            hello: None,
            http: None,
            tlvs: Vec::new(),
            proxied: false,
            metadata: DynamicMetadata::default(),
            upstream_source: None,
            filter_state: Vec::new(),
            bound,
            accepted,
        }
    }

    /// The address of the socket itself.
    pub(super) fn bound(&self) -> SocketAddr {
        canonical(self.bound)
    }

    /// The path of a Unix socket.
    pub(super) fn pipe(&self, listener: &Listener) -> Option<Arc<str>> {
        let Raw::Unix(_) = &self.raw else { return None };
        let mut pipes =
            listener.config.addresses.iter().filter(|address| matches!(address, Address::Pipe(_)));
        pipes.next().map(|pipe| pipe.to_string().into())
    }

    /// Reads more of what the client sends; 0 at its end.
    async fn read(&mut self) -> io::Result<usize> {
        if self.seen.capacity() == self.seen.len() {
            self.seen.reserve(if self.seen.is_empty() { 2048 } else { self.seen.len() });
        }
        self.raw.read_buf(&mut self.seen).await
    }

    /// The socket, and what was read off it already.
    pub(super) fn into_socket(self) -> (Bytes, Raw) {
        (self.seen.freeze(), self.raw)
    }
}

/// An IPv4 peer of a dual-stack socket is an IPv4 peer.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Runs a listener's filters; an error closes the connection.
pub(super) async fn run(
    listener: &Listener,
    worker: &Rc<Worker>,
    intake: &mut Intake,
) -> Result<(), Refused> {
    let config = &listener.config;
    if config.use_original_dst {
        original::destination(listener, intake);
    }
    if config.listener_filters.is_empty() {
        return Ok(());
    }
    let _pending = listener.stats.hold(stats::downstream_pre_cx_active);
    let limit = config.listener_filters_timeout.unwrap_or(Duration::from_secs(86_400 * 365));
    // In a box, which is gone when the connection idles.
    match tokio::time::timeout(limit, Box::pin(run_all(listener, worker, intake))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(refused)) => {
            match refused {
                Refused::Gone => listener.stats.inc(stats::downstream_listener_filter_remote_close),
                Refused::Broken => listener.stats.inc(stats::downstream_listener_filter_error),
                Refused::Limited => {}
            }
            Err(refused)
        }
        Err(_) => {
            listener.stats.inc(stats::downstream_pre_cx_timeout);
            if config.continue_on_listener_filters_timeout { Ok(()) } else { Err(Refused::Gone) }
        }
    }
}

async fn run_all(listener: &Listener, worker: &Rc<Worker>, intake: &mut Intake) -> Result<(), Refused> {
    for filter in &listener.config.listener_filters {
        if is_on(filter, intake) {
            run_one(&filter.kind, listener, worker, intake).await?;
        }
    }
    Ok(())
}

fn is_on(filter: &ListenerFilter, intake: &Intake) -> bool {
    !filter.disabled.as_ref().is_some_and(|disabled| disabled.is_match(Some(intake.local.port())))
}

async fn run_one(
    filter: &ListenerFilterKind,
    listener: &Listener,
    worker: &Rc<Worker>,
    intake: &mut Intake,
) -> Result<(), Refused> {
    match filter {
        ListenerFilterKind::OriginalDst => original::destination(listener, intake),
        ListenerFilterKind::OriginalSrc { bind_port, mark } => original::source(*bind_port, *mark, intake),
        ListenerFilterKind::TlsInspector {
            max_client_hello_size, close_on_parse_error, ja3, ja4, ..
        } => {
            let asked = inspect::tls::Asked { max: *max_client_hello_size, ja3: *ja3, ja4: *ja4 };
            return inspectors::tls(asked, *close_on_parse_error, listener, intake).await;
        }
        ListenerFilterKind::HttpInspector => return inspectors::http(listener, intake).await,
        ListenerFilterKind::ProxyProtocol(config) => {
            return proxy_protocol::run(config, worker, intake).await;
        }
        ListenerFilterKind::Discovered(config) => {
            let found = worker.active().snapshot.extensions.get(&config.resource.name).cloned();
            let Some(filter) = config.kind(found.as_ref()) else {
                // It might have stopped the connection.
                listener.stats.inc(stats::extension_config_missing);
                return Err(Refused::Limited);
            };
            return Box::pin(run_one(filter, listener, worker, intake)).await;
        }
        ListenerFilterKind::SetFilterState(values) => set_filter_state::run(values, listener, intake),
        ListenerFilterKind::LocalRateLimit(config) => return local_rate_limit::run(config, worker),
    }
    Ok(())
}
