//! A TCP connection that waits for a client. What its upstream says first is kept for the client.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};

use crate::net::Stream;

/// As much of what an upstream says first is read before the client comes.
const GREETING: usize = 1024;

/// See the module's documentation.
pub(super) struct RawStream(RefCell<State>);

struct State {
    stream: Option<Stream>,
    greeting: Bytes,
}

impl RawStream {
    pub(super) fn new(stream: Stream) -> Self {
        Self(RefCell::new(State { stream: Some(stream), greeting: Bytes::new() }))
    }

    /// Whether nobody has taken it.
    pub(super) fn is_whole(&self) -> bool {
        self.0.borrow().stream.is_some()
    }

    /// Ready when the upstream has closed it without a word.
    pub(super) fn poll_ended(&self, context: &mut Context<'_>) -> Poll<()> {
        let State { stream, greeting } = &mut *self.0.borrow_mut();
        let Some(stream) = stream else { return Poll::Ready(()) };
        if !greeting.is_empty() {
            return Poll::Pending;
        }
        let mut space = [0; GREETING];
        let mut buffer = ReadBuf::new(&mut space);
        match ready!(Pin::new(stream).poll_read(context, &mut buffer)) {
            Ok(()) if !buffer.filled().is_empty() => {
                *greeting = Bytes::copy_from_slice(buffer.filled());
                Poll::Pending
            }
            Ok(()) | Err(_) => Poll::Ready(()),
        }
    }

    /// The bytes, from their beginning.
    pub(super) fn take(&self) -> Option<Stream> {
        let State { stream, greeting } = &mut *self.0.borrow_mut();
        let greeting = std::mem::take(greeting);
        stream.take().map(|stream| stream.rewound(greeting))
    }
}
