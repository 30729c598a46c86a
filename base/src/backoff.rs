//! Exponential back-off with jitter, for whoever tries again: a stream, a certificate request, a crashed container.

use std::time::Duration;

use rand::Rng;

/// Doubles from `base` to `max`; what it returns is drawn between half of the current step and the whole of it, so
/// that many who failed together do not come back together.
#[derive(Clone, Debug)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    step: Duration,
}

impl Backoff {
    /// `base` is the first step; a step never exceeds `max`.
    pub fn new(base: Duration, max: Duration) -> Self {
        let base = base.min(max);
        Self { base, max, step: base }
    }

    /// How long to wait before the next attempt.
    pub fn next_delay(&mut self, rng: &mut impl Rng) -> Duration {
        let step = self.step;
        self.step = step.saturating_mul(2).min(self.max);
        step.mul_f64(rng.random_range(0.5..=1.0))
    }

    /// To be called after a success: the next failure starts from `base` again.
    pub fn reset(&mut self) {
        self.step = self.base;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn grows_to_its_bound_and_starts_again_after_a_reset() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for step in [100, 200, 400, 800, 1000, 1000] {
            let delay = backoff.next_delay(&mut rng).as_millis();
            assert!((step / 2..=step).contains(&delay), "{delay} ms is outside the step of {step} ms");
        }
        backoff.reset();
        assert!(backoff.next_delay(&mut rng) <= Duration::from_millis(100));
    }

    #[test]
    fn a_base_over_the_bound_is_the_bound() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(1));
        assert!(backoff.next_delay(&mut rng) <= Duration::from_secs(1));
    }
}
