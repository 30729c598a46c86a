//! The admin listener's own statistics, as those of any other listener and connection manager.

use std::time::Instant;

use ::http::{Request, StatusCode};

use crate::stats::sets::{http, listener, listener_http};
use crate::stats::{Held, Store};

/// A connection, for as long as it lasts.
pub(super) struct Connection {
    http: http::Scope,
    listener: listener::Scope,
    both: listener_http::Scope,
    started: Instant,
    _active: (Held<http::Set>, Held<http::Set>, Held<listener::Set>),
}

/// A request under way.
pub(super) struct Count {
    http: http::Scope,
    both: listener_http::Scope,
    _active: Held<http::Set>,
}

impl Connection {
    pub(super) fn new(store: &Store) -> Self {
        let http: http::Scope = store.pinned("admin");
        let listener: listener::Scope = store.pinned("admin");
        http.inc(http::downstream_cx_total);
        http.inc(http::downstream_cx_http1_total);
        listener.inc(listener::downstream_cx_total);
        let active = (
            http.hold(http::downstream_cx_active),
            http.hold(http::downstream_cx_http1_active),
            listener.hold(listener::downstream_cx_active),
        );
        let both = store.pinned("admin.http.admin");
        Self { http, listener, both, started: Instant::now(), _active: active }
    }

    pub(super) fn request<B>(&self, request: Request<B>) -> (Request<B>, Count) {
        self.http.inc(http::downstream_rq_total);
        self.http.inc(http::downstream_rq_http1_total);
        let active = self.http.hold(http::downstream_rq_active);
        (request, Count { http: self.http.clone(), both: self.both.clone(), _active: active })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.http.inc(http::downstream_cx_destroy);
        self.http.inc(http::downstream_cx_destroy_remote);
        self.http.record(http::downstream_cx_length_ms, millis);
        self.listener.inc(listener::downstream_cx_destroy);
        self.listener.record(listener::downstream_cx_length_ms, millis);
    }
}

impl Count {
    pub(super) fn answered(self, status: StatusCode) {
        self.http.inc(http::downstream_rq_completed);
        self.both.inc(listener_http::downstream_rq_completed);
        let (here, there) = match status.as_u16() / 100 {
            2 => (http::downstream_rq_2xx, listener_http::downstream_rq_2xx),
            4 => (http::downstream_rq_4xx, listener_http::downstream_rq_4xx),
            _ => (http::downstream_rq_5xx, listener_http::downstream_rq_5xx),
        };
        self.http.inc(here);
        self.both.inc(there);
    }
}
