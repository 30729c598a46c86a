//! `details`: facts about a book.

use futures_util::future::BoxFuture;
use http::{Method, StatusCode};

use crate::catalog::Book;
use crate::server::{Handler, Outgoing, Received, json, not_found, number_after};

/// Answers `GET /details/ID`.
pub(crate) struct Details;

impl Handler for Details {
    fn handle(&self, request: Received) -> BoxFuture<'_, Outgoing> {
        let path = request.uri().path();
        let answer = match (request.method(), number_after(path, "/details/")) {
            (&Method::GET, Some(id)) => json(StatusCode::OK, &book(id)),
            (method, _) => not_found(method, path),
        };
        Box::pin(std::future::ready(answer))
    }
}

fn book(id: u32) -> Book {
    Book {
        id,
        author: "William Shakespeare".to_owned(),
        year: 1595,
        kind: "paperback".to_owned(),
        pages: 200,
        publisher: "PublisherA".to_owned(),
        language: "English".to_owned(),
        isbn_10: "1234567890".to_owned(),
        isbn_13: "123-1234567890".to_owned(),
    }
}
