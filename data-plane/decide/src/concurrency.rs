//! Adaptive concurrency: as many requests at once as an upstream takes without becoming slower.

use std::time::Duration;

/// `GradientControllerConfig`
#[derive(Clone, Debug, PartialEq)]
pub struct GradientConfig {
    /// Which sample stands for all, in per cent.
    pub percentile: f64,
    /// The most requests at once.
    pub max_limit: u32,
    /// The fewest.
    pub min_limit: u32,
    /// How often the limit is computed anew.
    pub update_interval: Duration,
    /// How often the shortest time is measured anew; `None`: it is given.
    pub min_rtt_interval: Duration,
    /// The shortest time, if it is not measured.
    pub fixed_min_rtt: Option<Duration>,
    /// How many requests measure it.
    pub min_rtt_requests: usize,
    /// How many there are at once meanwhile.
    pub min_rtt_concurrency: u32,
    /// By how much, in per cent, the interval is drawn longer.
    pub jitter: f64,
    /// How much longer, in per cent, is as good as the shortest time.
    pub buffer: f64,
}

/// So many samples are looked at between two computations.
const SAMPLES: usize = 10_000;

/// The state of a controller. Time is what has passed since any fixed moment.
#[derive(Clone, Debug)]
pub struct Gradient {
    config: GradientConfig,
    limit: u32,
    in_flight: u32,
    min_rtt: Option<Duration>,
    samples: Vec<Duration>,
    /// Since when the shortest time is being measured, and the limit to go back to.
    measuring: Option<(Duration, u32)>,
    next_update: Duration,
    next_min_rtt: Duration,
    computed: Computed,
}

/// What the last computation found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Computed {
    /// The time that stood for all.
    pub sample: Duration,
    /// How it compares with the shortest, in thousandths.
    pub gradient: u32,
    /// How many more requests are let in for bursts.
    pub burst: u32,
}

impl Gradient {
    /// A controller that first measures.
    pub fn new(config: GradientConfig, now: Duration) -> Self {
        let fixed = config.fixed_min_rtt;
        let start = config.min_rtt_concurrency;
        Self {
            limit: start,
            in_flight: 0,
            min_rtt: fixed,
            samples: Vec::new(),
            measuring: fixed.is_none().then_some((now, start)),
            next_update: now + config.update_interval,
            next_min_rtt: Duration::MAX,
            computed: Computed::default(),
            config,
        }
    }

    /// Takes a place, if there is one. Every place is to be given back by [`Self::release`].
    pub fn acquire(&mut self, now: Duration) -> bool {
        self.tick(now);
        let free = self.in_flight < self.limit;
        self.in_flight += u32::from(free);
        free
    }

    /// Gives a place back, with the time that the request took if it was answered; `random` spreads measurements.
    pub fn release(&mut self, began: Duration, answered: Option<Duration>, now: Duration, random: u64) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let Some(took) = answered else { return };
        if let Some((since, limit)) = self.measuring {
            // Requests from before were among too many others.
            if began < since {
                return;
            }
            self.samples.push(took);
            if self.samples.len() < self.config.min_rtt_requests {
                return;
            }
            self.min_rtt = self.take_percentile();
            self.measuring = None;
            self.limit = limit;
            self.next_update = now + self.config.update_interval;
            self.next_min_rtt = now.saturating_add(self.jittered(random));
        } else if self.samples.len() < SAMPLES {
            self.samples.push(took);
        }
        self.tick(now);
    }

    /// How many requests may be there at once.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// The shortest time, as far as it is known.
    pub fn min_rtt(&self) -> Option<Duration> {
        self.min_rtt
    }

    /// What the last computation found.
    pub fn computed(&self) -> Computed {
        self.computed
    }

    /// Whether the shortest time is being measured.
    pub fn is_measuring(&self) -> bool {
        self.measuring.is_some()
    }

    fn tick(&mut self, now: Duration) {
        if self.measuring.is_some() {
            return;
        }
        if now >= self.next_min_rtt {
            self.samples.clear();
            self.measuring = Some((now, self.limit));
            self.limit = self.config.min_rtt_concurrency;
            return;
        }
        if now >= self.next_update {
            self.next_update = now + self.config.update_interval;
            self.update();
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the limit is held between two u32s"
    )]
    fn update(&mut self) {
        let (Some(min), Some(sample)) = (self.min_rtt, self.take_percentile()) else { return };
        let good = min.as_secs_f64() * (1.0 + self.config.buffer / 100.0);
        let gradient = (good / sample.as_secs_f64().max(1e-9)).clamp(0.5, 2.0);
        let limit = f64::from(self.limit) * gradient;
        let burst = limit.sqrt();
        self.computed = Computed { sample, gradient: (gradient * 1000.0) as u32, burst: burst as u32 };
        let limit = limit + burst;
        let (low, high) = (f64::from(self.config.min_limit), f64::from(self.config.max_limit));
        self.limit = limit.min(high).max(low.min(high)) as u32;
    }

    fn take_percentile(&mut self) -> Option<Duration> {
        let mut samples = std::mem::take(&mut self.samples);
        samples.sort_unstable();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a place in a short list"
        )]
        let place = (samples.len() as f64 * self.config.percentile / 100.0) as usize;
        samples.get(place.min(samples.len().saturating_sub(1))).copied()
    }

    #[expect(clippy::cast_precision_loss, reason = "one of a thousand steps")]
    fn jittered(&self, random: u64) -> Duration {
        let more = self.config.jitter / 100.0 * ((random % 1000) as f64 / 1000.0);
        self.config.min_rtt_interval.mul_f64(1.0 + more.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> GradientConfig {
        GradientConfig {
            percentile: 50.0,
            max_limit: 100,
            min_limit: 3,
            update_interval: Duration::from_millis(100),
            min_rtt_interval: Duration::from_secs(60),
            fixed_min_rtt: None,
            min_rtt_requests: 5,
            min_rtt_concurrency: 3,
            jitter: 0.0,
            buffer: 25.0,
        }
    }

    /// Sends requests for a second, as many at once as there is room for, each taking so long.
    fn run(controller: &mut Gradient, from: Duration, took: Duration) -> Duration {
        let mut now = from;
        while now < from + Duration::from_secs(1) {
            let mut taken = 0;
            while taken < 200 && controller.acquire(now) {
                taken += 1;
            }
            let began = now;
            now += took;
            (0..taken).for_each(|_| controller.release(began, Some(took), now, 0));
        }
        now
    }

    #[test]
    fn the_limit_follows_the_times() {
        let mut controller = Gradient::new(config(), Duration::ZERO);
        assert!((0..3).all(|_| controller.acquire(Duration::ZERO)) && !controller.acquire(Duration::ZERO));
        (0..3).for_each(|_| controller.release(Duration::ZERO, None, Duration::ZERO, 0));
        let quick = Duration::from_millis(10);
        let now = run(&mut controller, Duration::ZERO, quick);
        assert!(!controller.is_measuring() && controller.min_rtt() == Some(quick));
        assert!(controller.limit() > 20, "{}", controller.limit());
        let computed = controller.computed();
        assert_eq!((computed.sample, computed.gradient), (quick, 1250));
        assert!(computed.burst > 0);
        let now = run(&mut controller, now, Duration::from_millis(100));
        assert!(controller.limit() < 20, "{}", controller.limit());
        run(&mut controller, now + Duration::from_secs(60), quick);
        assert!(controller.limit() >= 3);
    }
}
