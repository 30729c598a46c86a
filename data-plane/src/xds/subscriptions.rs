//! Statistics of what is asked for: of each discovery of a whole type (CDS, LDS), and of each resource that is asked for
//! by name (EDS, RDS, SDS, ECDS), counted under the name of who asks for it.

mod counts;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use xds_api::type_url;
use xds_stream::client::Received;

use super::manager::Whole;
use super::needs::{ALL, Need, Source};
use crate::stats::Store;
use counts::{Counts, Taken};

/// What somebody asks for.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) type_url: &'static str,
    pub(super) name: &'a str,
    pub(super) source: &'a Source,
    /// How long it is waited for.
    pub(super) timeout: Option<Duration>,
    /// The cluster's name in statistics, the connection manager's `stat_prefix`, or the family of the filter.
    pub(super) asker: &'a str,
}

impl<'a> Wanted<'a> {
    pub(super) fn all(type_url: &'static str, whole: &'a Whole) -> Self {
        Self { type_url, name: ALL, source: &whole.source, timeout: whole.timeout, asker: "" }
    }

    pub(super) fn of(need: &'a Need, asker: &'a str) -> Self {
        let Need { type_url, name, source, timeout, .. } = need;
        Self { type_url, name, source, timeout: *timeout, asker }
    }
}

/// What is known already of a resource that somebody begins to ask for: files are read once for all who name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It is in force.
    Taken,
    /// It was refused.
    Refused,
}

/// What became of a response.
#[derive(Debug)]
pub(super) struct Outcome<'a> {
    pub(super) received: &'a Received,
    /// Names of resources that were refused.
    pub(super) refused: BTreeSet<&'a str>,
    /// Names of resources that are others than before.
    pub(super) changed: HashSet<&'a str>,
    /// How many there are of the type now.
    pub(super) all: usize,
    /// How long taking them took.
    pub(super) took: Duration,
}

/// One that asks, and where it is counted.
struct Subscription {
    source: Rc<Source>,
    counts: Counts,
    /// Until when the first answer is waited for; `None` when it came, or was waited for in vain.
    deadline: Option<Instant>,
    /// The last round in which it was asked for.
    round: u64,
}

/// See the module.
pub(super) struct Subscriptions {
    store: Arc<Store>,
    /// By type and name.
    all: BTreeMap<&'static str, BTreeMap<Box<str>, Vec<Subscription>>>,
    /// There may be thousands of subscriptions, and few sources.
    sources: Vec<Rc<Source>>,
    round: u64,
    next: Option<Instant>,
}

