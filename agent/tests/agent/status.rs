//! The status server: the application's probes and the merged metrics.
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use crate::support::agent::{Agent, Setup};
use crate::support::control_plane::ControlPlane;
use crate::support::{free_port, until};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use identity::San;
use identity::tls::{ClientAuth, ServerSide, Watched};
use tokio::net::TcpListener;

/// What reached the application.
#[derive(Clone, Debug, Default)]
struct Seen(Arc<Mutex<Vec<(String, String, IpAddr)>>>);

/// An application that answers on any path, by HTTP/1 or HTTP/2.
fn respond(seen: &Seen, peer: SocketAddr, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let host = request.headers().get("host").and_then(|host| host.to_str().ok()).unwrap_or_default();
    let host = request.uri().authority().map_or(host, |authority| authority.as_str()).to_owned();
    seen.0.lock().unwrap().push((request.uri().path().to_owned(), host, peer.ip()));
    let (status, location, body) = match request.uri().path() {
        "/sick" => (503, None, "I am not well"),
        "/moved" => (302, Some("/healthy"), ""),
        "/circle" => (302, Some("/circle"), ""),
        "/elsewhere" => (302, Some("http://example.com/"), ""),
        "/metrics" => (200, None, "# TYPE app counter\napp_total 7\n# EOF\n"),
        _ => (200, None, "fine"),
    };
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    if let Some(location) = location {
        response.headers_mut().insert("location", location.parse().unwrap());
    }
    response
}

async fn application(tls: Option<tokio_rustls::TlsAcceptor>) -> (u16, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Seen::default();
    let shared = seen.clone();
    tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            let (seen, tls) = (shared.clone(), tls.clone());
            tokio::spawn(async move {
                let service = hyper::service::service_fn(move |request| {
                    let response = respond(&seen, peer, &request);
                    async move { Ok::<_, Infallible>(response) }
                });
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = match tls {
                    None => builder.serve_connection(TokioIo::new(stream), service).await,
                    Some(tls) => {
                        let Ok(stream) = tls.accept(stream).await else { return };
                        builder.serve_connection(TokioIo::new(stream), service).await
                    }
                };
            });
        }
    });
    (port, seen)
}

async fn start(plane: &ControlPlane, probers: serde_json::Value) -> Agent {
    let setup = Setup::new(plane).env("DISABLE_ENVOY", "true");
    let agent = setup.env("ISTIO_KUBE_APP_PROBERS", &probers.to_string()).start();
    until("the agent is up", async || agent.get(agent.setup.ports.status, "/healthz/ready").await).await;
    agent
}

async fn probe(agent: &Agent, path: &str) -> (u16, String) {
    agent.get(agent.setup.ports.status, &format!("/app-health/{path}")).await.unwrap()
}

fn get(port: u16, path: &str) -> serde_json::Value {
    serde_json::json!({ "httpGet": { "port": port, "path": path }, "timeoutSeconds": 5 })
}

#[tokio::test]
async fn http_probes_answer_for_the_application() {
    let plane = ControlPlane::start().await;
    let (port, seen) = application(None).await;
    let mut with_host = get(port, "named");
    with_host["httpGet"]["httpHeaders"] = serde_json::json!([ { "name": "Host", "value": "reviews.test" } ]);
    let agent = start(
        &plane,
        serde_json::json!({
            "/app-health/a/livez": get(port, "/healthy"),
            "/app-health/a/readyz": get(port, "/sick"),
            "/app-health/a/startupz": get(port, "/moved"),
            "/app-health/b/livez": get(port, "/circle"),
            "/app-health/b/readyz": get(port, "/elsewhere"),
            "/app-health/b/startupz": with_host,
            "/app-health/c/livez": get(free_port(), "/"),
        }),
    )
    .await;
    assert_eq!(probe(&agent, "a/livez").await, (200, "fine".to_owned()));
    assert_eq!(probe(&agent, "a/readyz").await, (503, "I am not well".to_owned()));
    assert_eq!(probe(&agent, "a/startupz").await.0, 200);
    let (code, why) = probe(&agent, "b/livez").await;
    assert!(code == 500 && why.contains("redirected"), "{why}");
    assert_eq!(probe(&agent, "b/readyz").await.0, 302);
    assert_eq!(probe(&agent, "b/startupz").await.0, 200);
    let (code, why) = probe(&agent, "c/livez").await;
    assert!(code == 500 && why.contains("connecting"), "{why}");
    assert_eq!(probe(&agent, "unknown/livez").await.0, 400);

    let seen = seen.0.lock().unwrap();
    let sources: Vec<IpAddr> = seen.iter().map(|(_, _, ip)| *ip).collect();
    assert!(sources.iter().all(|ip| *ip == IpAddr::from([127, 0, 0, 6])), "{sources:?}");
    assert!(seen.contains(&("/named".into(), "reviews.test".into(), sources[0])), "{seen:?}");
}

