//! How long a request may take.

use std::time::Duration;

use super::{RouteAction, retry::RetryPolicy};
use crate::head::RequestHead;

/// The limits of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// For the whole response; `None`: none.
    pub global: Option<Duration>,
    /// For each try; `None`: as the whole.
    pub per_try: Option<Duration>,
    /// For silence within a try.
    pub per_try_idle: Option<Duration>,
    /// For the stream, whatever it does; `None`: the connection manager's.
    pub max_stream: Option<Duration>,
    /// Whether a timeout is answered with 204 (`x-envoy-upstream-rq-timeout-alt-response`).
    pub quiet: bool,
}

impl RouteAction {
    /// The limits for a request. `retry` is the policy that holds for it; `expected` says whether the time that an
    /// earlier proxy expects it to take (`x-envoy-expected-rq-timeout-ms`) stands above what else it asks for.
    pub fn timeouts(&self, head: &RequestHead<'_>, retry: Option<&RetryPolicy>, expected: bool) -> Timeouts {
        let mut timeouts = Timeouts {
            global: self.timeout,
            per_try: retry.and_then(|policy| policy.per_try_timeout),
            per_try_idle: retry.and_then(|policy| policy.per_try_idle_timeout),
            max_stream: self.max_stream_duration.and_then(|limits| limits.max_stream_duration),
            quiet: head.headers.contains_key("x-envoy-upstream-rq-timeout-alt-response"),
        };
        if head.is_grpc() {
            self.heed_grpc_timeout(head, &mut timeouts);
        }
        let of_earlier = || header_millis(head, "x-envoy-expected-rq-timeout-ms").filter(|_| expected);
        of_earlier()
            .or_else(|| header_millis(head, "x-envoy-upstream-rq-timeout-ms"))
            .into_iter()
            .for_each(|limit| timeouts.global = Some(limit));
        header_millis(head, "x-envoy-upstream-rq-per-try-timeout-ms")
            .into_iter()
            .for_each(|limit| timeouts.per_try = Some(limit));
        for limit in [
            &mut timeouts.global,
            &mut timeouts.per_try,
            &mut timeouts.per_try_idle,
            &mut timeouts.max_stream,
        ] {
            *limit = limit.filter(|limit| !limit.is_zero());
        }
        // A try cannot outlast the whole.
        if let (Some(global), Some(per_try)) = (timeouts.global, timeouts.per_try)
            && per_try >= global
        {
            timeouts.per_try = None;
        }
        timeouts
    }

    fn heed_grpc_timeout(&self, head: &RequestHead<'_>, timeouts: &mut Timeouts) {
        let asked = grpc_timeout(head);
        let capped = |limit: Duration, offset: Option<Duration>| {
            let asked = asked.unwrap_or_default();
            let capped = if limit.is_zero() {
                asked
            } else if asked.is_zero() {
                limit
            } else {
                asked.min(limit)
            };
            offset.filter(|offset| *offset < capped).map_or(capped, |offset| capped.saturating_sub(offset))
        };
        if let Some(limits) = self.max_stream_duration
            && let Some(limit) = limits.grpc_timeout_header_max
        {
            timeouts.max_stream = Some(capped(limit, limits.grpc_timeout_header_offset));
        } else if let Some(limit) = self.max_grpc_timeout {
            timeouts.global = Some(capped(limit, self.grpc_timeout_offset));
        }
    }
}

fn header_millis(head: &RequestHead<'_>, name: &'static str) -> Option<Duration> {
    head.headers.get(name)?.to_str().ok()?.parse().ok().map(Duration::from_millis)
}

/// The request's `grpc-timeout`.
pub fn grpc_timeout(head: &RequestHead<'_>) -> Option<Duration> {
    parse_grpc_timeout(head.headers.get("grpc-timeout")?.to_str().ok()?)
}

/// `10S`, `250m`: up to eight digits and a unit.
pub fn parse_grpc_timeout(text: &str) -> Option<Duration> {
    let unit = text.bytes().last()?;
    let digits = &text[..text.len().checked_sub(1).filter(|end| text.is_char_boundary(*end))?];
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts() {
        assert_eq!(parse_grpc_timeout("10S"), Some(Duration::from_secs(10)));
        assert_eq!(parse_grpc_timeout("250m"), Some(Duration::from_millis(250)));
        for wrong in ["", "S", "123456789S", "10x", "é", "-1S"] {
            assert_eq!(parse_grpc_timeout(wrong), None, "{wrong}");
        }
    }
}
