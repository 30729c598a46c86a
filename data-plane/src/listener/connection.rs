//! A downstream connection from its acceptance to the filter chain that takes it: original destination, inspection of
//! its first bytes, chain, TLS.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use sail_proxy_config::listener::TrafficDirection;
use sail_proxy_decide::filter_chain;

use super::chain::Chain;
use super::filters::{self, Intake};
use super::{Drain, Listener, limits};
use crate::clock::Still;
use crate::inspect;
use crate::net::prefixed::Prefixed;
use crate::net::{Raw, Stream};
use crate::stats::sets::{listener as stats, listener_tls};
use crate::stream_info::details::close_reason;
use crate::stream_info::{ConnectionState, Direction, DownstreamInfo, Life, ResponseFlag};
use crate::tcp_stats::Sampled;
use crate::tls::context::ContextError;
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
    /// The peer's names, as policies read them: those of a certificate that nobody vouches for are nobody's.
    pub(crate) fn peer(&self) -> Option<sail_proxy_decide::rbac::Peer<'_>> {
        let peer = self.tls.as_deref().filter(|peer| peer.info.peer_certificate_validated)?;
        Some(sail_proxy_decide::rbac::Peer {
            uri_sans: &peer.uri_sans,
            dns_sans: &peer.dns_sans,
            subject: peer.info.peer_subject.as_deref().unwrap_or_default(),
        })
    }

    /// Resolves when the connection's filter chain begins to drain.
    pub(crate) fn drained(&self) -> tokio_util::sync::WaitForCancellationFutureOwned {
        self.drain.token().clone().cancelled_owned()
    }
}

/// Serves a connection in a task of its own, if there is a place for it.
pub(crate) fn spawn(worker: &Rc<Worker>, listener: Rc<Listener>, raw: Raw, remote: Option<SocketAddr>) {
    let Some(place) = limits::admit(worker, &listener) else { return };
    let worker = worker.clone();
    tokio::task::spawn_local(Still::new(async move {
        let _place = place;
        let started = Instant::now();
        let stats = listener.stats.clone();
        serve(&worker, listener, raw, remote, started).await;
        stats.inc(stats::downstream_cx_destroy);
        stats.record(stats::downstream_cx_length_ms, started.elapsed().as_millis() as u64);
    }));
}

async fn serve(
    worker: &Rc<Worker>,
    mut listener: Rc<Listener>,
    raw: Raw,
    remote: Option<SocketAddr>,
    started: Instant,
) {
    let mut intake = Intake::new(raw, remote, started);
    if filters::run(&listener, worker, &mut intake).await.is_err() {
        return;
    }
    if listener.config.use_original_dst
        && let Some(destination) = intake.original
        && let Some(other) = super::for_destination(worker, destination)
        && !Rc::ptr_eq(&other, &listener)
    {
        // It is the other one's connection from here on, with that one's filters.
        listener = other;
        if filters::run(&listener, worker, &mut intake).await.is_err() {
            return;
        }
    }
    listener.stats.inc(stats::downstream_cx_total);
    let _active = listener.stats.hold(stats::downstream_cx_active);
    let mut downstream = described(worker, &listener, &mut intake);
    let Some(chain) = choose(worker, &listener, &intake) else {
        listener.stats.inc(stats::no_filter_chain_match);
        tracing::debug!(
            listener = %listener.config.name, local = %intake.local,
            "closed a connection that no filter chain matches"
        );
        listener.log(worker, Rc::new(downstream), Some(ResponseFlag::NoRouteFound));
        return;
    };
    let local = intake.local;
    let original_destination = Some(intake.original.unwrap_or(local));
    let (prefix, raw) = intake.into_socket();
    let life = &downstream.state.life;
    keep_socket(worker, &listener, &chain, &raw, life);
    let Ok((stream, tls)) = secure(worker, &listener, &chain, Prefixed::new(prefix, raw), life).await else {
        listener.log(worker, Rc::new(downstream), None);
        return;
    };
    if let Some(peer) = &tls {
        if let Some(name) = peer.info.server_name.as_deref() {
            downstream.server_name = Some(name.into());
        }
        downstream.tls = Some(peer.info.clone());
    }
    let downstream = Rc::new(downstream);
    let accepted = Accepted {
        downstream: downstream.clone(),
        tls: tls.map(Rc::new),
        original_destination,
        drain: chain.drain.clone(),
    };
    chain.serve(worker.clone(), accepted, stream).await;
    listener.log(worker, downstream.clone(), None);
    downstream.state.life.release_socket();
}

/// Keeps a handle of the socket where the kernel is asked about it. Not a part of the async function, whose future it
/// would make larger.
fn keep_socket(worker: &Worker, listener: &Listener, chain: &Chain, raw: &Raw, life: &Life) {
    let sampled = chain.tcp_stats().zip(listener.tcp_stats.as_ref());
    let sampled = sampled.and_then(|(config, stats)| Sampled::new(config, raw.as_fd(), stats.clone()));
    if sampled.is_some() || chain.wants_round_trip() || listener.wants_round_trip(worker) {
        life.keep_socket(raw.as_fd(), sampled);
    }
}

