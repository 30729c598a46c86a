//! A stock Envoy in the place of sail-proxy: alone and beside it.

use e2e::{Turn, root};

fn turn() -> Turn {
    // Programs beside sailctl are in every pod; the make target puts Envoy there.
    drop(e2e::command("envoy"));
    Turn::take("envoy", &[])
}

/// The echo manifest, with Envoy as the sidecar of the pods whose label has one of the given values.
fn with_envoy(apps: &[&str]) -> String {
    let manifest = std::fs::read_to_string(root().join("examples/tasks/echo.yaml")).unwrap();
    let annotation = "      annotations:\n        proxy.istio.io/config: |\n          binaryPath: envoy\n";
    let mut result = String::new();
    let mut lines = manifest.lines().peekable();
    while let Some(line) = lines.next() {
        let template =
            line.trim() == "metadata:" && lines.peek().is_some_and(|next| next.trim() == "labels:");
        result += &format!("{line}\n");
        if template && line.starts_with("    ") {
            let labels: Vec<&str> = lines.clone().take(3).map(str::trim).collect();
            let chosen = apps.iter().any(|app| {
                labels.contains(&format!("app: {app}").as_str())
                    || labels.contains(&format!("version: {app}").as_str())
            });
            if chosen {
                result += annotation;
            }
        }
    }
    result
}

/// Which proxy runs beside a Deployment's first pod, as its admin page says.
fn proxy_of(mesh: &Turn, pod: &str) -> String {
    mesh.run(&["exec", pod, "-c", "istio-proxy", "--", "curl", "-s", "localhost:15000/server_info"])
}

fn check_routing(mesh: &mut Turn) {
    let all = ["-n", "40", "http://echo:8080/"];
    mesh.call_until("deploy/client", &all, |summary| {
        summary.status("200") == 40 && summary.versions.len() == 2
    });
    let by_subset = ["-n", "20", "http://echo:8080/"];
    mesh.apply("examples/tasks/mirror.yaml");
    let summary = mesh.call_until("deploy/client", &by_subset, |summary| summary.version("v1") == 20);
    let certificate =
        summary.last.body["headers"]["x-forwarded-client-cert"].as_str().unwrap_or_default().to_owned();
    assert!(
        certificate.contains("URI=spiffe://cluster.local/ns/default/sa/client"),
        "not mutual TLS: {summary:?}"
    );
    mesh.apply("examples/tasks/timeout.yaml");
    mesh.call_until("deploy/client", &["http://echo:8080/delay/3000"], |summary| summary.status("504") == 1);
    mesh.call_until("deploy/client", &["-n", "5", "-d", "x", "grpc://echo:7070/talk"], |summary| {
        summary.status("ok") == 5
    });
    mesh.call_until("deploy/client", &["-n", "5", "-d", "x", "ws://echo:8080/ws"], |summary| {
        summary.status("101") == 5
    });
    mesh.apply("examples/tasks/authorization-deny.yaml");
    mesh.call_until("deploy/client", &["-n", "10", "http://echo:8080/admin"], |summary| {
        summary.status("403") == 10
    });
    mesh.apply("examples/tasks/strict.yaml");
    mesh.call_until("deploy/client", &all, |summary| summary.status("200") == 40);
}

#[test]
fn routing_works_with_envoy_sidecars() {
    let mut mesh = turn();
    mesh.apply_text("all-envoy", &with_envoy(&["echo", "client"]));
    check_routing(&mut mesh);
    for pod in ["deploy/client", "deploy/echo-v1", "deploy/echo-v2"] {
        let info = proxy_of(&mesh, pod);
        assert!(info.contains("BoringSSL"), "{pod} does not run a stock Envoy: {info}");
    }
}

#[test]
fn mixed_sidecars_talk_over_mutual_tls() {
    let mut mesh = turn();
    mesh.apply_text("mixed", &with_envoy(&["v1"]));
    check_routing(&mut mesh);
    assert!(proxy_of(&mesh, "deploy/echo-v1").contains("BoringSSL"));
    assert!(!proxy_of(&mesh, "deploy/client").contains("BoringSSL"));
}
