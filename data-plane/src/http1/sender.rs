//! Sends a message: its head and what there is of its body leave in one call.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::Body as _;

use super::encode::{Delimiter, Form, Size};
use super::error::Error;
use super::outgoing::Outgoing;
use crate::http::body::{Body, BodyError};
use crate::rt::Turn;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Sender {
    output: Outgoing,
    turn: Turn,
    writing: Writing,
}

/// Where the message stands.
#[derive(Debug, Default)]
enum Writing {
    Body {
        body: Body,
        delimiter: Delimiter,
    },
    /// The body's end was encoded; what was encoded last may not be written.
    Rest,
    #[default]
    Done,
    /// The peer takes no more.
    Broken,
}

/// How much of a message stands in the output.
enum Gathered {
    /// Its end is there.
    All,
    /// The body has no more at the moment.
    WhatThereIs,
    /// The body may have more.
    Enough,
}

/// What is known of a body's size before it is sent.
pub(super) fn size_of(body: &Body) -> Size {
    if body.is_end_stream() {
        Size::Empty
    } else {
        body.size_hint().exact().map_or(Size::Unknown, Size::Exact)
    }
}

impl Sender {
    /// Where a head is written to.
    pub(super) fn output(&mut self) -> &mut Outgoing {
        &mut self.output
    }

    /// The head is written; this follows it.
    pub(super) fn begin(&mut self, body: Body, delimiter: Delimiter) {
        self.writing =
            if delimiter == Delimiter::Length(0) { Writing::Rest } else { Writing::Body { body, delimiter } };
    }

    /// Whether the message was sent.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.writing, Writing::Done)
    }

    /// Whether the peer takes no more of it.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self.writing, Writing::Broken)
    }

    /// Whether there is nothing left to do.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.writing, Writing::Done | Writing::Broken)
    }

    /// Whether all that there is of it stands in the output, or was sent.
    pub(super) fn is_complete(&self) -> bool {
        matches!(self.writing, Writing::Rest | Writing::Done)
    }

    /// Whether it puts a write off.
    pub(super) fn waits_for_its_turn(&self) -> bool {
        self.turn.is_awaited()
    }

    /// Gives the message up.
    pub(super) fn give_up(&mut self) {
        self.writing = Writing::Broken;
    }

    /// Sends what there is of the message, by a function that writes everything that stands in the output. It is not
    /// asked while the body is, which may hold what it writes to.
    ///
    /// # Errors
    /// [`Error::Body`] where the message's own body broke off, [`Error::Io`] where the peer takes no more, and
    /// [`Error::Interrupted`] where it was given up before it did.
    pub(super) fn poll(
        &mut self,
        form: Form,
        context: &mut Context<'_>,
        mut write: impl FnMut(&mut Outgoing, &mut Context<'_>) -> Poll<io::Result<()>>,
    ) -> Poll<Result<(), Error>> {
        while !self.has_ended() {
            let gathered = self.gather(form, context)?;
            // What is large keeps the kernel busy by itself.
            if self.output.is_small() && self.turn.poll(context).is_pending() {
                return Poll::Pending;
            }
            match (write(&mut self.output, context), gathered) {
                (Poll::Pending, _) => return self.poll_stuck(context).map(Err),
                (Poll::Ready(Ok(())), Gathered::WhatThereIs) => return Poll::Pending,
                (Poll::Ready(Err(error)), _) => {
                    self.writing = Writing::Broken;
                    return Poll::Ready(Err(error.into()));
                }
                (Poll::Ready(Ok(())), Gathered::All) => self.writing = Writing::Done,
                (Poll::Ready(Ok(())), Gathered::Enough) => {}
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The peer takes nothing at the moment. Ready when it has waited for too long.
    fn poll_stuck(&mut self, context: &mut Context<'_>) -> Poll<Error> {
        let Writing::Body { body, .. } = &mut self.writing else { return Poll::Pending };
        body.poll_stuck(context).map(|_| {
            self.writing = Writing::Broken;
            Error::Interrupted
        })
    }

    /// Encodes what there is of the body, so that one call writes much of it.
    fn gather(&mut self, form: Form, context: &mut Context<'_>) -> Result<Gathered, Error> {
        let Writing::Body { body, delimiter } = &mut self.writing else { return Ok(Gathered::All) };
        while self.output.has_room() {
            let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(context) else {
                return Ok(Gathered::WhatThereIs);
            };
            let mut trailers = None;
            let mut ended = frame.is_none();
            if let Some(frame) = frame {
                match frame.map_err(|error| Error::Body(Box::new(error)))?.into_data() {
                    Ok(data) => {
                        if let Delimiter::Length(left) = delimiter {
                            *left = left.checked_sub(data.len() as u64).ok_or_else(other_length)?;
                        }
                        self.output.put(data, *delimiter);
                        ended = body.is_end_stream();
                    }
                    Err(frame) => {
                        trailers = frame.into_trailers().ok().filter(|_| form.trailers);
                        ended = true;
                    }
                }
            }
            if ended {
                match delimiter {
                    Delimiter::Length(0) | Delimiter::Close => {}
                    Delimiter::Length(_) => return Err(other_length()),
                    Delimiter::Chunked => self.output.end_chunks(trailers.as_ref(), form.spelling),
                }
                self.writing = Writing::Rest;
                return Ok(Gathered::All);
            }
        }
        Ok(Gathered::Enough)
    }
}

fn other_length() -> Error {
    Error::Body(Box::new(BodyError::Reset("the body is not as long as content-length says")))
}
