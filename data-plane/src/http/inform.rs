//! What a client is told before its response: `100 Continue`, and what its upstream says so.

use http::header::EXPECT;
use http::{Response, StatusCode, Version, response};

use super::conn::Codec;
use super::exchange::Exchange;
use super::head::Head;
use super::{hop, mutate};
use crate::clock;

/// Tells a client to go on that waits for it, before anything is known of its request, as Envoy does. Where upstreams
/// are to say so (`proxy_100_continue`), or to judge another expectation, they get the header.
pub(super) fn go_ahead(exchange: &Exchange, head: &mut Head) {
    // A client that speaks HTTP/1.0 knows of no such response.
    if !head.present.expect || passes_on(exchange) || head.version == Version::HTTP_10 {
        return;
    }
    if head.headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        head.headers.remove(EXPECT);
        let (mut parts, ()) = Response::new(()).into_parts();
        parts.status = StatusCode::CONTINUE;
        send(exchange, &parts);
    }
}

/// Tells the client what its upstream says before the response, if it is to hear that.
pub(crate) fn pass_on(exchange: &Exchange, mut response: Response<()>) {
    if passes_on(exchange) {
        hop::strip_response(response.headers_mut());
        mutate::informational(exchange, &mut response);
        send(exchange, &response.into_parts().0);
    }
}

fn passes_on(exchange: &Exchange) -> bool {
    exchange.connection.manager.config.proxy_100_continue
}

fn send(exchange: &Exchange, parts: &response::Parts) {
    let connection = &exchange.connection;
    connection.manager.count_code(parts.status.as_u16());
    exchange.info.borrow_mut().response_code = Some(parts.status.as_u16());
    exchange.moved.set(clock::now());
    match (connection.codec.get(), exchange.stream.get()) {
        (Some(Codec::Http1(informer)), _) => informer.inform(parts),
        (Some(Codec::Http2(codec)), Some(on)) => codec.inform(on, parts),
        _ => {}
    }
}
