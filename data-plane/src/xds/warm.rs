//! Warm-up, as data: which version of an object is active, which one waits for what, and until when.
//!
//! A changed object takes the place of the active one when everything that it refers to is there, or has been waited
//! for long enough; until then the active one stays. No I/O, no clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::needs::Need;

/// A version of an object that waits.
#[derive(Debug)]
struct Warming<T> {
    value: Arc<T>,
    needs: Arc<[Need]>,
    since: Instant,
}

/// An object that came into force.
#[derive(Debug)]
pub(super) struct Promoted<T> {
    pub(super) name: Arc<str>,
    /// Which it takes the place of.
    pub(super) old: Option<Arc<T>>,
    pub(super) new: Arc<T>,
}

type Active<T> = (Arc<T>, Arc<[Need]>);

/// Objects of one type.
#[derive(Debug)]
pub(super) struct Warm<T> {
    active: BTreeMap<Arc<str>, Active<T>>,
    warming: BTreeMap<Arc<str>, Warming<T>>,
}

impl<T> Default for Warm<T> {
    fn default() -> Self {
        Self { active: BTreeMap::new(), warming: BTreeMap::new() }
    }
}

impl<T> Warm<T> {
    /// A new version of an object.
    pub(super) fn insert(&mut self, name: &Arc<str>, value: Arc<T>, needs: Vec<Need>, now: Instant) {
        self.warming.insert(name.clone(), Warming { value, needs: needs.into(), since: now });
    }

    /// Takes an object away.
    pub(super) fn remove(&mut self, name: &str) {
        self.active.remove(name);
        self.warming.remove(name);
    }

    /// Activates what has all it needs, or has waited long enough, and says which, each with what it replaces.
    pub(super) fn promote(&mut self, now: Instant, has: &dyn Fn(&Need) -> bool) -> Vec<Promoted<T>> {
        let done: Vec<Arc<str>> = self
            .warming
            .iter()
            .filter(|(_, warming)| warming.needs.iter().all(|need| has(need) || warming.expired(need, now)))
            .map(|(name, _)| name.clone())
            .collect();
        let promote = |name: Arc<str>| {
            let Warming { value, needs, .. } = self.warming.remove(&name)?;
            let old = self.active.insert(name.clone(), (value.clone(), needs)).map(|(old, _)| old);
            Some(Promoted { name, old, new: value })
        };
        done.into_iter().filter_map(promote).collect()
    }

    /// Those that wait for nothing but needs of this type, or are about to.
    pub(super) fn but_for(
        &self,
        type_url: &str,
        now: Instant,
        has: &dyn Fn(&Need) -> bool,
    ) -> impl Iterator<Item = &Arc<T>> {
        self.warming.values().filter_map(move |warming| {
            let (last, others): (Vec<_>, Vec<_>) =
                warming.needs.iter().partition(|need| need.type_url == type_url);
            let ready = others.iter().all(|need| has(need) || warming.expired(need, now));
            (ready && !last.is_empty()).then_some(&warming.value)
        })
    }

    /// When the next wait ends.
    pub(super) fn deadline(&self, now: Instant, has: &dyn Fn(&Need) -> bool) -> Option<Instant> {
        // What has passed is of no more interest: the object waits for something else then.
        self.warming
            .values()
            .flat_map(|warming| {
                let missing = warming.needs.iter().filter(|need| !has(need));
                missing.filter_map(|need| Some(warming.since + need.timeout?))
            })
            .filter(|deadline| *deadline > now)
            .min()
    }

