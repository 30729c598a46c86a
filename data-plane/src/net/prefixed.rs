//! A socket whose first bytes were read already, by an inspector; readers see them again before the rest.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Raw;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Prefixed {
    prefix: Bytes,
    raw: Raw,
}

impl Prefixed {
    pub(crate) fn new(prefix: Bytes, raw: Raw) -> Self {
        Self { prefix, raw }
    }

    /// What is still to be read again, and the socket.
    pub(crate) fn into_parts(self) -> (Bytes, Raw) {
        (self.prefix, self.raw)
    }

    /// Whether everything that was read ahead has been read again.
    pub(crate) fn is_drained(&self) -> bool {
        self.prefix.is_empty()
    }

    pub(crate) fn raw(&self) -> &Raw {
        &self.raw
    }
}

impl AsyncRead for Prefixed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.prefix.is_empty() {
            let count = self.prefix.len().min(buffer.remaining());
            buffer.put_slice(&self.prefix[..count]);
            self.prefix.advance(count);
            if self.prefix.is_empty() {
                self.prefix = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.raw).poll_read(context, buffer)
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.raw).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.raw).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.raw).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.raw).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.raw.is_write_vectored()
    }
}
