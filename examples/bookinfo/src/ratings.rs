//! `ratings`: stars by reviewer. They can be set with a POST, and live as long as the process.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use futures_util::future::BoxFuture;
use http::{Method, StatusCode};

use crate::catalog::RatingsOf;
use crate::server::{Handler, Outgoing, Received, json, not_found, number_after};

/// Answers `GET` and `POST /ratings/ID`.
#[derive(Default)]
pub(crate) struct Ratings {
    given: Mutex<BTreeMap<u32, BTreeMap<String, u32>>>,
}

impl Ratings {
    fn of(&self, id: u32) -> RatingsOf {
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let ratings = given
            .get(&id)
            .cloned()
            .unwrap_or_else(|| BTreeMap::from([("Reviewer1".to_owned(), 5), ("Reviewer2".to_owned(), 4)]));
        RatingsOf { id, ratings }
    }

    fn set(&self, id: u32, body: &[u8]) -> Outgoing {
        match serde_json::from_slice(body) {
            Ok(ratings) => {
                self.given.lock().unwrap_or_else(PoisonError::into_inner).insert(id, ratings);
                json(StatusCode::OK, &self.of(id))
            }
            Err(error) => {
                let error = format!("the body must be an object of reviewer to stars: {error}");
                json(StatusCode::BAD_REQUEST, &serde_json::json!({ "error": error }))
            }
        }
    }
}

impl Handler for Ratings {
    fn handle(&self, request: Received) -> BoxFuture<'_, Outgoing> {
        let path = request.uri().path();
        let answer = match (request.method(), number_after(path, "/ratings/")) {
            (&Method::GET, Some(id)) => json(StatusCode::OK, &self.of(id)),
            (&Method::POST, Some(id)) => self.set(id, request.body()),
            (method, _) => not_found(method, path),
        };
        Box::pin(std::future::ready(answer))
    }
}
