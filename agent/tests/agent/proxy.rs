//! The proxy's process under the agent: a script in its place, and a stock Envoy where there is one.
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::support::agent::{Agent, Setup};
use crate::support::control_plane::ControlPlane;
use crate::support::{free_port, until};
use http::Method;
use identity::tls::{ClientSide, PeerPolicy, Watched};
use identity::{San, SanMatcher, TrustBundle};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use xds_api::any::pack;
use xds_api::codec::Codec;
use xds_api::envoy::config::cluster::v3::Cluster;
use xds_api::envoy::config::listener::v3::Listener;
use xds_api::type_url;

const REVIEWS: &str = "spiffe://cluster.local/ns/default/sa/reviews";

/// A program that says how it was started and then sleeps.
fn script(setup: &Setup) -> PathBuf {
    let path = setup.path("proxy.sh");
    let out = setup.path("started");
    let text = format!("#!/bin/sh\necho $$ \"$@\" >> {}\nexec sleep 1000\n", out.display());
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// One line for each start.
async fn starts(agent: &Agent, wanted: usize) -> Vec<String> {
    until("the proxy was started", async || {
        let text = std::fs::read_to_string(agent.setup.path("started")).ok()?;
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        (lines.len() >= wanted).then_some(lines)
    })
    .await
}

fn pid(line: &str) -> Pid {
    Pid::from_raw(line.split(' ').next().unwrap().parse().unwrap())
}

async fn with_script(plane: &ControlPlane) -> Agent {
    let setup = Setup::new(plane);
    let program = script(&setup).display().to_string();
    setup.proxy("binaryPath", program).start()
}

#[tokio::test]
async fn a_proxy_that_dies_is_started_again() {
    let plane = ControlPlane::start().await;
    let agent = with_script(&plane).await;
    let first = starts(&agent, 1).await;
    for flag in ["--disable-hot-restart", "--drain-time-s 45", "--concurrency 1", "-l warning", "-c "] {
        assert!(first[0].contains(flag), "{flag} is missing in {}", first[0]);
    }
    kill(pid(&first[0]), Signal::SIGKILL).unwrap();
    let second = starts(&agent, 2).await;
    assert_ne!(pid(&second[0]), pid(&second[1]));
}

#[tokio::test]
async fn the_proxy_ends_with_the_agent_however_that_ends() {
    let plane = ControlPlane::start().await;
    let mut agent = with_script(&plane).await;
    let proxy = pid(&starts(&agent, 1).await[0]);
    agent.signal(Signal::SIGTERM);
    assert!(agent.exit().await.success());
    until("the proxy is gone", async || kill(proxy, None).is_err().then_some(())).await;

    let mut agent = with_script(&plane).await;
    let proxy = pid(&starts(&agent, 1).await[0]);
    agent.signal(Signal::SIGKILL);
    agent.exit().await;
    until("the proxy is gone", async || kill(proxy, None).is_err().then_some(())).await;
}

#[tokio::test]
async fn quitquitquit_ends_both_at_once() {
    let plane = ControlPlane::start().await;
    let setup = Setup::new(&plane).proxy("terminationDrainDuration", "600s");
    let program = script(&setup).display().to_string();
    let mut agent = setup.proxy("binaryPath", program).start();
    starts(&agent, 1).await;
    let status = agent.setup.ports.status;
    assert_eq!(agent.get(status, "/quitquitquit").await.unwrap().0, 405);
    assert_eq!(agent.request(status, Method::POST, "/quitquitquit").await.unwrap().0, 200);
    assert!(agent.exit().await.success());
}

#[tokio::test]
async fn after_a_drain_the_signal_ends_at_once() {
    let plane = ControlPlane::start().await;
    let setup = Setup::new(&plane).proxy("terminationDrainDuration", "600s");
    let program = script(&setup).display().to_string();
    let mut agent = setup.proxy("binaryPath", program).start();
    starts(&agent, 1).await;
    assert_eq!(agent.request(agent.setup.ports.status, Method::POST, "/drain").await.unwrap().0, 200);
    agent.signal(Signal::SIGTERM);
    assert!(agent.exit().await.success());
}

#[tokio::test]
async fn a_missing_proxy_is_said_in_one_line() {
    let plane = ControlPlane::start().await;
    let setup = Setup::new(&plane).proxy("binaryPath", "/nonexistent/proxy");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sail-agent"));
    command.args(["proxy", "sidecar"]).current_dir(setup.dir.path()).envs(&setup.env);
    let output = command.env("PROXY_CONFIG", setup.proxy_config.to_string()).output().unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().last().unwrap();
    assert!(line.contains("/nonexistent/proxy was not found") && line.contains("binaryPath"), "{text}");
}

// What follows runs the proxies themselves.

/// Ends the test where there is no Envoy.
fn need_envoy() {
    let version = Command::new("envoy").arg("--version").output();
    assert!(version.is_ok_and(|it| it.status.success()), "envoy is missing: `make test` installs it");
}

/// A cluster, and a listener that answers "hello" over mTLS with the agent's certificates.
fn give_listener(plane: &ControlPlane, port: u16) {
    let sds = |name: &str| {
        serde_json::json!({ "name": name, "sds_config": {
            "resource_api_version": "V3",
            "initial_fetch_timeout": "0s",
            "api_config_source": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [ { "envoy_grpc": { "cluster_name": "sds-grpc" } } ],
            },
        } })
    };
    let listener = serde_json::json!({
        "name": "inbound",
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": port } },
        "filter_chains": [ {
            "transport_socket": { "name": "envoy.transport_sockets.tls", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "require_client_certificate": true,
                "common_tls_context": {
                    "tls_certificate_sds_secret_configs": [ sds("default") ],
                    "validation_context_sds_secret_config": sds("ROOTCA"),
                },
            } },
            "filters": [ { "name": "hcm", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "inbound",
                "route_config": { "virtual_hosts": [ { "name": "all", "domains": ["*"], "routes": [
                    { "match": { "prefix": "/" }, "direct_response": { "status": 200, "body": { "inline_string": "hello" } } },
                ] } ] },
                "http_filters": [ { "name": "router", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                } } ],
            } } ],
        } ],
    });
    let codec = Codec::new();
    let listener: Listener = codec.from_json_value(&listener).unwrap();
    let cluster = serde_json::json!({ "name": "none", "type": "STATIC", "connect_timeout": "1s" });
    let cluster: Cluster = codec.from_json_value(&cluster).unwrap();
    let mut state = plane.state.lock().unwrap();
    state.world.insert(type_url::LISTENER.into(), vec![("inbound".into(), pack(&listener))]);
    state.world.insert(type_url::CLUSTER.into(), vec![("none".into(), pack(&cluster))]);
}

