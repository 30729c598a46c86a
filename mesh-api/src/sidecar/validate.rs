//! What a Sidecar must keep to beyond its types.

use super::{EgressListener, IngressListener, Sidecar, SidecarPort};
use crate::check;
use crate::destination_rule::validate_connection_pool;
use crate::field::Cx;
use crate::gateway::validate_server_tls;
use crate::object::ObjectMeta;

pub(super) fn sidecar(sidecar: &Sidecar, _: &ObjectMeta, cx: &mut Cx) {
    check::selector("workloadSelector", sidecar.workload_selector.as_ref(), cx);
    cx.each("ingress", &sidecar.ingress, ingress);
    doubled_ports("ingress", sidecar.ingress.iter().map(|l| l.port.as_ref()), cx);
    cx.each("egress", &sidecar.egress, egress);
    for (i, listener) in sidecar.egress.iter().enumerate() {
        if listener.port.is_none() && i + 1 != sidecar.egress.len() {
            cx.field("egress", |cx| {
                cx.index(i, |cx| cx.error_at("port", "must be set: only the last listener may go without"));
            });
        }
    }
    cx.some("inboundConnectionPool", sidecar.inbound_connection_pool.as_ref(), validate_connection_pool);
    cx.some("outboundTrafficPolicy", sidecar.outbound_traffic_policy.as_ref(), |cx, policy| {
        cx.some("egressProxy", policy.egress_proxy.as_ref(), |cx, proxy| {
            cx.field("host", |cx| check::fqdn(&proxy.host, cx));
            if proxy.port.is_none() {
                cx.error_at("port", "must be set");
            }
        });
    });
}

fn doubled_ports<'a>(field: &str, ports: impl Iterator<Item = Option<&'a SidecarPort>>, cx: &mut Cx) {
    let mut seen = Vec::new();
    for (i, port) in ports.enumerate() {
        let Some(port) = port else { continue };
        if seen.contains(&port.number) {
            cx.field(field, |cx| {
                cx.index(i, |cx| cx.error_at("port", format!("{} is used twice", port.number)))
            });
        }
        seen.push(port.number);
    }
}

fn port(cx: &mut Cx, port: &SidecarPort) {
    cx.field("number", |cx| check::port(port.number, cx));
    cx.field("protocol", |cx| check::protocol(&port.protocol, cx));
    if port.target_port.is_some() {
        cx.warn_at("targetPort", "has no effect here");
    }
}

fn ingress(cx: &mut Cx, listener: &IngressListener) {
    match &listener.port {
        None => cx.error_at("port", "must be set"),
        Some(p) => cx.field("port", |cx| port(cx, p)),
    }
    bind(&listener.bind, false, cx);
    if !listener.default_endpoint.is_empty() {
        cx.field("defaultEndpoint", |cx| default_endpoint(&listener.default_endpoint, cx));
    }
    cx.some("tls", listener.tls.as_ref(), |cx, tls| validate_server_tls(cx, tls, ""));
    cx.some("connectionPool", listener.connection_pool.as_ref(), validate_connection_pool);
}

fn egress(cx: &mut Cx, listener: &EgressListener) {
    cx.some("port", listener.port.as_ref(), port);
    bind(&listener.bind, true, cx);
    if listener.hosts.is_empty() {
        cx.error_at("hosts", "must be set (\"*/*\" for all services)");
    }
    cx.each("hosts", &listener.hosts, |cx, host| {
        let Some((namespace, name)) = host.split_once('/') else {
            cx.error(format!(
                "{host:?} must be namespace/host (\"./host\" for this namespace, \"*/host\" for any)"
            ));
            return;
        };
        if !matches!(namespace, "*" | "." | "~") {
            check::namespace(namespace, cx);
        }
        check::wildcard_host(name, cx);
    });
}

fn bind(bind: &str, unix: bool, cx: &mut Cx) {
    let socket = bind.strip_prefix("unix://");
    if let Some(path) = socket.filter(|_| unix) {
        if !path.starts_with('/') && !path.starts_with('@') {
            cx.error_at("bind", "a Unix socket needs an absolute path");
        }
    } else if !bind.is_empty() && !check::is_ip(bind) {
        cx.error_at("bind", format!("{bind:?} is not an IP address"));
    }
}

fn default_endpoint(endpoint: &str, cx: &mut Cx) {
    if let Some(path) = endpoint.strip_prefix("unix://") {
        if !path.starts_with('/') && !path.starts_with('@') {
            cx.error("a Unix socket needs an absolute path");
        }
        return;
    }
    let (address, port) = endpoint.rsplit_once(':').unwrap_or((endpoint, ""));
    if !matches!(address, "" | "127.0.0.1" | "0.0.0.0" | "[::1]" | "[::]") {
        cx.error("the address must be 127.0.0.1, 0.0.0.0, [::1] or [::]: traffic cannot leave the pod here");
    }
    if !port.parse::<u16>().is_ok_and(|p| p > 0) {
        cx.error("must end with a port (\"127.0.0.1:8080\")");
    }
}
