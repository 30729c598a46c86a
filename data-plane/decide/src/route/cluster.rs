//! Which cluster a route sends a request to.

use std::borrow::Cow;
use std::sync::Arc;

use http::HeaderName;

use super::{HostRewrite, Metadata, PerFilter};
use crate::fraction::Runtime;
use crate::head::{HeaderKey, RequestHead};
use crate::headers::HeaderOps;

/// How a cluster is named.
#[derive(Debug)]
pub enum ClusterSpecifier {
    /// By name.
    Name(Arc<str>),
    /// By a header's value.
    Header(HeaderKey),
    /// By weight.
    Weighted(WeightedClusters),
}

/// `WeightedCluster`
#[derive(Debug)]
pub struct WeightedClusters {
    /// The clusters; at least one has a weight.
    pub clusters: Box<[Arc<WeightedCluster>]>,
    /// The sum of the weights.
    pub total_weight: u64,
    /// A header whose number takes the place of the random one.
    pub random_header: Option<HeaderName>,
    /// Whether the hash of the route's hash policies does.
    pub use_hash_policy: bool,
}

/// One of several clusters.
#[derive(Debug)]
pub struct WeightedCluster {
    /// Its name; empty if a header names it.
    pub name: Arc<str>,
    /// The header that names it.
    pub cluster_header: Option<HeaderKey>,
    /// Its share.
    pub weight: u32,
    /// The runtime key of its share; empty: none.
    pub runtime_key: Box<str>,
    /// Which subset of its hosts.
    pub metadata_match: Metadata,
    /// Header operations on requests.
    pub request_headers: HeaderOps,
    /// Header operations on responses.
    pub response_headers: HeaderOps,
    /// Per-filter configuration.
    pub per_filter: PerFilter,
    /// The host that goes upstream.
    pub host_rewrite: Option<HostRewrite>,
}

/// What decides among weighted clusters.
#[derive(Clone, Copy, Debug)]
pub struct Draw<'a> {
    /// The stream's random number.
    pub random: u64,
    /// The hash of the route's hash policies, where it is asked for.
    pub hash: Option<u64>,
    /// The runtime's values.
    pub runtime: &'a dyn Runtime,
}

/// The cluster that was chosen.
#[derive(Clone, Debug)]
pub struct ClusterChoice<'a> {
    /// Its name; borrowed unless a header named it.
    pub name: ClusterName<'a>,
    /// The entry, where weights decided.
    pub weighted: Option<&'a Arc<WeightedCluster>>,
}

/// A cluster's name.
#[derive(Clone, Debug)]
pub enum ClusterName<'a> {
    /// From configuration.
    Config(&'a Arc<str>),
    /// From a header.
    Header(Cow<'a, str>),
}

impl ClusterName<'_> {
    /// The name.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Config(name) => name,
            Self::Header(name) => name,
        }
    }

    /// The name to keep.
    pub fn to_arc(&self) -> Arc<str> {
        match self {
            Self::Config(name) => Arc::clone(name),
            Self::Header(name) => Arc::from(&**name),
        }
    }
}

impl ClusterSpecifier {
    /// The cluster for a request; `None` if a header should name it and does not.
    pub fn choose<'a>(&'a self, head: &RequestHead<'a>, draw: &Draw<'_>) -> Option<ClusterChoice<'a>> {
        let (name, header, weighted) = match self {
            Self::Name(name) => (name, None, None),
            Self::Header(header) => {
                return named_by(head, header).map(|name| ClusterChoice { name, weighted: None });
            }
            Self::Weighted(clusters) => {
                let entry = clusters.pick(clusters.random(head, draw), draw.runtime)?;
                (&entry.name, entry.cluster_header.as_ref(), Some(entry))
            }
        };
        let name = match header {
            Some(header) => named_by(head, header)?,
            None => ClusterName::Config(name),
        };
        Some(ClusterChoice { name, weighted })
    }

    /// Whether the hash policies have a say in it.
    pub fn wants_hash(&self) -> bool {
        matches!(self, Self::Weighted(clusters) if clusters.use_hash_policy)
    }

    /// The clusters that configuration names.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        let (one, many) = match self {
            Self::Name(name) => (Some(name), &[][..]),
            Self::Header(_) => (None, &[][..]),
            Self::Weighted(clusters) => (None, &*clusters.clusters),
        };
        one.into_iter().chain(many.iter().map(|entry| &entry.name)).filter(|name| !name.is_empty())
    }
}

fn named_by<'a>(head: &RequestHead<'a>, header: &HeaderKey) -> Option<ClusterName<'a>> {
    let text = match head.first(header)? {
        Cow::Borrowed(bytes) => Cow::Borrowed(std::str::from_utf8(bytes).ok()?),
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8(bytes).ok()?),
    };
    (!text.is_empty()).then_some(ClusterName::Header(text))
}

impl WeightedClusters {
    /// The entry for a number, taken modulo the sum of the weights.
    pub fn pick(&self, random: u64, runtime: &dyn Runtime) -> Option<&Arc<WeightedCluster>> {
        let weight_of =
            |entry: &WeightedCluster| runtime.integer_or(&entry.runtime_key, u64::from(entry.weight));
        let by_runtime = self.clusters.iter().any(|entry| !entry.runtime_key.is_empty());
        let total = if by_runtime {
            self.clusters.iter().map(|entry| weight_of(entry)).fold(0, u64::saturating_add)
        } else {
            self.total_weight
        };
        let mut rest = random.checked_rem(total)?;
        self.clusters.iter().find(|entry| {
            let weight = weight_of(entry);
            let here = rest < weight;
            rest = rest.saturating_sub(weight);
            here
        })
    }

    fn random(&self, head: &RequestHead<'_>, draw: &Draw<'_>) -> u64 {
        let named = self.random_header.as_ref();
        let named = named.and_then(|name| head.headers.get(name)?.to_str().ok()?.parse().ok());
        named.or(draw.hash.filter(|_| self.use_hash_policy)).unwrap_or(draw.random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fraction::NoRuntime;

    fn entry(name: &str, weight: u32) -> Arc<WeightedCluster> {
        Arc::new(WeightedCluster {
            name: name.into(),
            cluster_header: None,
            weight,
            runtime_key: Box::default(),
            metadata_match: None,
            request_headers: HeaderOps::default(),
            response_headers: HeaderOps::default(),
            per_filter: PerFilter::default(),
            host_rewrite: None,
        })
    }

    #[test]
    fn shares_are_exact_over_all_numbers() {
        let clusters = WeightedClusters {
            clusters: [entry("a", 20), entry("zero", 0), entry("b", 80)].into(),
            total_weight: 100,
            random_header: None,
            use_hash_policy: false,
        };
        let mut counts = std::collections::BTreeMap::new();
        for random in 0..1000 {
            *counts.entry(clusters.pick(random, &NoRuntime).unwrap().name.clone()).or_insert(0) += 1;
        }
        assert_eq!(counts, [("a".into(), 200), ("b".into(), 800)].into());
    }
}
