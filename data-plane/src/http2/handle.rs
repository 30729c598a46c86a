//! A user's hold on a stream. The last that is dropped ends the stream, whatever is still to come.

use std::cell::RefMut;
use std::task::{Context, Poll};

use sail_proxy_http2::frame::Reason;

use super::connection::{Inner, Shared};
use super::error::Error;

/// See the module's documentation.
pub(crate) struct Handle {
    connection: Shared,
    pub(super) stream: u32,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Handle({})", self.stream)
    }
}

impl Handle {
    /// The hold that the stream was begun with.
    pub(super) fn first(connection: &Shared, stream: u32) -> Self {
        Self { connection: connection.clone(), stream }
    }

    /// Another one.
    pub(super) fn another(connection: &Shared, stream: u32) -> Self {
        connection.borrow_mut().hold(stream);
        Self::first(connection, stream)
    }

    pub(super) fn connection(&self) -> &Shared {
        &self.connection
    }

    pub(super) fn inner(&self) -> RefMut<'_, Inner> {
        self.connection.borrow_mut()
    }

    /// Breaks the stream off.
    pub(super) fn reset(&self, reason: Reason, error: Error) {
        self.inner().reset(self.stream, reason, error);
    }

    /// Ready when the stream broke off.
    pub(super) fn poll_failed(&self, context: &mut Context<'_>) -> Poll<Error> {
        self.inner().poll_failed(self.stream, context)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.connection.borrow_mut().let_go(self.stream);
    }
}
