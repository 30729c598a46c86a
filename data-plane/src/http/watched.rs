//! A downstream connection's bytes under watch: they are counted, and a request's head must come within its time.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use sail_proxy_config::hcm::HcmTimeouts;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::conn::Connection;
use super::refusal;
use super::untold::Untold;
use crate::net::Stream;
use crate::net::held::Held;
use crate::stats::sets::http as stats;

/// Why a connection is done with its codec before it is done with its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The codec cannot read the request.
    Unreadable,
    /// The request's head takes too long.
    TooSlow,
}

/// What is told across the codec, which owns the bytes and may be sent anywhere.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Whether a request is under way.
    busy: AtomicBool,
    /// Whether something that was written has not left.
    blocked: AtomicBool,
    /// What the codec does not tell of the head that it reads.
    untold: Untold,
    /// How long a head may take.
    head_limit: Option<Duration>,
    /// How long the client has to close after we have.
    delayed_close: Duration,
}

impl Watch {
    pub(super) fn new(timeouts: &HcmTimeouts) -> Self {
        Self {
            head_limit: timeouts.request_headers,
            delayed_close: timeouts.delayed_close,
            ..Self::default()
        }
    }

    pub(crate) fn set_busy(&self, busy: bool) {
        self.busy.store(busy, Relaxed);
    }

    /// What the codec does not tell of the head that it has read.
    pub(crate) fn untold(&self) -> &Untold {
        &self.untold
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.load(Relaxed)
    }
}

/// As much of a response is copied to leave after the reads of the worker's other connections.
const HELD: usize = 4 * 1024;

/// See the module's documentation.
pub(super) struct Watched {
    stream: Held<HELD>,
    /// Read before, and counted then, for a codec that begins with it. In a box, since there is seldom something.
    again: Option<Box<Bytes>>,
    stats: stats::Scope,
    watch: Arc<Watch>,
    /// Runs from a head's first byte to its last.
    timer: Option<Pin<Box<Sleep>>>,
    /// Runs while the client has to close after we have.
    closing: Option<Pin<Box<Sleep>>>,
    /// Set until the client is told.
    refused: Option<Refused>,
}

impl Watched {
    pub(super) fn new(stream: Stream, connection: &Connection) -> Self {
        let stats = connection.manager.stats.clone();
        let watch = connection.watch.clone();
        Self {
            stream: Held::new(stream),
            again: None,
            stats,
            watch,
            timer: None,
            closing: None,
            refused: None,
        }
    }

    /// Whether a head has begun and takes too long.
    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.watch.busy.load(Relaxed) {
            self.timer = None;
        }
        self.timer.as_mut().map_or(Poll::Pending, |timer| timer.as_mut().poll(context))
    }

    /// Puts the bytes back that were read last.
    pub(super) fn rewind(&mut self, bytes: Bytes) {
        let whole = match self.again.take() {
            Some(rest) => [bytes, *rest].concat().into(),
            None => bytes,
        };
        self.again = Some(Box::new(whole)).filter(|whole| !whole.is_empty());
    }

    /// Waits without a codec for the client's next bytes. `None` if the connection is to end.
    pub(super) async fn rest(&mut self, mut ender: Pin<&mut impl Future<Output = ()>>) -> Option<Bytes> {
        std::future::poll_fn(|context| {
            if ender.as_mut().poll(context).is_ready() {
                return Poll::Ready(None);
            }
            let mut space = [0; 256];
            let mut buffer = ReadBuf::new(&mut space);
            let read = ready!(Pin::new(&mut *self).poll_read(context, &mut buffer));
            let first = buffer.filled();
            Poll::Ready((read.is_ok() && !first.is_empty()).then(|| Bytes::copy_from_slice(first)))
        })
        .await
    }

    /// Why the codec is done, if the client is still to be told of it.
    pub(super) fn take_refused(&mut self) -> Option<Refused> {
        self.refused.take()
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match self.poll_fill(context, buffer) {
            Poll::Ready(result) => {
                let count = buffer.filled().len() - before;
                if !self.watch.busy.load(Relaxed) {
                    self.watch.untold.look(&buffer.filled()[before..]);
                }
                if let Some(limit) = self.watch.head_limit
                    && count > 0
                    && !self.watch.busy.load(Relaxed)
                {
                    self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
                }
                Poll::Ready(result)
            }
            Poll::Pending if self.watch.head_limit.is_some() => {
                ready!(self.poll_head(context));
                self.refused = Some(Refused::TooSlow);
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if refusal::is_the_codecs(bytes) {
            self.refused = Some(Refused::Unreadable);
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.count(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if slices.first().is_some_and(|first| refusal::is_the_codecs(first)) {
            self.refused = Some(Refused::Unreadable);
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.count(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.watch.blocked.store(flushed.is_pending(), Relaxed);
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.refused.is_some() {
            return Poll::Ready(Ok(()));
        }
        if self.closing.is_none() {
            let shut = ready!(Pin::new(&mut self.stream).poll_shutdown(context));
            if shut.is_err() || self.watch.delayed_close.is_zero() {
                return Poll::Ready(shut);
            }
        }
        self.poll_linger(context).map(Ok)
    }
}

impl Watched {
    fn poll_fill(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(again) = &mut self.again {
            let count = again.len().min(buffer.remaining());
            buffer.put_slice(&again.split_to(count));
            if again.is_empty() {
                self.again = None;
            }
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.stats.add(stats::downstream_cx_rx_bytes_total, (buffer.filled().len() - before) as u64);
        read
    }

    /// Waits for the client's end of the connection, for a while: to close with bytes of its unread would reset the
    /// connection, and it might lose our last response.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        let limit = self.watch.delayed_close;
        let timer = self.closing.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(timer.as_mut().poll(context));
        self.stats.inc(stats::downstream_cx_delayed_close_timeout);
        Poll::Ready(())
    }

    fn count(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.watch.blocked.store(written.is_pending(), Relaxed);
        if let Poll::Ready(Ok(count)) = &written {
            self.stats.add(stats::downstream_cx_tx_bytes_total, *count as u64);
        }
        written
    }
}
