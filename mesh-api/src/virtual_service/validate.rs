//! What a VirtualService must keep to beyond its types.

mod http;
mod l4;

use super::{Destination, MESH_GATEWAY, VirtualService};
use crate::check;
use crate::field::Cx;
use crate::object::ObjectMeta;

pub(super) fn virtual_service(vs: &VirtualService, _: &ObjectMeta, cx: &mut Cx) {
    if vs.hosts.is_empty() {
        delegate(vs, cx);
    }
    hosts(vs, cx);
    gateways("gateways", &vs.gateways, cx);
    if vs.http.is_empty() && vs.tls.is_empty() && vs.tcp.is_empty() {
        cx.error("http, tls or tcp must be set: there are no routes");
    }
    cx.each("http", &vs.http, http::route);
    http::unreachable(&vs.http, cx);
    cx.each("tls", &vs.tls, |cx, route| l4::tls_route(cx, route, &vs.hosts));
    cx.each("tcp", &vs.tcp, l4::tcp_route);
    check::export_to(&vs.export_to, cx);
}

/// A VirtualService without hosts is one that others delegate to.
fn delegate(vs: &VirtualService, cx: &mut Cx) {
    if !vs.gateways.is_empty() {
        cx.error_at("gateways", "must not be set without hosts: whoever delegates here has them");
    }
    for (field, empty) in [("tls", vs.tls.is_empty()), ("tcp", vs.tcp.is_empty())] {
        if !empty {
            cx.error_at(field, "must not be set without hosts: only HTTP is delegated");
        }
    }
    for (i, route) in vs.http.iter().enumerate() {
        if route.delegate.is_some() {
            cx.field("http", |cx| {
                cx.index(i, |cx| cx.error_at("delegate", "what is delegated to cannot delegate"))
            });
        }
    }
}

fn hosts(vs: &VirtualService, cx: &mut Cx) {
    let in_mesh = vs.gateways_or_mesh().any(|g| g == MESH_GATEWAY);
    for (i, host) in vs.hosts.iter().enumerate() {
        let doubled = vs.hosts[..i].contains(host);
        cx.field("hosts", |cx| {
            cx.index(i, |cx| {
                check::wildcard_host_or_ip(host, cx);
                if host == "*" && in_mesh {
                    cx.error("\"*\" cannot be used in the mesh: bind the VirtualService to a gateway");
                }
                if doubled {
                    cx.error(format!("{host:?} is listed twice"));
                }
            });
        });
    }
}

/// Names of gateways: `mesh`, `name` or `namespace/name`.
fn gateways(field: &str, names: &[String], cx: &mut Cx) {
    cx.each(field, names, |cx, name| {
        let (namespace, name) = name.rsplit_once('/').map_or((None, name.as_str()), |(ns, n)| (Some(ns), n));
        if let Some(namespace) = namespace.filter(|ns| *ns != ".") {
            check::namespace(namespace, cx);
        }
        check::fqdn(name, cx);
    });
}

/// A host with port and subset.
fn destination(cx: &mut Cx, destination: &Destination) {
    cx.field("host", |cx| {
        if destination.host == "*" || destination.host.is_empty() {
            cx.error("must be the name of a service");
        } else {
            check::wildcard_host_or_ip(&destination.host, cx);
        }
    });
    if !destination.subset.is_empty() && !check::is_dns_label(&destination.subset) {
        cx.error_at("subset", format!("{:?} is not the name of a subset", destination.subset));
    }
    if let Some(port) = destination.port {
        cx.field("port", |cx| cx.field("number", |cx| check::port(port, cx)));
    }
}

/// Weights: none is negative, and of several some is positive.
fn weights(weights: &[i32], cx: &mut Cx) {
    for (i, weight) in weights.iter().enumerate() {
        if *weight < 0 {
            cx.index(i, |cx| cx.error_at("weight", "must not be negative"));
        }
    }
    if weights.len() > 1 && weights.iter().all(|w| *w == 0) {
        cx.error("the weights are all 0: no request could be routed");
    }
    let sum: i64 = weights.iter().map(|w| i64::from(*w)).sum();
    if sum > i64::from(u32::MAX) {
        cx.error("the sum of the weights is too large");
    }
}

#[cfg(test)]
mod tests;
