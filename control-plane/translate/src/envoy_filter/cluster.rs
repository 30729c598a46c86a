//! Patches of clusters.

use std::sync::Arc;

use mesh_api::envoy_filter::{ApplyTo, ConfigPatch, PatchContext, PatchOperation};
use saild_model::ProxyType;
use xds_api::envoy::config::cluster::v3::Cluster;

use super::{PatchedInputs, Set, Tools, is_merge, matches, operation};
use crate::cache::Memo;
use crate::resource::NamedResource;

pub(super) fn patch(
    set: &Set<'_>,
    resources: Vec<Arc<NamedResource>>,
    memo: &Memo<PatchedInputs>,
) -> Vec<Arc<NamedResource>> {
    let mut out = Vec::with_capacity(resources.len());
    for resource in resources {
        let context = context(set.kind, &resource.name);
        let concerns = |patch: &&ConfigPatch| {
            matches::context_is(patch, context) && matches::cluster(patch, &resource.name)
        };
        let patches: Vec<ConfigPatch> = set.patches.iter().filter(concerns).cloned().collect();
        if patches.iter().any(|patch| operation(patch) == PatchOperation::Remove) {
            continue;
        }
        let merges = patches.into_iter().filter(is_merge).collect();
        out.push(set.patched(resource, context, merges, memo, merged));
    }
    // A cluster that exists already is changed by MERGE: of two with one name a proxy would take neither.
    let added = set.added::<Cluster>(ApplyTo::Cluster, |cluster| &cluster.name, memo);
    for cluster in added {
        if out.iter().all(|known| known.name != cluster.name) {
            out.push(cluster);
        }
    }
    out
}

fn context(kind: ProxyType, name: &str) -> PatchContext {
    match kind {
        ProxyType::Router => PatchContext::Gateway,
        ProxyType::Sidecar if name.starts_with("inbound|") || name == crate::naming::INBOUND_PASSTHROUGH => {
            PatchContext::SidecarInbound
        }
        ProxyType::Sidecar => PatchContext::SidecarOutbound,
    }
}

fn merged(tools: &Tools<'_>, mut cluster: Cluster, patches: &[ConfigPatch]) -> Cluster {
    for patch in patches {
        tools.merge(&mut cluster, patch);
    }
    cluster
}
