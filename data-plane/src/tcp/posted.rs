//! A TCP stream within a POST: what is written is the request's body, what is read is the response's.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

use crate::http::body::{Body, BodyError};

/// Pieces on their way into the request: few, so that an upstream that does not read stops the client.
const PIECES: usize = 4;

/// The request's body.
pub(super) struct Outgoing(mpsc::Receiver<Bytes>);

/// The other end of that body.
pub(super) struct Writer(PollSender<Bytes>);

/// Both directions as one stream.
pub(crate) struct Posted {
    write: Writer,
    read: Body,
    left: Bytes,
    trailers: Option<HeaderMap>,
}

/// A body, and who fills it.
pub(super) fn body() -> (Writer, Outgoing) {
    let (send, receive) = mpsc::channel(PIECES);
    (Writer(PollSender::new(send)), Outgoing(receive))
}

impl Posted {
    pub(super) fn new(write: Writer, read: Body) -> Self {
        Self { write, read, left: Bytes::new(), trailers: None }
    }

    /// The response's trailers, once it has ended.
    pub(super) fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_ref()
    }
}

impl std::fmt::Debug for Posted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Posted").finish_non_exhaustive()
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.0.poll_recv(context).map(|piece| Some(Ok(Frame::data(piece?))))
    }
}

impl AsyncRead for Posted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.left.is_empty() {
            match ready!(Pin::new(&mut self.read).poll_frame(context)) {
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.left = data,
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
            }
        }
        let count = self.left.len().min(buffer.remaining());
        buffer.put_slice(&self.left.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Posted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let broken = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        let sender = &mut self.write.0;
        ready!(sender.poll_reserve(context)).map_err(broken)?;
        sender.send_item(Bytes::copy_from_slice(data)).map_err(broken)?;
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write.0.close();
        Poll::Ready(Ok(()))
    }
}
