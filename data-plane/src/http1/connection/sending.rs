//! Sends a request: its head and what there is of its body leave in one call.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use base::task::Supervised;
use http_body::Body as _;

use super::{Connection, Writing};
use crate::http::body::BodyError;
use crate::http1::encode::Delimiter;
use crate::http1::error::Error;

/// How much of a request stands in the output.
enum Gathered {
    /// Its end is there.
    All,
    /// The body has no more at the moment.
    WhatThereIs,
    /// The body may have more.
    Enough,
}

impl Connection {
    /// If the response came before the request was sent, a task sends the rest: whoever reads the response may wait for
    /// a client that reads nothing before it has said everything.
    pub(in crate::http1) fn send_beside(connection: &Rc<RefCell<Self>>) {
        if matches!(connection.borrow().writing, Writing::Done | Writing::Broken) {
            return;
        }
        let own = Rc::downgrade(connection);
        let task = Supervised::spawn_local(poll_fn(move |context| {
            own.upgrade().map_or(Poll::Ready(()), |connection| connection.borrow_mut().poll_rest(context))
        }));
        connection.borrow_mut().sender = Some(task);
    }

    fn poll_rest(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self.poll_send(context) {
            Ok(()) if !matches!(self.writing, Writing::Done | Writing::Broken) => return Poll::Pending,
            Ok(()) => {}
            Err(error) => {
                self.send_failed = Some(error);
                self.writing = Writing::Broken;
                self.interrupt.wake();
            }
        }
        Poll::Ready(())
    }

    /// Sends what there is of the request. Only the request's own body makes it fail: an upstream that takes no more may
    /// still have answered.
    pub(super) fn poll_send(&mut self, context: &mut Context<'_>) -> Result<(), Error> {
        while !matches!(self.writing, Writing::Done | Writing::Broken) {
            let gathered = self.gather(context)?;
            let Some(stream) = self.stream.as_mut() else { return Ok(()) };
            if !self.output.is_empty() && self.turn.poll(context).is_pending() {
                return Ok(());
            }
            match (self.output.poll_write(Pin::new(stream), context), gathered) {
                (Poll::Pending, _) => return Ok(()),
                (Poll::Ready(Err(_)), _) => {
                    self.writing = Writing::Broken;
                    return Ok(());
                }
                (Poll::Ready(Ok(())), Gathered::All) => {
                    self.writing = Writing::Done;
                    return Ok(());
                }
                (Poll::Ready(Ok(())), Gathered::WhatThereIs) => return Ok(()),
                (Poll::Ready(Ok(())), Gathered::Enough) => {}
            }
        }
        Ok(())
    }

    /// Encodes what there is of the request's body, so that one call writes much of it.
    fn gather(&mut self, context: &mut Context<'_>) -> Result<Gathered, Error> {
        let Writing::Body { body, delimiter } = &mut self.writing else { return Ok(Gathered::All) };
        let spelling = self.options.spelling;
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
                        trailers = frame.into_trailers().ok();
                        ended = true;
                    }
                }
            }
            // A large part's end is written before the body's.
            if ended && (self.output.has_room() || *delimiter != Delimiter::Chunked) {
                match delimiter {
                    Delimiter::Length(0) => {}
                    Delimiter::Length(_) => return Err(other_length()),
                    Delimiter::Chunked => self.output.end_chunks(trailers.as_ref(), spelling),
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
