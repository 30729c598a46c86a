//! How upstream connections end: by whose doing, and whether a request was on them.

use std::cell::{Cell, OnceCell};

use crate::http::body::BodyError;
use crate::http1::{self, Left};
use crate::stats::sets::cluster as stats;

/// Who ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// We did.
    Us,
    /// The upstream did.
    Peer,
}

/// What is known of a connection's end. It counts when nobody holds the connection any more: those who used it know more
/// than the task that drove it.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    stats: OnceCell<stats::Scope>,
    busy: Cell<bool>,
    by: Cell<Option<By>>,
    broken: Cell<bool>,
}

impl Ending {
    /// The cluster that counts it; what has none is not counted.
    pub(crate) fn count_in(&self, stats: &stats::Scope) {
        // It is set here alone, once.
        let _ = self.stats.set(stats.clone());
    }

    /// A request is on it, up to its end.
    pub(crate) fn set_busy(&self, busy: bool) {
        self.busy.set(busy);
    }

    /// It was ended; who says so first is right.
    pub(crate) fn ended_by(&self, by: By) {
        if self.by.get().is_none() {
            self.by.set(Some(by));
        }
    }

    /// It was ended, whoever said what before.
    pub(crate) fn was_ended_by(&self, by: By) {
        self.by.set(Some(by));
    }

    /// The task that drove it ended: it was aborted, or nobody had a use for it (`wanted`), or the peer ended it.
    pub(super) fn task_ended(&self, aborted: bool, wanted: bool) {
        self.ended_by(if aborted || !wanted { By::Us } else { By::Peer });
    }

    /// It serves no other request, whoever said what before.
    pub(super) fn left(&self, left: Left) {
        match left {
            // A body that ends with its connection: its end came first.
            Left::ByPeer => self.was_ended_by(By::Peer),
            Left::ByUs => self.ended_by(By::Us),
            Left::Unasked => {
                self.ended_by(By::Us);
                self.broken();
            }
        }
    }

    /// A request on it failed so. Whoever was asked for it knows better than a task that drove it.
    pub(super) fn failed(&self, error: &BodyError, unsent: bool) {
        let (ours, malformed) = match error {
            BodyError::Http1(error) => (
                matches!(error, http1::Error::Interrupted | http1::Error::Body(_)),
                matches!(error, http1::Error::Invalid(_)),
            ),
            BodyError::Http2(_) | BodyError::Request(_) | BodyError::Reset(_) | BodyError::Unflushed => {
                (true, false)
            }
        };
        self.busy.set(!unsent);
        self.by.set(Some(if ours || malformed { By::Us } else { By::Peer }));
        if malformed || matches!(error, BodyError::Http1(http1::Error::Partial)) {
            self.broken();
        }
    }

    /// What came was no HTTP, or ended in the middle of it.
    pub(crate) fn broken(&self) {
        self.broken.set(true);
    }

    /// The upstream asked for its end, after the response that it was busy with.
    pub(crate) fn told_to_close(&self) {
        self.by.set(Some(By::Us));
        if let Some(stats) = self.stats.get() {
            stats.inc(stats::upstream_cx_close_notify);
        }
    }

    /// Counts it, after so many requests.
    pub(super) fn count(&self, requests: u32) {
        let Some(stats) = self.stats.get() else { return };
        let busy = self.busy.get();
        let (ended, with_request) = match self.by.get() {
            Some(By::Peer) => {
                (stats::upstream_cx_destroy_remote, stats::upstream_cx_destroy_remote_with_active_rq)
            }
            _ => (stats::upstream_cx_destroy_local, stats::upstream_cx_destroy_local_with_active_rq),
        };
        stats.inc(ended);
        if busy {
            stats.inc(stats::upstream_cx_destroy_with_active_rq);
            stats.inc(with_request);
        }
        if self.broken.get() {
            stats.inc(stats::upstream_cx_protocol_error);
        }
        if requests > 0 {
            stats.record(stats::upstream_rq_per_cx, requests.into());
        }
    }
}
