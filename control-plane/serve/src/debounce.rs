//! Changes come in bursts; a push waits until they pause, though not for ever.

use std::time::Duration;

use saild_model::ChangeSet;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// How long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delays {
    /// A pause of this length ends a burst (`PILOT_DEBOUNCE_AFTER`).
    pub quiet: Duration,
    /// A burst ends after this time at the latest (`PILOT_DEBOUNCE_MAX`).
    pub max: Duration,
}

impl Default for Delays {
    fn default() -> Self {
        Self { quiet: Duration::from_millis(100), max: Duration::from_secs(10) }
    }
}

/// A burst that has not ended.
#[derive(Clone, Debug, Default)]
pub struct Burst {
    pending: Option<Pending>,
}

#[derive(Clone, Debug)]
struct Pending {
    first: Instant,
    last: Instant,
    events: u64,
    change: ChangeSet,
}

/// A burst that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// All that changed.
    pub change: ChangeSet,
    /// In how many steps.
    pub events: u64,
    /// When it began.
    pub since: Instant,
}

impl Burst {
    /// Another change.
    pub fn add(&mut self, change: ChangeSet, now: Instant) {
        match &mut self.pending {
            Some(pending) => {
                pending.change.merge(change);
                pending.last = now;
                pending.events += 1;
            }
            None => self.pending = Some(Pending { first: now, last: now, events: 1, change }),
        }
    }

    /// When the burst ends, if nothing more comes.
    pub fn due(&self, delays: Delays) -> Option<Instant> {
        let pending = self.pending.as_ref()?;
        Some((pending.last + delays.quiet).min(pending.first + delays.max))
    }

    /// Ends the burst.
    pub fn take(&mut self) -> Option<Settled> {
        let pending = self.pending.take()?;
        Some(Settled { change: pending.change, events: pending.events, since: pending.first })
    }
}

/// Hands on bursts until the sender is gone.
pub async fn run(mut changes: mpsc::Receiver<ChangeSet>, delays: Delays, mut settled: impl FnMut(Settled)) {
    let mut burst = Burst::default();
    loop {
        let wait = async {
            match burst.due(delays) {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            change = changes.recv() => match change {
                Some(change) => burst.add(change, Instant::now()),
                None => return,
            },
            () = wait => if let Some(ended) = burst.take() {
                settled(ended);
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAYS: Delays = Delays { quiet: Duration::from_millis(100), max: Duration::from_secs(1) };

    #[test]
    fn a_pause_ends_a_burst_and_so_does_its_age() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut burst = Burst::default();
        assert_eq!(burst.due(DELAYS), None);
        burst.add(ChangeSet::default(), at(0));
        assert_eq!(burst.due(DELAYS), Some(at(100)));
        burst.add(ChangeSet::all(), at(90));
        assert_eq!(burst.due(DELAYS), Some(at(190)));
        burst.add(ChangeSet::default(), at(950));
        assert_eq!(burst.due(DELAYS), Some(at(1000)));
        let settled = burst.take().unwrap();
        assert!(settled.change.full && settled.events == 3);
        assert_eq!(burst.take(), None);
    }

    #[tokio::test]
    async fn hands_on_one_push_for_many_changes() {
        let (send, receive) = mpsc::channel(10);
        let (ended, mut ends) = mpsc::unbounded_channel();
        let task = tokio::spawn(run(receive, DELAYS, move |settled| ended.send(settled.events).unwrap()));
        for _ in 0..5 {
            send.send(ChangeSet::default()).await.unwrap();
        }
        assert_eq!(ends.recv().await, Some(5));
        send.send(ChangeSet::default()).await.unwrap();
        assert_eq!(ends.recv().await, Some(1));
        drop(send);
        task.await.unwrap();
    }
}