#[tokio::test]
async fn https_probes_take_any_certificate_and_both_protocols() {
    let plane = ControlPlane::start().await;
    let mut probers = serde_json::json!({});
    for (container, alpn) in [("one", "http/1.1"), ("two", "h2")] {
        let side = ServerSide {
            svid: Watched::new(plane.svid(&San::dns("whatever"))),
            client_auth: ClientAuth::None,
            alpn: vec![alpn.into()],
        };
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(side.config().unwrap()));
        let (port, _) = application(Some(acceptor)).await;
        let mut probe = get(port, "/healthy");
        probe["httpGet"]["scheme"] = "HTTPS".into();
        probers[format!("/app-health/{container}/readyz")] = probe;
    }
    let agent = start(&plane, probers).await;
    assert_eq!(probe(&agent, "one/readyz").await, (200, "fine".to_owned()));
    assert_eq!(probe(&agent, "two/readyz").await, (200, "fine".to_owned()));
}

/// `grpc.health.v1.Health` in its wire form: serving unless asked about "sick".
async fn grpc_application() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(|request: Request<Incoming>| async move {
                use http_body_util::BodyExt as _;
                assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let status = if body.ends_with(b"sick") { 2 } else { 1 };
                let frame = Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, status]);
                let mut trailers = http::HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                let body = Full::new(frame).with_trailers(async move { Some(Ok(trailers)) });
                let mut response = Response::new(body);
                response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
                Ok::<_, Infallible>(response)
            });
            tokio::spawn(async move {
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    port
}

#[tokio::test]
async fn grpc_and_tcp_probes() {
    let plane = ControlPlane::start().await;
    let port = grpc_application().await;
    let agent = start(
        &plane,
        serde_json::json!({
            "/app-health/a/readyz": { "grpc": { "port": port }, "timeoutSeconds": 5 },
            "/app-health/a/livez": { "grpc": { "port": port, "service": "sick" }, "timeoutSeconds": 5 },
            "/app-health/b/readyz": { "tcpSocket": { "port": port } },
            "/app-health/b/livez": { "tcpSocket": { "port": free_port() } },
        }),
    )
    .await;
    assert_eq!(probe(&agent, "a/readyz").await.0, 200);
    let (code, why) = probe(&agent, "a/livez").await;
    assert!(code == 500 && why.contains("not serving"), "{why}");
    assert_eq!(probe(&agent, "b/readyz").await.0, 200);
    assert_eq!(probe(&agent, "b/livez").await.0, 500);
}

#[tokio::test]
async fn a_slow_application_fails_its_probe() {
    let plane = ControlPlane::start().await;
    // It takes connections, by its backlog, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let probers = serde_json::json!({ "/app-health/a/readyz": { "httpGet": { "port": port } } });
    let agent = start(&plane, probers).await;
    let (code, why) = probe(&agent, "a/readyz").await;
    assert!(code == 500 && why.contains("did not answer within 1s"), "{why}");
}

#[tokio::test]
async fn the_applications_metrics_are_merged() {
    let plane = ControlPlane::start().await;
    let (port, _) = application(None).await;
    let scrape = serde_json::json!({ "scrape": "true", "port": port.to_string(), "path": "" }).to_string();
    let setup = Setup::new(&plane).env("DISABLE_ENVOY", "true").env("ISTIO_PROMETHEUS_ANNOTATIONS", &scrape);
    let agent = setup.start();
    let (code, page) =
        until("the page is there", async || agent.get(agent.setup.ports.status, "/stats/prometheus").await)
            .await;
    assert_eq!(code, 200);
    assert!(page.contains("app_total 7\n") && page.contains("istio_agent_"), "{page}");
    assert!(!page.contains("# EOF"), "{page}");
}

#[tokio::test]
async fn a_port_in_use_is_said_in_one_line() {
    let plane = ControlPlane::start().await;
    let taken = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let setup = Setup::new(&plane).env("DISABLE_ENVOY", "true").proxy("statusPort", port);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sail-agent"));
    command.args(["proxy", "sidecar"]).current_dir(setup.dir.path()).envs(&setup.env);
    let output = command.env("PROXY_CONFIG", setup.proxy_config.to_string()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    let line = text.lines().last().unwrap();
    assert!(line.contains(&format!("port {port}")) && line.contains("statusPort"), "{text}");
}