impl Subscriptions {
    /// Nobody asks for anything yet.
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self { store, all: BTreeMap::new(), sources: Vec::new(), round: 0, next: None }
    }

    /// Takes what is asked for now. `known` says what is there of what came before somebody asked.
    pub(super) fn update<'a>(
        &mut self,
        wanted: impl Iterator<Item = Wanted<'a>>,
        now: Instant,
        known: impl Fn(&Wanted<'_>) -> Option<Known>,
    ) {
        self.round += 1;
        for wanted in wanted {
            let Some(known) = self.ask(&wanted, now).then(|| known(&wanted)).flatten() else { continue };
            let Some(new) = self.named(wanted.type_url, wanted.name).last_mut() else { continue };
            match known {
                // Whoever begins to ask has nothing of it yet.
                Known::Taken => new.take(&Taken { changed: true, ..Taken::default() }),
                Known::Refused => new.reject(),
            }
        }
        let (round, mut next) = (self.round, None::<Instant>);
        for named in self.all.values_mut() {
            named.retain(|_, subscriptions| {
                subscriptions.retain(|one| one.round == round);
                for one in &mut *subscriptions {
                    one.expire(now);
                    next = next.into_iter().chain(one.deadline).min();
                }
                !subscriptions.is_empty()
            });
        }
        self.next = next;
        self.sources.retain(|source| Rc::strong_count(source) > 1);
    }

    /// When the next wait for a first answer ends.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// A source could not be reached, or what it has could not be read: for one type or all, for one name or all.
    pub(super) fn fail(&self, source: &Source, type_url: Option<&str>, name: Option<&str>) {
        self.from(source, type_url, name).for_each(|one| one.counts.fail());
    }

    /// A server's stream is up, or down.
    pub(super) fn connect(&self, source: &Source, type_url: Option<&str>, name: Option<&str>, up: bool) {
        self.from(source, type_url, name).for_each(|one| one.counts.connect(up));
    }

    fn from(
        &self,
        source: &Source,
        type_url: Option<&str>,
        name: Option<&str>,
    ) -> impl Iterator<Item = &Subscription> {
        let types = self.all.iter().filter(move |(one, _)| type_url.is_none_or(|wanted| **one == wanted));
        let named = types.flat_map(|(_, named)| named);
        let named = named.filter(move |(one, _)| name.is_none_or(|wanted| &***one == wanted));
        named.flat_map(|(_, all)| all).filter(move |one| *one.source == *source)
    }

    /// A response as a whole was refused.
    pub(super) fn refuse(&mut self, source: &Source, type_url: &str) {
        self.of(source, type_url).for_each(|(_, one)| one.reject());
    }

    /// A response was taken, or as much of it as is good.
    pub(super) fn count(&mut self, source: &Source, outcome: &Outcome<'_>) {
        let received = outcome.received;
        let (store, version) = (self.store.clone(), received.version.as_str().into());
        let taken = Taken { version: Some((&store, &version)), took: outcome.took, ..Taken::default() };
        let whole = [type_url::CLUSTER, type_url::LISTENER, type_url::SCOPED_ROUTE];
        if whole.contains(&received.type_url.as_str()) {
            let taken = Taken { changed: !outcome.changed.is_empty(), all: outcome.all, ..taken };
            let whole = self.named(&received.type_url, ALL).iter_mut().filter(|one| *one.source == *source);
            whole.for_each(|one| one.end(outcome.refused.is_empty(), &taken));
            return;
        }
        let mut seen = HashSet::new();
        for resource in received.resources.iter().filter(|resource| seen.insert(&*resource.name)) {
            let name = &*resource.name;
            let taken = Taken { changed: outcome.changed.contains(name), ..taken };
            let all = self.named(&received.type_url, name).iter_mut().filter(|one| *one.source == *source);
            all.for_each(|one| one.end(!outcome.refused.contains(name), &taken));
        }
        for name in &received.removed {
            let taken = Taken { removed: true, ..taken };
            let all = self.named(&received.type_url, name).iter_mut().filter(|one| *one.source == *source);
            all.for_each(|one| one.take(&taken));
        }
        if !matches!(source, Source::Path(_)) {
            return;
        }
        // A file answers all who read it, also those whose resource it lacks.
        for (_, one) in self.of(source, &received.type_url).filter(|(name, _)| !seen.contains(name)) {
            match seen.is_empty() && one.counts.may_be_empty() {
                true => one.take(&Taken { empty: true, ..taken }),
                false => one.reject(),
            }
        }
    }

    /// True if nobody asked so before.
    fn ask(&mut self, wanted: &Wanted<'_>, now: Instant) -> bool {
        let round = self.round;
        let known = self.named(wanted.type_url, wanted.name);
        if let Some(same) = known.iter_mut().find(|one| one.is(wanted)) {
            same.round = round;
            return false;
        }
        let Some(counts) = Counts::of(wanted, &self.store) else { return false };
        if !matches!(wanted.source, Source::Path(_)) {
            counts.attempt();
        }
        let subscription = Subscription {
            source: self.source(wanted.source),
            counts,
            deadline: wanted.timeout.filter(|timeout| !timeout.is_zero()).map(|timeout| now + timeout),
            round,
        };
        let named = self.all.entry(wanted.type_url).or_default();
        // Nearly all names have one that asks, and there may be thousands of names.
        named.entry(wanted.name.into()).or_insert_with(|| Vec::with_capacity(1)).push(subscription);
        true
    }

    fn source(&mut self, source: &Source) -> Rc<Source> {
        if let Some(known) = self.sources.iter().find(|known| ***known == *source) {
            return known.clone();
        }
        let new = Rc::new(source.clone());
        self.sources.push(new.clone());
        new
    }

    fn named(&mut self, type_url: &str, name: &str) -> &mut [Subscription] {
        let all = self.all.get_mut(type_url).and_then(|named| named.get_mut(name));
        all.map_or(&mut [], Vec::as_mut_slice)
    }

    fn of<'a>(
        &'a mut self,
        source: &'a Source,
        type_url: &str,
    ) -> impl Iterator<Item = (&'a str, &'a mut Subscription)> {
        let named = self.all.get_mut(type_url).into_iter().flatten();
        let all = named.flat_map(|(name, all)| all.iter_mut().map(move |one| (&**name, one)));
        all.filter(move |(_, one)| *one.source == *source)
    }
}

impl Subscription {
    fn is(&self, wanted: &Wanted<'_>) -> bool {
        *self.source == *wanted.source && self.counts.are_of(wanted.asker)
    }

    fn end(&mut self, good: bool, taken: &Taken<'_>) {
        match good {
            true => self.take(taken),
            false => self.reject(),
        }
    }

    fn take(&mut self, taken: &Taken<'_>) {
        self.deadline = None;
        self.counts.take(taken);
    }

    fn reject(&mut self) {
        self.deadline = None;
        self.counts.reject();
    }

    fn expire(&mut self, now: Instant) {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.deadline = None;
            self.counts.time_out();
        }
    }
}