async fn ready(agent: &Agent) {
    let port = agent.setup.ports.health;
    let mut last = None;
    until("the proxy is ready", async || {
        let answer = agent.get(port, "/healthz/ready").await;
        if std::mem::replace(&mut last, answer.clone()) != answer {
            eprintln!("ready: {answer:?}");
        }
        (answer?.0 == 200).then_some(())
    })
    .await;
}

/// A call over mTLS; returns the body and the serial of the certificate that was shown.
async fn call(plane: &ControlPlane, port: u16) -> Option<(String, String)> {
    let side = ClientSide {
        svid: Some(Watched::new(plane.svid(&San::uri("spiffe://cluster.local/ns/default/sa/productpage")))),
        bundle: Watched::new(TrustBundle::from_pem(plane.root_pem()).unwrap()),
        policy: PeerPolicy::sans(vec![SanMatcher::uri(REVIEWS)]),
        alpn: vec![b"http/1.1".to_vec()],
    };
    let connector = tokio_rustls::TlsConnector::from(Arc::new(side.config().unwrap()));
    let stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let name = rustls::pki_types::ServerName::try_from("reviews").unwrap();
    let mut stream = connector.connect(name, stream).await.ok()?;
    let serial = {
        let certs = stream.get_ref().1.peer_certificates()?;
        identity::CertInfo::from_der(&certs[0]).unwrap().serial
    };
    stream.write_all(b"GET / HTTP/1.1\r\nHost: reviews\r\nConnection: close\r\n\r\n").await.ok()?;
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text).await;
    Some((text.rsplit("\r\n").next()?.to_owned(), serial))
}

#[tokio::test]
async fn a_stock_envoy_gets_configuration_and_certificates_and_survives_trouble() {
    need_envoy();
    survives_trouble("envoy").await;
}

#[tokio::test]
async fn sail_proxy_gets_configuration_and_certificates_and_survives_trouble() {
    // Cargo builds the binaries of this package only.
    let beside = Path::new(env!("CARGO_BIN_EXE_sail-agent")).with_file_name("sail-proxy");
    assert!(beside.exists(), "{} is missing: `make test` builds it", beside.display());
    survives_trouble("").await;
}

async fn survives_trouble(binary: &str) {
    let mut plane = ControlPlane::start().await;
    let port = free_port();
    give_listener(&plane, port);
    let setup = Setup::new(&plane).proxy("binaryPath", binary).env("SECRET_TTL", "6s");
    let mut agent = setup.start();
    ready(&agent).await;
    assert_eq!(plane.state.lock().unwrap().refused, [""; 0]);

    let (body, serial) = until("the listener answers", async || call(&plane, port).await).await;
    assert_eq!(body, "hello");
    until("the certificate is renewed", async || {
        let (_, next) = call(&plane, port).await?;
        (next != serial).then_some(())
    })
    .await;

    let (code, metrics) = agent.get(agent.setup.ports.status, "/stats/prometheus").await.unwrap();
    assert_eq!(code, 200);
    for name in ["istio_agent_proxy_starts 1", "envoy_server_state", "istio_agent_cert_expiry_seconds"] {
        assert!(metrics.contains(name), "{name} is missing");
    }
    let (code, _) = agent.get(agent.setup.ports.prometheus, "/stats/prometheus").await.unwrap();
    assert_eq!(code, 200);

    // Without a control plane, traffic goes on.
    plane.stop();
    assert_eq!(call(&plane, port).await.unwrap().0, "hello");
    plane.restart().await;

    // A killed proxy comes back with its configuration.
    let info = agent.get(agent.setup.ports.admin, "/server_info").await.unwrap().1;
    assert!(info.contains("sidecar~127.0.0.1~reviews-1.default~default.svc.cluster.local"), "{info}");
    for proxy in children(agent.child.id().unwrap()) {
        kill(proxy, Signal::SIGKILL).unwrap();
    }
    until("the proxy was started again", async || {
        let (_, metrics) = agent.get(agent.setup.ports.status, "/metrics").await?;
        metrics.contains("istio_agent_proxy_starts 2").then_some(())
    })
    .await;
    until("the listener answers again", async || call(&plane, port).await).await;
    ready(&agent).await;

    agent.signal(Signal::SIGTERM);
    assert!(agent.exit().await.success());
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err(), "the proxy still listens");
}

