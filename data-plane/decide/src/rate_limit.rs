//! Local rate limits: a token bucket, with time as an argument.

pub mod descriptor;

use std::sync::Arc;
use std::time::Duration;

use crate::fraction::Fraction;
use crate::headers::HeaderOps;

/// `envoy.type.v3.TokenBucket`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenBucketConfig {
    /// How many tokens it holds.
    pub max_tokens: u32,
    /// How many are added at a time.
    pub tokens_per_fill: u32,
    /// How often.
    pub fill_interval: Duration,
}

/// The state of a bucket. Time is what has passed since any fixed moment.
///
/// As in Envoy it fills steadily: of ten tokens a second, one comes each tenth of it.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    config: TokenBucketConfig,
    /// What is in it; a token is as much as `fill_interval` has nanoseconds, so that nothing is ever rounded.
    credit: u128,
    filled: Duration,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(config: TokenBucketConfig, now: Duration) -> Self {
        Self { config, credit: Self::most(&config), filled: now }
    }

    /// Takes a token, if there is one.
    pub fn take(&mut self, now: Duration) -> bool {
        self.fill(now);
        let left = self.credit.checked_sub(Self::token(&self.config));
        self.credit = left.unwrap_or(self.credit);
        left.is_some()
    }

    /// Whether it is as good as new.
    pub fn is_full(&mut self, now: Duration) -> bool {
        self.fill(now);
        self.credit == Self::most(&self.config)
    }

    /// How long until there is a token.
    pub fn until_token(&self) -> Duration {
        let missing = Self::token(&self.config).saturating_sub(self.credit);
        let nanos = missing.div_ceil(u128::from(self.config.tokens_per_fill.max(1)));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// What it was made of.
    pub fn config(&self) -> TokenBucketConfig {
        self.config
    }

    /// How many tokens are left.
    pub fn tokens(&self) -> u32 {
        u32::try_from(self.credit / Self::token(&self.config)).unwrap_or(self.config.max_tokens)
    }

    fn token(config: &TokenBucketConfig) -> u128 {
        config.fill_interval.as_nanos().max(1)
    }

    fn most(config: &TokenBucketConfig) -> u128 {
        Self::token(config) * u128::from(config.max_tokens)
    }

    fn fill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.filled).as_nanos();
        let added = passed.saturating_mul(u128::from(self.config.tokens_per_fill));
        self.credit = self.credit.saturating_add(added).min(Self::most(&self.config));
        self.filled = self.filled.max(now);
    }
}

/// The HTTP filter's configuration.
#[derive(Debug)]
pub struct LocalRateLimit {
    /// Its statistics' prefix.
    pub stat_prefix: Arc<str>,
    /// What a limited request is answered; 429 by default.
    pub status: http::StatusCode,
    /// The bucket; `None`: no limit here.
    pub bucket: Option<TokenBucketConfig>,
    /// For how many requests the filter is on.
    pub enabled: Fraction,
    /// For how many of these a limit is enforced.
    pub enforced: Fraction,
    /// Header operations on requests that were over the limit and let through.
    pub request_headers_when_not_enforced: HeaderOps,
    /// Header operations on responses to limited requests.
    pub response_headers: HeaderOps,
    /// Whether each connection has a bucket of its own.
    pub per_downstream_connection: bool,
    /// Whether gRPC requests are answered `RESOURCE_EXHAUSTED` rather than `UNAVAILABLE`.
    pub as_resource_exhausted: bool,
    /// Whether responses tell of the limit (`x-ratelimit-*`).
    pub x_ratelimit_headers: bool,
    /// Whether limited requests are told when to come back.
    pub retry_after: bool,
    /// Buckets for requests with such descriptors.
    pub descriptors: Box<[LocalDescriptor]>,
    /// Which of the route's limits count.
    pub stage: u32,
    /// Which of the virtual host's limits count.
    pub virtual_host_limits: descriptor::VirtualHostLimits,
    /// Limits in place of the route's.
    pub limits: Box<[descriptor::RateLimit]>,
    /// Whether requests with a descriptor take from the common bucket as well.
    pub always_consume_default: bool,
    /// How many values of an open entry have buckets of their own.
    pub max_dynamic: usize,
}

/// A bucket for requests with such a descriptor.
#[derive(Debug)]
pub struct LocalDescriptor {
    /// Keys and values; an empty value stands for any, and each has its own bucket.
    pub entries: Box<[(Box<str>, Box<str>)]>,
    /// The bucket.
    pub bucket: TokenBucketConfig,
    /// Whether requests over the limit pass all the same.
    pub shadow: bool,
}

impl LocalDescriptor {
    /// Whether it is meant, in any order of the entries.
    pub fn is_match(&self, descriptor: &descriptor::Descriptor) -> bool {
        self.entries.len() == descriptor.entries.len()
            && self.entries.iter().all(|(key, value)| {
                let mut found = descriptor.entries.iter().filter(|(other, _)| **key == **other);
                found.any(|(_, other)| value.is_empty() || **value == **other)
            })
    }

    /// Whether each value has its own bucket.
    pub fn is_open(&self) -> bool {
        self.entries.iter().any(|(_, value)| value.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_fill_steadily() {
        let config =
            TokenBucketConfig { max_tokens: 2, tokens_per_fill: 1, fill_interval: Duration::from_secs(1) };
        let mut bucket = TokenBucket::new(config, Duration::ZERO);
        let at = Duration::from_millis;
        assert!(bucket.take(at(0)) && bucket.take(at(1)) && !bucket.take(at(999)));
        assert!(bucket.take(at(1000)) && !bucket.take(at(1001)));
        assert!(bucket.take(at(10_500)) && bucket.take(at(10_500)) && !bucket.take(at(10_999)));
        assert!(!bucket.take(at(11_000)) && bucket.take(at(11_500)));
    }

    #[test]
    fn tokens_come_one_by_one() {
        let config =
            TokenBucketConfig { max_tokens: 4, tokens_per_fill: 4, fill_interval: Duration::from_secs(4) };
        let mut bucket = TokenBucket::new(config, Duration::ZERO);
        let at = Duration::from_millis;
        assert!((0..4).all(|_| bucket.take(at(0))) && !bucket.take(at(999)));
        assert_eq!((bucket.tokens(), bucket.until_token()), (0, at(1)));
        assert!(bucket.take(at(1000)) && !bucket.take(at(1001)));
        assert!(!bucket.is_full(at(4999)) && bucket.is_full(at(5000)));
        assert_eq!((bucket.tokens(), bucket.until_token()), (4, at(0)));
    }
}
