//! When things go wrong: nothing that flows stops, and nothing that was good is lost.

use std::process::Command;

use e2e::{Turn, ensure, eventually};

fn turn() -> Turn {
    Turn::take("failure", &["examples/bookinfo/platform/bookinfo.yaml", "examples/tasks/echo.yaml"])
}

/// Ends every process of a name in a pod, as the kernel would: at once.
fn kill(mesh: &Turn, namespace: &str, pod: &str, container: &str, program: &str) {
    signal("KILL", &processes(mesh, namespace, pod, container, program));
}

fn signal(signal: &str, pids: &[String]) {
    let status = Command::new("kill").arg(format!("-{signal}")).args(pids).status().unwrap();
    assert!(status.success(), "kill -{signal} {pids:?}");
}

/// The processes of a name in a pod, as this machine numbers them. They are looked for from outside, since the first process
/// of a container hears no signal from within.
fn processes(mesh: &Turn, namespace: &str, pod: &str, container: &str, program: &str) -> Vec<String> {
    let network =
        mesh.run(&["exec", "-n", namespace, pod, "-c", container, "--", "readlink", "/proc/self/ns/net"]);
    let is_it = |process: &std::path::Path| {
        let name = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
        let net = std::fs::read_link(process.join("ns/net")).unwrap_or_default();
        name.trim_end() == program && net.as_os_str() == network.trim_end()
    };
    let all = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let pids: Vec<String> = all
        .filter(|process| is_it(process))
        .filter_map(|process| Some(process.file_name()?.to_str()?.to_owned()))
        .collect();
    assert!(!pids.is_empty(), "no {program} runs in {namespace}/{pod}");
    pids
}

const CALL: [&str; 3] = ["-n", "50", "http://echo:8080/"];

#[test]
fn traffic_goes_on_without_saild() {
    let mut mesh = turn();
    mesh.call_until("deploy/client", &CALL, |summary| summary.status("200") == 50);
    kill(&mesh, "istio-system", "deploy/istiod", "discovery", "saild");
    let meanwhile = mesh.call("deploy/client", &CALL).unwrap();
    assert_eq!(meanwhile.status("200"), 50, "{meanwhile:?}");
    // It comes back and the proxies hear of a change again.
    eventually(|| {
        let output = mesh.sailctl(&["apply", "-f", "examples/tasks/mirror.yaml"]);
        ensure(output.status.success(), || String::from_utf8_lossy(&output.stderr).into_owned())
    });
    mesh.apply("examples/tasks/mirror.yaml");
    mesh.call_until("deploy/client", &CALL, |summary| summary.version("v1") == 50);
}

/// A client whose certificate lives for a minute, and is renewed at half of that.
const SHORT_LIVED: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: short-lived}
spec:
  selector: {matchLabels: {app: short-lived}}
  template:
    metadata:
      labels: {app: short-lived}
      annotations:
        proxy.istio.io/config: |
          proxyMetadata: {SECRET_TTL: 60s, SECRET_GRACE_PERIOD_RATIO: "0.8"}
    spec:
      containers:
      - name: client
        image: ironsail/examples-echo:0.1.0
        args: [serve]
"#;

#[test]
fn certificates_stay_while_the_ca_is_gone() {
    let mut mesh = turn();
    mesh.apply_text("short-lived.yaml", SHORT_LIVED);
    mesh.call_until("deploy/short-lived", &CALL, |summary| summary.status("200") == 50);
    let serial = |mesh: &Turn| {
        let proxy = [
            "exec",
            "deploy/short-lived",
            "-c",
            "istio-proxy",
            "--",
            "sail-agent",
            "request",
            "GET",
            "certs",
        ];
        let certs: serde_json::Value = serde_json::from_str(&mesh.run(&proxy)).unwrap();
        certs["certificates"][0]["cert_chain"][0]["serial_number"].as_str().unwrap().to_owned()
    };
    // It goes on to live, and answers nobody.
    let saild = processes(&mesh, "istio-system", "deploy/istiod", "discovery", "saild");
    signal("STOP", &saild);
    let first = serial(&mesh);
    eventually(|| {
        let log = mesh.run(&["logs", "deploy/short-lived", "-c", "istio-proxy"]);
        ensure(log.contains("no new certificate; trying again"), || log)
    });
    let meanwhile = mesh.call("deploy/short-lived", &CALL).unwrap();
    assert_eq!(meanwhile.status("200"), 50, "{meanwhile:?}");
    assert_eq!(serial(&mesh), first);
    signal("CONT", &saild);
    eventually(|| ensure(serial(&mesh) != first, || "the certificate is still the old one".to_owned()));
    mesh.call_until("deploy/short-lived", &CALL, |summary| summary.status("200") == 50);
}

#[test]
fn the_agent_restarts_a_killed_proxy() {
    let mesh = turn();
    mesh.call_until("deploy/client", &CALL, |summary| summary.status("200") == 50);
    kill(&mesh, "default", "deploy/client", "istio-proxy", "sail-proxy");
    mesh.call_until("deploy/client", &CALL, |summary| summary.status("200") == 50);
}

#[test]
fn a_broken_manifest_changes_nothing() {
    let mut mesh = turn();
    mesh.apply("examples/tasks/mirror.yaml");
    mesh.call_until("deploy/client", &CALL, |summary| summary.version("v1") == 50);
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.yaml");
    let good = std::fs::read_to_string(e2e::root().join("examples/tasks/mirror.yaml")).unwrap();
    for (from, to, reason) in [
        ("mirrorPercentage", "mirrorPercentag", "mirrorPercentag"),
        ("subset: v1", "subset: 7", "subset"),
        ("value: 100", "value: 101", "mirrorPercentage"),
        ("host: echo", "host: [echo", "broken.yaml"),
    ] {
        std::fs::write(&broken, good.replace(from, to)).unwrap();
        let output = mesh.sailctl(&["apply", "-f", &broken.display().to_string()]);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{to} was taken");
        assert!(message.contains("broken.yaml") && message.contains(reason), "{to} gave {message:?}");
    }
    let after = mesh.call("deploy/client", &CALL).unwrap();
    assert_eq!(after.version("v1"), 50, "{after:?}");
}

#[test]
fn a_rolling_restart_loses_no_request() {
    let mesh = turn();
    let reviews = ["-n", "10000", "-c", "8", "http://reviews:9080/reviews/0"];
    mesh.call_until("deploy/client", &["-n", "20", "http://reviews:9080/reviews/0"], |summary| {
        summary.status("200") == 20
    });
    let summary = std::thread::scope(|scope| {
        let load = scope.spawn(|| mesh.call("deploy/client", &reviews).unwrap());
        for version in ["v1", "v2", "v3"] {
            mesh.run(&["restart", &format!("reviews-{version}")]);
        }
        load.join().unwrap()
    });
    assert_eq!(summary.status("200"), 10_000, "{:?}", summary.statuses);
}
