//! Statistics under Envoy's names.
//!
//! A [`Scope`] is one object's set of statistics (a cluster's, a listener's, a connection manager's), resolved once
//! when its configuration becomes active. Every worker writes its own shard with a plain load and store; the main
//! thread adds the shards up when somebody asks. A shard is allocated when its worker first writes, so that an object
//! without traffic costs its name and little more.

mod histogram;
mod prometheus;
mod sample;
mod schema;
mod scope;
pub mod sets;
mod tags;
mod text;
mod traffic;

pub use histogram::{BOUNDS, Buckets};
pub use sample::{Name, Sample, Value};
pub use schema::{Counter, Def, Gauge, Histogram, Kind, Schema, StatSet, Tag, Text};
pub use scope::{Held, Scope, WeakScope, attach_worker, set_workers, shard, shards};
pub(crate) use tags::push_label;
pub use tags::{Keep, Rules, TagRule, TextMatch};
pub use traffic::{Meter, Traffic};

pub use prometheus::render as prometheus;
pub use text::{Query, render_json as json, render_text as text};

use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;

use scope::AnyScope;

/// A source of gauges that are computed when somebody asks, instead of being written as they change.
pub type Provider = Box<dyn Fn(&mut dyn FnMut(Sample<'_>)) + Send + Sync>;

/// All scopes of the process. Touched when configuration changes and when statistics are read, never by a request,
/// except by the first that needs a new set of labels.
#[derive(Default)]
pub struct Store {
    scopes: Mutex<HashMap<Key, Entry>>,
    providers: Mutex<Vec<Provider>>,
    /// Statistics that are text, of few scopes.
    texts: Mutex<HashMap<Key, Arc<str>>>,
}

/// A set, and the object's name.
type Key = (&'static str, Arc<str>);

struct Entry {
    scope: AnyScope,
    pinned: bool,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("scopes", &self.scopes.lock().len()).finish_non_exhaustive()
    }
}

impl Store {
    /// An empty store.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The scope of this set under this name: the one that is alive, so that counters survive a configuration update,
    /// else a new one. It leaves the store when its last holder drops it.
    pub fn scope<S: StatSet>(&self, name: &str) -> Scope<S> {
        self.get::<S>(name, false)
    }

    /// As [`Store::scope`], with a part of the statistics' names after their first: a filter's `stat_prefix`. An empty
    /// one is none.
    pub fn prefixed<S: StatSet>(&self, name: &str, prefix: &str) -> Scope<S> {
        if prefix.is_empty() {
            return self.scope(name);
        }
        // A NUL stands in no name, so that this key is nobody else's.
        let key = format!("{name}\0{prefix}");
        let mut scopes = self.scopes.lock();
        let entry = scopes.entry((S::SCHEMA.id, key.into())).or_insert_with(|| Entry {
            scope: AnyScope::new(S::SCHEMA, name.into(), Some(prefix.into())),
            pinned: false,
        });
        Scope::from_any(entry.scope.clone())
    }

    /// As [`Store::scope`], for what stays until the process ends: label sets of metrics, server statistics.
    pub fn pinned<S: StatSet>(&self, name: &str) -> Scope<S> {
        self.get::<S>(name, true)
    }

    /// A counter under its full name, for what has no set of its own.
    pub fn counter(&self, name: &str) -> Scope<sets::single_counter::Set> {
        self.scope(name)
    }

    /// A gauge under its full name.
    pub fn gauge(&self, name: &str) -> Scope<sets::single_gauge::Set> {
        self.scope(name)
    }

    /// A histogram under its full name.
    pub fn histogram(&self, name: &str) -> Scope<sets::single_histogram::Set> {
        self.scope(name)
    }

    /// Sets a scope's text.
    pub fn set_text<S: StatSet>(&self, scope: &Scope<S>, text: &Arc<str>) {
        self.texts.lock().insert((S::SCHEMA.id, scope.shared_name().clone()), text.clone());
    }

    /// Adds a source of computed gauges.
    pub fn provide(&self, provider: Provider) {
        self.providers.lock().push(provider);
    }

    /// Visits every statistic, scope by scope in the order of their names.
    pub fn visit(&self, visit: &mut dyn FnMut(Sample<'_>)) {
        let mut scopes: Vec<AnyScope> = {
            let mut map = self.scopes.lock();
            map.retain(|_, entry| entry.pinned || entry.scope.is_held());
            map.values().map(|entry| entry.scope.clone()).collect()
        };
        scopes.sort_by(|a, b| a.order().cmp(&b.order()));
        let texts = {
            let map = self.scopes.lock();
            let mut texts = self.texts.lock();
            texts.retain(|key, _| map.contains_key(key));
            texts.clone()
        };
        for scope in &scopes {
            let text =
                scope.schema().text.and_then(|_| texts.get(&(scope.schema().id, scope.name().clone())));
            scope.visit(text.map(|text| &**text), visit);
        }
        for provider in self.providers.lock().iter() {
            provider(visit);
        }
    }

    /// Counters start from zero again, as `/reset_counters` asks.
    pub fn reset_counters(&self) {
        for entry in self.scopes.lock().values() {
            entry.scope.reset();
        }
    }

    fn get<S: StatSet>(&self, name: &str, pinned: bool) -> Scope<S> {
        let mut scopes = self.scopes.lock();
        if let Some(entry) = scopes.get_mut(&(S::SCHEMA.id, name.into())) {
            entry.pinned |= pinned;
            return Scope::from_any(entry.scope.clone());
        }
        // Dropped scopes are swept as the map grows, so that churn without a reader does not leak.
        if scopes.len() == scopes.capacity() {
            scopes.retain(|_, entry| entry.pinned || entry.scope.is_held());
            self.texts.lock().retain(|key, _| scopes.contains_key(key));
        }
        let name: Arc<str> = name.into();
        let scope = AnyScope::new(S::SCHEMA, name.clone(), None);
        scopes.insert((S::SCHEMA.id, name), Entry { scope: scope.clone(), pinned });
        Scope::from_any(scope)
    }
}

#[cfg(test)]
mod tests;
