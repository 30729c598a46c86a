//! A runtime of one thread, whose tasks never leave it, and what runs on it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Release};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;
use pin_project_lite::pin_project;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

/// The runtime of the calling thread.
///
/// # Errors
/// The system's, where it gives no file for events or for waking.
pub(crate) fn local() -> std::io::Result<LocalRuntime> {
    Builder::new_current_thread().enable_all().build_local(LocalOptions::default())
}

pin_project! {
    /// A future that is asked only after it was woken. One that mostly sleeps costs next to nothing beside a busy one in
    /// the same task.
    pub(crate) struct Sleeper<F> {
        #[pin]
        future: F,
        bell: Arc<Bell>,
        // Whom the bell wakes.
        task: Option<Waker>,
    }
}

/// A flag beside a task: who wakes it raises the flag, too.
#[derive(Default)]
pub(crate) struct Bell {
    rung: AtomicBool,
    task: AtomicWaker,
}

impl Bell {
    pub(crate) fn has_rung(&self) -> bool {
        self.rung.load(Acquire)
    }

    /// Lowers the flag; it is the context's task that is woken next. To be called before looking at what it may ring for,
    /// so that nothing is missed.
    pub(crate) fn reset(&self, context: &Context<'_>) {
        self.task.register(context.waker());
        self.rung.store(false, Release);
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Release);
        self.task.wake();
    }
}

impl<F> Sleeper<F> {
    pub(crate) fn new(future: F) -> Self {
        let bell = Arc::new(Bell { rung: AtomicBool::new(true), ..Bell::default() });
        Self { future, bell, task: None }
    }
}

impl<F: Future> Future for Sleeper<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        if !this.task.as_ref().is_some_and(|task| task.will_wake(context.waker())) {
            *this.task = Some(context.waker().clone());
            this.bell.task.register(context.waker());
        }
        // Read before it is written, since it mostly did not ring.
        while this.bell.has_rung() {
            this.bell.reset(context);
            let waker = Waker::from(this.bell.clone());
            if let Poll::Ready(output) = this.future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Poll::Ready(output);
            }
        }
        Poll::Pending
    }
}

/// Puts a write off until the worker's other tasks had their turn.
///
/// In a round a worker asks the kernel what has come, and runs the tasks that it concerns. Where each reads and then writes,
/// each write wakes a process that takes the processor from the rest of the round. Where all read first and then write,
/// the processes wait for each other less often, and the kernel's ways of reading and of writing stay in the caches.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    waits: bool,
}

impl Turn {
    /// Whether the task is about to be asked again.
    pub(crate) fn is_awaited(&self) -> bool {
        self.waits
    }

    /// Ready each second time; the task is asked again by itself.
    #[inline]
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.waits = !self.waits;
        if self.waits {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

/// Puts a write off until the worker has asked the kernel once more what has come: what that brings is worked on first, and
/// leaves in the same write.
#[derive(Debug, Default)]
pub(crate) struct Round {
    waits: bool,
}

impl Round {
    /// Ready each second time; the task is asked again by itself.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.waits = !self.waits;
        if self.waits {
            // It wakes the task once the runtime has looked for events.
            return std::pin::pin!(tokio::task::yield_now()).poll(context);
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::future::poll_fn;
    use std::pin::pin;
    use std::rc::Rc;

    use super::*;

    #[test]
    fn tasks_that_are_ready_read_before_any_writes() {
        let done = Rc::new(RefCell::new(Vec::new()));
        local().unwrap().block_on(async {
            let tasks = ["a", "b"].map(|name| {
                let done = done.clone();
                tokio::task::spawn_local(async move {
                    let mut turn = Turn::default();
                    for _ in 0..2 {
                        done.borrow_mut().push(format!("{name} reads"));
                        poll_fn(|context| turn.poll(context)).await;
                        done.borrow_mut().push(format!("{name} writes"));
                    }
                })
            });
            for task in tasks {
                task.await.unwrap();
            }
        });
        // A task that goes on after its write is in the next round.
        let expected =
            ["a reads", "b reads", "a writes", "a reads", "b writes", "b reads", "a writes", "b writes"];
        assert_eq!(*done.borrow(), expected);
    }

    #[test]
    fn a_sleeper_is_asked_when_it_was_woken() {
        let (asked, inside) = (Cell::new(0), Rc::new(Cell::new(None)));
        let mut sleeper = pin!(Sleeper::new(poll_fn(|context| {
            asked.set(asked.get() + 1);
            inside.set(Some(context.waker().clone()));
            if asked.get() == 3 { Poll::Ready(()) } else { Poll::Pending }
        })));
        let outside = Arc::new(Bell::default());
        let waker = Waker::from(outside.clone());
        let mut ask = || sleeper.as_mut().poll(&mut Context::from_waker(&waker));
        for expected in [1, 2] {
            assert!(ask().is_pending());
            assert!(ask().is_pending());
            assert_eq!(asked.get(), expected);
            assert!(!outside.has_rung(), "nobody woke it");
            inside.take().unwrap().wake();
            assert!(outside.rung.swap(false, Acquire), "its task is woken");
        }
        assert!(ask().is_ready());
    }
}
