//! Subsets: hosts whose metadata (namespace `envoy.lb`) hold what the route asks for, and what happens where there are
//! none.

use std::sync::Arc;

use hashbrown::HashMap;
use serde_json::{Map, Value};

use super::balancer::{Balancer, Context};
use super::{CommonLb, LbPolicy, LocalityLb};
use crate::host::{Endpoints, Host};

/// `LbSubsetConfig`
#[derive(Clone, Debug, PartialEq)]
pub struct Subset {
    /// Which keys make subsets.
    pub selectors: Box<[Selector]>,
    /// Where a request goes that matches no subset.
    pub fallback: Fallback,
    /// What hosts of the default subset hold.
    pub default_subset: Map<String, Value>,
    /// Whether localities' weights count.
    pub locality_weight_aware: bool,
    /// Whether a locality weighs less, the fewer of its hosts are in the subset.
    pub scale_locality_weight: bool,
    /// Whether any host will do when the fallback finds none.
    pub panic_mode_any: bool,
    /// Whether a list in a host's metadata stands for each of its elements.
    pub list_as_any: bool,
    /// Whether the key `fallback_list` holds other metadata to try.
    pub fallback_list: bool,
    /// How a host of the subset is chosen.
    pub child: LbPolicy,
}

/// `LbSubsetSelector`
#[derive(Clone, Debug, PartialEq)]
pub struct Selector {
    /// Its keys, sorted.
    pub keys: Box<[Box<str>]>,
    /// What happens when its subset has no host; `None`: as the whole configuration says.
    pub fallback: Option<SelectorFallback>,
    /// Whether a subset is its first host.
    pub single_host: bool,
}

/// Where a request goes that matches no subset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// Nowhere.
    None,
    /// To any host.
    AnyEndpoint,
    /// To a host of the default subset.
    DefaultSubset,
}

/// The same for one selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SelectorFallback {
    /// As a whole configuration may say.
    Plain(Fallback),
    /// To the subset of fewer keys.
    Keys(Box<[Box<str>]>),
}

/// What a route asks of hosts: the metadata of the route, and those of the weighted cluster, which come first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Criteria<'a> {
    /// The route's.
    pub route: Option<&'a Map<String, Value>>,
    /// The weighted cluster's.
    pub weighted: Option<&'a Map<String, Value>>,
}

/// Keys and values, sorted by key.
type Wanted<'a> = Vec<(&'a str, &'a Value)>;

impl<'a> Criteria<'a> {
    fn wanted(&self) -> Wanted<'a> {
        let of = |metadata: Option<&'a Map<String, Value>>| {
            metadata.and_then(|all| all.get("envoy.lb")?.as_object()).into_iter().flatten()
        };
        let mut all: Wanted<'a> = of(self.weighted).map(|(key, value)| (key.as_str(), value)).collect();
        merge(&mut all, of(self.route).map(|(key, value)| (key.as_str(), value)));
        all
    }
}

/// Adds what is not there yet, and sorts.
fn merge<'a>(all: &mut Wanted<'a>, more: impl Iterator<Item = (&'a str, &'a Value)>) {
    for (key, value) in more {
        if all.iter().all(|(other, _)| *other != key) {
            all.push((key, value));
        }
    }
    all.sort_by_key(|(key, _)| *key);
}

/// What a choice among subsets met with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubsetEvents {
    /// A subset matched.
    pub selected: bool,
    /// The fallback took the request.
    pub fallback: bool,
    /// Any host had to do.
    pub fallback_panic: bool,
    /// So many subsets were made.
    pub created: u32,
    /// So many went, with the hosts that they were of.
    pub removed: u32,
}

/// More subsets than this are forgotten: values may come from requests.
const MOST: usize = 4096;

/// What tells subsets apart: keys and values, sorted.
type Key = Box<[(Box<str>, Value)]>;

