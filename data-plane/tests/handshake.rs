//! TLS handshakes with the real binary: resumption, OCSP staples, chains that are too long or not trusted,
//! fingerprints.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "support/certs.rs"]
mod certs;
mod support;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use certs::{Authority, Signed, handshake, provider, replace};
use rcgen::CustomExtension;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, HandshakeKind, SignatureScheme};
use support::{Proxy, wait};

/// A listener that says over TLS whether a client's certificate was there and was good.
fn bootstrap(context: &str, common: &str) -> String {
    let route = |criteria: &str, text: &str| {
        format!(
            "{{match: {{prefix: /{criteria}}}, direct_response: {{status: 200, body: {{inline_string: {text}}}}}}}"
        )
    };
    let routes = [
        route(", tls_context: {validated: true}", "trusted"),
        route(", tls_context: {presented: true}", "stranger"),
        route("", "nobody"),
    ]
    .join(", ");
    format!(
        r#"
static_resources:
  secrets:
  - name: tickets
    session_ticket_keys: {{keys: [{{inline_string: {key}}}]}}
  listeners:
  - name: l
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    listener_filters:
    - name: tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector
        enable_ja3_fingerprinting: true
        enable_ja4_fingerprinting: true
    filter_chains:
    - transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          {context}
          common_tls_context: {{{common}}}
      filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          access_log:
          - name: file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: $DIR/log
              log_format: {{text_format_source: {{inline_string: "%TLS_JA3_FINGERPRINT% %TLS_JA4_FINGERPRINT%\n"}}}}
          route_config: {{virtual_hosts: [{{name: v, domains: ["*"], routes: [{routes}]}}]}}
          http_filters:
          - name: router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
"#,
        key = "k".repeat(80)
    )
}

/// Certificate and key in the flow of a context.
fn shown(signed: &Signed, more: &str) -> String {
    let line = |pem: &str| format!("{{inline_string: {}}}", serde_json::to_string(pem).unwrap());
    format!(
        "tls_certificates: [{{certificate_chain: {}, private_key: {}{more}}}]",
        line(&signed.cert),
        line(&signed.key)
    )
}

fn trusting(authority: &Authority, more: &str) -> String {
    let pem = serde_json::to_string(&authority.pem).unwrap();
    format!(", validation_context: {{trusted_ca: {{inline_string: {pem}}}{more}}}")
}

/// What the listener says to a client, and how its handshake went.
fn ask(config: &Arc<ClientConfig>, to: SocketAddr) -> std::io::Result<(String, HandshakeKind)> {
    let mut tls = handshake(config.clone(), to, "a.test")?;
    tls.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")?;
    let mut text = String::new();
    tls.read_to_string(&mut text)?;
    let kind = tls.conn.handshake_kind().unwrap();
    Ok((text.rsplit("\r\n").next().unwrap_or_default().to_owned(), kind))
}

fn versions(authority: &Authority, version: &'static rustls::SupportedProtocolVersion) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[version]).unwrap();
    Arc::new(builder.with_root_certificates(authority.roots()).with_no_client_auth())
}

#[test]
fn sessions_are_resumed_by_other_processes_that_have_the_keys() {
    let authority = Authority::new();
    let common = shown(&authority.sign(1, &["a.test"]), "");
    let inline = format!("session_ticket_keys: {{keys: [{{inline_string: {}}}]}}", "k".repeat(80));
    let sds = "session_ticket_keys_sds_secret_config: {name: tickets}";
    let first = Proxy::ready(&bootstrap(&inline, &common), &[]);
    let second = Proxy::ready(&bootstrap(sds, &common), &[]);
    let stranger = Proxy::ready(&bootstrap("", &common), &[]);
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let client = versions(&authority, version);
        assert_ne!(ask(&client, first.listener("l")).unwrap().1, HandshakeKind::Resumed);
        assert_eq!(ask(&client, second.listener("l")).unwrap().1, HandshakeKind::Resumed, "{version:?}");
        assert_ne!(ask(&client, stranger.listener("l")).unwrap().1, HandshakeKind::Resumed);
        assert_eq!(ask(&client, stranger.listener("l")).unwrap().1, HandshakeKind::Resumed);
    }
    let reused = "listener.127.0.0.1_0.ssl.session_reused";
    assert_eq!([first.stat(reused).unwrap_or(0), second.stat(reused).unwrap_or(0)], [0, 2]);
}

