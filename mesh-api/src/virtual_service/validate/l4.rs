//! TLS and TCP routes.

use super::{destination, gateways, weights};
use crate::check;
use crate::field::Cx;
use crate::virtual_service::{L4Match, RouteDestination, TcpRoute, TlsMatch, TlsRoute};

pub(super) fn tls_route(cx: &mut Cx, route: &TlsRoute, hosts: &[String]) {
    if route.r#match.is_empty() {
        cx.error_at("match", "must be set: TLS is routed by sniHosts");
    }
    cx.each("match", &route.r#match, |cx, matcher| tls_match(cx, matcher, hosts));
    targets(cx, &route.route);
}

pub(super) fn tcp_route(cx: &mut Cx, route: &TcpRoute) {
    cx.each("match", &route.r#match, l4_match);
    targets(cx, &route.route);
}

fn tls_match(cx: &mut Cx, matcher: &TlsMatch, hosts: &[String]) {
    if matcher.sni_hosts.is_empty() {
        cx.error_at("sniHosts", "must be set");
    }
    cx.each("sniHosts", &matcher.sni_hosts, |cx, sni| {
        check::wildcard_host(sni, cx);
        if !hosts.iter().any(|host| covers(host, sni)) {
            cx.error(format!("{sni:?} is not covered by any of the hosts of the VirtualService"));
        }
    });
    cx.each("destinationSubnets", &matcher.destination_subnets, |cx, subnet| check::cidr(subnet, cx));
    if let Some(port) = matcher.port {
        cx.field("port", |cx| check::port(port, cx));
    }
    check::labels("sourceLabels", &matcher.source_labels, cx);
    gateways("gateways", &matcher.gateways, cx);
}

fn l4_match(cx: &mut Cx, matcher: &L4Match) {
    cx.each("destinationSubnets", &matcher.destination_subnets, |cx, subnet| check::cidr(subnet, cx));
    if !matcher.source_subnet.is_empty() {
        cx.field("sourceSubnet", |cx| check::cidr(&matcher.source_subnet, cx));
    }
    if let Some(port) = matcher.port {
        cx.field("port", |cx| check::port(port, cx));
    }
    check::labels("sourceLabels", &matcher.source_labels, cx);
    gateways("gateways", &matcher.gateways, cx);
}

fn targets(cx: &mut Cx, targets: &[RouteDestination]) {
    if targets.is_empty() {
        cx.error_at("route", "must be set");
    }
    cx.field("route", |cx| weights(&targets.iter().map(|t| t.weight).collect::<Vec<_>>(), cx));
    cx.each("route", targets, |cx, target| {
        cx.field("destination", |cx| destination(cx, &target.destination));
    });
}

/// Whether a host of the VirtualService, which may be short or a wildcard, stands for a server name.
fn covers(host: &str, sni: &str) -> bool {
    match host.strip_prefix('*') {
        Some(suffix) => sni.ends_with(suffix),
        // A short name stands for the service's full one, which the server name may be.
        None => host == sni || !host.contains('.') && sni.split('.').next() == Some(host),
    }
}
