//! What a Gateway must keep to beyond its types.

use super::{Gateway, Server, ServerTls, ServerTlsMode, TlsProtocol};
use crate::check;
use crate::field::Cx;
use crate::object::ObjectMeta;

pub(super) fn gateway(gateway: &Gateway, _: &ObjectMeta, cx: &mut Cx) {
    if gateway.servers.is_empty() {
        cx.error_at("servers", "must be set");
    }
    cx.each("servers", &gateway.servers, server);
    check::labels("selector", &gateway.selector, cx);
    if gateway.selector.is_empty() {
        cx.warn_at("selector", "is empty: every gateway of the mesh serves this");
    }
    for (i, one) in gateway.servers.iter().enumerate() {
        let name = &one.port.name;
        if !name.is_empty() && gateway.servers[..i].iter().any(|other| other.port.name == *name) {
            cx.field("servers", |cx| {
                cx.index(i, |cx| {
                    cx.field("port", |cx| {
                        cx.error_at("name", format!("{name:?} is used by another server already"))
                    });
                });
            });
        }
    }
}

fn server(cx: &mut Cx, server: &Server) {
    cx.field("port", |cx| {
        cx.field("number", |cx| check::port(server.port.number, cx));
        cx.field("protocol", |cx| check::protocol(&server.port.protocol, cx));
    });
    if server.hosts.is_empty() {
        cx.error_at("hosts", "must be set");
    }
    cx.each("hosts", &server.hosts, |cx, host| {
        let host = match host.split_once('/') {
            Some((namespace, host)) => {
                if !matches!(namespace, "*" | ".") {
                    check::namespace(namespace, cx);
                }
                host
            }
            None => host,
        };
        check::wildcard_host_or_ip(host, cx);
    });
    if !server.bind.is_empty() && !check::is_ip(&server.bind) && !server.bind.starts_with("unix://") {
        cx.error_at("bind", format!("{:?} is not an IP address", server.bind));
    }
    let protocol = server.port.protocol.to_ascii_uppercase();
    let over_tls = matches!(protocol.as_str(), "HTTPS" | "TLS");
    match &server.tls {
        None if over_tls => cx.error_at("tls", format!("must be set for the protocol {protocol}")),
        None => {}
        Some(tls) => cx.field("tls", |cx| {
            if over_tls {
                server_tls(cx, tls, &protocol);
            } else if *tls != (ServerTls { https_redirect: tls.https_redirect, ..ServerTls::default() }) {
                cx.error(format!("only httpsRedirect may be set for the protocol {protocol}"));
            }
        }),
    }
    if !server.default_endpoint.is_empty() {
        cx.warn_at("defaultEndpoint", "has no effect");
    }
}

/// TLS of a server, of a gateway or a sidecar's ingress.
pub(crate) fn server_tls(cx: &mut Cx, tls: &ServerTls, protocol: &str) {
    if tls.https_redirect && protocol == "HTTPS" {
        cx.warn_at("httpsRedirect", "has no effect on a port that is HTTPS already");
    }
    let mutual = matches!(tls.mode, ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual);
    let ways = [
        ("credentialName", !tls.credential_name.is_empty()),
        ("credentialNames", !tls.credential_names.is_empty()),
        ("tlsCertificates", !tls.tls_certificates.is_empty()),
        ("serverCertificate", !tls.server_certificate.is_empty() || !tls.private_key.is_empty()),
    ];
    match tls.mode {
        ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual => {
            let one = check::exactly_one(&ways, cx);
            if one && ways[3].1 {
                files(cx, tls, mutual);
            }
            cx.each("tlsCertificates", &tls.tls_certificates, |cx, certificate| {
                for (field, value) in [
                    ("serverCertificate", &certificate.server_certificate),
                    ("privateKey", &certificate.private_key),
                ] {
                    if value.is_empty() {
                        cx.error_at(field, "must be set");
                    }
                }
            });
        }
        ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough | ServerTlsMode::IstioMutual => {
            for (field, set) in ways {
                if set {
                    cx.error_at(field, format!("must not be set for {}", tls.mode.as_str()));
                }
            }
        }
    }
    versions(cx, tls);
}

fn files(cx: &mut Cx, tls: &ServerTls, mutual: bool) {
    let needed = [
        ("serverCertificate", tls.server_certificate.is_empty()),
        ("privateKey", tls.private_key.is_empty()),
        (
            "caCertificates",
            mutual && tls.ca_certificates.is_empty() && tls.ca_cert_credential_name.is_empty(),
        ),
    ];
    for (field, missing) in needed {
        if missing {
            cx.error_at(field, format!("must be set for {}", tls.mode.as_str()));
        }
    }
}

fn versions(cx: &mut Cx, tls: &ServerTls) {
    let (min, max) = (tls.min_protocol_version, tls.max_protocol_version);
    if max != TlsProtocol::TlsAuto && min > max {
        cx.error_at("minProtocolVersion", "is above maxProtocolVersion");
    }
    for (field, version) in [("minProtocolVersion", min), ("maxProtocolVersion", max)] {
        if matches!(version, TlsProtocol::TlsV1_0 | TlsProtocol::TlsV1_1) {
            cx.warn_at(field, "below TLSV1_2 is insecure: sail-proxy does not speak it");
        }
    }
}