#[test]
fn a_session_is_not_resumed_where_others_are_trusted() {
    let (authority, other) = (Authority::new(), Authority::new());
    let keys = format!("session_ticket_keys: {{keys: [{{inline_string: {}}}]}}", "k".repeat(80));
    let certificate = authority.sign(1, &["a.test"]);
    let of = |trusted: &Authority| format!("{}{}", shown(&certificate, ""), trusting(trusted, ""));
    let first = Proxy::ready(&bootstrap(&keys, &of(&authority)), &[]);
    let second = Proxy::ready(&bootstrap(&keys, &of(&other)), &[]);
    let client = Arc::new(authority.client(Some(&authority.sign(2, &["c.test"]))));
    assert_eq!(ask(&client, first.listener("l")).unwrap().0, "trusted");
    assert!(ask(&client, second.listener("l")).is_err(), "the ticket is no way round the check");
}

#[test]
fn resumption_is_switched_off() {
    let authority = Authority::new();
    let common = shown(&authority.sign(1, &["a.test"]), "");
    for (context, resumed) in [
        ("disable_stateless_session_resumption: true", [false, true]),
        (
            "disable_stateless_session_resumption: true\n          disable_stateful_session_resumption: true",
            [false, false],
        ),
        ("disable_stateful_session_resumption: true", [true, true]),
    ] {
        let proxy = Proxy::ready(&bootstrap(context, &common), &[]);
        let found = [&rustls::version::TLS13, &rustls::version::TLS12].map(|version| {
            let client = versions(&authority, version);
            ask(&client, proxy.listener("l")).unwrap();
            ask(&client, proxy.listener("l")).unwrap().1 == HandshakeKind::Resumed
        });
        assert_eq!(found, resumed, "{context}");
    }
}

#[test]
fn strangers_are_let_in_where_they_are_and_are_known_for_it() {
    let (authority, other) = (Authority::new(), Authority::new());
    let certificate = authority.sign(1, &["a.test"]);
    let common = |more| format!("{}{}", shown(&certificate, ""), trusting(&authority, more));
    let proxy = Proxy::ready(&bootstrap("", &common(", trust_chain_verification: ACCEPT_UNTRUSTED")), &[]);
    let to = proxy.listener("l");
    let client = |own: Option<&Signed>| Arc::new(authority.client(own));
    assert_eq!(ask(&client(None), to).unwrap().0, "nobody");
    assert_eq!(ask(&client(Some(&authority.sign(2, &["c.test"]))), to).unwrap().0, "trusted");
    let stranger = client(Some(&other.sign(3, &["c.test"])));
    assert_eq!(ask(&stranger, to).unwrap().0, "stranger");
    assert_eq!(ask(&stranger, to).unwrap(), ("stranger".to_owned(), HandshakeKind::Resumed));
    assert_eq!(proxy.stat("listener.127.0.0.1_0.ssl.fail_verify_error"), Some(2));
    let strict = Proxy::ready(&bootstrap("", &common("")), &[]);
    assert!(ask(&stranger, strict.listener("l")).is_err());
}

#[test]
fn chains_are_no_longer_than_they_may_be() {
    let authority = Authority::new();
    let below = authority.below();
    let mut far = below.sign(2, &["far.test"]);
    far.cert.push_str(&below.pem);
    let near = authority.sign(3, &["near.test"]);
    let certificate = authority.sign(1, &["a.test"]);
    for (depth, allowed) in [(1, [true, false]), (2, [true, true])] {
        let common = format!(
            "{}{}",
            shown(&certificate, ""),
            trusting(&authority, &format!(", max_verify_depth: {depth}"))
        );
        let proxy = Proxy::ready(&bootstrap("", &common), &[]);
        let found =
            [&near, &far].map(|own| ask(&Arc::new(authority.client(Some(own))), proxy.listener("l")).is_ok());
        assert_eq!(found, allowed, "depth {depth}");
    }
}

fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut out = vec![tag];
    match content.len() {
        length @ 0..128 => out.push(length as u8),
        length => out.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    out.extend(content);
    out
}

/// An OCSP response that says well of a certificate until a moment. Nobody here looks at its signature.
fn ocsp(serial: u8, until: &str) -> Vec<u8> {
    let id = der(
        0x30,
        &[
            &der(0x30, &[&[6, 5, 0x2b, 14, 3, 2, 26]]),
            &der(4, &[&[1; 20]]),
            &der(4, &[&[2; 20]]),
            &der(2, &[&[serial]]),
        ],
    );
    let since = der(0x18, &[b"20200101000000Z"]);
    let until = der(0xa0, &[&der(0x18, &[until.as_bytes()])]);
    let single = der(0x30, &[&id, &[0x80, 0], &since, &until]);
    let data = der(0x30, &[&der(0xa2, &[&der(4, &[&[2; 20]])]), &since, &der(0x30, &[&single])]);
    let algorithm = der(0x30, &[&[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]]);
    let basic = der(0x30, &[&data, &algorithm, &der(3, &[&[0, 1]])]);
    let typed = der(0x30, &[&[6, 9, 0x2b, 6, 1, 5, 5, 7, 48, 1, 1], &der(4, &[&basic])]);
    der(0x30, &[&[10, 1, 0], &der(0xa0, &[&typed])])
}

/// Keeps the staple that a server sent.
#[derive(Debug)]
struct Stapled(Arc<WebPkiServerVerifier>, Mutex<Vec<u8>>);

impl ServerCertVerifier for Stapled {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        staple: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.1.lock().unwrap() = staple.to_vec();
        self.0.verify_server_cert(leaf, intermediates, name, staple, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// The staple that comes with a server's certificate; an error is a handshake that failed.
fn staple(authority: &Authority, to: SocketAddr) -> std::io::Result<Vec<u8>> {
    let checks =
        WebPkiServerVerifier::builder_with_provider(Arc::new(authority.roots()), provider()).build().unwrap();
    let stapled = Arc::new(Stapled(checks, Mutex::default()));
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(stapled.clone())
        .with_no_client_auth();
    ask(&Arc::new(config), to)?;
    let staple = stapled.1.lock().unwrap().clone();
    Ok(staple)
}

#[test]
fn staples_are_sent_while_they_hold() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let (good, old) = (ocsp(7, "40000101000000Z"), ocsp(7, "20210101000000Z"));
    let plain = authority.sign(7, &["a.test"]);
    let feature = CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 24], vec![0x30, 3, 2, 1, 5]);
    let must = authority.sign_with(7, &["a.test"], vec![feature]);
    for (signed, response, policy, expect) in [
        (&plain, Some(&good), "LENIENT_STAPLING", Some(&good[..])),
        (&plain, Some(&old), "LENIENT_STAPLING", Some(&[][..])),
        (&plain, None, "STRICT_STAPLING", Some(&[])),
        (&plain, Some(&old), "STRICT_STAPLING", None),
        (&plain, Some(&good), "MUST_STAPLE", Some(&good)),
        (&must, Some(&good), "LENIENT_STAPLING", Some(&good)),
        (&must, Some(&old), "LENIENT_STAPLING", None),
        (&must, None, "LENIENT_STAPLING", None),
    ] {
        let staple_field = response.map_or_else(String::new, |response| {
            let path = dir.path().join("staple");
            std::fs::write(&path, response).unwrap();
            format!(", ocsp_staple: {{filename: {}}}", path.display())
        });
        let context = format!("ocsp_staple_policy: {policy}");
        let proxy = Proxy::ready(&bootstrap(&context, &shown(signed, &staple_field)), &[]);
        let found = staple(&authority, proxy.listener("l")).ok();
        assert_eq!(found.as_deref(), expect, "{policy} with {:?} bytes", response.map(Vec::len));
    }
}

