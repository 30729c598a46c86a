//! The request's body, as its tries read it, and how much of it is kept for them.

use std::cell::RefCell;

use sail_proxy_decide::route::Route;

use crate::http::body::Body;
use crate::http::exchange::Exchange;
use crate::router::Found;
use crate::router::replay::Replay;

/// An HTTP/2 client's stream may have so much under way, where nothing else is said.
const STREAM_WINDOW: u32 = 16 * 1024 * 1024;

/// As much of a body as is kept for another try: what a connection of the listener may buffer, or an HTTP/2 stream have
/// under way, where nothing else is said.
pub(super) fn buffer_limit(exchange: &Exchange, found: &Found, route: &Route) -> usize {
    let limit = route.request_body_buffer_limit.or(found.virtual_host.request_body_buffer_limit);
    let of_stream = || {
        let manager = &exchange.connection.manager;
        u64::from(match exchange.connection.http2 {
            true => manager.config.http2.initial_stream_window_size.unwrap_or(STREAM_WINDOW),
            false => manager.buffer_limit,
        })
    };
    usize::try_from(limit.unwrap_or_else(of_stream)).unwrap_or(usize::MAX)
}

/// The request's body: sent once, or kept for more.
pub(super) enum Source {
    Once(RefCell<Option<Body>>),
    Replay(Replay),
}

impl Source {
    pub(super) fn new(body: Body, again: bool, limit: usize) -> Self {
        match body {
            Body::Empty => Self::Replay(Replay::new(Body::Empty, 0)),
            body if again => Self::Replay(Replay::new(body, limit)),
            body => Self::Once(RefCell::new(Some(body))),
        }
    }

    pub(super) fn reader(&self) -> Option<Body> {
        match self {
            Self::Once(body) => body.take(),
            Self::Replay(replay) => replay.can_replay().then(|| replay.reader()),
        }
    }

    pub(super) fn can_send_again(&self) -> bool {
        match self {
            Self::Once(body) => body.borrow().is_some(),
            Self::Replay(replay) => replay.can_replay(),
        }
    }

    /// The whole body, where it was kept.
    pub(super) fn whole(&self) -> Option<bytes::Bytes> {
        match self {
            Self::Once(_) => None,
            Self::Replay(replay) => replay.whole(),
        }
    }
}
