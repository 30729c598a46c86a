//! Upgrades: a WebSocket's opening goes through the router like any request; after 101 bytes are relayed both ways.

use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue, UPGRADE};
use http::{Method, Response, StatusCode, Version, request};

use crate::http::body::Body;
use crate::http::exchange::Exchange;
use crate::http::hop;
use crate::http::local_reply::{self, LocalReply};
use crate::http::tunnel::{Downstream, Tunnel, Upstream};
use crate::http2::{Protocol, Tunnel as StreamTunnel};
use crate::net::Stream;
use crate::pool::lease::Lease;
use crate::stream_info::details;

/// Puts the upgrade into the request that goes upstream.
pub(super) fn ask(parts: &mut request::Parts, protocol: &str, http2: bool) {
    if http2 {
        parts.method = Method::CONNECT;
        parts.extensions.insert(Protocol(protocol.into()));
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
pub(super) fn is_accepted<B>(response: &Response<B>, connect: bool) -> bool {
    if connect {
        return response.status().is_success();
    }
    response.status() == StatusCode::SWITCHING_PROTOCOLS
        || response.version() == Version::HTTP_2 && response.status() == StatusCode::OK
}

/// Whether the upstream answers a request for a WebSocket with something that is neither one nor an error.
pub(super) fn is_no_websocket(exchange: &Exchange, response: &Response<Body>, lease: &Lease) -> bool {
    let asked =
        exchange.info.borrow().upgrade.as_deref().is_some_and(|kind| kind.eq_ignore_ascii_case("websocket"));
    asked && !lease.is_http2() && response.status().as_u16() < 400
}

/// What the client of such an upstream is told.
pub(super) fn refused(exchange: &Exchange, status: StatusCode) -> Response<Body> {
    let details = details::WEBSOCKET_HANDSHAKE_UNSUCCESSFUL;
    local_reply::respond(exchange, LocalReply::new(status, "", details))
}

/// The tunnel between both sides, which have switched, and the response as the client's version has it.
pub(super) fn switch(
    exchange: &Exchange,
    connect: bool,
    response: &mut Response<Body>,
    lease: &mut Lease,
) -> Option<Box<Tunnel>> {
    let meter = lease.meter();
    let upstream = match lease.take_stream() {
        // The lease stands for what is held.
        Some(stream) => Upstream::Connected(stream, meter, Box::new(())),
        None => match std::mem::replace(response.body_mut(), Body::Empty) {
            Body::Streamed(body) => {
                let tunnel = StreamTunnel::new(body.into_handle());
                Upstream::Switched(Stream::Tunnel(Box::new(tunnel)))
            }
            // It has ended with its head.
            _ => return None,
        },
    };
    let downstream = Downstream::of(exchange)?;
    hop::strip_response(response.headers_mut());
    if connect {
        response.headers_mut().remove(CONTENT_LENGTH);
    } else if exchange.connection.http2 {
        // On the wire it is 200; all else sees what it means.
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().remove(CONTENT_LENGTH);
    } else {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
        if let Some(protocol) = &exchange.info.borrow().upgrade
            && let Ok(protocol) = HeaderValue::from_str(protocol)
        {
            response.headers_mut().insert(UPGRADE, protocol);
        }
    }
    Some(Box::new(Tunnel { downstream, upstream }))
}
