//! The body of a request, read from its connection as somebody asks for it.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::{Connection, Reading};
use crate::http1::Error;

/// See the module's documentation.
pub(crate) struct Arriving {
    connection: Rc<Connection>,
    /// Once the connection serves another request, this one's body is over.
    exchange: u64,
}

impl Arriving {
    /// The body of the request that the connection has just had the head of.
    pub(super) fn new(connection: &Rc<Connection>) -> Self {
        Self { connection: connection.clone(), exchange: connection.inner().exchange }
    }
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut connection = self.connection.inner();
        if connection.exchange == self.exchange { connection.poll_frame(context) } else { Poll::Ready(None) }
    }

    fn is_end_stream(&self) -> bool {
        let connection = self.connection.inner();
        connection.exchange != self.exchange
            || matches!(&connection.reading, Reading::Body(decoder) if decoder.is_ended())
    }

    fn size_hint(&self) -> SizeHint {
        let connection = self.connection.inner();
        let left = match &connection.reading {
            _ if connection.exchange != self.exchange => Some(0),
            Reading::Body(decoder) => decoder.left(),
            Reading::Head | Reading::Broken => None,
        };
        left.map(SizeHint::with_exact).unwrap_or_default()
    }
}