    /// Names of what waits, each with the first thing it waits for.
    pub(super) fn waiting<'a>(
        &'a self,
        has: &'a dyn Fn(&Need) -> bool,
    ) -> impl Iterator<Item = (&'a str, &'a Need)> {
        self.warming
            .iter()
            .filter_map(|(name, warming)| Some((&**name, warming.needs.iter().find(|need| !has(need))?)))
    }

    /// Whether nothing waits.
    pub(super) fn is_settled(&self) -> bool {
        self.warming.is_empty()
    }

    /// What waits.
    pub(super) fn all_warming(&self) -> impl Iterator<Item = &Arc<T>> {
        self.warming.values().map(|warming| &warming.value)
    }

    /// How many wait.
    pub(super) fn warming(&self) -> usize {
        self.warming.len()
    }

    /// Whether an object of this name is waiting.
    pub(super) fn is_warming(&self, name: &str) -> bool {
        self.warming.contains_key(name)
    }

    /// Whether an object of this name is active.
    pub(super) fn is_active(&self, name: &str) -> bool {
        self.active.contains_key(name)
    }

    /// Active objects.
    pub(super) fn active(&self) -> impl ExactSizeIterator<Item = (&Arc<str>, &Arc<T>)> {
        self.active.iter().map(|(name, (value, _))| (name, value))
    }

    /// All objects, active and waiting.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<T>> {
        self.active.values().map(|(value, _)| value).chain(self.all_warming())
    }

    /// The active object of this name, or the one that waits where there is none.
    pub(super) fn any(&self, name: &str) -> Option<&Arc<T>> {
        let active = self.active.get(name).map(|(value, _)| value);
        active.or_else(|| self.warming.get(name).map(|warming| &warming.value))
    }

    /// The object of this name that came last.
    pub(super) fn newest(&self, name: &str) -> Option<&Arc<T>> {
        let warming = self.warming.get(name).map(|warming| &warming.value);
        warming.or_else(|| self.active.get(name).map(|(value, _)| value))
    }

    /// Whether there is an object of this name in any state.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.active.contains_key(name) || self.warming.contains_key(name)
    }

    /// What all objects refer to, active or waiting.
    pub(super) fn needs(&self) -> impl Iterator<Item = &Need> {
        self.needs_of_each().map(|(_, need)| need)
    }

    /// As [`Warm::needs`], with who refers to it.
    pub(super) fn needs_of_each(&self) -> impl Iterator<Item = (&Arc<T>, &Need)> {
        let active = self.active.values().map(|(value, needs)| (value, needs));
        let warming = self.warming.values().map(|warming| (&warming.value, &warming.needs));
        active.chain(warming).flat_map(|(value, needs)| needs.iter().map(move |need| (value, need)))
    }
}

impl<T> Warming<T> {
    fn expired(&self, need: &Need, now: Instant) -> bool {
        need.timeout.is_some_and(|timeout| now.saturating_duration_since(self.since) >= timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xds::needs::Source;
    use std::time::Duration;
    use xds_api::type_url;

    fn need(name: &str, timeout: Option<u64>) -> Need {
        Need::new(type_url::ENDPOINT, name, Source::Ads, timeout.map(Duration::from_secs))
    }

    #[test]
    fn the_active_version_stays_until_the_new_one_is_complete() {
        let now = Instant::now();
        let name: Arc<str> = "a".into();
        let mut warm = Warm::default();
        warm.insert(&name, Arc::new(1), vec![], now);
        assert!(!warm.promote(now, &|_| false).is_empty());
        warm.insert(&name, Arc::new(2), vec![need("a", None)], now);
        assert!(warm.promote(now, &|_| false).is_empty());
        assert_eq!(warm.any("a").map(|v| **v), Some(1));
        let promoted = warm.promote(now, &|need| need.name == "a");
        assert_eq!(promoted[0].old.as_deref(), Some(&1));
        assert_eq!(warm.any("a").map(|v| **v), Some(2));
    }

    #[test]
    fn waiting_ends_with_its_timeout() {
        let now = Instant::now();
        let mut warm = Warm::default();
        warm.insert(&"a".into(), Arc::new(()), vec![need("a", Some(15))], now);
        let deadline = warm.deadline(now, &|_| false).unwrap();
        assert_eq!(deadline, now + Duration::from_secs(15));
        assert!(warm.promote(now, &|_| false).is_empty());
        assert!(!warm.promote(deadline, &|_| false).is_empty());
        assert!(warm.is_settled());

        warm.insert(&"b".into(), Arc::new(()), vec![need("b", Some(15)), need("c", None)], now);
        assert!(warm.promote(deadline, &|_| false).is_empty());
        assert_eq!(warm.deadline(deadline, &|_| false), None, "nothing is left that time could bring");
    }
}
