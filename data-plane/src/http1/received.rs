//! The body of a response, read from its connection as somebody asks for it.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::{Connection, Error};

/// See the module's documentation.
pub(crate) struct Received {
    connection: Rc<RefCell<Connection>>,
    /// Once the connection serves another exchange, this one's body is over.
    exchange: u64,
}

impl Received {
    /// The body of the response that the connection has just had the head of.
    pub(crate) fn begin(connection: &Rc<RefCell<Connection>>) -> Self {
        Connection::send_beside(connection);
        let exchange = connection.borrow().exchange();
        Self { connection: connection.clone(), exchange }
    }
}

impl http_body::Body for Received {
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
