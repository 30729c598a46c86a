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
    /// Whether a timeout is answered with 204 (`x-envoy-upstream-rq-timeout-alt-response`).
    pub quiet: bool,
}

impl RouteAction {
    /// The limits for a request. `retry` is the policy that holds for it; `expected` says whether the time that an
    /// earlier proxy expects it to take (`x-envoy-expected-rq-timeout-ms`) stands above what else it asks for.
    pub fn timeouts(&self, head: &RequestHead<'_>, retry: Option<&RetryPolicy>, expected: bool) -> Timeouts {
        let mut timeouts = Timeouts {
            // A route that limits the stream has no other limit, not even the default one.
            global: self.timeout.filter(|_| self.max_stream_duration.is_none()),
            per_try: retry.and_then(|policy| policy.per_try_timeout),
            per_try_idle: retry.and_then(|policy| policy.per_try_idle_timeout),
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
        for limit in [&mut timeouts.global, &mut timeouts.per_try, &mut timeouts.per_try_idle] {
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

    /// What the request asks for, less the offset, and no more than the limit; 0 is no limit in each.
    fn heed_grpc_timeout(&self, head: &RequestHead<'_>, timeouts: &mut Timeouts) {
        let Some(limit) = self.max_grpc_timeout.filter(|_| self.max_stream_duration.is_none()) else {
            return;
        };
        let asked = grpc_timeout(head).unwrap_or_default();
        let offset = self.grpc_timeout_offset.filter(|offset| *offset < asked).unwrap_or_default();
        let asked = asked.saturating_sub(offset);
        let capped = !limit.is_zero() && (asked.is_zero() || asked > limit);
        timeouts.global = Some(if capped { limit } else { asked });
    }

    /// How long the stream may last, whatever it does: `None` leaves it to the connection manager, `Some(None)` is no
    /// limit.
    pub fn stream_limit(&self, head: &RequestHead<'_>) -> Option<Option<Duration>> {
        let limits = self.max_stream_duration?;
        if let (Some(asked), Some(cap)) = (grpc_timeout(head), limits.grpc_timeout_header_max) {
            let capped = if cap.is_zero() { asked } else { asked.min(cap) };
            let offset = limits.grpc_timeout_header_offset.unwrap_or_default();
            // Where nothing is left, there is no time, rather than any.
            return Some(Some(capped.saturating_sub(offset).max(Duration::from_nanos(1))));
        }
        limits.max_stream_duration.map(|limit| Some(limit).filter(|limit| !limit.is_zero()))
    }

    /// What a gRPC request is to say of its time (`grpc-timeout`), where the route has a say in it. `stream` is how long
    /// the stream may last, and `expected` the time for a try.
    pub fn told_grpc_timeout(
        &self,
        head: &RequestHead<'_>,
        stream: Option<Duration>,
        expected: Option<Duration>,
    ) -> Option<String> {
        let limit = match (self.max_stream_duration, self.max_grpc_timeout) {
            (Some(_), _) => stream,
            (None, Some(_)) => expected,
            (None, None) => None,
        };
        limit.filter(|_| head.is_grpc()).map(written_grpc_timeout)
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

/// A `grpc-timeout`: in milliseconds, or the smallest unit above that needs no more than eight digits.
fn written_grpc_timeout(limit: Duration) -> String {
    const MOST: u128 = 99_999_999;
    let mut number = limit.as_millis();
    let mut unit = 'm';
    for (larger, factor) in [('S', 1000), ('M', 60), ('H', 60)] {
        if number > MOST {
            (number, unit) = (number / factor, larger);
        }
    }
    format!("{}{unit}", number.min(MOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts() {
        assert_eq!(parse_grpc_timeout("10S"), Some(Duration::from_secs(10)));
        assert_eq!(parse_grpc_timeout("250m"), Some(Duration::from_millis(250)));
        for (limit, written) in [
            (Duration::from_micros(2500), "2m"),
            (Duration::from_millis(99_999_999), "99999999m"),
            (Duration::from_millis(100_000_000), "100000S"),
            (Duration::from_secs(u64::MAX), "99999999H"),
        ] {
            assert_eq!(written_grpc_timeout(limit), written);
        }
        for wrong in ["", "S", "123456789S", "10x", "é", "-1S"] {
            assert_eq!(parse_grpc_timeout(wrong), None, "{wrong}");
        }
    }
}
