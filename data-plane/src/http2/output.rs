//! What is to be written: the frames of a round, of all streams, leave in one call.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::AsyncWrite as _;

use crate::net::Stream;

/// Bodies add nothing to more than this.
const ENOUGH: usize = 64 * 1024;

/// A worker's spare buffer is kept if it is no larger.
const SPARE: usize = 128 * 1024;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// Borrowed from the worker while something stands in it.
    bytes: Vec<u8>,
    /// So much of that was written.
    start: usize,
    unflushed: bool,
}

impl Output {
    /// Where frames are written to.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        if self.bytes.capacity() == 0 {
            self.bytes = BUFFER.take();
        } else if self.start >= ENOUGH {
            // A peer that never takes everything must not make it grow.
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        &mut self.bytes
    }

    /// So much is to be written.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether bodies may add to it.
    pub(super) fn has_room(&self) -> bool {
        self.len() < ENOUGH
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0 && !self.unflushed
    }

    /// Writes everything, and says how much that was.
    pub(super) fn poll_write(
        &mut self,
        stream: &mut Stream,
        context: &mut Context<'_>,
        mut sent: impl FnMut(usize),
    ) -> Poll<io::Result<()>> {
        while self.start < self.bytes.len() {
            let count = ready!(Pin::new(&mut *stream).poll_write(context, &self.bytes[self.start..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            sent(count);
            self.start += count;
            self.unflushed = true;
        }
        self.give_back();
        if self.unflushed {
            ready!(Pin::new(stream).poll_flush(context))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes as much as the kernel takes at once.
    pub(super) fn push(&mut self, stream: &mut Stream, sent: impl FnMut(usize)) {
        if !self.is_empty() {
            let _ = self.poll_write(stream, &mut Context::from_waker(Waker::noop()), sent);
        }
    }

    /// The worker keeps the larger of two spare buffers.
    fn give_back(&mut self) {
        if self.bytes.capacity() == 0 {
            return;
        }
        self.start = 0;
        let mut own = std::mem::take(&mut self.bytes);
        own.clear();
        let spare = BUFFER.take();
        let larger = own.capacity() > spare.capacity() && own.capacity() <= SPARE;
        BUFFER.set(if larger { own } else { spare });
    }
}
