//! The body of a message, read from its connection as somebody asks for it.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::Error;

/// A connection that reads a message's body.
pub(crate) trait Source {
    /// The number of the exchange that it serves or served last.
    fn exchange(&self) -> u64;

    /// The next part of the body.
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>>;

    /// Whether the body was read to its end.
    fn has_ended(&self) -> bool;

    /// How much is still to come of it, where that is known.
    fn remaining(&self) -> Option<u64>;
}

/// See the module's documentation.
pub(crate) struct Incoming<S> {
    connection: Rc<RefCell<S>>,
    /// Once the connection serves another exchange, this one's body is over.
    exchange: u64,
}

impl<S: Source> Incoming<S> {
    /// The body of the message that the connection has just had the head of.
    pub(super) fn begin(connection: &Rc<RefCell<S>>) -> Self {
        let exchange = connection.borrow().exchange();
        Self { connection: connection.clone(), exchange }
    }
}

impl<S: Source> http_body::Body for Incoming<S> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut connection = self.connection.borrow_mut();
        if connection.exchange() == self.exchange {
            connection.poll_frame(context)
        } else {
            Poll::Ready(None)
        }
    }

    fn is_end_stream(&self) -> bool {
        let connection = self.connection.borrow();
        connection.exchange() != self.exchange || connection.has_ended()
    }

    fn size_hint(&self) -> SizeHint {
        let connection = self.connection.borrow();
        let left = if connection.exchange() == self.exchange { connection.remaining() } else { Some(0) };
        left.map(SizeHint::with_exact).unwrap_or_default()
    }
}
