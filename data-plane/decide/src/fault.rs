//! Injected faults: delays, aborts, slow responses.

use std::sync::Arc;
use std::time::Duration;

use crate::fraction::{Fraction, Runtime};
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
    /// The runtime's keys.
    pub keys: Box<Keys>,
    /// Whether faults count for the client's cluster (`x-envoy-downstream-service-cluster`), too.
    pub downstream_cluster_stats: bool,
}

/// Keys of the runtime whose values stand above the configuration's.
#[derive(Debug)]
pub struct Keys {
    /// How often to delay.
    pub delay_percent: Arc<str>,
    /// For how many milliseconds.
    pub delay_duration: Arc<str>,
    /// How often to abort.
    pub abort_percent: Arc<str>,
    /// With which HTTP status.
    pub abort_http_status: Arc<str>,
    /// With which gRPC status.
    pub abort_grpc_status: Arc<str>,
    /// How many faults may be under way.
    pub max_active_faults: Arc<str>,
    /// How often to slow a response.
    pub rate_limit_percent: Arc<str>,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            delay_percent: "fault.http.delay.fixed_delay_percent".into(),
            delay_duration: "fault.http.delay.fixed_duration_ms".into(),
            abort_percent: "fault.http.abort.abort_percent".into(),
            abort_http_status: "fault.http.abort.http_status".into(),
            abort_grpc_status: "fault.http.abort.grpc_status".into(),
            max_active_faults: "fault.http.max_active_faults".into(),
            rate_limit_percent: "fault.http.rate_limit.response_percent".into(),
        }
    }
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abort {
    /// With what.
    pub with: AbortWith,
    /// How often.
    pub percentage: Fraction,
    /// What the answer's body says.
    pub body: Arc<str>,
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

/// What faults depend on besides the request.
#[derive(Clone, Copy)]
pub struct Circumstances<'a> {
    /// The cluster that the request is for.
    pub cluster: &'a str,
    /// Values that stand above the configuration's.
    pub runtime: &'a dyn Runtime,
    /// One number for each kind of fault.
    pub random: FaultRandom,
}

/// The runtime, asked first for the client's cluster and then for all.
struct Overrides<'a> {
    runtime: &'a dyn Runtime,
    client: Option<&'a str>,
}

impl Overrides<'_> {
    fn get<T>(&self, key: &str, kind: &str, get: impl Fn(&dyn Runtime, &str) -> Option<T>) -> Option<T> {
        let of_client =
            self.client.and_then(|client| get(self.runtime, &format!("fault.http.{client}.{kind}")));
        of_client.or_else(|| get(self.runtime, key))
    }

    fn fraction(&self, key: &str, kind: &str) -> Option<Fraction> {
        self.get(key, kind, |runtime, key| runtime.fraction(key))
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "negative ones are left out")]
    fn number(&self, key: &str, kind: &str) -> Option<u64> {
        let number = self.get(key, kind, |runtime, key| runtime.number(key));
        number.filter(|number| *number >= 0.0).map(|number| number as u64)
    }
}

impl FaultConfig {
    /// The faults for a request.
    pub fn decide(&self, head: &RequestHead<'_>, circumstances: Circumstances<'_>) -> Faults {
        let Circumstances { cluster, runtime, random } = circumstances;
        if !self.applies(head, cluster) {
            return Faults::default();
        }
        let keys = &*self.keys;
        let overrides = Overrides { runtime, client: client(head) };
        let abort = self.abort.as_ref();
        Faults {
            delay: self.delay.and_then(|delay| delay.decide(head, keys, &overrides, random.delay)),
            abort: abort.and_then(|abort| abort.decide(head, keys, &overrides, random.abort)),
            response_kbps: self
                .response_rate_limit
                .and_then(|limit| limit.decide(head, keys, runtime, random.rate)),
        }
    }

    /// How many faults may be under way at once; `None`: as many as there are.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "negative ones are left out")]
    pub fn max_active(&self, runtime: &dyn Runtime) -> Option<u64> {
        let number = runtime.number(&self.keys.max_active_faults).filter(|number| *number >= 0.0);
        number.map(|number| number as u64).or(self.max_active_faults.map(u64::from))
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

/// The client's cluster, as it says itself.
pub fn client<'a>(head: &RequestHead<'a>) -> Option<&'a str> {
    let value = head.headers.get("x-envoy-downstream-service-cluster")?.to_str().ok()?;
    (!value.is_empty()).then_some(value)
}

