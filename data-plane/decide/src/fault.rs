//! Injected faults: delays, aborts, slow responses.

use std::sync::Arc;
use std::time::Duration;

use crate::fraction::Fraction;
use crate::head::RequestHead;
use crate::matcher::HeaderMatcher;

/// `HTTPFault`
#[derive(Debug)]
pub struct FaultConfig {
    /// A delay.
    pub delay: Option<Delay>,
    /// An abort.
    pub abort: Option<Abort>,
    /// Only for requests to this cluster; empty for all.
    pub upstream_cluster: Arc<str>,
    /// Only for requests with these headers.
    pub headers: Box<[HeaderMatcher]>,
    /// Only for requests from these nodes (`x-envoy-downstream-service-node`).
    pub downstream_nodes: Box<[Box<str>]>,
    /// How many faults may be under way at once.
    pub max_active_faults: Option<u32>,
    /// A limit on the speed of responses.
    pub response_rate_limit: Option<ResponseRateLimit>,
}

/// A delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    /// How long; `None`: as `x-envoy-fault-delay-request` says.
    pub duration: Option<Duration>,
    /// How often.
    pub percentage: Fraction,
}

/// An abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abort {
    /// With what.
    pub with: AbortWith,
    /// How often.
    pub percentage: Fraction,
}

/// What an abort answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortWith {
    /// This HTTP status.
    Http(u16),
    /// This gRPC status.
    Grpc(u32),
    /// What `x-envoy-fault-abort-request` or `x-envoy-fault-abort-grpc-request` says.
    Header,
}

/// A limit on the speed of responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseRateLimit {
    /// KiB a second; `None`: as `x-envoy-fault-throughput-response` says.
    pub kbps: Option<u64>,
    /// How often.
    pub percentage: Fraction,
}

/// The faults of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Wait so long before anything else.
    pub delay: Option<Duration>,
    /// Then answer this.
    pub abort: Option<AbortWith>,
    /// Send the response at so many KiB a second.
    pub response_kbps: Option<u64>,
}

/// Randomness for one request: one number for each kind.
#[derive(Clone, Copy, Debug)]
pub struct FaultRandom {
    /// For delays.
    pub delay: u64,
    /// For aborts.
    pub abort: u64,
    /// For rate limits.
    pub rate: u64,
}

impl FaultConfig {
    /// The faults for a request to a cluster, while `active` faults are under way.
    pub fn decide(&self, head: &RequestHead<'_>, cluster: &str, active: u32, random: FaultRandom) -> Faults {
        if !self.applies(head, cluster) || self.max_active_faults.is_some_and(|max| active >= max) {
            return Faults::default();
        }
        Faults {
            delay: self.delay.and_then(|delay| delay.decide(head, random.delay)),
            abort: self.abort.and_then(|abort| abort.decide(head, random.abort)),
            response_kbps: self.response_rate_limit.and_then(|limit| limit.decide(head, random.rate)),
        }
    }

    fn applies(&self, head: &RequestHead<'_>, cluster: &str) -> bool {
        let node =
            || head.headers.get("x-envoy-downstream-service-node").and_then(|value| value.to_str().ok());
        (self.upstream_cluster.is_empty() || *self.upstream_cluster == *cluster)
            && self.headers.iter().all(|matcher| matcher.is_match(head))
            && (self.downstream_nodes.is_empty()
                || node().is_some_and(|node| self.downstream_nodes.iter().any(|allowed| **allowed == *node)))
    }
}

impl Delay {
    fn decide(self, head: &RequestHead<'_>, random: u64) -> Option<Duration> {
        let duration = match self.duration {
            Some(duration) => duration,
            None => Duration::from_millis(number(head, "x-envoy-fault-delay-request")?),
        };
        let percentage =
            asked(self.percentage, head, "x-envoy-fault-delay-request-percentage", self.duration.is_none());
        (percentage.hit(random) && !duration.is_zero()).then_some(duration)
    }
}

impl Abort {
    fn decide(self, head: &RequestHead<'_>, random: u64) -> Option<AbortWith> {
        let with = match self.with {
            AbortWith::Header => from_headers(head)?,
            other => other,
        };
        let by_header = self.with == AbortWith::Header;
        asked(self.percentage, head, "x-envoy-fault-abort-request-percentage", by_header)
            .hit(random)
            .then_some(with)
    }
}

impl ResponseRateLimit {
    fn decide(self, head: &RequestHead<'_>, random: u64) -> Option<u64> {
        let kbps = match self.kbps {
            Some(kbps) => kbps,
            None => number(head, "x-envoy-fault-throughput-response")?,
        };
        let name = "x-envoy-fault-throughput-response-percentage";
        (asked(self.percentage, head, name, self.kbps.is_none()).hit(random) && kbps > 0).then_some(kbps)
    }
}

fn from_headers(head: &RequestHead<'_>) -> Option<AbortWith> {
    if let Some(status) = number(head, "x-envoy-fault-abort-request") {
        return u16::try_from(status).ok().filter(|status| (200..600).contains(status)).map(AbortWith::Http);
    }
    let status = number(head, "x-envoy-fault-abort-grpc-request")?;
    u32::try_from(status).ok().map(AbortWith::Grpc)
}

/// A header may lower the percentage of a fault that headers control, never raise it.
fn asked(percentage: Fraction, head: &RequestHead<'_>, name: &'static str, by_header: bool) -> Fraction {
    match number(head, name).filter(|_| by_header) {
        Some(numerator) => Fraction {
            numerator: u32::try_from(numerator).unwrap_or(u32::MAX).min(percentage.numerator),
            ..percentage
        },
        None => percentage,
    }
}

fn number(head: &RequestHead<'_>, name: &'static str) -> Option<u64> {
    head.headers.get(name)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    fn decide(config: &FaultConfig, headers: &[(&'static str, &'static str)], random: u64) -> Faults {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, HeaderValue::from_static(value));
        }
        let head = RequestHead {
            method: "GET",
            scheme: "http",
            authority: "a",
            path: "/",
            protocol: None,
            headers: &map,
        };
        config.decide(&head, "c", 0, FaultRandom { delay: random, abort: random, rate: random })
    }

    fn config() -> FaultConfig {
        FaultConfig {
            delay: None,
            abort: None,
            upstream_cluster: "".into(),
            headers: Box::default(),
            downstream_nodes: Box::default(),
            max_active_faults: None,
            response_rate_limit: None,
        }
    }

    #[test]
    fn percentages() {
        let delay = Delay { duration: Some(Duration::from_secs(5)), percentage: Fraction::percent(10) };
        let config = FaultConfig { delay: Some(delay), ..config() };
        let hits = (0..1000).filter(|random| decide(&config, &[], *random).delay.is_some()).count();
        assert_eq!(hits, 100);
    }

    #[test]
    fn headers_control() {
        let abort = Abort { with: AbortWith::Header, percentage: Fraction::ALWAYS };
        let config = FaultConfig { abort: Some(abort), ..config() };
        assert_eq!(decide(&config, &[], 0).abort, None);
        let abort = |status| decide(&config, &[("x-envoy-fault-abort-request", status)], 50).abort;
        assert_eq!(abort("503"), Some(AbortWith::Http(503)));
        assert_eq!(abort("7"), None);
        let some = [("x-envoy-fault-abort-request", "503"), ("x-envoy-fault-abort-request-percentage", "40")];
        assert_eq!(decide(&config, &some, 50).abort, None);
        assert_eq!(decide(&config, &some, 39).abort, Some(AbortWith::Http(503)));
    }
}
