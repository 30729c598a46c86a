//! What is to be written: small parts are gathered, a large one stands beside them uncopied, and one call writes both.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes};
use http::HeaderMap;
use tokio::io::AsyncWrite;

use super::encode::{self, Delimiter, Spelling};
use crate::net::buffers;

/// What is larger is not copied.
const COPIED: usize = 4 * 1024;

/// More is not gathered.
const ENOUGH: usize = 16 * 1024;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    gathered: Vec<u8>,
    /// So much of that was written.
    start: usize,
    large: Bytes,
    /// The end of the chunk that `large` is.
    tail: &'static [u8],
    unflushed: bool,
    /// All that was written so far.
    written: u64,
}

impl Outgoing {
    /// Where a head is written to.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        if self.gathered.capacity() == 0 {
            self.gathered = buffers::take_output();
        } else if self.start >= ENOUGH {
            // A peer that never takes everything must not make it grow.
            self.gathered.drain(..self.start);
            self.start = 0;
        }
        &mut self.gathered
    }

    /// Whether more is to be gathered before it is written.
    pub(super) fn has_room(&self) -> bool {
        // What is gathered is written before the large part and its end.
        self.large.is_empty() && self.tail.is_empty() && self.small().len() < ENOUGH
    }

    /// Adds a part of a body. To be called where there is room.
    pub(super) fn put(&mut self, data: Bytes, delimiter: Delimiter) {
        if data.is_empty() {
            return;
        }
        let chunked = delimiter == Delimiter::Chunked;
        let small = data.len() <= COPIED;
        let buffer = self.buffer();
        if chunked {
            put_size(buffer, data.len());
        }
        if small {
            buffer.put_slice(&data);
            if chunked {
                buffer.put_slice(b"\r\n");
            }
        } else {
            self.large = data;
            self.tail = if chunked { b"\r\n" } else { b"" };
        }
    }

    /// Ends a chunked body. To be called where there is room, or behind its last part.
    pub(super) fn end_chunks(&mut self, trailers: Option<&HeaderMap>, spelling: Spelling) {
        if !self.large.is_empty() {
            // Trailers come by themselves, where there is room again.
            self.tail = b"\r\n0\r\n\r\n";
            return;
        }
        let buffer = self.buffer();
        buffer.put_slice(b"0\r\n");
        match trailers {
            None => buffer.put_slice(b"\r\n"),
            Some(trailers) => encode::trailers(buffer, trailers, spelling),
        }
    }

    /// Writes everything.
    pub(super) fn poll_write(
        &mut self,
        mut stream: Pin<&mut (impl AsyncWrite + ?Sized)>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let written = if self.large.is_empty() && self.tail.is_empty() {
                stream.as_mut().poll_write(context, self.small())
            } else {
                let slices = [IoSlice::new(self.small()), IoSlice::new(&self.large), IoSlice::new(self.tail)];
                stream.as_mut().poll_write_vectored(context, &slices)
            };
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => {
                    self.written += count as u64;
                    self.advance(count);
                }
            }
            self.unflushed = true;
        }
        if self.gathered.capacity() > 0 {
            buffers::give_output(std::mem::take(&mut self.gathered));
            self.start = 0;
        }
        if self.unflushed {
            ready!(stream.poll_flush(context))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// How much was written so far.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Whether there is something, and nothing large.
    pub(super) fn is_small(&self) -> bool {
        !self.small().is_empty() && self.large.is_empty()
    }

    /// Whether nothing is to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.small().is_empty() && self.large.is_empty() && self.tail.is_empty()
    }

    /// What was gathered, and not written.
    fn small(&self) -> &[u8] {
        &self.gathered[self.start..]
    }

    fn advance(&mut self, mut count: usize) {
        let small = count.min(self.small().len());
        self.start += small;
        count -= small;
        let large = count.min(self.large.len());
        self.large.advance(large);
        if self.large.is_empty() {
            // Its memory is not needed while the rest waits.
            self.large = Bytes::new();
        }
        self.tail = &self.tail[count - large..];
    }
}

/// `1f4\r\n`
fn put_size(buffer: &mut Vec<u8>, size: usize) {
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    buffer.reserve(digits as usize + 2);
    for place in (0..digits).rev() {
        let digit = (size >> (place * 4)) & 0xf;
        buffer.put_u8(b"0123456789abcdef"[digit]);
    }
    buffer.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so much, and then nothing more for now.
    struct Slow(usize);

    impl AsyncWrite for Slow {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
            let count = self.0.min(data.len());
            self.0 -= count;
            if count == 0 { Poll::Pending } else { Poll::Ready(Ok(count)) }
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn what_follows_a_large_chunk_waits_for_its_end() {
        let large = Bytes::from(vec![b'x'; 8 * 1024]);
        // The first write ends at the chunk's end, within what closes it, or behind that.
        for short in 0..3 {
            let mut output = Outgoing::default();
            let mut context = Context::from_waker(std::task::Waker::noop());
            output.put(large.clone(), Delimiter::Chunked);
            let first = "2000\r\n".len() + large.len() + short;
            let written = output.poll_write(Pin::new(&mut Slow(first)), &mut context);
            assert_eq!((written.is_pending(), output.has_room()), (short < 2, short == 2), "{short}");
        }
    }

    #[test]
    fn a_peer_that_never_takes_everything_does_not_make_it_grow() {
        let mut output = Outgoing::default();
        let mut context = Context::from_waker(std::task::Waker::noop());
        let part = Bytes::from(vec![b'x'; 3 * 1024]);
        for _ in 0..1000 {
            while output.has_room() {
                output.put(part.clone(), Delimiter::Close);
            }
            assert!(output.poll_write(Pin::new(&mut Slow(4 * 1024)), &mut context).is_pending());
            assert!(output.gathered.len() <= 3 * ENOUGH, "{} bytes", output.gathered.len());
        }
        assert_eq!(output.written(), 1000 * 4 * 1024);
    }
}
