//! Subsets: `lb_subset_config` and its policy, which say the same in two messages.

use prost::Message as _;
use sail_proxy_decide::lb::{Fallback, LbPolicy, Selector, SelectorFallback, Subset};

use crate::convert::{Cx, values};
use crate::pb::cluster::cluster::LbSubsetConfig;
use crate::pb::load_balancing_policies::subset::v3 as policy;

/// The cluster's own field: the policy's message has its numbers, and one that the policy alone knows.
pub(super) fn old(cx: &mut Cx<'_>, value: &LbSubsetConfig, child: LbPolicy) -> Option<Subset> {
    let same = cx.ok("", policy::Subset::decode(value.encode_to_vec().as_slice()))?;
    new(cx, same, child)
}

pub(super) fn new(cx: &mut Cx<'_>, value: policy::Subset, child: LbPolicy) -> Option<Subset> {
    let policy::Subset {
        fallback_policy,
        default_subset,
        subset_selectors,
        allow_redundant_keys,
        locality_weight_aware,
        scale_locality_weight,
        panic_mode_any,
        list_as_any,
        metadata_fallback_policy,
        subset_lb_policy: _,
    } = value;
    cx.refuse("allow_redundant_keys", &allow_redundant_keys);
    if scale_locality_weight && !locality_weight_aware {
        cx.error("scale_locality_weight", "it needs locality_weight_aware");
    }
    let fallback = match fallback_policy {
        0 => Fallback::None,
        1 => Fallback::AnyEndpoint,
        2 => Fallback::DefaultSubset,
        _ => {
            cx.error("fallback_policy", "it is not known");
            return None;
        }
    };
    Some(Subset {
        selectors: cx.each("subset_selectors", subset_selectors, selector).into(),
        fallback,
        default_subset: values::object(default_subset.unwrap_or_default()),
        locality_weight_aware,
        scale_locality_weight,
        panic_mode_any,
        list_as_any,
        fallback_list: metadata_fallback_policy == 1,
        child,
    })
}

fn selector(cx: &mut Cx<'_>, value: policy::subset::LbSubsetSelector) -> Option<Selector> {
    let policy::subset::LbSubsetSelector {
        keys,
        single_host_per_subset,
        fallback_policy,
        fallback_keys_subset,
    } = value;
    let keys = sorted(keys);
    let fewer = sorted(fallback_keys_subset);
    let fallback = match fallback_policy {
        0 => None,
        1 => Some(SelectorFallback::Plain(Fallback::None)),
        2 => Some(SelectorFallback::Plain(Fallback::AnyEndpoint)),
        3 => Some(SelectorFallback::Plain(Fallback::DefaultSubset)),
        4 => {
            if fewer.is_empty() || fewer.len() >= keys.len() || !fewer.iter().all(|key| keys.contains(key)) {
                cx.error("fallback_keys_subset", "it must be some of the keys, not all");
            }
            Some(SelectorFallback::Keys(fewer.clone()))
        }
        _ => {
            cx.error("fallback_policy", "it is not known");
            None
        }
    };
    if fallback_policy != 4 && !fewer.is_empty() {
        cx.error("fallback_keys_subset", "it needs fallback_policy KEYS_SUBSET");
    }
    Some(Selector { keys, fallback, single_host: single_host_per_subset })
}

fn sorted(keys: Vec<String>) -> Box<[Box<str>]> {
    let mut keys: Vec<Box<str>> = keys.into_iter().map(Box::from).collect();
    keys.sort_unstable();
    keys.dedup();
    keys.into()
}
