//! Answers the requests of a connection.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use http::Response;
use tokio::time::Sleep;

use super::{Connection, Reading};
use crate::http::body::Body;
use crate::http1::Error;
use crate::http1::encode;
use crate::http1::outgoing::Outgoing;
use crate::http1::sender::{self, Sender};

/// See the module's documentation. It stands beside the connection, since a response's body may read the request's.
pub(crate) struct Responder {
    connection: Connection,
    sender: Sender,
    /// The client may ask again after the response.
    goes_on: bool,
    /// Why the response has no end.
    broken: Option<Error>,
    /// Runs while the client takes nothing of the last response.
    stuck: Option<Pin<Box<Sleep>>>,
}

impl Responder {
    pub(crate) fn new(connection: Connection) -> Self {
        Self { connection, sender: Sender::default(), goes_on: true, broken: None, stuck: None }
    }

    /// Begins to answer the last request.
    pub(crate) fn begin(&mut self, response: Response<Body>) {
        let (mut parts, body) = response.into_parts();
        let size = sender::size_of(&body);
        let mut connection = self.connection.inner();
        let out = self.sender.output().buffer();
        let delimiter;
        (delimiter, self.goes_on) =
            encode::response(out, &parts, size, connection.asker, connection.options.form.spelling);
        // What the values stand in is free from here on.
        parts.headers.clear();
        connection.spare = parts.headers;
        drop(connection);
        self.sender.begin(body, delimiter);
    }

    /// Sends the answer.
    ///
    /// # Errors
    /// [`Error::Body`] where it broke off, once what came before that is sent; [`Error::Io`] where the client takes no
    /// more.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let connection = &self.connection;
        let write =
            |output: &mut Outgoing, context: &mut Context<'_>| connection.inner().poll_write(output, context);
        if self.broken.is_none() {
            let form = connection.inner().options.form;
            match ready!(self.sender.poll(form, context, write)) {
                Err(broken @ Error::Body(_)) => self.broken = Some(broken),
                sent => return Poll::Ready(sent),
            }
        }
        ready!(write(self.sender.output(), context))?;
        Poll::Ready(self.broken.take().map_or(Ok(()), Err))
    }

    /// Whether it will be asked again at once.
    pub(crate) fn waits_for_its_turn(&self) -> bool {
        self.sender.waits_for_its_turn()
    }

    /// To be asked while the client does not take the answer. Ready when it is given up: all that there will be of it is
    /// there, the connection ends with it, and the client has taken nothing of it for as long as it has to close.
    pub(crate) fn poll_given_up(&mut self, is_last: bool, context: &mut Context<'_>) -> Poll<()> {
        let limit = self.connection.inner().options.delayed_close;
        let complete = self.sender.is_complete() || self.broken.is_some();
        if limit.is_zero() || !complete || !is_last && self.goes_on() {
            return Poll::Pending;
        }
        let Some(stuck) = &mut self.stuck else {
            return self.stuck.insert(Box::pin(tokio::time::sleep(limit))).as_mut().poll(context);
        };
        if stuck.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        // It was something else that woke us: the client takes some.
        stuck.as_mut().reset((Instant::now() + limit).into());
        stuck.as_mut().poll(context)
    }

    /// Whether the connection takes another request.
    pub(crate) fn goes_on(&self) -> bool {
        let connection = self.connection.inner();
        let read = match &connection.reading {
            Reading::Head => true,
            Reading::Body(decoder) => decoder.is_ended(),
            Reading::Broken => false,
        };
        self.goes_on && read && !connection.wire.input.has_ended()
    }
}
