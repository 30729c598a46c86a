//! One stream of a connection, as both of its users see it: who reads what comes, and who sends what goes.

use std::collections::VecDeque;
use std::task::{Context, Waker};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response};

use super::error::Error;
use super::window::{Credit, Window};

/// A part that is smaller does not stand by itself while it waits.
const SMALL: usize = 1024;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Stream {
    /// Those who hold on to it. Without any it is forgotten.
    pub(super) handles: u8,
    pub(super) received: Received,
    /// What the peer may send.
    pub(super) credit: Credit,
    /// Who waits for what comes.
    pub(super) reader: Option<Waker>,
    pub(super) sent: Sent,
    /// What we may send.
    pub(super) window: Window,
    /// Who waits to send, or for the stream's end.
    pub(super) writer: Option<Waker>,
    /// It stands in the line of those who wait for the connection.
    pub(super) queued: bool,
    /// Why it broke off.
    pub(super) failed: Option<Error>,
    /// Bytes flow over it as over a connection.
    pub(super) tunnel: bool,
    /// It counts among the open ones.
    pub(super) open: bool,
}

/// What has come and was not read.
#[derive(Debug)]
pub(super) struct Received {
    /// The head was here.
    pub(super) head: bool,
    /// The head alone was asked for.
    pub(super) bodiless: bool,
    /// Of one that we asked on.
    pub(super) response: Option<Box<Response<()>>>,
    data: VecDeque<Bytes>,
    /// Small parts behind those, put together: each by itself would take many times its size.
    tail: BytesMut,
    pub(super) trailers: Option<Box<HeaderMap>>,
    /// As much as `content-length` says is still to come.
    pub(super) left: Option<u64>,
    pub(super) ended: bool,
    /// What came before the response, and was not told.
    pub(super) informs: Option<Box<Response<()>>>,
    /// Something did: what else comes so is passed over, as Envoy does.
    pub(super) informed: bool,
}

/// Where that stands which goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Nothing,
    Head,
    All,
}

impl Stream {
    pub(super) fn new(credit: Credit, window: Window) -> Self {
        Self {
            handles: 0,
            received: Received {
                head: false,
                bodiless: false,
                response: None,
                data: VecDeque::new(),
                tail: BytesMut::new(),
                trailers: None,
                left: None,
                ended: false,
                informs: None,
                informed: false,
            },
            credit,
            reader: None,
            sent: Sent::Nothing,
            window,
            writer: None,
            queued: false,
            failed: None,
            tunnel: false,
            open: true,
        }
    }

    /// Whether both sides have said everything.
    pub(super) fn is_over(&self) -> bool {
        self.received.ended && self.sent == Sent::All
    }

    /// It broke off. What came before that may still be read.
    pub(super) fn fail(&mut self, error: Error) {
        self.failed.get_or_insert(error);
        self.wake_reader();
        self.wake_writer();
    }

    pub(super) fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    pub(super) fn wake_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    pub(super) fn await_reading(&mut self, context: &Context<'_>) {
        register(&mut self.reader, context);
    }

    pub(super) fn await_writing(&mut self, context: &Context<'_>) {
        register(&mut self.writer, context);
    }
}

/// Keeps the waker of whoever asks.
pub(super) fn register(place: &mut Option<Waker>, context: &Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(context.waker()),
        None => *place = Some(context.waker().clone()),
    }
}

impl Received {
    /// Keeps a part of the body until somebody reads it.
    pub(super) fn push(&mut self, part: Bytes) {
        let waits = !self.data.is_empty() || !self.tail.is_empty();
        if waits && part.len() < SMALL {
            self.tail.extend_from_slice(&part);
            return;
        }
        if !self.tail.is_empty() {
            self.data.push_back(self.tail.split().freeze());
        }
        self.data.push_back(part);
    }

    /// The next part of the body.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        self.data.pop_front().or_else(|| (!self.tail.is_empty()).then(|| self.tail.split().freeze()))
    }

    /// Bytes that nobody has read.
    pub(super) fn unread(&self) -> usize {
        self.data.iter().map(Bytes::len).sum::<usize>() + self.tail.len()
    }

    /// Counts data against `content-length`.
    ///
    /// # Errors
    /// There is more or less of it.
    pub(super) fn count(&mut self, length: usize, ends: bool) -> Result<(), &'static str> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(length as u64).ok_or("a body that is longer than it says")?;
            if ends && *left > 0 {
                return Err("a body that is shorter than it says");
            }
        }
        self.ended |= ends;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_in_their_order() {
        let mut received = Stream::new(Credit::new(0), Window::new(0)).received;
        let large = Bytes::from(vec![b'l'; SMALL]);
        let small = |text: &'static str| Bytes::from_static(text.as_bytes());
        for part in [small("a"), small("b"), small("c"), large.clone(), small("d"), small("e")] {
            received.push(part);
        }
        assert_eq!(received.unread(), 5 + SMALL);
        let read: Vec<Bytes> = std::iter::from_fn(|| received.pop()).collect();
        assert_eq!(read, [small("a"), small("bc"), large, small("de")]);
        assert_eq!(received.unread(), 0);
    }
}
