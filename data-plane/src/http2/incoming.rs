//! The body of a message, as its reader asks for it.

use std::pin::Pin;
use std::task::{Context, Poll};

use base::task::Supervised;
use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::error::Error;
use super::handle::Handle;

/// See the module's documentation.
pub(crate) struct Incoming {
    handle: Handle,
    /// Sends the rest of the request while its response is read.
    sender: Option<Supervised<()>>,
}

impl Incoming {
    pub(super) fn new((handle, sender): (Handle, Option<Supervised<()>>)) -> Self {
        Self { handle, sender }
    }

    /// The stream itself, of which nothing was read.
    pub(crate) fn into_handle(self) -> Handle {
        drop(self.sender);
        self.handle
    }
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.handle.inner().poll_frame(self.handle.stream, context)
    }

    fn is_end_stream(&self) -> bool {
        self.handle.inner().is_read(self.handle.stream)
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.handle.inner().remaining(self.handle.stream);
        left.map(SizeHint::with_exact).unwrap_or_default()
    }
}
