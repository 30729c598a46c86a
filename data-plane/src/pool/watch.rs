//! Learns when idle HTTP/1 connections end: the upstream closes them, or says what nobody asked for.
//!
//! A pool has one task for all of them. It sleeps until one has something to read, which an idle connection must not
//! have; a request that takes a connection puts its own waker in the place of the task's.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};

use base::task::Supervised;

use super::Pool;
use super::lease::H1;

/// See the module's documentation.
pub(super) struct Watch {
    news: Arc<News>,
    waker: Waker,
    _task: Supervised<()>,
}

/// Told by the sockets of idle connections.
#[derive(Default)]
struct News {
    /// The task has not looked since.
    came: AtomicBool,
    /// Wakes the task. It has none before it ran, and then it looks at all connections.
    task: OnceLock<Waker>,
}

impl Wake for News {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.came.store(true, Relaxed);
        if let Some(task) = self.task.get() {
            task.wake_by_ref();
        }
    }
}

impl Watch {
    pub(super) fn new(pool: &Rc<Pool>) -> Self {
        let news = Arc::new(News::default());
        let (pool, told) = (Rc::downgrade(pool), news.clone());
        let task = Supervised::spawn_local(poll_fn(move |context| {
            told.task.get_or_init(|| context.waker().clone());
            told.came.store(false, Relaxed);
            let Some(pool) = pool.upgrade().filter(|pool| !pool.closed.get()) else { return Poll::Ready(()) };
            if let Some(watch) = pool.watch.get() {
                pool.drop_ended(watch);
            }
            Poll::Pending
        }));
        Self { waker: news.clone().into(), news, _task: task }
    }

    /// Whether an idle connection has ended. If not, the task learns of its end.
    pub(super) fn has_ended(&self, h1: &H1) -> bool {
        h1.has_ended(&mut Context::from_waker(&self.waker))
    }

    /// Whether a connection that was watched has ended. Costs nothing as long as nothing was heard of any.
    pub(super) fn knows_end_of(&self, h1: &H1) -> bool {
        (self.news.came.load(Relaxed) || h1.is_spelled()) && self.has_ended(h1)
    }
}
