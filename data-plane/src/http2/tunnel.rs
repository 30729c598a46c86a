//! A stream whose bodies are the two directions of a connection: CONNECT (RFC 9113, 8.5) and its extension (RFC 8441).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use sail_proxy_http2::frame::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::error::Error;
use super::handle::Handle;

/// As much as is taken at once.
const PART: usize = 16 * 1024;

/// See the module's documentation. Dropped before both directions have ended, it is reset.
#[derive(Debug)]
pub(crate) struct Tunnel {
    handle: Handle,
    /// What has come and was not read.
    left: Bytes,
    /// What was taken to be sent, and is not on its way.
    going: Bytes,
}

impl Tunnel {
    pub(crate) fn new(handle: Handle) -> Self {
        Self { handle, left: Bytes::new(), going: Bytes::new() }
    }

    /// Breaks it off.
    pub(crate) fn reset(&self, reason: Reason) {
        self.handle.reset(reason, Error::Unfinished);
    }

    fn poll_going(&mut self, ends: bool, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = self.handle.inner().poll_send(self.handle.stream, &mut self.going, ends, context);
        sent.map_err(broken)
    }
}

fn broken(error: Error) -> io::Error {
    let kind = match error {
        Error::Reset(Reason::NO_ERROR | Reason::CANCEL | Reason::STREAM_CLOSED) => io::ErrorKind::BrokenPipe,
        Error::Reset(_) | Error::Refused => io::ErrorKind::ConnectionReset,
        Error::Io(kind) => kind,
        _ => io::ErrorKind::ConnectionAborted,
    };
    io::Error::new(kind, error)
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.left.is_empty() {
            let frame = self.handle.inner().poll_frame(self.handle.stream, context);
            match ready!(frame) {
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                // Trailers mean nothing here.
                Some(Ok(frame)) => self.left = frame.into_data().unwrap_or_default(),
            }
        }
        let count = self.left.len().min(buffer.remaining());
        buffer.put_slice(&self.left.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_going(false, context))?;
        let count = data.len().min(PART);
        self.going = Bytes::copy_from_slice(&data[..count]);
        // What windows hold back now goes with the next write, or with a flush.
        if let Poll::Ready(Err(error)) = self.poll_going(false, context) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_going(false, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.handle.inner().is_sent(self.handle.stream) {
            return Poll::Ready(Ok(()));
        }
        self.poll_going(true, context)
    }
}
