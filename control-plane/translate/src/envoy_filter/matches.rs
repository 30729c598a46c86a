//! Whether a patch is for a proxy, and for a part of its configuration.

use mesh_api::envoy_filter::{
    ApplyTo, ConfigPatch, FilterChainMatch, ListenerMatch, PatchContext, RouteAction, VirtualHostMatch,
};
use saild_model::{ProxyType, ProxyView};
use serde_json::Value;
use xds_api::envoy::config::core::v3 as core;
use xds_api::envoy::config::listener::v3 as lds;
use xds_api::envoy::config::route::v3 as rds;

use crate::naming;

/// Whether a patch is for a proxy of this version and metadata.
pub(super) fn proxy(patch: &ConfigPatch, proxy: &ProxyView) -> bool {
    let Some(wanted) = patch.r#match.as_ref().and_then(|m| m.proxy.as_ref()) else { return true };
    if !wanted.proxy_version.is_empty() {
        let fits = regex::Regex::new(&wanted.proxy_version).is_ok_and(|regex| regex.is_match(&proxy.version));
        if !fits {
            return false;
        }
    }
    wanted.metadata.iter().all(|(key, value)| match proxy.metadata.get(key) {
        Some(Value::String(text)) => text == value,
        Some(other) => value.parse::<Value>().is_ok_and(|wanted| wanted == *other),
        None => false,
    })
}

/// Whether a patch is for a kind of proxy.
pub(super) fn kind(patch: &ConfigPatch, kind: ProxyType) -> bool {
    match context(patch) {
        PatchContext::Any => true,
        PatchContext::Gateway => kind == ProxyType::Router,
        PatchContext::SidecarInbound | PatchContext::SidecarOutbound => kind == ProxyType::Sidecar,
        PatchContext::Waypoint => false,
    }
}

/// Whether a patch is for configuration of this context.
pub(super) fn context_is(patch: &ConfigPatch, now: PatchContext) -> bool {
    let wanted = context(patch);
    wanted == PatchContext::Any || wanted == now
}

fn context(patch: &ConfigPatch) -> PatchContext {
    patch.r#match.as_ref().map(|m| m.context).unwrap_or_default()
}

pub(super) fn cluster(patch: &ConfigPatch, name: &str) -> bool {
    let Some(wanted) = patch.r#match.as_ref().and_then(|m| m.cluster.as_ref()) else { return true };
    if !wanted.name.is_empty() {
        return wanted.name == name;
    }
    let inbound = || {
        let port = name.strip_prefix("inbound|")?.split('|').next()?.parse().ok()?;
        Some(naming::Outbound { port, subset: "", host: "", sni: false })
    };
    let parts = naming::parse_outbound(name).or_else(inbound);
    let parts = parts.unwrap_or(naming::Outbound { port: 0, subset: "", host: "", sni: false });
    (wanted.service.is_empty() || wanted.service == parts.host)
        && (wanted.subset.is_empty() || wanted.subset == parts.subset)
        && (wanted.port_number == 0 || wanted.port_number == u32::from(parts.port))
}

fn listener_match(patch: &ConfigPatch) -> Option<&ListenerMatch> {
    patch.r#match.as_ref()?.listener.as_ref()
}

/// The two listeners that hold the chains of many ports.
fn is_virtual(name: &str) -> bool {
    matches!(name, naming::VIRTUAL_INBOUND | naming::VIRTUAL_OUTBOUND)
}

pub(super) fn listener(patch: &ConfigPatch, listener: &lds::Listener) -> bool {
    let Some(wanted) = listener_match(patch) else { return true };
    if !wanted.name.is_empty() && wanted.name != listener.name {
        return false;
    }
    // The port of these is looked for in their chains.
    if wanted.port_number == 0 || patch.apply_to != ApplyTo::Listener && is_virtual(&listener.name) {
        return true;
    }
    port(listener) == Some(wanted.port_number)
}

fn port(listener: &lds::Listener) -> Option<u32> {
    use core::{address::Address, socket_address::PortSpecifier};
    match listener.address.as_ref()?.address.as_ref()? {
        Address::SocketAddress(socket) => match socket.port_specifier.as_ref()? {
            PortSpecifier::PortValue(port) => Some(*port),
            PortSpecifier::NamedPort(_) => None,
        },
        _ => None,
    }
}