#[tokio::test]
async fn a_drain_waits_for_the_last_connection_where_that_is_asked_for() {
    need_envoy();
    let plane = ControlPlane::start().await;
    let port = free_port();
    give_listener(&plane, port);
    let setup = Setup::new(&plane)
        .proxy("binaryPath", "envoy")
        .proxy("proxyStatsMatcher", serde_json::json!({ "inclusionPrefixes": ["listener."] }))
        .env("EXIT_ON_ZERO_ACTIVE_CONNECTIONS", "true")
        .env("MINIMUM_DRAIN_DURATION", "100ms");
    let mut agent = setup.start();
    ready(&agent).await;
    let connection = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    until("the connection is counted", async || {
        let (_, stats) = agent.get(agent.setup.ports.admin, "/stats?filter=downstream_cx_active").await?;
        stats.contains(&format!("listener.127.0.0.1_{port}.downstream_cx_active: 1")).then_some(())
    })
    .await;
    agent.signal(Signal::SIGTERM);
    let early = tokio::time::timeout(std::time::Duration::from_secs(2), agent.child.wait()).await;
    assert!(early.is_err(), "the agent did not wait for the connection");
    drop(connection);
    assert!(agent.exit().await.success());
}

#[tokio::test]
async fn wait_and_request_speak_to_the_agent() {
    let plane = ControlPlane::start().await;
    let agent = Setup::new(&plane).env("DISABLE_ENVOY", "true").start();
    let port = agent.setup.ports.status;
    let run = async |args: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_sail-agent"));
        command.args(args).output().await.unwrap()
    };
    let url = format!("http://localhost:{port}/healthz/ready");
    assert!(run(&["wait", "--periodMillis=20", "--url", &url]).await.status.success());
    let output = run(&["request", &format!("--debug-port={port}"), "GET", "metrics"]).await;
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("istio_agent_"));
    assert!(!run(&["request", &format!("--debug-port={port}"), "GET", "nothing"]).await.status.success());

    let url = format!("http://localhost:{}/healthz/ready", free_port());
    let output = run(&["wait", "--timeoutSeconds=1", "--periodMillis=100", "--url", &url]).await;
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("not ready within 1 s"), "{text}");
}

#[tokio::test]
async fn a_stock_envoy_accepts_every_form_of_the_bootstrap() {
    need_envoy();
    let plane = ControlPlane::start().await;
    let check = async |setup: Setup| {
        let program = script(&setup).display().to_string();
        let agent = setup.proxy("binaryPath", program).start();
        starts(&agent, 1).await;
        let file = agent.setup.path("etc/istio/proxy/envoy-rev.json");
        validate(&file, agent.setup.dir.path());
    };
    check(Setup::new(&plane)).await;
    check(Setup::new(&plane).env("ISTIO_DELTA_XDS", "false").env("EXIT_ON_ZERO_ACTIVE_CONNECTIONS", "true"))
        .await;
    let matcher = serde_json::json!({
        "inclusionPrefixes": ["listener"], "inclusionSuffixes": ["x"], "inclusionRegexps": [".*osconfig.*"],
    });
    check(
        Setup::new(&plane)
            .proxy("tracing", serde_json::json!({ "zipkin": { "address": "zipkin.istio-system:9411" } }))
            .proxy("proxyStatsMatcher", matcher)
            .proxy("statsdUdpAddress", "127.0.0.1:9125")
            .proxy("runtimeValues", serde_json::json!({ "a.b": "true", "c": "7", "d": "text" })),
    )
    .await;
    check(Setup::new(&plane).env("INSTANCE_IP", "::1")).await;
}

fn validate(bootstrap: &Path, dir: &Path) {
    let mut command = Command::new("envoy");
    command.args(["--mode", "validate", "--allow-unknown-static-fields", "-l", "warning", "-c"]);
    let output = command.arg(bootstrap).current_dir(dir).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{}", std::fs::read_to_string(bootstrap).unwrap());
}

fn children(parent: u32) -> Vec<Pid> {
    let text = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    text.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap())).collect()
}
