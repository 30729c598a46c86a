//! Learns when idle HTTP/1 connections end: the upstream closes them, or says what nobody asked for.
//!
//! A pool has one task for all of them. It sleeps until one has something to read, which an idle connection must not
//! have; a request that takes a connection puts its own waker in the place of the task's.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use base::task::Supervised;

use super::Pool;
use super::lease::H1;
use crate::rt::Bell;

/// See the module's documentation.
pub(super) struct Watch {
    /// Rung by the sockets of idle connections.
    bell: Arc<Bell>,
    waker: Waker,
    _task: Supervised<()>,
}

impl Watch {
    pub(super) fn new(pool: &Rc<Pool>) -> Self {
        // Before it ran the task has no waker, and then it looks at all connections.
        let bell = Arc::new(Bell::default());
        let (pool, told) = (Rc::downgrade(pool), bell.clone());
        let task = Supervised::spawn_local(poll_fn(move |context| {
            told.reset(context);
            let Some(pool) = pool.upgrade().filter(|pool| !pool.closed.get()) else { return Poll::Ready(()) };
            if let Some(watch) = pool.watch.get() {
                pool.drop_ended(watch);
            }
            Poll::Pending
        }));
        Self { waker: bell.clone().into(), bell, _task: task }
    }

    /// Whether an idle connection has ended. If not, the task learns of its end.
    pub(super) fn has_ended(&self, h1: &H1) -> bool {
        h1.has_ended(&mut Context::from_waker(&self.waker))
    }

    /// Whether a connection that was watched has ended. Costs nothing as long as nothing was heard of any.
    pub(super) fn knows_end_of(&self, h1: &H1) -> bool {
        self.bell.has_rung() && self.has_ended(h1)
    }
}
