//! How fast streams may be opened: when a whole mesh comes back at once, it is served in turn.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::Status;

/// What may come at once after a time of quiet.
const BURST: Duration = Duration::from_secs(1);
/// Who would wait longer is told to come back.
const PATIENCE: Duration = Duration::from_secs(10);

/// A line in which each stream has its time: a second's worth may come at once.
#[derive(Debug)]
pub(crate) struct Admission {
    /// The time that one stream takes.
    pace: Duration,
    /// When the line is empty.
    free: Mutex<Instant>,
}

impl Admission {
    pub(crate) fn new(per_second: f64) -> Self {
        let pace = Duration::from_secs_f64(1.0 / per_second.max(0.1));
        Self { pace, free: Mutex::new(Instant::now()) }
    }

    /// Waits for this stream's time.
    pub(crate) async fn admit(&self) -> Result<(), Status> {
        let turn = self.turn(Instant::now());
        let turn = turn.ok_or_else(|| Status::unavailable("too many streams are opened; try again"))?;
        tokio::time::sleep_until(turn).await;
        Ok(())
    }

    /// The time of the next stream; nothing if it is too far away.
    fn turn(&self, now: Instant) -> Option<Instant> {
        let mut free = self.free.lock();
        // An hour of quiet gives no more than a second's worth.
        let turn = (*free).max(now.checked_sub(BURST).unwrap_or(now));
        if turn > now + PATIENCE {
            return None;
        }
        *free = turn + self.pace;
        Some(turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seconds_worth_comes_at_once_and_the_rest_in_turn() {
        let admission = Admission::new(10.0);
        let now = Instant::now() + Duration::from_secs(3600);
        let turns: Vec<Option<Instant>> = (0..200).map(|_| admission.turn(now)).collect();
        let at_once = turns.iter().filter(|turn| turn.is_some_and(|turn| turn <= now)).count();
        let refused = turns.iter().filter(|turn| turn.is_none()).count();
        assert_eq!(at_once, 11);
        assert_eq!(turns[12], Some(now + Duration::from_millis(200)));
        assert_eq!(refused, 200 - 11 - 100);
    }
}