/// The subsets of a cluster, made as requests ask for them.
#[derive(Debug)]
pub(super) struct Subsets {
    config: Arc<Subset>,
    common: CommonLb,
    of: Option<Arc<Endpoints>>,
    known: HashMap<Key, Option<Entry>>,
    default: Option<Option<Entry>>,
    any: Option<Entry>,
    events: SubsetEvents,
}

#[derive(Debug)]
struct Entry {
    endpoints: Arc<Endpoints>,
    balancer: Balancer,
    single: Option<Arc<Host>>,
}

impl Entry {
    fn choose(&mut self, context: &Context<'_>, random: &mut dyn FnMut() -> u64) -> Option<Arc<Host>> {
        match &self.single {
            Some(host) => Some(Arc::clone(host)),
            None => self.balancer.choose_dyn(&self.endpoints, context, random),
        }
    }
}

impl Subsets {
    pub(super) fn new(config: Arc<Subset>, common: &CommonLb) -> Self {
        let mut common = common.clone();
        if !config.locality_weight_aware {
            common.locality = LocalityLb::None;
        }
        Self {
            config,
            common,
            of: None,
            known: HashMap::new(),
            default: None,
            any: None,
            events: SubsetEvents::default(),
        }
    }

    pub(super) fn choose(
        &mut self,
        endpoints: &Arc<Endpoints>,
        context: &Context<'_>,
        random: &mut dyn FnMut() -> u64,
    ) -> (Option<Arc<Host>>, SubsetEvents) {
        self.events = SubsetEvents::default();
        if self.of.as_ref().is_none_or(|of| !Arc::ptr_eq(of, endpoints)) {
            self.forget();
            self.default = None;
            self.any = None;
            self.of = Some(Arc::clone(endpoints));
        }
        let wanted = context.criteria.wanted();
        let host = if self.config.fallback_list {
            self.by_list(wanted, context, random)
        } else {
            self.once(&wanted, context, random)
        };
        (host, self.events)
    }

    fn forget(&mut self) {
        let active = self.known.values().flatten().count();
        self.events.removed += u32::try_from(active).unwrap_or(u32::MAX);
        self.known.clear();
    }

    /// One set of metadata after the other, until a host is found.
    fn by_list(
        &mut self,
        mut wanted: Wanted<'_>,
        context: &Context<'_>,
        random: &mut dyn FnMut() -> u64,
    ) -> Option<Arc<Host>> {
        let list = wanted.iter().position(|(key, _)| *key == "fallback_list").map(|at| wanted.remove(at).1);
        let Some(variants) = list.and_then(Value::as_array) else {
            return self.once(&wanted, context, random);
        };
        variants.iter().filter_map(Value::as_object).find_map(|variant| {
            let mut merged: Wanted<'_> = variant.iter().map(|(key, value)| (key.as_str(), value)).collect();
            merge(&mut merged, wanted.iter().copied());
            self.once(&merged, context, random)
        })
    }

    fn once(
        &mut self,
        wanted: &Wanted<'_>,
        context: &Context<'_>,
        random: &mut dyn FnMut() -> u64,
    ) -> Option<Arc<Host>> {
        let config = Arc::clone(&self.config);
        let same = |selector: &&Selector| {
            selector.keys.iter().map(|key| &**key).eq(wanted.iter().map(|(key, _)| *key))
        };
        let selector = config.selectors.iter().find(same).filter(|_| !wanted.is_empty());
        if let Some(selector) = selector {
            if let Some(entry) = self.subset(wanted, selector.single_host) {
                let host = entry.choose(context, random);
                self.events.selected = true;
                return host;
            }
            match &selector.fallback {
                None => {}
                Some(SelectorFallback::Plain(fallback)) => return self.fall_back(*fallback, context, random),
                Some(SelectorFallback::Keys(keys)) => {
                    let fewer = wanted.iter().filter(|(key, _)| keys.iter().any(|kept| **kept == **key));
                    let fewer: Wanted<'_> = fewer.copied().collect();
                    // Fewer keys with every step: it ends.
                    return if fewer.len() < wanted.len() {
                        self.once(&fewer, context, random)
                    } else {
                        None
                    };
                }
            }
        }
        let host = self.fall_back(config.fallback, context, random);
        if host.is_none() && config.panic_mode_any && config.fallback != Fallback::None {
            self.events.fallback_panic = true;
            return self.any()?.choose(context, random);
        }
        host
    }

