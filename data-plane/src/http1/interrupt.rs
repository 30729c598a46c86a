//! Ends the exchange on a connection from elsewhere, as when its host is given up.

use std::cell::{Cell, RefCell};
use std::task::{Context, Waker};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Interrupt {
    raised: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
}

impl Interrupt {
    /// Ends the exchange that is on the connection.
    pub(crate) fn raise(&self) {
        self.raised.set(true);
        self.wake();
    }

    /// Wakes whoever reads the response.
    pub(super) fn wake(&self) {
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    pub(super) fn is_raised(&self) -> bool {
        self.raised.get()
    }

    /// The exchange is over: its task must not be held on to.
    pub(super) fn forget(&self) {
        self.waiting.take();
    }

    /// Whom to wake.
    pub(super) fn register(&self, context: &Context<'_>) {
        let mut waiting = self.waiting.borrow_mut();
        match &mut *waiting {
            Some(waker) if waker.will_wake(context.waker()) => {}
            waiting => *waiting = Some(context.waker().clone()),
        }
    }
}
