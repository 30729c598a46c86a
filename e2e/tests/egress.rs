//! What lies outside the mesh: forbidden by REGISTRY_ONLY, known by a ServiceEntry.

use e2e::{Turn, eventually};

fn turn() -> Turn {
    Turn::take("egress", &["examples/tasks/echo.yaml", "examples/tasks/outside.yaml"])
}

/// The address of the pod that plays the outside world.
fn outside_address(mesh: &Turn) -> String {
    eventually(|| {
        let pods = mesh.run(&["get", "pods", "-n", "outside", "-o", "json"]);
        let pods: serde_json::Value = serde_json::from_str(&pods).map_err(|error| error.to_string())?;
        let legacy = pods["items"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|pod| pod["metadata"]["labels"]["app"] == "legacy")
            .and_then(|pod| pod["status"]["podIP"].as_str());
        legacy.map(str::to_owned).ok_or_else(|| "the pod has no address yet".to_owned())
    })
}

const BY_NAME: [&str; 3] = ["-H", "host: api.example.com", "http://240.0.0.10/"];

#[test]
fn registry_only_refuses_what_is_unknown() {
    let mut mesh = turn();
    let url = format!("http://{}:8080/", outside_address(&mesh));
    mesh.call_until("deploy/client", &[&url], |summary| summary.status("200") == 1);
    mesh.apply("examples/tasks/registry-only.yaml");
    mesh.call_until("deploy/client", &[&url], |summary| summary.status("502") == 1);
    // What the mesh knows is still reached.
    assert_eq!(mesh.call("deploy/client", &["http://echo:8080/"]).unwrap().status("200"), 1);
}

#[test]
fn a_service_entry_makes_a_host_known() {
    let mut mesh = turn();
    mesh.apply("examples/tasks/registry-only.yaml");
    mesh.call_until("deploy/client", &BY_NAME, |summary| summary.status("502") == 1);
    let entry = std::fs::read_to_string(e2e::root().join("examples/tasks/service-entry.yaml")).unwrap();
    mesh.apply_text("service-entry", &entry.replace("192.0.2.10", &outside_address(&mesh)));
    mesh.call_until("deploy/client", &BY_NAME, |summary| summary.version("legacy") == 1);
}
