//! Upgrades: a WebSocket's opening goes through the router like any request; after 101 bytes are relayed both ways.

use std::rc::Rc;

use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Extensions, Method, Response, StatusCode, Version, request};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use crate::http::exchange::Exchange;
use crate::stats::sets::http as stats;

/// Puts the upgrade into the request that goes upstream.
pub(super) fn ask(parts: &mut request::Parts, protocol: &str, http2: bool) {
    if http2 {
        parts.method = Method::CONNECT;
        parts.extensions.insert(hyper::ext::Protocol::from(protocol));
    } else {
        if parts.method == Method::CONNECT {
            parts.method = Method::GET;
        }
        parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        if let Ok(protocol) = HeaderValue::from_str(protocol) {
            parts.headers.insert(UPGRADE, protocol);
        }
    }
}

/// Whether the upstream switched.
pub(super) fn is_accepted(response: &Response<Incoming>) -> bool {
    response.status() == StatusCode::SWITCHING_PROTOCOLS
        || response.version() == Version::HTTP_2 && response.status() == StatusCode::OK
}

/// Relays between both sides once both have switched.
pub(super) fn relay(exchange: &Rc<Exchange>, extensions: &mut Extensions, response: &mut Response<Incoming>) {
    let upstream = hyper::upgrade::on(&mut *response);
    let Some(downstream) = extensions.remove::<OnUpgrade>() else { return };
    if !exchange.connection.http2 {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
        if let Some(protocol) = &exchange.info.borrow().upgrade
            && let Ok(protocol) = HeaderValue::from_str(protocol)
        {
            response.headers_mut().insert(UPGRADE, protocol);
        }
    } else {
        *response.status_mut() = StatusCode::OK;
        response.headers_mut().remove(CONNECTION);
        response.headers_mut().remove(UPGRADE);
    }
    let connection = exchange.connection.clone();
    let stats = connection.manager.stats.clone();
    stats.inc(stats::downstream_cx_upgrades_total);
    // The codec thinks the exchange over; for the connection's timers it goes on.
    connection.active.set(connection.active.get() + 1);
    tokio::task::spawn_local(async move {
        let _active = stats.hold(stats::downstream_cx_upgrades_active);
        if let (Ok(downstream), Ok(upstream)) = (downstream.await, upstream.await) {
            let (mut downstream, mut upstream) = (TokioIo::new(downstream), TokioIo::new(upstream));
            // Either side may end it; how is theirs to know.
            let _ = tokio::io::copy_bidirectional(&mut downstream, &mut upstream).await;
        }
        connection.active.set(connection.active.get() - 1);
    });
}