pub(super) fn chain(patch: &ConfigPatch, listener: &str, chain: &lds::FilterChain) -> bool {
    let Some(wanted) = listener_match(patch) else { return true };
    let matches = chain.filter_chain_match.clone().unwrap_or_default();
    let port = matches.destination_port.map(|port| port.value).unwrap_or_default();
    if is_virtual(listener) && wanted.port_number != 0 && wanted.port_number != port {
        return false;
    }
    let Some(wanted) = &wanted.filter_chain else { return true };
    let FilterChainMatch {
        name,
        sni,
        transport_protocol,
        application_protocols,
        destination_port,
        transport_socket,
        ..
    } = wanted;
    let socket = chain.transport_socket.as_ref().map(|socket| socket.name.as_str()).unwrap_or_default();
    (name.is_empty() || *name == chain.name)
        && (sni.is_empty() || matches.server_names.contains(sni))
        && (transport_protocol.is_empty() || *transport_protocol == matches.transport_protocol)
        && (application_protocols.is_empty()
            || application_protocols
                .split(',')
                .all(|alpn| matches.application_protocols.iter().any(|known| known == alpn.trim())))
        && (*destination_port == 0 || *destination_port == port)
        && transport_socket.as_ref().is_none_or(|wanted| wanted.name == socket)
}

/// The listener filter that a patch names.
pub(super) fn listener_filter(patch: &ConfigPatch) -> Option<&str> {
    Some(listener_match(patch)?.listener_filter.as_str()).filter(|name| !name.is_empty())
}

/// The network filter that a patch names.
pub(super) fn network_filter(patch: &ConfigPatch) -> Option<&str> {
    let filter = listener_match(patch)?.filter_chain.as_ref()?.filter.as_ref()?;
    Some(filter.name.as_str()).filter(|name| !name.is_empty())
}

/// The HTTP filter that a patch names.
pub(super) fn http_filter(patch: &ConfigPatch) -> Option<&str> {
    let filter = listener_match(patch)?.filter_chain.as_ref()?.filter.as_ref()?.sub_filter.as_ref()?;
    Some(filter.name.as_str()).filter(|name| !name.is_empty())
}

pub(super) fn routes(patch: &ConfigPatch, context: PatchContext, name: &str) -> bool {
    let Some(wanted) = patch.r#match.as_ref().and_then(|m| m.route_configuration.as_ref()) else {
        return true;
    };
    if !wanted.name.is_empty() && wanted.name != name {
        return false;
    }
    let place = if context == PatchContext::Gateway { gateway_routes(name) } else { sidecar_routes(name) };
    let same = |wanted: &str, is: &str| wanted.is_empty() || wanted == is;
    (wanted.port_number == 0 || wanted.port_number == place.port)
        && (context != PatchContext::Gateway
            || same(&wanted.port_name, place.port_name) && same(&wanted.gateway, &place.gateway))
}

#[derive(Default)]
struct Place<'a> {
    port: u32,
    port_name: &'a str,
    gateway: String,
}

/// `9080`, `reviews.default.svc.cluster.local:80`, `inbound|9080||`.
fn sidecar_routes(name: &str) -> Place<'_> {
    let text = match name.strip_prefix("inbound|") {
        Some(rest) => rest.split('|').next().unwrap_or_default(),
        None => name.rsplit(':').next().unwrap_or_default(),
    };
    Place { port: text.parse().unwrap_or_default(), ..Place::default() }
}

/// `http.8080`, `https.443.https.gateway.namespace`.
fn gateway_routes(name: &str) -> Place<'_> {
    let parts: Vec<&str> = name.split('.').collect();
    match parts.as_slice() {
        ["http", port, ..] => Place { port: port.parse().unwrap_or_default(), ..Place::default() },
        ["https", port, port_name, gateway, namespace, ..] => Place {
            port: port.parse().unwrap_or_default(),
            port_name,
            gateway: format!("{namespace}/{gateway}"),
        },
        _ => Place::default(),
    }
}

fn virtual_host_match(patch: &ConfigPatch) -> Option<&VirtualHostMatch> {
    patch.r#match.as_ref()?.route_configuration.as_ref()?.vhost.as_ref()
}

pub(super) fn virtual_host(patch: &ConfigPatch, host: &rds::VirtualHost) -> bool {
    virtual_host_match(patch).is_none_or(|wanted| {
        (wanted.name.is_empty() || wanted.name == host.name)
            && (wanted.domain_name.is_empty() || host.domains.contains(&wanted.domain_name))
    })
}

/// Whether a patch names routes by anything.
pub(super) fn names_routes(patch: &ConfigPatch) -> bool {
    virtual_host_match(patch).is_some_and(|wanted| wanted.route.is_some())
}

pub(super) fn route(patch: &ConfigPatch, route: &rds::Route) -> bool {
    let Some(wanted) = virtual_host_match(patch).and_then(|host| host.route.as_ref()) else { return true };
    let action = match wanted.action {
        RouteAction::Any => true,
        RouteAction::Route => matches!(route.action, Some(rds::route::Action::Route(_))),
        RouteAction::Redirect => matches!(route.action, Some(rds::route::Action::Redirect(_))),
        RouteAction::DirectResponse => matches!(route.action, Some(rds::route::Action::DirectResponse(_))),
    };
    action && (wanted.name.is_empty() || wanted.name == route.name)
}
