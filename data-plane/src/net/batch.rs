//! A stream whose writes are gathered until the task that writes has nothing more to do.
//!
//! An HTTP/2 codec writes each DATA frame by itself and flushes after it. With many streams on a connection that is a
//! system call, and with TLS a record, for every response. Here a codec's flush only ends its own part; the driver of the
//! codec pushes what was gathered when the codec pauses.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use hyper::rt::Executor;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Stream;

/// As much as is gathered.
const LIMIT: usize = 64 * 1024;

/// A worker's spare buffer is kept if it is no larger.
const SPARE: usize = 2 * LIMIT;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// See the module's documentation. Clones are handles on one stream.
#[derive(Clone, Debug)]
pub(crate) struct Batch(Rc<RefCell<Inner>>);

#[derive(Debug)]
struct Inner {
    stream: Stream,
    /// Borrowed from the worker while something stands in it.
    gathered: Vec<u8>,
    written: usize,
    unflushed: bool,
    broken: Option<io::ErrorKind>,
}

impl Batch {
    pub(crate) fn new(stream: Stream) -> Self {
        let inner = Inner { stream, gathered: Vec::new(), written: 0, unflushed: false, broken: None };
        Self(Rc::new(RefCell::new(inner)))
    }

    /// Writes what was gathered. To be called whenever the codec pauses, by the task that drives it.
    pub(crate) fn push(&self, context: &mut Context<'_>) {
        let mut inner = self.0.borrow_mut();
        if let Poll::Ready(Err(error)) = inner.poll_push(context) {
            inner.broken = Some(error.kind());
            // The codec learns of it by its next read.
            context.waker().wake_by_ref();
        }
    }

    /// Runs the future that drives the codec.
    async fn drive<F: Future>(self, codec: F) -> F::Output {
        let mut codec = pin!(codec);
        std::future::poll_fn(|context| {
            let result = codec.as_mut().poll(context);
            self.push(context);
            result
        })
        .await
    }
}

impl Inner {
    fn poll_push(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(context))?;
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(context))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.gathered.len() {
            let data = &self.gathered[self.written..];
            match ready!(Pin::new(&mut self.stream).poll_write(context, data))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
            self.unflushed = true;
        }
        if !self.gathered.is_empty() {
            self.gathered.clear();
            self.written = 0;
            let spare = std::mem::take(&mut self.gathered);
            if spare.capacity() <= SPARE {
                BUFFER.set(spare);
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_put(&mut self, context: &mut Context<'_>, data: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if let Some(broken) = self.broken {
            return Poll::Ready(Err(broken.into()));
        }
        let count = data.iter().map(|slice| slice.len()).sum::<usize>();
        if self.gathered.len() + count > LIMIT {
            ready!(self.poll_drain(context))?;
        }
        if count > LIMIT {
            self.unflushed = true;
            return Pin::new(&mut self.stream).poll_write_vectored(context, data);
        }
        if self.gathered.is_empty() {
            self.gathered = BUFFER.take();
        }
        for slice in data {
            self.gathered.extend_from_slice(slice);
        }
        Poll::Ready(Ok(count))
    }
}

impl AsyncRead for Batch {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        if let Some(broken) = inner.broken {
            return Poll::Ready(Err(broken.into()));
        }
        Pin::new(&mut inner.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Batch {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_put(context, &[IoSlice::new(data)])
    }

    /// Nothing: see [`Batch::push`].
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        ready!(inner.poll_push(context))?;
        Pin::new(&mut inner.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_put(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

/// Spawns on the worker's local task set; the first task is the one that drives the batch's codec.
///
/// hyper's HTTP/2 client spawns its connection during the handshake, and later the parts of requests.
#[derive(Clone, Debug)]
pub(crate) struct BatchExec {
    batch: Batch,
    driven: Rc<Cell<bool>>,
}

impl BatchExec {
    pub(crate) fn new(batch: Batch) -> Self {
        Self { batch, driven: Rc::default() }
    }
}

impl<F> Executor<F> for BatchExec
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, future: F) {
        if self.driven.replace(true) {
            tokio::task::spawn_local(future);
        } else {
            tokio::task::spawn_local(self.batch.clone().drive(future));
        }
    }
}
