//! A stream that holds back what is written until it is pushed, and counts its bytes. What is held when the stream is
//! dropped goes out as far as the kernel takes it at once.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Stream;
use crate::stats::Traffic;

/// As much as is held; a larger write goes out as it comes.
const LIMIT: usize = 64 * 1024;

/// A worker's spare buffer is kept if it is no larger.
const SPARE: usize = 128 * 1024;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Held {
    stream: Stream,
    /// Borrowed from the worker while something stands in it.
    bytes: Vec<u8>,
    written: usize,
    unflushed: bool,
    traffic: Traffic,
}

impl Held {
    pub(crate) fn new(stream: Stream, traffic: Traffic) -> Self {
        Self { stream, bytes: Vec::new(), written: 0, unflushed: false, traffic }
    }

    /// Writes and flushes what is held.
    pub(crate) fn poll_push(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(context))?;
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(context))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.bytes.len() {
            let data = &self.bytes[self.written..];
            match ready!(Pin::new(&mut self.stream).poll_write(context, data))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => {
                    self.written += count;
                    self.traffic.sent(count as u64);
                }
            }
            self.unflushed = true;
        }
        if !self.bytes.is_empty() {
            self.bytes.clear();
            self.written = 0;
            give_back(std::mem::take(&mut self.bytes));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_put(&mut self, context: &mut Context<'_>, data: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let count = data.iter().map(|slice| slice.len()).sum::<usize>();
        if self.bytes.len() + count > LIMIT {
            ready!(self.poll_drain(context))?;
        }
        if count > LIMIT {
            self.unflushed = true;
            let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, data))?;
            self.traffic.sent(written as u64);
            return Poll::Ready(Ok(written));
        }
        if self.bytes.is_empty() {
            self.bytes = BUFFER.take();
        }
        self.bytes.reserve(count);
        for slice in data {
            self.bytes.extend_from_slice(slice);
        }
        Poll::Ready(Ok(count))
    }
}

/// The worker keeps the larger of two spare buffers.
fn give_back(buffer: Vec<u8>) {
    let spare = BUFFER.take();
    let larger = buffer.capacity() > spare.capacity() && buffer.capacity() <= SPARE;
    BUFFER.set(if larger { buffer } else { spare });
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.bytes.is_empty() {
            let _ = self.poll_push(&mut Context::from_waker(Waker::noop()));
        }
    }
}

impl AsyncRead for Held {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.traffic.received((buffer.filled().len() - before) as u64);
        read
    }
}

impl AsyncWrite for Held {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_put(context, &[IoSlice::new(data)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_put(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_push(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_push(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
