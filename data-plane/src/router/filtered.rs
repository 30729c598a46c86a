//! The filters that a try passes between the router and the upstream's connection: the cluster's, or else the router's own.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use pin_project_lite::pin_project;

use super::attempt::Try;
use super::failure::{Answer, Failure};
use crate::cluster::Cluster;
use crate::filters::Chain;
use crate::http::bodies::BodyTimers;
use crate::http::body::Body;
use crate::http::exchange::Exchange;
use crate::http::handler::Reply;
use crate::http::head::Head;
use crate::http::local_reply::LocalReply;
use crate::pool::lease::Lease;
use crate::stats::sets::cluster as stats;

/// The filters of one try.
pub(super) struct Filtered<'a> {
    chain: &'a Chain,
    cluster: &'a Cluster,
    attempt: &'a Try<'a>,
    /// Which try it is: filters keep what they know of each apart.
    number: u32,
}

impl<'a> Filtered<'a> {
    /// What a try passes to a cluster, if there is anything.
    pub(super) fn of(attempt: &'a Try<'a>, cluster: &'a Cluster) -> Option<Self> {
        let chain = cluster.filters().or_else(|| attempt.exchange.connection.manager.upstream_filters())?;
        Some(Self { chain, cluster, attempt, number: attempt.exchange.info.borrow().attempt_count })
    }

    /// Passes the request through them. What they change stays for later tries, as in Envoy.
    pub(super) async fn request(&self, head: &mut Head, body: &mut Body) -> Result<(), Failure> {
        let exchange = self.attempt.exchange;
        let passed = self.keeping(self.chain.on_request(exchange, head, body)).await;
        // Logs tell what went upstream.
        exchange.info.borrow_mut().captured.take_request(&head.headers);
        // Envoy shows them no answer of one of them, and counts the try, for which it has a connection by now.
        passed.map(drop).map_err(|(_, reply)| {
            self.cluster.stats().inc(stats::upstream_rq_total);
            Self::answer(*reply)
        })
    }

    /// Passes the response back through them, before it is judged. The connection is gone where one of them answers itself.
    pub(super) async fn response(
        &self,
        response: Response<Body>,
        lease: Lease,
    ) -> Result<(Response<Body>, Lease), Failure> {
        let exchange = self.attempt.exchange;
        let mut reply = Reply { response, lease: Some(lease), timers: BodyTimers::default(), tunnel: None };
        self.keeping(self.chain.on_response(self.chain.len(), exchange, &mut reply)).await;
        let Reply { response, lease, .. } = reply;
        let Some(lease) = lease else {
            let details = exchange.info.borrow().code_details.clone();
            let whole = response.map(|body| match body {
                Body::Full(bytes) => bytes,
                // Such answers come in one piece, or have no body.
                _ => Bytes::new(),
            });
            return Err(Self::answer(LocalReply::whole(whole, details.unwrap_or_default())));
        };
        Ok((response, lease))
    }

    /// The client is told so; there is no other try.
    fn answer(reply: LocalReply) -> Failure {
        Failure::Answered(Answer(Rc::new(reply)))
    }

    fn keeping<F>(&self, inner: F) -> Keeping<'a, F> {
        Keeping { inner, exchange: self.attempt.exchange, number: self.number }
    }
}

pin_project! {
    /// The work of a try's filters: what they keep meanwhile is the try's.
    struct Keeping<'a, F> {
        #[pin]
        inner: F,
        exchange: &'a Rc<Exchange>,
        number: u32,
    }
}

impl<F: Future> Future for Keeping<'_, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        // Tries may be under way beside each other.
        let before = this.exchange.state().enter(*this.number);
        let result = this.inner.poll(context);
        this.exchange.state().enter(before);
        result
    }
}
