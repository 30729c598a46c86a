//! TCP, gRPC and WebSocket through two sidecars.

use e2e::Turn;

fn turn() -> Turn {
    Turn::take("protocols", &["examples/tasks/echo.yaml"])
}

#[test]
fn tcp_connections_follow_weights() {
    let mut mesh = turn();
    mesh.apply("examples/tasks/tcp-weights.yaml");
    let arguments = ["-n", "200", "-c", "4", "-d", "hello", "tcp://echo:9000"];
    let in_bounds = |summary: &e2e::Summary| (130..=185).contains(&summary.version("v1"));
    // Mean 160, standard deviation under 6.
    let summary = mesh.call_until("deploy/client", &arguments, in_bounds);
    assert_eq!(summary.status("ok"), 200, "{summary:?}");
}

#[test]
fn grpc_calls_and_streams_pass() {
    let mesh = turn();
    for method in ["say", "talk"] {
        let url = format!("grpc://echo:7070/{method}");
        let summary = mesh.call_until("deploy/client", &["-n", "10", "-d", "hello", &url], |summary| {
            summary.status("ok") == 10
        });
        assert!(
            summary.last.headers.contains_key("x-forwarded-client-cert"),
            "not over mutual TLS: {summary:?}"
        );
    }
}

#[test]
fn a_websocket_passes() {
    let mesh = turn();
    let arguments = ["-n", "10", "-d", "hello", "ws://echo:8080/ws"];
    let summary = mesh.call_until("deploy/client", &arguments, |summary| summary.status("101") == 10);
    assert!(summary.last.body.as_str().is_some_and(|body| body.ends_with(" hello")), "{summary:?}");
}
