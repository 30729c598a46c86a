//! A connection as both ends of the codec have it: its stream, what has come and was not used, and what counts its bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite as _;

use super::decode::{Decoder, Part};
use super::error::Error;
use super::outgoing::Outgoing;
use crate::net::Stream;
use crate::net::input::Input;
use crate::stats::{Meter, Traffic};

/// See the module's documentation.
pub(super) struct Wire {
    /// Taken away when the connection switches to another protocol, or is closed.
    stream: Option<Stream>,
    pub(super) input: Input,
    traffic: Traffic,
}

impl Wire {
    pub(super) fn new(stream: Stream, traffic: Traffic) -> Self {
        Self { stream: Some(stream), input: Input::default(), traffic }
    }

    pub(super) fn stream(&self) -> Option<&Stream> {
        self.stream.as_ref()
    }

    /// The stream alone, to end it.
    pub(super) fn close(&mut self) -> Option<Stream> {
        self.stream.take()
    }

    /// The bytes of a connection that speaks another protocol now, and what counts them.
    pub(super) fn switch(&mut self) -> Option<(Stream, Meter)> {
        let rest = self.input.take();
        let meter = Meter::new(self.traffic.clone(), rest.len() as u64);
        self.stream.take().map(|stream| (stream.rewound(rest), meter))
    }

    /// Reads what has come, and says how much that was; 0 at the end.
    pub(super) fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(0)) };
        let read = self.input.poll_fill(stream, context);
        if let Poll::Ready(Ok(count)) = &read {
            self.traffic.received(*count as u64);
        }
        read
    }

    /// The next part of a message's body; `None` at its end.
    pub(super) fn poll_part(
        &mut self,
        decoder: &mut Decoder,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Part>, Error>> {
        loop {
            let part = decoder.next(&mut self.input)?;
            if part.is_some() || decoder.is_ended() {
                self.input.release();
                return Poll::Ready(Ok(part));
            }
            if ready!(self.poll_fill(context))? == 0 {
                decoder.close()?;
            }
        }
    }

    /// Writes everything.
    pub(super) fn poll_write(
        &mut self,
        output: &mut Outgoing,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let before = output.written();
        let result = output.poll_write(Pin::new(stream), context);
        self.traffic.sent(output.written() - before);
        result
    }

    /// Writes these bytes; what was written is taken off.
    pub(super) fn poll_write_bytes(
        &mut self,
        bytes: &mut Vec<u8>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(())) };
        while !bytes.is_empty() {
            let count = ready!(Pin::new(&mut *stream).poll_write(context, bytes))?;
            bytes.drain(..count);
            self.traffic.sent(count as u64);
        }
        Pin::new(stream).poll_flush(context)
    }
}