/// What is known of a connection before TLS.
fn described(worker: &Worker, listener: &Listener, intake: &mut Intake) -> DownstreamInfo {
    let state = ConnectionState {
        metadata: std::mem::take(&mut intake.metadata).into(),
        filter_state: std::mem::take(&mut intake.filter_state).into(),
        tlvs: std::mem::take(&mut intake.tlvs),
        pipe: intake.pipe(listener),
        proxied: intake.proxied,
        upstream_source: intake.upstream_source,
        fingerprints: fingerprints(intake),
        life: Life::new(intake.accepted),
    };
    let connection_id = worker.shared.next_connection.fetch_add(1, Relaxed);
    DownstreamInfo { connection_id, state: Rc::new(state), ..plain(listener, intake) }
}

/// The same while listener filters are still at work.
pub(super) fn preview(listener: &Listener, intake: &Intake) -> DownstreamInfo {
    let state = ConnectionState {
        metadata: intake.metadata.clone().into(),
        filter_state: intake.filter_state.clone().into(),
        ..ConnectionState::default()
    };
    DownstreamInfo { state: Rc::new(state), ..plain(listener, intake) }
}

fn plain(listener: &Listener, intake: &Intake) -> DownstreamInfo {
    DownstreamInfo {
        connection_id: 0,
        remote_address: intake.remote,
        direct_remote_address: intake.direct_remote,
        local_address: intake.local,
        direct_local_address: intake.bound(),
        server_name: intake.hello.as_ref().and_then(|hello| hello.server_name.as_deref()).map(Into::into),
        tls: None,
        direction: match listener.config.traffic_direction {
            TrafficDirection::Inbound => Direction::Inbound,
            TrafficDirection::Outbound => Direction::Outbound,
            TrafficDirection::Unspecified => Direction::Unspecified,
        },
        state: Rc::default(),
    }
}

fn fingerprints(intake: &mut Intake) -> Option<Box<inspect::tls::Fingerprints>> {
    let found = std::mem::take(&mut intake.hello.as_mut()?.fingerprints);
    (found.ja3.is_some() || found.ja4.is_some()).then(|| Box::new(found))
}

fn choose(worker: &Rc<Worker>, listener: &Listener, intake: &Intake) -> Option<Rc<Chain>> {
    let mut protocols: smallvec::SmallVec<[&str; 4]> = smallvec::SmallVec::new();
    if let Some(hello) = &intake.hello {
        protocols.extend(hello.alpn.iter().map(String::as_str));
    }
    protocols.extend(intake.http.map(inspect::http::Version::alpn));
    let address = |address: SocketAddr| (address.ip(), address.port());
    let connection = filter_chain::Connection {
        destination: Some(address(intake.local)),
        source: Some(address(intake.remote)),
        direct_source: Some(intake.direct_remote.ip()),
        server_name: intake.hello.as_ref().and_then(|hello| hello.server_name.as_deref()).unwrap_or_default(),
        transport_protocol: if intake.hello.is_some() { "tls" } else { "raw_buffer" },
        application_protocols: &protocols,
    };
    listener.chain(&connection, worker)
}

/// Does TLS's handshake, if the chain has TLS.
async fn secure(
    worker: &Worker,
    listener: &Listener,
    chain: &Chain,
    plain: Prefixed,
    life: &Life,
) -> Result<(Stream, Option<Peer>), ()> {
    let Some(tls) = chain.tls() else { return Ok((Stream::Plain(plain), None)) };
    let active = worker.active();
    let server = worker.shared.contexts.server(tls, &active.snapshot).map_err(|error| {
        // Deny closed: without a certificate nobody is served.
        let why = match &error {
            ContextError::Waiting(_) => listener_tls::secrets_not_ready,
            _ => listener_tls::connection_error,
        };
        if let Some(stats) = &listener.tls {
            stats.inc(why);
        }
        tracing::warn!(listener = %listener.config.name, %error, "refused a connection: TLS is not ready");
    })?;
    let begun = Instant::now();
    let limit = chain.handshake_timeout();
    // In a box, which is gone when the connection idles.
    let handshake = Box::pin(tls::accept(server, plain));
    match tokio::time::timeout(limit, handshake).await {
        Ok(Ok((stream, peer))) => {
            life.handshake.set(Some((begun, Instant::now())));
            if let Some(stats) = &listener.tls {
                tls::counts::succeeded(stats, &peer);
                if !peer.info.peer_certificate_presented {
                    stats.inc(listener_tls::no_certificate);
                } else if !peer.info.peer_certificate_validated {
                    stats.inc(listener_tls::fail_verify_error);
                }
            }
            Ok((stream, Some(peer)))
        }
        Ok(Err(error)) => {
            if let Some(stats) = &listener.tls {
                tls::counts::failed(stats, &error);
            }
            tracing::debug!(listener = %listener.config.name, %error, "TLS handshake failed");
            // It is set here alone.
            let _ = life.transport_failure.set(format!("TLS_error: {error}").into());
            Err(())
        }
        Err(_) => {
            listener.stats.inc(stats::downstream_cx_transport_socket_connect_timeout);
            life.local_close_reason.set(Some(close_reason::TRANSPORT_SOCKET_TIMEOUT));
            Err(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, B, C, D, E, F: Future>(_: impl FnOnce(A, B, C, D, E) -> F) -> usize {
        size_of::<F>()
    }

    /// Every idle connection has one. What is not waited for all along belongs into a box.
    #[test]
    fn a_connection_is_small() {
        let size = size_of_future(|worker: &'static Rc<Worker>, listener, raw, remote, started| {
            serve(worker, listener, raw, remote, started)
        });
        assert!(size <= 2600, "{size} bytes");
    }
}