#[test]
fn staples_that_cannot_be_used_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    for (response, policy, said) in [
        (Some(ocsp(8, "40000101000000Z")), "LENIENT_STAPLING", "it is for another certificate"),
        (Some(vec![0x30, 3, 10, 1, 6]), "LENIENT_STAPLING", "the responder failed"),
        (Some(b"junk".to_vec()), "LENIENT_STAPLING", "no OCSP response"),
        (None, "MUST_STAPLE", "ocsp_staple_policy"),
    ] {
        let field = response.map_or_else(String::new, |response| {
            let path = dir.path().join("staple");
            std::fs::write(&path, response).unwrap();
            format!(", ocsp_staple: {{filename: {}}}", path.display())
        });
        let context = format!("ocsp_staple_policy: {policy}");
        let text = bootstrap(&context, &shown(&authority.sign(7, &["a.test"]), &field));
        let path = replace(dir.path(), "c.yaml", &text);
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_sail-proxy"))
            .args(["-c", path.to_str().unwrap(), "--mode", "validate"])
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(said), "{said}: {error}");
    }
}

#[test]
fn clients_leave_fingerprints() {
    let authority = Authority::new();
    let proxy = Proxy::ready(&bootstrap("", &shown(&authority.sign(1, &["a.test"]), "")), &[]);
    ask(&versions(&authority, &rustls::version::TLS12), proxy.listener("l")).unwrap();
    let line = wait("a line of the log", || {
        let text = std::fs::read_to_string(proxy.dir.path().join("log")).ok()?;
        text.lines().next().map(str::to_owned)
    });
    let (ja3, ja4) = line.split_once(' ').unwrap();
    assert!(ja3.len() == 32 && ja3.bytes().all(|byte| byte.is_ascii_hexdigit()), "{line}");
    // TLS 1.2, a name, no ALPN.
    assert!(ja4.starts_with("t12d") && ja4[8..].starts_with("00_"), "{line}");
}

/// As Envoy: who speaks none of our protocols is served all the same, and nothing is agreed on.
#[test]
fn protocols_that_nobody_shares_are_passed_over() {
    let authority = Authority::new();
    let common = format!("alpn_protocols: [h2, http/1.1], {}", shown(&authority.sign(1, &["a.test"]), ""));
    let proxy = Proxy::ready(&bootstrap("", &common), &[]);
    let agreed = |offered: &[&str]| {
        let mut client = authority.client(None);
        client.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let tls = handshake(Arc::new(client.clone()), proxy.listener("l"), "a.test").unwrap();
        tls.conn.alpn_protocol().map(|name| String::from_utf8(name.to_vec()).unwrap())
    };
    assert_eq!(agreed(&["h2", "other"]).as_deref(), Some("h2"));
    assert_eq!(agreed(&["other"]), None);
    let mut client = authority.client(None);
    client.alpn_protocols = vec![b"other".to_vec()];
    assert_eq!(ask(&Arc::new(client), proxy.listener("l")).unwrap().0, "nobody");
}

#[test]
fn the_certificate_that_was_shown_is_told() {
    let authority = Authority::new();
    let (first, second) = (authority.sign(1, &["a.test"]), authority.sign(2, &["b.test"]));
    let pair = |signed: &Signed| {
        let common = shown(signed, "");
        common.trim_start_matches("tls_certificates: [").trim_end_matches(']').to_owned()
    };
    let common = format!("tls_certificates: [{}, {}]", pair(&first), pair(&second));
    let config = bootstrap("", &common)
        .replace("%TLS_JA3_FINGERPRINT% %TLS_JA4_FINGERPRINT%", "%DOWNSTREAM_LOCAL_DNS_SAN%");
    let proxy = Proxy::ready(&config, &[]);
    let client = Arc::new(authority.client(None));
    for name in ["b.test", "a.test"] {
        let mut tls = handshake(client.clone(), proxy.listener("l"), name).unwrap();
        tls.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
        tls.read_to_string(&mut String::new()).unwrap();
    }
    let lines = wait("two lines of the log", || {
        let text = std::fs::read_to_string(proxy.dir.path().join("log")).ok()?;
        (text.lines().count() == 2).then_some(text)
    });
    assert_eq!(lines.lines().collect::<Vec<_>>(), ["b.test", "a.test"]);
}
