//! A downstream connection from its acceptance to the filter chain that takes it: original destination, inspection of
//! its first bytes, chain, TLS.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use sail_proxy_config::listener::{ListenerFilter, ListenerFilterKind, TrafficDirection};
use sail_proxy_decide::filter_chain;
use tokio::io::AsyncReadExt;

use super::chain::Chain;
use super::{Drain, Listener};
use crate::inspect::{self, Finding};
use crate::net::prefixed::Prefixed;
use crate::net::{Raw, Stream, original_dst};
use crate::stats::sets::listener as stats;
use crate::stream_info::{Direction, DownstreamInfo};
use crate::tls::{self, Peer};
use crate::worker::state::Worker;

/// What is known of a connection when a filter chain takes it.
#[derive(Clone)]
pub(crate) struct Accepted {
    pub(crate) downstream: Rc<DownstreamInfo>,
    pub(crate) tls: Option<Rc<Peer>>,
    /// The destination before the kernel redirected the connection, if it did.
    pub(crate) original_destination: Option<SocketAddr>,
    pub(crate) drain: Drain,
}

impl Accepted {
    /// The peer's names, as policies read them.
    pub(crate) fn peer(&self) -> Option<sail_proxy_decide::rbac::Peer<'_>> {
        let peer = self.tls.as_deref().filter(|peer| peer.info.peer_certificate_presented)?;
        Some(sail_proxy_decide::rbac::Peer {
            uri_sans: &peer.uri_sans,
            dns_sans: &peer.dns_sans,
            subject: peer.info.peer_subject.as_deref().unwrap_or_default(),
        })
    }

    /// Resolves when the connection's listener begins to drain.
    pub(crate) fn drained(&self) -> tokio_util::sync::WaitForCancellationFutureOwned {
        self.drain.token().clone().cancelled_owned()
    }
}

/// What inspection found.
#[derive(Default)]
struct Inspected {
    tls: Option<inspect::tls::Hello>,
    http: Option<inspect::http::Version>,
}

/// Serves a connection in a task of its own.
pub(crate) fn spawn(worker: &Rc<Worker>, listener: Rc<Listener>, raw: Raw, remote: Option<SocketAddr>) {
    let worker = worker.clone();
    tokio::task::spawn_local(async move {
        worker.shared.connections.fetch_add(1, Relaxed);
        let started = Instant::now();
        let stats = listener.stats.clone();
        serve(&worker, listener, raw, remote).await;
        stats.inc(stats::downstream_cx_destroy);
        stats.record(stats::downstream_cx_length_ms, started.elapsed().as_millis() as u64);
        worker.shared.connections.fetch_sub(1, Relaxed);
    });
}

async fn serve(worker: &Rc<Worker>, mut listener: Rc<Listener>, mut raw: Raw, remote: Option<SocketAddr>) {
    let unspecified = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let remote = canonical(remote.unwrap_or(unspecified));
    let bound = match &raw {
        Raw::Tcp(tcp) => tcp.local_addr().unwrap_or(unspecified),
        Raw::Unix(_) => unspecified,
    };
    let mut local = canonical(bound);
    let mut original = None;
    if restores_destination(&listener) {
        original = original_dst::original_dst(&raw, bound).map(canonical).filter(|found| *found != local);
        if let Some(destination) = original {
            local = destination;
            if listener.config.use_original_dst
                && let Some(other) = super::for_destination(worker, destination)
                && !Rc::ptr_eq(&other, &listener)
            {
                listener = other;
            }
        }
    }
    listener.stats.inc(stats::downstream_cx_total);
    let _active = listener.stats.hold(stats::downstream_cx_active);
    let Some((inspected, prefix)) = inspect(&listener, &mut raw, local).await else { return };
    let Some(chain) = choose(worker, &listener, &inspected, local, remote) else {
        listener.stats.inc(stats::no_filter_chain_match);
        tracing::debug!(listener = %listener.config.name, %local, "closed a connection that no filter chain matches");
        return;
    };
    let Ok((stream, tls)) = secure(worker, &listener, &chain, Prefixed::new(prefix, raw)).await else {
        return;
    };
    let server_name = tls
        .as_ref()
        .and_then(|peer| peer.info.server_name.as_deref())
        .or_else(|| inspected.tls.as_ref().and_then(|hello| hello.server_name.as_deref()))
        .map(Into::into);
    let downstream = Rc::new(DownstreamInfo {
        connection_id: worker.shared.next_connection.fetch_add(1, Relaxed),
        remote_address: remote,
        direct_remote_address: remote,
        local_address: local,
        server_name,
        tls: tls.as_ref().map(|peer| peer.info.clone()),
        transport_failure: None,
        direction: match listener.config.traffic_direction {
            TrafficDirection::Inbound => Direction::Inbound,
            TrafficDirection::Outbound => Direction::Outbound,
            TrafficDirection::Unspecified => Direction::Unspecified,
        },
    });
    let accepted = Accepted {
        downstream,
        tls: tls.map(Rc::new),
        original_destination: Some(original.unwrap_or(local)),
        drain: listener.drain.clone(),
    };
    chain.serve(worker.clone(), accepted, stream).await;
}

/// Whether the listener asks the kernel where a connection was going.
fn restores_destination(listener: &Listener) -> bool {
    let filters = &listener.config.listener_filters;
    listener.config.use_original_dst
        || filters.iter().any(|filter| matches!(filter.kind, ListenerFilterKind::OriginalDst))
}

