//! When a request is tried again, and how long to wait before.

use std::time::Duration;

use http::{HeaderMap, HeaderName};

use crate::host::Host;

use crate::head::RequestHead;
use crate::matcher::HeaderMatcher;

/// `RetryPolicy`
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// What is retried.
    pub on: RetryOn,
    /// How often again at most.
    pub num_retries: u32,
    /// How long each try may take.
    pub per_try_timeout: Option<Duration>,
    /// How long each try may be silent.
    pub per_try_idle_timeout: Option<Duration>,
    /// Statuses that are retried under `retriable-status-codes`.
    pub retriable_status_codes: Box<[u16]>,
    /// Response headers that are retried under `retriable-headers`.
    pub retriable_headers: Box<[HeaderMatcher]>,
    /// Requests that may be retried; all if empty.
    pub retriable_request_headers: Box<[HeaderMatcher]>,
    /// How long to wait.
    pub back_off: BackOff,
    /// How long to wait when the upstream says so.
    pub rate_limited_back_off: Option<RateLimitedBackOff>,
    /// Which hosts a retry must not go to.
    pub host_predicates: Box<[HostPredicate]>,
    /// How often another host is looked for.
    pub host_selection_max_attempts: u32,
    /// Whether retries move on to other priorities, after so many tries.
    pub previous_priorities: Option<u32>,
}

/// Which hosts a retry avoids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPredicate {
    /// Those that were tried.
    PreviousHosts,
    /// Those with canary metadata.
    OmitCanaryHosts,
    /// Those that have all of these values among their metadata for load balancing.
    OmitHostMetadata(Box<serde_json::Map<String, serde_json::Value>>),
}

impl HostPredicate {
    /// Whether a retry avoids a host for what is known of it.
    pub fn avoids(&self, host: &Host) -> bool {
        let known = |key: &str| host.metadata("envoy.lb", key);
        match self {
            Self::PreviousHosts => false,
            Self::OmitCanaryHosts => known("canary").and_then(serde_json::Value::as_bool) == Some(true),
            Self::OmitHostMetadata(values) => values.iter().all(|(key, value)| match known(key) {
                Some(serde_json::Value::Array(all)) => all.contains(value),
                Some(one) => one == value,
                None => false,
            }),
        }
    }
}

/// `RetryBackOff`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackOff {
    /// The first interval.
    pub base: Duration,
    /// The longest.
    pub max: Duration,
}

impl Default for BackOff {
    fn default() -> Self {
        Self { base: Duration::from_millis(25), max: Duration::from_millis(250) }
    }
}

