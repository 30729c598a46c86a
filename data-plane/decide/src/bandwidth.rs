//! Bandwidth: bytes as tokens of a bucket that holds a second's worth.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use crate::fraction::RuntimeFlag;

/// `BandwidthLimit`
#[derive(Debug)]
pub struct BandwidthLimit {
    /// Its statistics' prefix.
    pub stat_prefix: Arc<str>,
    /// Whether requests are held back.
    pub requests: bool,
    /// Whether responses are.
    pub responses: bool,
    /// Bytes a second; `None`: no limit here.
    pub rate: Option<u64>,
    /// How often bytes are let through.
    pub interval: Duration,
    /// Whether it acts.
    pub enabled: RuntimeFlag,
    /// Trailers of responses that tell how long bodies took, and how long of that they were held back.
    pub trailers: Option<DelayTrailers>,
}

/// Names of trailers, by direction: of the whole time, and of the time that was added.
#[derive(Clone, Debug)]
pub struct DelayTrailers {
    /// The request's.
    pub request: [HeaderName; 2],
    /// The response's.
    pub response: [HeaderName; 2],
}

/// The state of a bucket. Time is what has passed since any fixed moment.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    rate: u64,
    tokens: u64,
    filled: Duration,
}

impl Bucket {
    /// A full bucket.
    pub fn new(rate: u64, now: Duration) -> Self {
        Self { rate: rate.max(1), tokens: rate.max(1), filled: now }
    }

    /// Takes as many bytes as there are, up to what is wanted.
    pub fn take(&mut self, wanted: u64, now: Duration) -> u64 {
        let passed = now.saturating_sub(self.filled).min(Duration::from_secs(1));
        let fresh = u128::from(self.rate) * passed.as_micros() / 1_000_000;
        if let Ok(fresh @ 1..) = u64::try_from(fresh) {
            self.tokens = self.tokens.saturating_add(fresh).min(self.rate);
            self.filled = now;
        }
        let taken = wanted.min(self.tokens);
        self.tokens -= taken;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_with_time() {
        let mut bucket = Bucket::new(1000, Duration::ZERO);
        assert_eq!(bucket.take(1500, Duration::ZERO), 1000);
        assert_eq!(bucket.take(1, Duration::ZERO), 0);
        assert_eq!(bucket.take(1500, Duration::from_millis(50)), 50);
        assert_eq!(bucket.take(5000, Duration::from_secs(100)), 1000, "no more than a second's worth");
    }
}