/// An IPv4 peer of a dual-stack socket is an IPv4 peer.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn choose(
    worker: &Rc<Worker>,
    listener: &Listener,
    inspected: &Inspected,
    local: SocketAddr,
    remote: SocketAddr,
) -> Option<Rc<Chain>> {
    let mut protocols: smallvec::SmallVec<[&str; 4]> = smallvec::SmallVec::new();
    if let Some(hello) = &inspected.tls {
        protocols.extend(hello.alpn.iter().map(String::as_str));
    }
    protocols.extend(inspected.http.map(inspect::http::Version::alpn));
    let connection = filter_chain::Connection {
        destination: Some((local.ip(), local.port())),
        source: Some((remote.ip(), remote.port())),
        direct_source: Some(remote.ip()),
        server_name: inspected
            .tls
            .as_ref()
            .and_then(|hello| hello.server_name.as_deref())
            .unwrap_or_default(),
        transport_protocol: if inspected.tls.is_some() { "tls" } else { "raw_buffer" },
        application_protocols: &protocols,
    };
    listener.chain(&connection, worker)
}

/// Runs the listener's inspectors on the first bytes. `None` closes the connection.
async fn inspect(listener: &Listener, raw: &mut Raw, local: SocketAddr) -> Option<(Inspected, Bytes)> {
    let port = Some(local.port());
    let wants = |wanted: fn(&ListenerFilterKind) -> bool| {
        let on = |filter: &ListenerFilter| {
            !filter.disabled.as_ref().is_some_and(|disabled| disabled.is_match(port))
        };
        listener.config.listener_filters.iter().any(|filter| wanted(&filter.kind) && on(filter))
    };
    let tls = wants(|kind| matches!(kind, ListenerFilterKind::TlsInspector { .. }));
    let http = wants(|kind| matches!(kind, ListenerFilterKind::HttpInspector));
    let mut inspected = Inspected::default();
    if !tls && !http {
        return Some((inspected, Bytes::new()));
    }
    let _pending = listener.stats.hold(stats::downstream_pre_cx_active);
    let mut seen = BytesMut::new();
    let limit = listener.config.listener_filters_timeout.unwrap_or(Duration::from_secs(86_400 * 365));
    let reading = read_until_known(raw, tls, http, &mut seen, &mut inspected);
    match tokio::time::timeout(limit, reading).await {
        Ok(Ok(())) => Some((inspected, seen.freeze())),
        Ok(Err(_)) => {
            listener.stats.inc(stats::downstream_listener_filter_remote_close);
            None
        }
        Err(_) => {
            listener.stats.inc(stats::downstream_pre_cx_timeout);
            listener.config.continue_on_listener_filters_timeout.then(|| (inspected, seen.freeze()))
        }
    }
}

async fn read_until_known(
    raw: &mut Raw,
    tls: bool,
    http: bool,
    seen: &mut BytesMut,
    inspected: &mut Inspected,
) -> io::Result<()> {
    let (mut tls, mut http) = (tls, http);
    loop {
        if tls && !seen.is_empty() {
            match inspect::tls::inspect(seen) {
                Finding::Found(hello) => {
                    inspected.tls = Some(hello);
                    return Ok(());
                }
                Finding::Not => tls = false,
                Finding::NeedMore => {}
            }
        }
        // What could still be TLS is not HTTP.
        if http && !tls && !seen.is_empty() {
            match inspect::http::inspect(seen) {
                Finding::Found(version) => {
                    inspected.http = Some(version);
                    return Ok(());
                }
                Finding::Not => http = false,
                Finding::NeedMore => {}
            }
        }
        if !tls && !http {
            return Ok(());
        }
        if seen.capacity() == seen.len() {
            seen.reserve(if seen.is_empty() { 2048 } else { seen.len() });
        }
        if raw.read_buf(seen).await? == 0 {
            // A client that says nothing and goes is none; one that said something may be served what it is owed.
            return if seen.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) };
        }
    }
}

/// Does TLS's handshake, if the chain has TLS.
async fn secure(
    worker: &Worker,
    listener: &Listener,
    chain: &Chain,
    plain: Prefixed,
) -> Result<(Stream, Option<Peer>), ()> {
    let Some(tls) = chain.tls() else { return Ok((Stream::Plain(plain), None)) };
    let active = worker.active();
    let server = worker.shared.contexts.server(tls, &active.snapshot).map_err(|error| {
        // Deny closed: without a certificate nobody is served.
        listener.stats.inc(stats::ssl_connection_error);
        tracing::warn!(listener = %listener.config.name, %error, "refused a connection: TLS is not ready");
    })?;
    let limit = chain.handshake_timeout();
    let handshake = tls::accept(server.config, &server.local, plain);
    match tokio::time::timeout(limit, handshake).await {
        Ok(Ok((stream, peer))) => {
            listener.stats.inc(stats::ssl_handshake);
            if peer.resumed {
                listener.stats.inc(stats::ssl_session_reused);
            }
            if !peer.info.peer_certificate_presented {
                listener.stats.inc(stats::ssl_no_certificate);
            }
            Ok((stream, Some(peer)))
        }
        Ok(Err(error)) => {
            listener.stats.inc(stats::ssl_connection_error);
            listener.stats.inc(tls::failure_counter(&error));
            tracing::debug!(listener = %listener.config.name, %error, "TLS handshake failed");
            Err(())
        }
        Err(_) => {
            listener.stats.inc(stats::downstream_cx_transport_socket_connect_timeout);
            Err(())
        }
    }
}
