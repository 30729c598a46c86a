//! Filter configurations that no listener names any more. Connections that drain still go by them, so they stay in force for
//! as long as draining may take; a listener that names one again waits for it as for one that never was there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Those that are named, and those that were.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    named: BTreeSet<String>,
    until: BTreeMap<String, Instant>,
}

/// What changes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Left {
    /// Nobody names them since now.
    pub(super) unnamed: Vec<String>,
    /// Nobody can be at them any more.
    pub(super) over: Vec<String>,
}

impl Leaving {
    /// Takes which are named now, and how long draining takes.
    pub(super) fn update(&mut self, named: BTreeSet<String>, now: Instant, drain: Duration) -> Left {
        let unnamed: Vec<String> = self.named.difference(&named).cloned().collect();
        self.until.retain(|name, _| !named.contains(name));
        self.until.extend(unnamed.iter().map(|name| (name.clone(), now + drain)));
        let over = self.until.iter().filter(|(_, until)| **until <= now).map(|(name, _)| name.clone());
        let over: Vec<String> = over.collect();
        self.until.retain(|_, until| *until > now);
        self.named = named;
        Left { unnamed, over }
    }

    /// When the next one is over.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.until.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_again_does_not_leave() {
        let (start, drain) = (Instant::now(), Duration::from_secs(10));
        let at = |seconds| start + Duration::from_secs(seconds);
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>();
        let mut leaving = Leaving::default();
        assert_eq!(leaving.update(names(&["a", "b"]), at(0), drain), Left::default());
        let left = leaving.update(names(&[]), at(1), drain);
        assert_eq!(left, Left { unnamed: vec!["a".into(), "b".into()], over: Vec::new() });
        assert_eq!(leaving.deadline(), Some(at(11)));
        assert_eq!(leaving.update(names(&["a"]), at(2), drain), Left::default());
        let left = leaving.update(names(&["a"]), at(11), drain);
        assert_eq!(left, Left { unnamed: Vec::new(), over: vec!["b".into()] });
        assert_eq!(leaving.deadline(), None);
    }
}
