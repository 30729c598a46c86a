//! Retries, timeouts, circuit breaking, outlier ejection, mirroring, on the echo server.

use std::time::Duration;

use e2e::{Turn, ensure, eventually};

fn turn() -> Turn {
    Turn::take("resilience", &["examples/tasks/echo.yaml"])
}

#[test]
fn retries_hide_an_endpoint_that_fails() {
    let mut mesh = turn();
    mesh.apply("examples/tasks/no-retries.yaml");
    mesh.call_until("deploy/client", &["-n", "30", "http://echo:8080/flaky/3"], |summary| {
        summary.status("503") > 0
    });
    mesh.apply("examples/tasks/retries.yaml");
    let arguments = ["-n", "30", "http://echo:8080/flaky/3"];
    let summary = mesh.call_until("deploy/client", &arguments, |summary| summary.status("503") == 0);
    assert_eq!(summary.status("200"), 30, "{summary:?}");
}

#[test]
fn a_late_answer_is_a_504() {
    let mut mesh = turn();
    mesh.apply("examples/tasks/timeout.yaml");
    let summary = mesh
        .call_until("deploy/client", &["http://echo:8080/delay/3000"], |summary| summary.status("504") == 1);
    assert!((400..2_500).contains(&summary.milliseconds.max), "{summary:?}");
    assert_eq!(mesh.call("deploy/client", &["http://echo:8080/delay/10"]).unwrap().status("200"), 1);
}

#[test]
fn more_than_the_limit_is_refused() {
    let mut mesh = turn();
    mesh.apply("examples/tasks/no-retries.yaml");
    mesh.apply("examples/tasks/circuit-breaker.yaml");
    let arguments = ["-n", "60", "-c", "6", "http://echo:8080/delay/20"];
    let summary = mesh.call_until("deploy/client", &arguments, |summary| summary.status("503") > 0);
    assert!(summary.status("200") > 0, "nothing passed: {summary:?}");
    assert_eq!(summary.status("200") + summary.status("503"), 60, "{summary:?}");
    // One after the other stays within the limit.
    let one_by_one = mesh.call("deploy/client", &["-n", "20", "http://echo:8080/"]).unwrap();
    assert_eq!(one_by_one.status("200"), 20, "{one_by_one:?}");
}

#[test]
fn an_endpoint_that_fails_is_ejected() {
    let mut mesh = turn();
    mesh.apply("examples/tasks/outlier-detection.yaml");
    mesh.apply_text("failing", FAILING);
    let arguments = ["-n", "40", "http://echo:8080/healthy"];
    mesh.call_until("deploy/client", &arguments, |summary| {
        summary.status("200") == 40 && summary.versions.len() == 2
    });
}

/// An endpoint of the echo service that has nothing but failures to give.
const FAILING: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: echo-failing}
spec:
  replicas: 1
  selector: {matchLabels: {app: echo, version: failing}}
  template:
    metadata: {labels: {app: echo, version: failing}}
    spec:
      containers:
      - name: echo
        image: ironsail/examples-echo:0.1.0
        args: [serve, --version, failing, --fail]
        ports: [{containerPort: 8080}]
        readinessProbe: {httpGet: {path: /health, port: 8080}, periodSeconds: 1}
";

#[test]
fn a_mirrored_version_sees_every_request() {
    let mut mesh = turn();
    mesh.apply("examples/tasks/mirror.yaml");
    let count = |version: &str| -> u64 {
        let pod = format!("deploy/echo-{version}");
        let summary = mesh.call(&pod, &["http://127.0.0.1:8080/count"]).unwrap();
        summary.last.body.as_u64().unwrap()
    };
    mesh.call_until("deploy/client", &["-n", "10", "http://echo:8080/"], |summary| {
        summary.version("v1") == 10
    });
    eventually(|| {
        let before = count("v2");
        let answered = mesh.call("deploy/client", &["-n", "20", "http://echo:8080/"])?;
        ensure(answered.version("v1") == 20, || format!("{answered:?}"))?;
        std::thread::sleep(Duration::from_millis(200));
        let copies = count("v2") - before;
        ensure(copies == 20, || format!("v2 saw {copies} of 20 requests"))
    });
}
