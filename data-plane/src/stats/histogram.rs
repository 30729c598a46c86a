//! Histograms with fixed bounds: all of Envoy's default bounds, which Prometheus shows, and finer ones between them,
//! from which quantiles are read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Inclusive upper bounds; what exceeds the last lies in one more bucket. Values are whole (milliseconds, bytes), so
/// Envoy's bound of 0.5 is the bucket of zero.
pub const BOUNDS: [u64; 46] = [
    0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 65, 80, 100, 130, 160, 200, 250, 300, 400, 500,
    650, 800, 1000, 1300, 1600, 2000, 2500, 3500, 5000, 7000, 10_000, 20_000, 30_000, 60_000, 120_000,
    300_000, 600_000, 1_200_000, 1_800_000, 3_600_000,
];

/// Envoy's default bounds as Prometheus prints them, with their place in [`BOUNDS`].
pub(super) const DEFAULT: [(&str, usize); 19] = [
    ("0.5", 0),
    ("1", 1),
    ("5", 5),
    ("10", 8),
    ("25", 12),
    ("50", 15),
    ("100", 18),
    ("250", 22),
    ("500", 25),
    ("1000", 28),
    ("2500", 32),
    ("5000", 34),
    ("10000", 36),
    ("30000", 38),
    ("60000", 39),
    ("300000", 41),
    ("600000", 42),
    ("1800000", 44),
    ("3600000", 45),
];

const LEN: usize = BOUNDS.len() + 1;

/// One shard of a histogram.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) buckets: [AtomicU64; LEN],
    pub(super) sum: AtomicU64,
}

impl Shard {
    pub(super) fn new() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; LEN], sum: AtomicU64::new(0) }
    }

    pub(super) fn bucket(&self, value: u64) -> &AtomicU64 {
        &self.buckets[BOUNDS.partition_point(|bound| *bound < value)]
    }

    pub(super) fn add_to(&self, total: &mut Buckets) {
        for (sum, bucket) in total.buckets.iter_mut().zip(&self.buckets) {
            *sum = sum.wrapping_add(bucket.load(Relaxed));
        }
        total.sum = total.sum.wrapping_add(self.sum.load(Relaxed));
    }
}

/// A histogram as read.
#[derive(Clone, Debug)]
pub struct Buckets {
    /// Counts, by the bounds in [`BOUNDS`] and one more.
    pub buckets: [u64; LEN],
    /// The sum of all values.
    pub sum: u64,
}

impl Default for Buckets {
    fn default() -> Self {
        Self { buckets: [0; LEN], sum: 0 }
    }
}

impl Buckets {
    /// How many values were recorded.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Counts up to each of Envoy's default bounds, then all.
    pub fn cumulative(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let (mut next, mut sum) = (0, 0);
        DEFAULT
            .iter()
            .map(move |(label, place)| {
                sum += self.buckets[next..=*place].iter().sum::<u64>();
                next = place + 1;
                (*label, sum)
            })
            .chain(std::iter::once(("+Inf", self.count())))
    }

    /// Counts up to each of these bounds, then all; within a bucket of ours values count as evenly spread.
    pub fn cumulative_at<'a>(&'a self, bounds: &'a [f64]) -> impl Iterator<Item = (String, u64)> + 'a {
        let each = bounds.iter().map(|bound| (bound.to_string(), self.up_to(*bound)));
        each.chain(std::iter::once(("+Inf".to_owned(), self.count())))
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a count")]
    fn up_to(&self, bound: f64) -> u64 {
        let mut sum = 0;
        for (place, n) in self.buckets.iter().enumerate() {
            let Some(high) = BOUNDS.get(place).map(|high| *high as f64) else { break };
            if high <= bound {
                sum += n;
                continue;
            }
            let low = place.checked_sub(1).map_or(0.0, |before| BOUNDS[before] as f64);
            if bound > low {
                sum += (*n as f64 * ((bound - low) / (high - low))).round() as u64;
            }
            break;
        }
        sum
    }

    /// The value below which this share of the values lies, interpolated within its bucket.
    pub fn quantile(&self, q: f64) -> f64 {
        let count = self.count();
        if count == 0 {
            return 0.0;
        }
        let rank = q.clamp(0.0, 1.0) * count as f64;
        let mut below = 0.0;
        for (place, n) in self.buckets.iter().enumerate().filter(|(_, n)| **n > 0) {
            let n = *n as f64;
            if below + n >= rank {
                let Some(high) = BOUNDS.get(place) else { break };
                let low = place.checked_sub(1).map_or(0, |before| BOUNDS[before]);
                return low as f64 + (high - low) as f64 * ((rank - below) / n);
            }
            below += n;
        }
        BOUNDS[BOUNDS.len() - 1] as f64
    }
}
