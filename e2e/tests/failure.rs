//! When things go wrong: nothing that flows stops, and nothing that was good is lost.

use e2e::{Turn, ensure, eventually};

fn turn() -> Turn {
    Turn::take("failure", &["examples/bookinfo/platform/bookinfo.yaml", "examples/tasks/echo.yaml"])
}

/// Ends every process of a name in a pod, as the kernel would: at once.
fn kill(mesh: &Turn, namespace: &str, pod: &str, container: &str, program: &str) {
    // Pods share a process namespace, so the pod's own processes are told by their network.
    let script = format!("pkill -9 --ns $$ --nslist net -x {program}");
    mesh.run(&["exec", "-n", namespace, pod, "-c", container, "--", "sh", "-c", &script]);
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
