//! A stream whose writes are gathered until the task that writes has nothing more to do.
//!
//! An HTTP/2 codec writes each DATA frame by itself and flushes after it. With many streams on a connection that is a
//! system call, and with TLS a record, for every response. Here a codec's flush only ends its own part; the driver of the
//! codec pushes what was gathered when the codec pauses.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::rt::Executor;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Stream;
use super::held::Held;
use crate::clock::Still;
use crate::stats::Traffic;

/// See the module's documentation. Clones are handles on one stream.
#[derive(Clone, Debug)]
pub(crate) struct Batch(Rc<RefCell<Inner>>);

#[derive(Debug)]
struct Inner {
    held: Held,
    broken: Option<io::ErrorKind>,
}

impl Batch {
    pub(crate) fn new(stream: Stream, traffic: Traffic) -> Self {
        Self(Rc::new(RefCell::new(Inner { held: Held::new(stream, traffic), broken: None })))
    }

    /// Writes what was gathered. To be called whenever the codec pauses, by the task that drives it.
    pub(crate) fn push(&self, context: &mut Context<'_>) {
        let mut inner = self.0.borrow_mut();
        if let Poll::Ready(Err(error)) = inner.held.poll_push(context) {
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
    /// What the codec reads from and writes to, unless a push failed.
    fn stream(&mut self) -> io::Result<Pin<&mut Held>> {
        match self.broken {
            Some(broken) => Err(broken.into()),
            None => Ok(Pin::new(&mut self.held)),
        }
    }
}

impl AsyncRead for Batch {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.borrow_mut().stream()?.poll_read(context, buffer)
    }
}

impl AsyncWrite for Batch {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().stream()?.poll_write(context, data)
    }

    /// Nothing: see [`Batch::push`].
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().held).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().stream()?.poll_write_vectored(context, data)
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
            tokio::task::spawn_local(Still::new(future));
        } else {
            tokio::task::spawn_local(Still::new(self.batch.clone().drive(future)));
        }
    }
}