    fn fall_back(
        &mut self,
        fallback: Fallback,
        context: &Context<'_>,
        random: &mut dyn FnMut() -> u64,
    ) -> Option<Arc<Host>> {
        let entry = match fallback {
            Fallback::None => return None,
            Fallback::AnyEndpoint => self.any()?,
            Fallback::DefaultSubset => self.default_subset()?,
        };
        let host = entry.choose(context, random);
        self.events.fallback = host.is_some();
        host
    }

    /// All hosts.
    fn any(&mut self) -> Option<&mut Entry> {
        let endpoints = self.of.as_ref()?;
        let (config, common) = (&self.config, &self.common);
        Some(self.any.get_or_insert_with(|| Entry {
            endpoints: Arc::clone(endpoints),
            balancer: Balancer::new(config.child.clone(), common.clone()),
            single: None,
        }))
    }

    fn default_subset(&mut self) -> Option<&mut Entry> {
        let endpoints = self.of.as_ref()?;
        let (config, common) = (&self.config, &self.common);
        let build = || {
            let wanted: Wanted<'_> =
                config.default_subset.iter().map(|(key, value)| (key.as_str(), value)).collect();
            build(config, common, endpoints, &wanted, false)
        };
        self.default.get_or_insert_with(build).as_mut()
    }

    fn subset(&mut self, wanted: &Wanted<'_>, single: bool) -> Option<&mut Entry> {
        let key: Key = wanted.iter().map(|(key, value)| (Box::from(*key), (*value).clone())).collect();
        if !self.known.contains_key(&key) {
            if self.known.len() >= MOST {
                self.forget();
            }
            let endpoints = self.of.as_ref()?;
            let built = build(&self.config, &self.common, endpoints, wanted, single);
            self.events.created += u32::from(built.is_some());
            self.known.insert(key.clone(), built);
        }
        self.known.get_mut(&key)?.as_mut()
    }
}

/// The hosts that hold what is wanted, if there are any.
fn build(
    config: &Subset,
    common: &CommonLb,
    endpoints: &Arc<Endpoints>,
    wanted: &Wanted<'_>,
    single: bool,
) -> Option<Entry> {
    let holds = |host: &Host| {
        let metadata = host.metadata.as_ref().and_then(|all| all.get("envoy.lb")?.as_object());
        wanted.iter().all(|(key, value)| match metadata.and_then(|all| all.get(*key)) {
            Some(Value::Array(list)) if config.list_as_any => {
                list.contains(value) || value.as_array() == Some(list)
            }
            found => found == Some(*value),
        })
    };
    let mut subset = endpoints.filtered(holds);
    let first = subset.hosts().next()?.clone();
    if config.scale_locality_weight {
        scale(&mut subset, endpoints);
    }
    Some(Entry {
        endpoints: Arc::new(subset),
        balancer: Balancer::new(config.child.clone(), common.clone()),
        single: single.then_some(first),
    })
}

/// A locality weighs as much less as it has fewer hosts than the whole.
fn scale(subset: &mut Endpoints, whole: &Endpoints) {
    for (set, all) in subset.priorities.iter_mut().zip(&whole.priorities) {
        for (locality, full) in set.localities.iter_mut().zip(&all.localities) {
            let (part, total) = (locality.hosts.len() as u64, full.hosts.len() as u64);
            locality.weight = locality.weight.map(|weight| {
                let scaled = (u64::from(weight) * part).checked_div(total).unwrap_or(0);
                u32::try_from(scaled.max(u64::from(part > 0))).unwrap_or(weight)
            });
        }
    }
}
