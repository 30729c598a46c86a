//! The time as a task sees it: read once while the task is asked, however often it is noted. What a task does between two
//! waits takes microseconds, and a request notes a dozen times.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use pin_project_lite::pin_project;

/// How the thread knows the time.
#[derive(Clone, Copy)]
enum Reading {
    /// No task that keeps it runs.
    Live,
    /// The task that runs did not ask yet.
    Unread,
    Read(Instant),
}

thread_local! {
    static READING: Cell<Reading> = const { Cell::new(Reading::Live) };
}

/// The time.
#[inline]
pub(crate) fn now() -> Instant {
    match READING.get() {
        Reading::Read(now) => now,
        Reading::Live => Instant::now(),
        Reading::Unread => {
            let now = Instant::now();
            READING.set(Reading::Read(now));
            now
        }
    }
}

/// To be called after what may have taken long, as a script: the clock is read again.
pub(crate) fn passed() {
    if let Reading::Read(_) = READING.get() {
        READING.set(Reading::Unread);
    }
}

pin_project! {
    /// A task for which the clock stands still while it is asked.
    pub(crate) struct Still<F> {
        #[pin]
        task: F,
    }
}

impl<F> Still<F> {
    pub(crate) fn new(task: F) -> Self {
        Self { task }
    }
}

impl<F: Future> Future for Still<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        /// Also where the task panics.
        struct Before(Reading);
        impl Drop for Before {
            fn drop(&mut self) {
                READING.set(self.0);
            }
        }
        let _before = Before(READING.replace(Reading::Unread));
        self.project().task.poll(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Waker;

    use super::*;

    /// A time that is surely later than another.
    fn later_than(before: Instant) -> Instant {
        std::iter::repeat_with(Instant::now).find(|now| *now > before).unwrap()
    }

    #[test]
    fn the_clock_stands_still_while_a_task_is_asked() {
        let mut last = None;
        let mut task = pin!(Still::new(poll_fn(|_| {
            let first = now();
            assert!(last.is_none_or(|last| last < first), "the next time it is read again");
            let real = later_than(first);
            assert_eq!(now(), first);
            passed();
            assert!(now() >= real, "told that time has passed");
            last = Some(later_than(now()));
            Poll::<()>::Pending
        })));
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..2 {
            assert!(task.as_mut().poll(&mut context).is_pending());
            let first = now();
            assert!(later_than(first) > first && now() > first, "outside it goes on");
        }
    }
}
