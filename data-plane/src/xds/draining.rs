//! Listeners that were replaced or taken away, and filter chains: for as long as draining lasts they are counted and shown.

use std::sync::Arc;
use std::time::Instant;

use sail_proxy_config::listener::Listener as RunListener;

use super::raw::Held;

/// What drains.
#[derive(Debug)]
enum Leaving {
    /// A listener, as it came.
    Listener(Arc<str>, Held),
    /// So many chains of a listener that stays.
    Chains(usize),
}

/// All that drains, each until then.
#[derive(Debug, Default)]
pub(super) struct Draining(Vec<(Leaving, Instant)>);

impl Draining {
    /// A listener was taken away.
    pub(super) fn remove(&mut self, name: &Arc<str>, held: Held, until: Instant) {
        self.0.push((Leaving::Listener(name.clone(), held), until));
    }

    /// A listener took the place of another version.
    pub(super) fn replace(
        &mut self,
        old: &RunListener,
        new: &RunListener,
        held: Option<Held>,
        until: Instant,
    ) {
        if !RunListener::is_in_place(old, new) {
            self.0.extend(held.map(|held| (Leaving::Listener(old.name.clone(), held), until)));
            return;
        }
        let stays = |version: u64| new.chains().any(|chain| chain.version == version);
        match old.chains().filter(|chain| !stays(chain.version)).count() {
            0 => {}
            chains => self.0.push((Leaving::Chains(chains), until)),
        }
    }

    /// Forgets what is over, and counts the rest: listeners, and chains of listeners that stay.
    pub(super) fn count(&mut self, now: Instant) -> (usize, usize) {
        self.0.retain(|(_, until)| *until > now);
        self.0.iter().fold((0, 0), |(listeners, chains), (leaving, _)| match leaving {
            Leaving::Listener(..) => (listeners + 1, chains),
            Leaving::Chains(more) => (listeners, chains + more),
        })
    }

    /// Listeners that drain, as they came.
    pub(super) fn listeners(&self, now: Instant) -> impl Iterator<Item = (&Arc<str>, &Held)> {
        self.0.iter().filter(move |(_, until)| *until > now).filter_map(|(leaving, _)| match leaving {
            Leaving::Listener(name, held) => Some((name, held)),
            Leaving::Chains(_) => None,
        })
    }
}
