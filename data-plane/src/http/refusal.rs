//! Requests that the HTTP/1 codec cannot read: they are answered, counted and logged as others are.

use std::future::poll_fn;
use std::rc::Rc;

use http::StatusCode;

use super::conn::Connection;
use super::exchange::{Exchange, Guard};
use super::handler::{self, Asked, Reply};
use super::local_reply::{self, LocalReply};
use super::requests;
use crate::http1::downstream::{self, Responder};
use crate::http1::{Error, Refusal};
use crate::stats::sets::http as stats;
use crate::stream_info::{Protocol, ResponseFlag, details};

/// What the client is told.
fn reply(refusal: Refusal, accepts_http10: bool) -> LocalReply {
    let broken = |status, body, details| {
        LocalReply::new(status, body, details).flag(ResponseFlag::DownstreamProtocolError)
    };
    let bad = |details| broken(StatusCode::BAD_REQUEST, "Bad Request", details);
    let large = |details| {
        broken(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "Request Header Fields Too Large", details)
    };
    match refusal {
        Refusal::TooSlow => {
            let details = details::REQUEST_HEADER_TIMEOUT;
            LocalReply::new(StatusCode::REQUEST_TIMEOUT, "request header timeout", details)
        }
        Refusal::HeadTooLarge => large(details::HTTP1_HEADERS_TOO_LARGE),
        Refusal::TooManyHeaders => large(details::HTTP1_TOO_MANY_HEADERS),
        Refusal::OldCoding if accepts_http10 => bad(details::HTTP1_TRANSFER_ENCODING_NOT_ALLOWED),
        Refusal::Version | Refusal::OldCoding => {
            broken(StatusCode::UPGRADE_REQUIRED, "Upgrade Required", details::LOW_VERSION)
        }
        Refusal::Coding => {
            broken(StatusCode::NOT_IMPLEMENTED, "Not Implemented", details::HTTP1_INVALID_TRANSFER_ENCODING)
        }
        Refusal::Character => bad(details::HTTP1_INVALID_CHARACTERS),
        Refusal::Url => bad(details::HTTP1_INVALID_URL),
        Refusal::Scheme => bad(details::HTTP1_INVALID_SCHEME),
        Refusal::HttpsInTheClear => {
            broken(StatusCode::FORBIDDEN, "Forbidden", details::HTTP1_HTTPS_IN_THE_CLEAR)
        }
        Refusal::Malformed => bad(details::HTTP1_PROTOCOL_ERROR),
    }
}

/// Answers, and ends the connection.
pub(super) async fn answer(connection: &Rc<Connection>, codec: downstream::Connection, refusal: Refusal) {
    connection.closing.set(true);
    if refusal == Refusal::TooSlow {
        connection.manager.stats.inc(stats::downstream_rq_header_timeout);
    }
    let response = {
        let exchange = Exchange::begin(connection);
        let guard = Guard::new(exchange.clone());
        exchange.info.borrow_mut().protocol = Some(Protocol::Http11);
        let reply = reply(refusal, connection.manager.accepts_http10());
        let reply = Reply::local(local_reply::respond(&exchange, reply));
        handler::finish(&exchange, reply, guard, Asked::default())
    };
    codec.refuse();
    let mut responder = Responder::new(codec.clone());
    responder.begin(response);
    let sent = poll_fn(|context| requests::poll_sent(connection, &mut responder, true, context)).await;
    // A client that is gone need not be told; one that takes nothing has had its time.
    if !matches!(sent, Err(Error::Interrupted)) {
        requests::close(connection, &codec).await;
    }
}
