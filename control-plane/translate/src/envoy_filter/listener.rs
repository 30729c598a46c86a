//! Patches of listeners, their filter chains and filters.

use std::sync::Arc;

use mesh_api::envoy_filter::{ApplyTo, ConfigPatch, PatchContext, PatchOperation};
use prost::Message as _;
use saild_model::ProxyType;
use xds_api::any;
use xds_api::envoy::config::core::v3::TrafficDirection;
use xds_api::envoy::config::listener::v3 as lds;
use xds_api::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use xds_api::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;

use super::list::{self, About, Item};
use super::{PatchedInputs, Set, Tools, is_merge, matches, operation, route};
use crate::cache::Memo;
use crate::resource::NamedResource;

impl Item for lds::ListenerFilter {
    fn config_type(&self) -> Option<&str> {
        match self.config_type.as_ref()? {
            lds::listener_filter::ConfigType::TypedConfig(any) => Some(&any.type_url),
            lds::listener_filter::ConfigType::ConfigDiscovery(_) => None,
        }
    }
}

impl Item for lds::Filter {
    fn config_type(&self) -> Option<&str> {
        match self.config_type.as_ref()? {
            lds::filter::ConfigType::TypedConfig(any) => Some(&any.type_url),
            lds::filter::ConfigType::ConfigDiscovery(_) => None,
        }
    }
}

impl Item for hcm::HttpFilter {
    fn config_type(&self) -> Option<&str> {
        match self.config_type.as_ref()? {
            hcm::http_filter::ConfigType::TypedConfig(any) => Some(&any.type_url),
            hcm::http_filter::ConfigType::ConfigDiscovery(_) => None,
        }
    }
}

pub(super) fn patch(
    set: &Set<'_>,
    resources: Vec<Arc<NamedResource>>,
    memo: &Memo<PatchedInputs>,
) -> Vec<Arc<NamedResource>> {
    let mut out = Vec::with_capacity(resources.len());
    for resource in resources {
        let Ok(listener) = lds::Listener::decode(resource.any.value.as_slice()) else {
            out.push(resource);
            continue;
        };
        let context = context(set.kind, &listener);
        let concerns = |patch: &&ConfigPatch| {
            if matches!(
                patch.apply_to,
                ApplyTo::RouteConfiguration | ApplyTo::VirtualHost | ApplyTo::HttpRoute
            ) {
                // Others have their routes apart.
                return context == PatchContext::SidecarInbound && matches::context_is(patch, context);
            }
            matches::context_is(patch, context) && matches::listener(patch, &listener)
        };
        let patches: Vec<ConfigPatch> = set.patches.iter().filter(concerns).cloned().collect();
        let removed = |patch: &ConfigPatch| {
            patch.apply_to == ApplyTo::Listener && operation(patch) == PatchOperation::Remove
        };
        if !patches.iter().any(removed) {
            out.push(set.patched(resource, context, patches, memo, apply));
        }
    }
    let added = set.added::<lds::Listener>(ApplyTo::Listener, |listener| &listener.name, memo);
    for listener in added {
        if out.iter().all(|known| known.name != listener.name) {
            out.push(listener);
        }
    }
    out
}

fn context(kind: ProxyType, listener: &lds::Listener) -> PatchContext {
    match kind {
        ProxyType::Router => PatchContext::Gateway,
        ProxyType::Sidecar if listener.traffic_direction() == TrafficDirection::Inbound => {
            PatchContext::SidecarInbound
        }
        ProxyType::Sidecar => PatchContext::SidecarOutbound,
    }
}

fn apply(tools: &Tools<'_>, mut listener: lds::Listener, patches: &[ConfigPatch]) -> lds::Listener {
    let of = |part: ApplyTo| patches.iter().filter(move |patch| patch.apply_to == part);
    for patch in of(ApplyTo::Listener).filter(|patch| is_merge(patch)) {
        tools.merge(&mut listener, patch);
    }
    for patch in of(ApplyTo::ListenerFilter) {
        let named = matches::listener_filter(patch);
        let holds = |filter: &lds::ListenerFilter| Some(filter.name.as_str()) == named;
        let about = if named.is_some() { About::Those(&holds) } else { About::List };
        list::apply(tools, &mut listener.listener_filters, patch, &about);
    }
    let name = listener.name.clone();
    let removed = |chain: &lds::FilterChain| {
        let mut removes = of(ApplyTo::FilterChain).filter(|p| operation(p) == PatchOperation::Remove);
        removes.any(|patch| matches::chain(patch, &name, chain))
    };
    listener.filter_chains.retain(|chain| !removed(chain));
    for chain in listener.filter_chains.iter_mut().chain(&mut listener.default_filter_chain) {
        for patch in of(ApplyTo::FilterChain).filter(|patch| is_merge(patch)) {
            if matches::chain(patch, &name, chain) {
                tools.merge(chain, patch);
            }
        }
        for patch in of(ApplyTo::NetworkFilter) {
            if !matches::chain(patch, &name, chain) {
                continue;
            }
            let named = matches::network_filter(patch);
            let holds = |filter: &lds::Filter| Some(filter.name.as_str()) == named;
            let about = if named.is_some() { About::Those(&holds) } else { About::List };
            list::apply(tools, &mut chain.filters, patch, &about);
        }
        let http: Vec<&ConfigPatch> =
            of(ApplyTo::HttpFilter).filter(|patch| matches::chain(patch, &name, chain)).collect();
        managers(tools, chain, &http, patches);
    }
    for patch in of(ApplyTo::FilterChain).filter(|p| operation(p) == PatchOperation::Add) {
        listener.filter_chains.extend(tools.value::<lds::FilterChain>(patch));
    }
    listener
}

/// Patches within the connection managers of a chain: their filters, and the routes that they hold themselves.
fn managers(tools: &Tools<'_>, chain: &mut lds::FilterChain, http: &[&ConfigPatch], all: &[ConfigPatch]) {
    for filter in &mut chain.filters {
        let Some(lds::filter::ConfigType::TypedConfig(config)) = &mut filter.config_type else { continue };
        let Ok(before) = any::unpack::<hcm::HttpConnectionManager>(config) else { continue };
        let mut manager = before.clone();
        for patch in http {
            if matches::network_filter(patch).is_some_and(|name| name != filter.name) {
                continue;
            }
            let named = matches::http_filter(patch);
            let holds = |filter: &hcm::HttpFilter| Some(filter.name.as_str()) == named;
            let about = if named.is_some() { About::Those(&holds) } else { About::List };
            list::apply(tools, &mut manager.http_filters, patch, &about);
        }
        if let Some(RouteSpecifier::RouteConfig(routes)) = &mut manager.route_specifier {
            let patches = route::concerning(all, tools.context, &routes.name);
            *routes = route::apply(tools, std::mem::take(routes), &patches);
        }
        if manager != before {
            *config = any::pack(&manager);
        }
    }
}
