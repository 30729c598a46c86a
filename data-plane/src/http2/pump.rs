//! Sends a body: part by part, as far as the peer's windows let it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body as _;

use super::handle::Handle;
use crate::http::body::{Body, BodyError};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Pump {
    body: Body,
    /// What was taken out of it and is not on its way.
    part: Bytes,
    /// Nothing follows that part.
    ends: bool,
}

/// Why a body did not get to its end.
#[derive(Debug)]
pub(super) enum Broken {
    /// The stream broke off, as who reads it learns, too.
    Stream,
    /// The body did.
    Body(BodyError),
}

impl Pump {
    pub(super) fn new(body: Body) -> Self {
        Self { body, part: Bytes::new(), ends: false }
    }

    /// Sends what there is; ready once the body's end is on its way.
    pub(super) fn poll(&mut self, handle: &Handle, context: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        loop {
            if self.ends || !self.part.is_empty() {
                let sent = handle.inner().poll_send(handle.stream, &mut self.part, self.ends, context);
                if sent.is_pending() {
                    return self.body.poll_stuck(context).map(|error| Err(Broken::Body(error)));
                }
                ready!(sent).map_err(|_| Broken::Stream)?;
                if self.ends {
                    return Poll::Ready(Ok(()));
                }
            }
            // Not asked while the connection is held: the body may be one of the same connection's.
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
                return handle.poll_failed(context).map(|_| Err(Broken::Stream));
            };
            match frame.transpose().map_err(Broken::Body)?.map(http_body::Frame::into_data) {
                None => self.ends = true,
                Some(Ok(data)) => {
                    self.part = data;
                    self.ends = self.body.is_end_stream();
                }
                Some(Err(frame)) => {
                    match frame.into_trailers() {
                        // None are an end like any other.
                        Ok(trailers) if trailers.is_empty() => {
                            self.ends = true;
                            continue;
                        }
                        Ok(trailers) => handle.inner().send_trailers(handle.stream, &trailers),
                        Err(_) => continue,
                    }
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}
