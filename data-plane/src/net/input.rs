//! What has come on a connection and was not read yet. It has a buffer while bytes stand in it, so an idle connection has
//! none.

use std::io;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio_util::io::poll_read_buf;

use super::buffers;
use crate::net::Stream;

/// As much as is read at once of a large body.
const MAX_READ: usize = 64 * 1024;

/// Less room is not read into.
const MIN_READ: usize = 1024;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Input {
    bytes: BytesMut,
    /// As much as the next read asks for.
    read_size: usize,
    /// The peer sends no more.
    ended: bool,
}

impl Default for Input {
    fn default() -> Self {
        Self { bytes: BytesMut::new(), read_size: buffers::SIZE, ended: false }
    }
}

impl Deref for Input {
    type Target = BytesMut;

    fn deref(&self) -> &BytesMut {
        &self.bytes
    }
}

impl DerefMut for Input {
    fn deref_mut(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }
}

impl Input {
    /// Whether the peer sends no more.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// A message begins: reads are small again.
    pub(crate) fn begin(&mut self) {
        self.read_size = buffers::SIZE;
    }

    /// Reads what has come, and says how much that was.
    pub(crate) fn poll_fill(
        &mut self,
        stream: &mut Stream,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.bytes.capacity() == 0 && self.read_size == buffers::SIZE {
            // Mostly nothing has come yet, and then no buffer is needed.
            if let Some(tcp) = stream.bare_tcp() {
                ready!(tcp.poll_read_ready(context))?;
            }
            self.bytes = buffers::take_input();
        } else if self.bytes.capacity() - self.bytes.len() < MIN_READ {
            self.bytes.reserve(self.read_size);
        }
        let room = self.bytes.capacity() - self.bytes.len();
        let read = poll_read_buf(Pin::new(stream), context, &mut self.bytes);
        match &read {
            Poll::Ready(Ok(0) | Err(_)) => self.ended = true,
            Poll::Ready(Ok(count)) if *count == room => self.read_size = (self.read_size * 2).min(MAX_READ),
            Poll::Ready(_) => {}
            Poll::Pending if self.bytes.is_empty() => self.give_back(),
            Poll::Pending => {}
        }
        read
    }

    /// Nothing more has come: reads are small again, and the buffer is let go of.
    pub(crate) fn rest(&mut self) {
        if self.bytes.is_empty() {
            self.begin();
            self.release();
        }
    }

    /// Lets go of the buffer if nothing stands in it. A body that comes in large parts goes on in what is left of it.
    pub(crate) fn release(&mut self) {
        if self.bytes.is_empty() && self.read_size == buffers::SIZE {
            self.give_back();
        }
    }

    /// What was not read.
    pub(crate) fn take(&mut self) -> Bytes {
        std::mem::take(&mut self.bytes).freeze()
    }

    fn give_back(&mut self) {
        let buffer = std::mem::take(&mut self.bytes);
        if self.read_size == buffers::SIZE && buffer.capacity() > 0 {
            buffers::give_input(buffer);
        }
    }
}
