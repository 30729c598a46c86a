//! Resources by the inputs that they were made from.
//!
//! The key is the whole input of a generator, compared by value. So two proxies whose inputs are equal share one encoded
//! resource, and no change of anything else can make an entry wrong: there is nothing to invalidate.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use hashbrown::HashMap;
use mesh_api::envoy_filter::EnvoyFilter;
use prost::{Message, Name};
use xds_api::codec::Codec;
use xds_api::google::protobuf::Any;

use crate::cluster::{ClusterInputs, InboundClusterInputs};
use crate::endpoint::EndpointInputs;
use crate::envoy_filter::{PatchedInputs, Problem};
use crate::listener::ListenerInputs;
use crate::resource::NamedResource;
use crate::route::RouteInputs;

/// Above so many entries the ones that were not asked for since the last time are dropped.
const GENERATION: usize = 60_000;

/// EnvoyFilters whose check is remembered.
const FILTERS: usize = 1000;

/// The resources made so far, to share between pushes and proxies.
#[derive(Debug, Default)]
pub struct Cache {
    pub(crate) clusters: Memo<ClusterInputs>,
    pub(crate) inbound_clusters: Memo<InboundClusterInputs>,
    pub(crate) endpoints: Memo<EndpointInputs>,
    pub(crate) listeners: Memo<ListenerInputs>,
    pub(crate) routes: Memo<RouteInputs>,
    /// Resources that users patched.
    pub(crate) patched: Memo<PatchedInputs>,
    /// What is wrong with patches.
    problems: Mutex<HashMap<EnvoyFilter, Arc<Vec<Problem>>>>,
    /// Reads patches; made when there is one.
    codec: OnceLock<Codec>,
}

/// How often a cache was asked, and how often it knew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Resources that it holds.
    pub entries: usize,
    /// Questions that it could answer.
    pub hits: u64,
    /// Resources that had to be made.
    pub misses: u64,
}

impl Cache {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    /// What reads users' patches.
    pub(crate) fn codec(&self) -> &Codec {
        self.codec.get_or_init(Codec::new)
    }

    /// What is wrong with an EnvoyFilter: found out once.
    pub(crate) fn problems(
        &self,
        filter: &EnvoyFilter,
        check: fn(&EnvoyFilter, &Codec) -> Vec<Problem>,
    ) -> Vec<Problem> {
        let lock = || self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = lock().get(filter) {
            return found.to_vec();
        }
        let found = check(filter, self.codec());
        let mut known = lock();
        if known.len() >= FILTERS {
            known.clear();
        }
        known.insert(filter.clone(), Arc::new(found.clone()));
        found
    }

    /// Its use so far, by type of resource.
    pub fn usage(&self) -> [(&'static str, Usage); 6] {
        [
            ("clusters", self.clusters.usage()),
            ("inbound clusters", self.inbound_clusters.usage()),
            ("endpoints", self.endpoints.usage()),
            ("listeners", self.listeners.usage()),
            ("routes", self.routes.usage()),
            ("patched", self.patched.usage()),
        ]
    }
}

/// Resources by one type of input.
#[derive(Debug)]
pub(crate) struct Memo<K> {
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K> {
    young: HashMap<K, Arc<NamedResource>>,
    old: HashMap<K, Arc<NamedResource>>,
    usage: Usage,
}

impl<K> Default for Memo<K> {
    fn default() -> Self {
        let state = State { young: HashMap::new(), old: HashMap::new(), usage: Usage::default() };
        Self { state: Mutex::new(state) }
    }
}

impl<K: Hash + Eq> Memo<K> {
    /// The resource of an input, made by `build` if it is new. The version is a hash of the input: encodings of equal
    /// messages may differ in the order of their maps.
    pub(crate) fn get<M: Message + Name>(
        &self,
        name: &str,
        inputs: K,
        build: impl FnOnce(&K) -> M,
    ) -> Arc<NamedResource> {
        if let Some(found) = self.find(&inputs) {
            return found;
        }
        // Made without the lock: another thread may make the same, which is only work done twice.
        let resource = Arc::new(NamedResource {
            name: name.into(),
            version: version_of(&inputs),
            any: Any { type_url: M::type_url(), value: build(&inputs).encode_to_vec() },
        });
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.usage.misses += 1;
        if state.young.len() >= GENERATION {
            state.old = std::mem::take(&mut state.young);
        }
        state.young.insert(inputs, resource.clone());
        resource
    }

    fn find(&self, inputs: &K) -> Option<Arc<NamedResource>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = state.young.get(inputs).cloned();
        if found.is_none()
            && let Some((inputs, resource)) = state.old.remove_entry(inputs)
        {
            state.young.insert(inputs, resource.clone());
            found = Some(resource);
        }
        state.usage.hits += u64::from(found.is_some());
        found
    }

    fn usage(&self) -> Usage {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Usage { entries: state.young.len() + state.old.len(), ..state.usage }
    }
}

/// A version that is the same for the same input, also after a restart.
pub(crate) fn version_of<K: Hash>(inputs: &K) -> String {
    let mut hasher = DefaultHasher::new();
    // Another release may make another resource of the same input.
    env!("CARGO_PKG_VERSION").hash(&mut hasher);
    inputs.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}
