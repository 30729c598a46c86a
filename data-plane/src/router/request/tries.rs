//! The tries of one request, one after the other: which upstream each goes to, and whether there is another.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue};
use sail_proxy_decide::host::Host;
use sail_proxy_decide::route::retry::{RetryPolicy, RetryState, Verdict};
use sail_proxy_decide::route::{RouteAction, Timeouts};

use super::bounded;
use super::source::Source;
use super::{ATTEMPT_COUNT, Success};
use crate::clock;
use crate::cluster::{Cluster, Tracked};
use crate::http::exchange::Exchange;
use crate::http::head::{Head, Keep};
use crate::pool::limits::{Permit, Resource};
use crate::router::Found;
use crate::router::attempt::{Try, log_periodically};
use crate::router::counters::Counters;
use crate::router::failure::Failure;
use crate::stats::sets::{cluster as stats, virtual_host};
use crate::stream_info::ResponseFlag;

const IS_TIMEOUT_RETRY: HeaderName = HeaderName::from_static("x-envoy-is-timeout-retry");

/// The tries of one request.
pub(super) struct Tries<'a> {
    pub(super) exchange: &'a Rc<Exchange>,
    pub(super) found: &'a Found,
    pub(super) action: &'a RouteAction,
    pub(super) cluster: &'a Rc<Cluster>,
    pub(super) policy: Option<&'a RetryPolicy>,
    pub(super) state: Option<RetryState>,
    pub(super) timeouts: Timeouts,
    pub(super) body: Source,
    pub(super) hash: sail_proxy_decide::route::hash::Hashed,
    pub(super) tried: &'a RefCell<Vec<Arc<Host>>>,
    /// How many tries are under way.
    pub(super) under_way: Cell<usize>,
    pub(super) retry_permit: Option<Permit>,
    pub(super) keep: Keep,
    /// The last try ran out of its time.
    pub(super) timed_out: bool,
    /// How long a try's stream may last.
    pub(super) max_stream: Option<Duration>,
    pub(super) try_began: Cell<Instant>,
    /// The host that was tried last is known to have taken too long.
    pub(super) timeout_noted: Cell<bool>,
    /// A retry has begun.
    pub(super) retried: Cell<bool>,
    /// A try that takes too long is left running beside the next.
    pub(super) hedges: bool,
    pub(super) counters: &'a Counters,
}

impl<'a> Tries<'a> {
    /// Counts the try that begins, and tells the upstream of it where it wants to know.
    pub(super) fn begin(&self, head: &mut Head) -> u32 {
        let count = {
            let mut info = self.exchange.info.borrow_mut();
            info.attempt_count += 1;
            info.attempt_count
        };
        if self.found.virtual_host.include_is_timeout_retry_header && count > 1 {
            let value = HeaderValue::from_static(if self.timed_out { "true" } else { "false" });
            head.headers.insert(IS_TIMEOUT_RETRY, value);
        }
        if self.found.virtual_host.include_request_attempt_count {
            head.headers.insert(ATTEMPT_COUNT, HeaderValue::from(count));
        }
        self.timeout_noted.set(false);
        if self.cluster.tracked().is_some() {
            self.try_began.set(clock::now());
        }
        let observer = &self.exchange.connection.manager.observer;
        observer.on_try(&mut head.headers, &mut self.exchange.info.borrow_mut(), count);
        log_periodically(self.exchange);
        count
    }

    pub(super) async fn run(&mut self, head: &mut Head) -> Result<Success, Failure> {
        let limit = [self.timeouts.per_try, self.timeouts.per_try_idle].into_iter().flatten().min();
        if self.hedges
            && let Some(limit) = limit
        {
            // Boxed, since it is rare and large.
            return Box::pin(self.run_hedged(head, limit)).await;
        }
        loop {
            self.begin(head);
            self.under_way.set(1);
            let result = self.once(head).await;
            self.timed_out = matches!(result, Err(Failure::PerTryTimeout | Failure::PerTryIdleTimeout));
            let Some(wait) = self.judge(&result) else { return result };
            self.under_way.set(0);
            if let Some(tracked) = self.cluster.tracked() {
                tracked.note_try(self.try_began.get(), &self.timeouts);
            }
            self.note_retry(&result);
            // The failed try's connection is given up before the next is looked for.
            drop(result);
            tokio::time::sleep(wait.time).await;
            self.count_retry(wait);
        }
    }

    /// A retry begins.
    pub(super) fn count_retry(&self, wait: Wait) {
        self.retried.set(true);
        let stats = self.cluster.stats();
        stats.inc(stats::upstream_rq_retry);
        self.counters.inc(virtual_host::upstream_rq_retry);
        stats.inc(match wait.asked_for {
            true => stats::upstream_rq_retry_backoff_ratelimited,
            false => stats::upstream_rq_retry_backoff_exponential,
        });
    }

    /// The route's time is over: each try that is under way has taken too long, and so has the last one's host.
    pub(super) fn note_timeout(&self, failure: &Failure) {
        for _ in 0..self.under_way.get() {
            self.cluster.stats().inc(stats::upstream_rq_timeout);
            self.counters.inc(virtual_host::upstream_rq_timeout);
        }
        if self.under_way.get() > 0
            && !self.timeout_noted.get()
            && let Some(host) = self.tried.borrow().last()
        {
            self.cluster.note_failure(host, failure);
        }
    }