impl BackOff {
    /// The wait before retry number `retry` (1 is the first): jittered, exponential.
    pub fn wait(&self, retry: u32, random: u64) -> Duration {
        let factor = 1_u64.checked_shl(retry.saturating_sub(1)).unwrap_or(u64::MAX);
        let ceiling = millis(self.base).max(1).saturating_mul(factor).min(millis(self.max).max(1));
        Duration::from_millis(random % ceiling)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// `RateLimitedRetryBackOff`
#[derive(Clone, Debug)]
pub struct RateLimitedBackOff {
    /// Headers that say how long, first one found wins.
    pub reset_headers: Box<[(HeaderName, ResetFormat)]>,
    /// The longest that is heeded.
    pub max: Duration,
}

/// How a reset header is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetFormat {
    /// Seconds to wait.
    Seconds,
    /// The moment to wait for, in seconds since 1970.
    UnixTimestamp,
}

impl RateLimitedBackOff {
    /// The wait that the response asks for; `now` is seconds since 1970. Up to half more is added.
    pub fn wait(&self, response: &HeaderMap, now: u64, random: u64) -> Option<Duration> {
        let wait = self.reset_headers.iter().find_map(|(name, format)| {
            let number: u64 = response.get(name)?.to_str().ok()?.trim().parse().ok()?;
            let seconds = match format {
                ResetFormat::Seconds => number,
                ResetFormat::UnixTimestamp => number.checked_sub(now)?,
            };
            (seconds > 0 && Duration::from_secs(seconds) <= self.max).then(|| Duration::from_secs(seconds))
        })?;
        Some(wait + Duration::from_millis(random % (millis(wait) / 2).max(1)))
    }
}

macro_rules! conditions {
    ($($(#[$doc:meta])* $constant:ident = $bit:literal, $name:literal;)*) => {
        /// A set of retry conditions: `retry_on`.
        #[derive(Clone, Copy, Default, PartialEq, Eq)]
        pub struct RetryOn(u32);

        impl RetryOn {
            $($(#[$doc])* pub const $constant: Self = Self(1 << $bit);)*

            /// Reads `5xx,connect-failure`; answers with the first name that is no condition.
            pub fn parse(text: &str) -> (Self, Option<&str>) {
                let mut set = Self::default();
                let mut unknown = None;
                for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                    match name {
                        $($name => set.0 |= Self::$constant.0,)*
                        other => unknown = unknown.or(Some(other)),
                    }
                }
                (set, unknown)
            }
        }

        impl std::fmt::Debug for RetryOn {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let names: &[(u32, &str)] = &[$((1 << $bit, $name),)*];
                let mut found = names.iter().filter(|(bit, _)| self.0 & bit != 0).map(|(_, name)| *name);
                f.write_str(found.next().unwrap_or("never"))?;
                found.try_for_each(|name| write!(f, ",{name}"))
            }
        }
    };
}

conditions! {
    /// Any 5xx, or no response at all.
    ANY_5XX = 0, "5xx";
    /// 502, 503, 504.
    GATEWAY_ERROR = 1, "gateway-error";
    /// The stream was reset, or timed out.
    RESET = 2, "reset";
    /// As `reset`, before the request's first byte went out.
    RESET_BEFORE_REQUEST = 3, "reset-before-request";
    /// No connection came about.
    CONNECT_FAILURE = 4, "connect-failure";
    /// The upstream rate-limited the request.
    ENVOY_RATELIMITED = 5, "envoy-ratelimited";
    /// 409.
    RETRIABLE_4XX = 6, "retriable-4xx";
    /// The upstream refused the stream.
    REFUSED_STREAM = 7, "refused-stream";
    /// Statuses of a list.
    RETRIABLE_STATUS_CODES = 8, "retriable-status-codes";
    /// Headers of a list.
    RETRIABLE_HEADERS = 9, "retriable-headers";
    /// gRPC status 1.
    CANCELLED = 10, "cancelled";
    /// gRPC status 4.
    DEADLINE_EXCEEDED = 11, "deadline-exceeded";
    /// gRPC status 13.
    INTERNAL = 12, "internal";
    /// gRPC status 8.
    RESOURCE_EXHAUSTED = 13, "resource-exhausted";
    /// gRPC status 14.
    UNAVAILABLE = 14, "unavailable";
    /// HTTP/3 failed where TCP may do.
    HTTP3_POST_CONNECT_FAILURE = 15, "http3-post-connect-failure";
}

impl RetryOn {
    /// Whether all of the other's conditions are in the set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether one of the other's conditions is in the set.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether the gRPC status in a response's head is one of the conditions.
    pub fn has_grpc_status(self, headers: &HeaderMap) -> bool {
        let status = headers.get("grpc-status").and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
        let condition = match status {
            Some(1) => Self::CANCELLED,
            Some(4) => Self::DEADLINE_EXCEEDED,
            Some(8) => Self::RESOURCE_EXHAUSTED,
            Some(13) => Self::INTERNAL,
            Some(14) => Self::UNAVAILABLE,
            _ => return false,
        };
        self.intersects(condition)
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether nothing is retried.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// How a try ended without a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// No connection came about, or it was not given out.
    ConnectFailure,
    /// The circuit breaker was open: never retried.
    Overflow,
    /// The upstream refused the stream (`REFUSED_STREAM`, or a GOAWAY that leaves it out).
    RefusedStream,
    /// The stream or its connection ended early.
    Remote,
    /// The try ran out of its time.
    PerTryTimeout,
}

/// Whether and why a try is followed by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not retriable, or nothing went wrong.
    No,
    /// Retriable, and tries are left.
    Retry,
    /// Retriable, but tries are used up.
    Exhausted,
}

/// The retries of one request.
#[derive(Clone, Debug)]
pub struct RetryState {
    on: RetryOn,
    left: u32,
    attempt: u32,
    extra_codes: Vec<u16>,
    /// Headers of responses that are tried again, by the request's word.
    extra_headers: Vec<HeaderName>,
}

impl RetryState {
    /// For a request under a policy; `None` if it is never retried. The request's `x-envoy-retry-*` headers add to the
    /// policy's conditions.
    pub fn new(policy: Option<&RetryPolicy>, head: &RequestHead<'_>) -> Option<Self> {
        let header = |name: &'static str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let mut on = policy.map_or_else(RetryOn::default, |policy| policy.on);
        if let Some(policy) = policy
            && !policy.retriable_request_headers.is_empty()
            && !policy.retriable_request_headers.iter().any(|matcher| matcher.is_match(head))
        {
            on = RetryOn::default();
        }
        for name in ["x-envoy-retry-on", "x-envoy-retry-grpc-on"] {
            on = header(name).map_or(on, |text| on.union(RetryOn::parse(text).0));
        }
        let mut left = policy.map_or(1, |policy| policy.num_retries);
        if let Some(asked) = header("x-envoy-max-retries").and_then(|text| text.parse().ok()) {
            left = asked;
        }
        let codes = header("x-envoy-retriable-status-codes").unwrap_or_default();
        let extra_codes = codes.split(',').filter_map(|code| code.trim().parse().ok()).collect();
        let names = header("x-envoy-retriable-header-names").unwrap_or_default();
        let extra_headers = names.split(',').filter_map(|name| name.trim().parse().ok()).collect();
        (!on.is_empty()).then_some(Self { on, left, attempt: 0, extra_codes, extra_headers })
    }

    /// How often the request was retried.
    pub fn retries(&self) -> u32 {
        self.attempt
    }

    /// Decides when a try ran out of its time and is left running: whatever the conditions are, another may begin.
    pub fn on_hedge(&mut self) -> Verdict {
        self.take(true)
    }

    /// Whether a response would be followed by another try, were any left.
    pub fn would_retry(&self, policy: Option<&RetryPolicy>, status: u16, headers: &HeaderMap) -> bool {
        self.response_is_retriable(policy, status, headers)
    }

    /// Decides after response headers.
    pub fn on_response(&mut self, policy: Option<&RetryPolicy>, status: u16, headers: &HeaderMap) -> Verdict {
        let again = self.response_is_retriable(policy, status, headers);
        self.take(again)
    }

    /// Decides after a try that ended without a response. `request_started`: whether a byte of it went upstream.
    pub fn on_reset(&mut self, reset: Reset, request_started: bool) -> Verdict {
        let again = match reset {
            Reset::Overflow => false,
            Reset::ConnectFailure => self.on.intersects(RetryOn::CONNECT_FAILURE),
            Reset::RefusedStream => self.on.intersects(RetryOn::REFUSED_STREAM),
            Reset::Remote | Reset::PerTryTimeout => false,
        };
        let any = reset != Reset::Overflow
            && self.on.intersects(RetryOn::ANY_5XX.union(RetryOn::GATEWAY_ERROR).union(RetryOn::RESET));
        let before =
            !request_started && reset != Reset::Overflow && self.on.intersects(RetryOn::RESET_BEFORE_REQUEST);
        self.take(again || any || before)
    }

    fn take(&mut self, again: bool) -> Verdict {
        if !again {
            return Verdict::No;
        }
        if self.left == 0 {
            return Verdict::Exhausted;
        }
        self.left -= 1;
        self.attempt += 1;
        Verdict::Retry
    }

    fn response_is_retriable(&self, policy: Option<&RetryPolicy>, status: u16, headers: &HeaderMap) -> bool {
        // A rate-limited response is retried only where that is asked for.
        if headers.contains_key("x-envoy-ratelimited") {
            return self.on.intersects(RetryOn::ENVOY_RATELIMITED);
        }
        let on = |condition| self.on.intersects(condition);
        let listed = |code: &u16| *code == status;
        (on(RetryOn::ANY_5XX) && (500..600).contains(&status))
            || (on(RetryOn::GATEWAY_ERROR) && (502..=504).contains(&status))
            || (on(RetryOn::RETRIABLE_4XX) && status == 409)
            || (on(RetryOn::RETRIABLE_STATUS_CODES)
                && (policy.is_some_and(|policy| policy.retriable_status_codes.iter().any(listed))
                    || self.extra_codes.iter().any(listed)))
            || (on(RetryOn::RETRIABLE_HEADERS)
                && (self.extra_headers.iter().any(|name| headers.contains_key(name))
                    || policy.is_some_and(|policy| {
                        policy.retriable_headers.iter().any(|matcher| matcher.is_match_headers(headers))
                    })))
            || self.on.has_grpc_status(headers)
    }
}

#[cfg(test)]
mod tests;