impl Delay {
    fn decide(
        self,
        head: &RequestHead<'_>,
        keys: &Keys,
        overrides: &Overrides<'_>,
        random: u64,
    ) -> Option<Duration> {
        let given = match self.duration {
            Some(duration) => duration,
            None => Duration::from_millis(number(head, "x-envoy-fault-delay-request")?),
        };
        let percentage =
            asked(self.percentage, head, "x-envoy-fault-delay-request-percentage", self.duration.is_none());
        let percentage =
            overrides.fraction(&keys.delay_percent, "delay.fixed_delay_percent").unwrap_or(percentage);
        if !percentage.hit(random) {
            return None;
        }
        let millis = overrides.number(&keys.delay_duration, "delay.fixed_duration_ms");
        let duration = millis.map_or(given, Duration::from_millis);
        (!duration.is_zero()).then_some(duration)
    }
}

impl Abort {
    fn decide(
        &self,
        head: &RequestHead<'_>,
        keys: &Keys,
        overrides: &Overrides<'_>,
        random: u64,
    ) -> Option<AbortWith> {
        let given = match self.with {
            AbortWith::Header => from_headers(head)?,
            other => other,
        };
        let by_header = self.with == AbortWith::Header;
        let percentage = asked(self.percentage, head, "x-envoy-fault-abort-request-percentage", by_header);
        let percentage = overrides.fraction(&keys.abort_percent, "abort.abort_percent").unwrap_or(percentage);
        if !percentage.hit(random) {
            return None;
        }
        Some(match given {
            AbortWith::Http(status) => {
                let other = overrides.number(&keys.abort_http_status, "abort.http_status");
                let other = other.and_then(|status| u16::try_from(status).ok());
                AbortWith::Http(other.filter(|status| (200..600).contains(status)).unwrap_or(status))
            }
            AbortWith::Grpc(status) => {
                let other = overrides.number(&keys.abort_grpc_status, "abort.grpc_status");
                AbortWith::Grpc(other.and_then(|status| u32::try_from(status).ok()).unwrap_or(status))
            }
            AbortWith::Header => return None,
        })
    }
}

impl ResponseRateLimit {
    fn decide(self, head: &RequestHead<'_>, keys: &Keys, runtime: &dyn Runtime, random: u64) -> Option<u64> {
        let kbps = match self.kbps {
            Some(kbps) => kbps,
            None => number(head, "x-envoy-fault-throughput-response")?,
        };
        let name = "x-envoy-fault-throughput-response-percentage";
        let percentage = asked(self.percentage, head, name, self.kbps.is_none());
        let percentage = runtime.fraction(&keys.rate_limit_percent).unwrap_or(percentage);
        (percentage.hit(random) && kbps > 0).then_some(kbps)
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
        let random = FaultRandom { delay: random, abort: random, rate: random };
        config.decide(&head, Circumstances { cluster: "c", runtime: &Fixed, random })
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
            keys: Box::default(),
            downstream_cluster_stats: false,
        }
    }

    /// Every request of the cluster `web` is delayed; others wait 7 ms where they wait.
    #[derive(Debug)]
    struct Fixed;

    impl Runtime for Fixed {
        fn fraction(&self, key: &str) -> Option<Fraction> {
            (key == "fault.http.web.delay.fixed_delay_percent").then_some(Fraction::ALWAYS)
        }

        fn number(&self, key: &str) -> Option<f64> {
            (key == "fault.http.delay.fixed_duration_ms").then_some(7.0)
        }

        fn boolean(&self, _: &str) -> Option<bool> {
            None
        }
    }

    #[test]
    fn the_runtime_stands_above() {
        let delay = Delay { duration: Some(Duration::from_secs(5)), percentage: Fraction::NEVER };
        let config = FaultConfig { delay: Some(delay), ..config() };
        let of = |client| decide(&config, &[("x-envoy-downstream-service-cluster", client)], 0).delay;
        assert_eq!(of("web"), Some(Duration::from_millis(7)));
        assert_eq!(of("other"), None);
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
        let abort = Abort { with: AbortWith::Header, percentage: Fraction::ALWAYS, body: "".into() };
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