    /// How much of its time the request took, and its last try, if that is known to have ended.
    pub(super) fn note_budgets(&self, tracked: &Tracked, result: &Result<Success, Failure>) {
        if matches!(
            result,
            Ok(_) | Err(Failure::Timeout | Failure::PerTryTimeout | Failure::PerTryIdleTimeout)
        ) {
            tracked.note_end(self.exchange, &self.timeouts);
        }
        match result {
            Ok(_) => tracked.note_try_end(self.exchange, self.try_began.get(), &self.timeouts),
            Err(Failure::Timeout) => {}
            Err(_) => tracked.note_try(self.try_began.get(), &self.timeouts),
        }
    }

    /// A try ended, and there will be another.
    fn note_retry(&self, result: &Result<Success, Failure>) {
        let status = result.as_ref().map_or(0, |success| success.response.status().as_u16());
        let observer = &self.exchange.connection.manager.observer;
        let flag = result.as_ref().err().and_then(Failure::flag);
        self.exchange.between_tries.set(true);
        observer.on_try_end(&mut self.exchange.info.borrow_mut(), Some(status), flag);
    }

    async fn once(&mut self, head: &mut Head) -> Result<Success, Failure> {
        let Some(limit) = self.max_stream else { return self.once_within_its_time(head).await };
        self.try_began.set(clock::now());
        let cluster = self.cluster;
        // Boxed, since it is rare.
        let run = Box::pin(self.once_within_its_time(head));
        within_duration(run, cluster, limit).await
    }

    /// A try as it begins.
    pub(super) fn attempt(&self, keep: Keep, idle: Option<Duration>) -> Try<'a> {
        Try {
            exchange: self.exchange,
            cluster: self.cluster,
            action: self.action,
            found: self.found,
            policy: self.policy,
            hash: self.hash.hash,
            tried: self.tried,
            keep,
            idle,
            counters: self.counters,
        }
    }

    async fn once_within_its_time(&mut self, head: &mut Head) -> Result<Success, Failure> {
        let Some(body) = self.body.reader() else { return Err(Failure::Downstream) };
        let attempt = self.attempt(self.keep, self.timeouts.per_try_idle);
        let run = pin!(attempt.run(head, body));
        let Some(limit) = self.timeouts.per_try else { return run.await };
        // Boxed: a request without such a limit has no room for its timer.
        Box::pin(bounded::within(run, self.exchange, limit)).await.unwrap_or_else(|| {
            self.cluster.stats().inc(stats::upstream_rq_per_try_timeout);
            if let Some(host) = self.tried.borrow().last() {
                self.cluster.note_failure(host, &Failure::PerTryTimeout);
            }
            Err(Failure::PerTryTimeout)
        })
    }

    /// Whether to try again, and after what wait.
    pub(super) fn judge(&mut self, result: &Result<Success, Failure>) -> Option<Wait> {
        let state = self.state.as_mut().filter(|_| !self.exchange.informed.get())?;
        if !self.body.can_send_again() {
            return None;
        }
        let verdict = match result {
            Ok(success) => {
                let response = &success.response;
                state.on_response(self.policy, response.status().as_u16(), response.headers())
            }
            Err(failure) => state.on_reset(failure.reset()?, failure.started()),
        };
        if verdict == Verdict::No && self.retried.get() {
            // Whatever it brought, it was no reason to go on.
            self.cluster.stats().inc(stats::upstream_rq_retry_success);
            self.counters.inc(virtual_host::upstream_rq_retry_success);
        }
        self.again(verdict, result.as_ref().ok())
    }

    /// Whether there is room for the try that a verdict asks for, and how long to wait before it.
    pub(super) fn again(&mut self, verdict: Verdict, response: Option<&Success>) -> Option<Wait> {
        let stats = self.cluster.stats();
        match verdict {
            Verdict::No => return None,
            Verdict::Exhausted => {
                stats.inc(stats::upstream_rq_retry_limit_exceeded);
                self.counters.inc(virtual_host::upstream_rq_retry_limit_exceeded);
                self.exchange.flag(ResponseFlag::UpstreamRetryLimitExceeded);
                return None;
            }
            Verdict::Retry => {}
        }
        // One place serves all retries of this request.
        if self.retry_permit.is_none() {
            self.retry_permit = self.cluster.limits(self.action.priority).acquire(Resource::Retries);
            if self.retry_permit.is_none() {
                stats.inc(stats::upstream_rq_retry_overflow);
                self.counters.inc(virtual_host::upstream_rq_retry_overflow);
                self.exchange.flag(ResponseFlag::UpstreamOverflow);
                return None;
            }
        }
        if let Some(success) = response {
            self.cluster.count_retried(success.response.status().as_u16());
        }
        let retries = self.state.as_ref().map_or(1, RetryState::retries);
        let random = self.exchange.connection.worker.random();
        let asked = response.zip(self.policy.and_then(|policy| policy.rate_limited_back_off.as_ref()));
        if let Some((success, back_off)) = asked
            && let Some(time) = back_off.wait(success.response.headers(), unix_now(), random)
        {
            return Some(Wait { time, asked_for: true });
        }
        let back_off = self.policy.map(|policy| policy.back_off).unwrap_or_default();
        Some(Wait { time: back_off.wait(retries, random), asked_for: false })
    }
}

/// A try, for as long as its stream may last.
pub(super) async fn within_duration(
    run: impl Future<Output = Result<Success, Failure>>,
    cluster: &Cluster,
    limit: Duration,
) -> Result<Success, Failure> {
    let ended = tokio::time::timeout(limit, run).await;
    ended.unwrap_or_else(|_| {
        cluster.stats().inc(stats::upstream_rq_max_duration_reached);
        Err(Failure::MaxDuration)
    })
}

/// The wait before a retry.
#[derive(Clone, Copy)]
pub(super) struct Wait {
    pub(super) time: Duration,
    /// The upstream said how long.
    pub(super) asked_for: bool,
}

fn unix_now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
