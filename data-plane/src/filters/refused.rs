//! Filters that guard something and that this proxy does not have: their requests are refused, never let through.

use http::StatusCode;

use super::{Flow, HttpFilter, Request};
use crate::http::local_reply::LocalReply;

/// What is said of the missing filter.
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    pub(crate) body: &'static str,
    pub(crate) details: &'static str,
    /// Only requests of this content type are the filter's business.
    pub(crate) content_type: Option<&'static str>,
}

impl HttpFilter for Refused {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let Request { head, .. } = request;
        if let Some(wanted) = self.content_type {
            let found = head.headers.get(http::header::CONTENT_TYPE);
            if !found.is_some_and(|found| found.as_bytes().starts_with(wanted.as_bytes())) {
                return Flow::Continue;
            }
        }
        Flow::Reply(Box::new(LocalReply::new(self.status, self.body, self.details)))
    }
}
