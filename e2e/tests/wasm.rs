//! Wasm plugins, beside sail-proxy and beside a stock Envoy, and at the ingress gateway.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use e2e::{Summary, Turn, ensure, eventually, get_with, root};
use sha2::{Digest as _, Sha256};

const SERVERS: [&str; 2] = ["echo", "echo-envoy"];

fn turn() -> Turn {
    // Programs beside sailctl are in every pod; the make target puts Envoy there.
    drop(e2e::command("envoy"));
    Turn::take("wasm", &["examples/tasks/echo.yaml", "examples/tasks/echo-envoy.yaml"])
}

/// The documented plugin, once for each server and with what is changed in it.
fn plugins(change: impl Fn(&str) -> String) -> String {
    let text = std::fs::read_to_string(root().join("examples/tasks/wasm-greeting.yaml")).unwrap();
    let one = |server: &&str| {
        let text = change(&text);
        text.replace("name: greeting", &format!("name: greeting-{server}"))
            .replace("app: echo", &format!("app: {server}"))
    };
    SERVERS.iter().map(one).collect::<Vec<_>>().join("---\n")
}

/// What a greeting would be in the request and in the answer.
fn greetings(summary: &Summary) -> (Option<&str>, Option<&str>) {
    let request = summary.last.body["headers"]["x-greeting"].as_str();
    (request, summary.last.headers.get("x-greeting").map(String::as_str))
}

/// Waits until every server answers with the status, and its requests and answers have the greetings.
#[track_caller]
fn greet(mesh: &Turn, status: &str, request: Option<&str>, answer: Option<&str>) {
    for server in SERVERS {
        let url = format!("http://{server}:8080/");
        // Ten, since each of a server's workers and pods hears of a change on its own.
        mesh.call_until("deploy/client", &["-n", "10", &url], |summary| {
            summary.status(status) == 10 && greetings(summary) == (request, answer)
        });
    }
}

#[test]
fn the_manifests_have_the_module_of_the_text() {
    let read = |name: &str| std::fs::read_to_string(root().join(name)).unwrap();
    let module = wat::parse_str(read("examples/wasm/greeting.wat")).unwrap();
    let served = read("examples/tasks/wasm-modules.yaml");
    let (_, served) = served.split_once("greeting.wasm: \"").unwrap();
    let (served, _) = served.split_once('"').unwrap();
    let served: String = served.chars().filter(|c| !c.is_whitespace() && *c != '\\').collect();
    let right = BASE64.encode(&module);
    assert!(served == right, "examples/tasks/wasm-modules.yaml should have {right}");
    let sha256: String = Sha256::digest(&module).iter().map(|byte| format!("{byte:02x}")).collect();
    for manifest in ["wasm-greeting", "wasm-greeting-ingress"] {
        let manifest = read(&format!("examples/tasks/{manifest}.yaml"));
        assert!(manifest.contains(&format!("sha256: {sha256}\n")), "the SHA-256 is {sha256}: {manifest}");
    }
}

#[test]
fn a_plugin_greets_changes_its_words_and_goes() {
    let mut mesh = turn();
    mesh.apply("examples/tasks/wasm-modules.yaml");
    mesh.apply("examples/tasks/ingress.yaml");
    mesh.apply_text("greeting", &plugins(str::to_owned));
    greet(&mesh, "200", Some("hello"), Some("hello"));
    mesh.apply_text("other", &plugins(|text| text.replace("hello", "good day")));
    greet(&mesh, "200", Some("good day"), Some("good day"));

    mesh.apply("examples/tasks/wasm-greeting-ingress.yaml");
    let through = || {
        let answer = get_with(&format!("{}/", mesh.ingress()), &[("host", "echo.example.com")])?;
        let said: Vec<_> = answer.headers.get_all("x-greeting").iter().collect();
        Ok((answer.status, format!("{said:?}")))
    };
    eventually(|| {
        let (status, said) = through()?;
        ensure(status == 200 && said == r#"["good day", "welcome"]"#, || format!("{status} {said}"))
    });
    mesh.run(&["delete", "-f", "examples/tasks/wasm-greeting-ingress.yaml"]);
    mesh.run(&["delete", "wasmplugin", "greeting-echo", "greeting-echo-envoy"]);
    greet(&mesh, "200", None, None);
    eventually(|| through().and_then(|(_, said)| ensure(said == "[]", || said)));
}

#[test]
fn no_request_is_lost_while_a_plugin_comes_changes_and_goes() {
    let mut mesh = turn();
    mesh.apply("examples/tasks/wasm-modules.yaml");
    mesh.apply_text("greeting", &plugins(str::to_owned));
    greet(&mesh, "200", Some("hello"), Some("hello"));
    let folder = tempfile::tempdir().unwrap();
    let manifest = folder.path().join("greeting.yaml").display().to_string();
    let words = |words: &str| {
        std::fs::write(&manifest, plugins(|text| text.replace("hello", words))).unwrap();
        mesh.run(&["apply", "-f", &manifest]);
        greet(&mesh, "200", Some(words), Some(words));
    };
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let loads = SERVERS.map(|server| {
            let (mesh, over) = (&mesh, &over);
            scope.spawn(move || {
                let url = format!("http://{server}:8080/");
                while !over.load(Ordering::Relaxed) {
                    let summary = mesh.call("deploy/client", &["-n", "300", "-c", "4", &url]).unwrap();
                    assert_eq!(summary.status("200"), 300, "{:?}", summary.statuses);
                }
            })
        });
        let changes = std::panic::catch_unwind(AssertUnwindSafe(|| {
            words("one");
            words("two");
            mesh.run(&["delete", "-f", &manifest]);
            greet(&mesh, "200", None, None);
            words("three");
        }));
        over.store(true, Ordering::Relaxed);
        for load in loads {
            load.join().unwrap();
        }
        changes.unwrap();
    });
}

