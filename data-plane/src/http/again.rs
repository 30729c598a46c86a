//! A request that begins anew, since its answer is to come from elsewhere. It passes the filters again, as a stream of its
//! own: with its own record, log line and limits.

use std::any::Any;
use std::rc::Rc;

use http::Response;

use super::body::Body;
use super::exchange::{Exchange, Guard};
use super::handler::{self, Asked, Came};
use super::head::Head;

/// What is asked for in the place of the request that was.
pub(crate) struct Again {
    pub(crate) head: Head,
    pub(crate) body: Body,
    /// What a filter hands to itself, by its name.
    pub(crate) kept: Option<(Box<str>, Box<dyn Any>)>,
}

/// Serves a request that took another's place, and those that take its own.
pub(super) async fn serve(
    mut exchange: Rc<Exchange>,
    mut guard: Guard,
    mut again: Box<Again>,
    asked: Asked,
) -> Response<Body> {
    loop {
        let next = exchange.again();
        if let Some((filter, kept)) = again.kept.take() {
            next.state().put_boxed(filter, kept);
        }
        let next_guard = Guard::new(next.clone());
        // The one that was has ended as it should: it is logged before the one that takes its place.
        guard.complete();
        (exchange, guard) = (next, next_guard);
        let Again { mut head, body, .. } = *again;
        handler::note_request(&exchange, &head);
        exchange.grpc.set(head.is_grpc());
        let came = Came::Again(body);
        let reply = handler::run(&exchange, &mut head, came).await;
        match exchange.take_again() {
            None => return handler::finish(&exchange, reply, guard, asked),
            Some(further) => again = further,
        }
    }
}
