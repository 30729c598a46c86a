//! Streams that this end broke off: what their peer sent before it heard of that is let pass (RFC 9113, 5.1).

use std::collections::VecDeque;

/// As many are told from streams that ended; of earlier ones all is let pass.
const KEPT: usize = 64;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Broken {
    latest: VecDeque<u32>,
    /// The highest id among those that are kept no more.
    before: u32,
}

impl Broken {
    pub(super) fn note(&mut self, id: u32) {
        if self.latest.len() == KEPT
            && let Some(id) = self.latest.pop_front()
        {
            self.before = self.before.max(id);
        }
        self.latest.push_back(id);
    }

    /// Whether frames of this stream may be on their way still.
    pub(super) fn may_go_on(&self, id: u32) -> bool {
        id <= self.before || self.latest.contains(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_broken_off_may_go_on() {
        let mut broken = Broken::default();
        assert!(!broken.may_go_on(1));
        broken.note(5);
        assert!(broken.may_go_on(5) && !broken.may_go_on(3) && !broken.may_go_on(7));
    }

    #[test]
    fn few_are_kept_and_nothing_is_held_against_the_others() {
        let mut broken = Broken::default();
        for id in (1..=1001).step_by(2) {
            broken.note(id);
        }
        assert_eq!(broken.latest.len(), KEPT);
        assert!((1..=1001).all(|id| id % 2 == 0 && id > broken.before || broken.may_go_on(id)));
        assert!(!broken.may_go_on(1003));
    }
}
