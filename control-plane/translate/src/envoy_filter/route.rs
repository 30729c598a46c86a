//! Patches of route configurations, their virtual hosts and routes.

use std::sync::Arc;

use mesh_api::envoy_filter::{ApplyTo, ConfigPatch, PatchContext, PatchOperation};
use saild_model::ProxyType;
use xds_api::envoy::config::route::v3 as rds;

use super::list::{self, About, Item};
use super::{PatchedInputs, Set, Tools, is_merge, matches, operation};
use crate::cache::Memo;
use crate::resource::NamedResource;

impl Item for rds::Route {}

pub(super) fn patch(
    set: &Set<'_>,
    resources: Vec<Arc<NamedResource>>,
    memo: &Memo<PatchedInputs>,
) -> Vec<Arc<NamedResource>> {
    let context = match set.kind {
        ProxyType::Router => PatchContext::Gateway,
        ProxyType::Sidecar => PatchContext::SidecarOutbound,
    };
    let one = |resource: Arc<NamedResource>| {
        let patches = concerning(&set.patches, context, &resource.name);
        set.patched(resource, context, patches, memo, apply)
    };
    resources.into_iter().map(one).collect()
}

/// The patches for a route configuration.
pub(super) fn concerning(patches: &[ConfigPatch], context: PatchContext, name: &str) -> Vec<ConfigPatch> {
    let concerns = |patch: &&ConfigPatch| {
        matches!(patch.apply_to, ApplyTo::RouteConfiguration | ApplyTo::VirtualHost | ApplyTo::HttpRoute)
            && matches::context_is(patch, context)
            && matches::routes(patch, context, name)
    };
    patches.iter().filter(concerns).cloned().collect()
}

/// The configuration after its patches: those of the whole first, those of single routes last.
pub(super) fn apply(
    tools: &Tools<'_>,
    mut routes: rds::RouteConfiguration,
    patches: &[ConfigPatch],
) -> rds::RouteConfiguration {
    let of = |part: ApplyTo| patches.iter().filter(move |patch| patch.apply_to == part);
    for patch in of(ApplyTo::RouteConfiguration).filter(|patch| is_merge(patch)) {
        tools.merge(&mut routes, patch);
    }
    for patch in of(ApplyTo::VirtualHost) {
        match operation(patch) {
            PatchOperation::Add => routes.virtual_hosts.extend(tools.value::<rds::VirtualHost>(patch)),
            PatchOperation::Remove => {
                routes.virtual_hosts.retain(|host| !matches::virtual_host(patch, host));
            }
            _ => {
                for host in routes.virtual_hosts.iter_mut().filter(|host| matches::virtual_host(patch, host))
                {
                    tools.merge(host, patch);
                }
            }
        }
    }
    for patch in of(ApplyTo::HttpRoute) {
        for host in routes.virtual_hosts.iter_mut().filter(|host| matches::virtual_host(patch, host)) {
            let holds = |route: &rds::Route| matches::route(patch, route);
            let about = if matches::names_routes(patch) { About::Those(&holds) } else { About::List };
            list::apply(tools, &mut host.routes, patch, &about);
        }
    }
    routes
}