#[test]
fn without_its_module_a_plugin_refuses_or_is_passed_by() {
    let mut mesh = turn();
    let open = |text: &str| text.replace("phase:", "failStrategy: FAIL_OPEN\n  phase:");
    // Nobody serves the module, and these pods have never had it.
    mesh.apply_text("closed", &plugins(str::to_owned));
    for pod in ["echo-v1", "echo-v2", "echo-envoy"] {
        mesh.run(&["restart", pod]);
    }
    greet(&mesh, "503", None, None);
    let refused = mesh.call("deploy/client", &["http://echo:8080/"]).unwrap();
    assert_eq!(refused.last.body, "wasm plugin unavailable");
    mesh.apply_text("open", &plugins(open));
    greet(&mesh, "200", None, None);
    // It comes: nobody has to be told.
    mesh.apply("examples/tasks/wasm-modules.yaml");
    greet(&mesh, "200", Some("hello"), Some("hello"));

    // Another module than was meant, first in the place of one that runs, then alone.
    let wrong = |text: &str| text.replace("sha256: 9", "sha256: 8");
    mesh.apply_text("wrong", &plugins(wrong));
    for server in SERVERS {
        let pod = format!("deploy/{}", if server == "echo" { "echo-v1" } else { server });
        eventually(|| {
            let log = mesh.run(&["logs", &pod, "-c", "istio-proxy"]);
            ensure(log.contains("has the SHA-256 9"), || log)
        });
    }
    greet(&mesh, "200", Some("hello"), Some("hello"));
    mesh.run(&["delete", "wasmplugin", "greeting-echo", "greeting-echo-envoy"]);
    greet(&mesh, "200", None, None);
    mesh.apply_text("alone", &plugins(wrong).replace("name: greeting", "name: wrong"));
    greet(&mesh, "503", None, None);
}

#[test]
fn plugins_stand_in_the_order_of_their_phases_on_the_side_that_is_meant() {
    let mut mesh = turn();
    mesh.apply("examples/tasks/wasm-modules.yaml");
    for (name, phase) in [("d", "UNSPECIFIED_PHASE"), ("b", "AUTHZ"), ("a", "AUTHN"), ("c", "STATS")] {
        let text = plugins(|text| text.replace("AUTHN", phase).replace("hello", name));
        mesh.apply_text(name, &text.replace("name: greeting", &format!("name: plugin-{name}")));
    }
    // Answers come by in the opposite order, and the last header is what is seen.
    greet(&mesh, "200", Some("a, b, c, d"), Some("a"));
    for name in ["a", "b", "c", "d"] {
        mesh.run(&[
            "delete",
            "wasmplugin",
            &format!("plugin-{name}-echo"),
            &format!("plugin-{name}-echo-envoy"),
        ]);
    }

    let of_clients = |text: &str| text.replace("phase:", "match:\n  - mode: CLIENT\n  phase:");
    mesh.apply_text("clients", &plugins(of_clients));
    for (from, to) in [("deploy/echo-v1", "echo-envoy"), ("deploy/echo-envoy", "echo")] {
        let url = format!("http://{to}:8080/");
        mesh.call_until(from, &["-n", "10", &url], |summary| {
            greetings(summary) == (Some("hello"), Some("hello"))
        });
    }
}
