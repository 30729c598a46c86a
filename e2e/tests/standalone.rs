//! Each half alone, as one tries it before a mesh: sail-proxy and Envoy under one configuration file, and either of them at
//! saild. The files name ports, so each test has a network of its own.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use e2e::{Answer, ensure, eventually, get, get_with, root};

/// What both proxies are told. Without hot restart, as what Envoy shares for it may be another user's on this machine.
const FLAGS: [&str; 5] = ["--concurrency", "1", "-l", "warning", "--disable-hot-restart"];

/// A program that ends with this value.
struct Running(Child);

impl Running {
    fn start(program: &str, arguments: &[&str], output: &Path) -> Self {
        let log = std::fs::File::create(output).unwrap();
        let child = e2e::command(program)
            .args(arguments)
            .current_dir(root())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        Self(child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Runs a test in a network namespace of its own, in which it starts itself again.
fn alone(test: &str, run: impl FnOnce()) {
    const AGAIN: &str = "ip link set lo up && exec \"$0\" --exact \"$1\" --nocapture";
    #[expect(clippy::disallowed_methods, reason = "the test says to itself that it was started again")]
    if std::env::var_os("E2E_ALONE").is_some() {
        return run();
    }
    let user = Command::new("id").arg("-u").output().unwrap().stdout;
    let own: &[&str] = if user == b"0\n" { &[] } else { &["--user", "--map-root-user"] };
    let status = Command::new("unshare")
        .args(own)
        .args(["--net", "sh", "-c", AGAIN])
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env("E2E_ALONE", "1")
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed in a network of its own");
}

fn echo(version: &str, digit: u16, folder: &Path) -> Running {
    let [http, grpc, tcp] = [9000 + digit, 7000 + digit, 6000 + digit].map(|port| port.to_string());
    let arguments = [
        "serve",
        "--address",
        "127.0.0.1",
        "--version",
        version,
        "--http-port",
        &http,
        "--grpc-port",
        &grpc,
        "--tcp-port",
        &tcp,
    ];
    Running::start("mesh-echo", &arguments, &folder.join(version))
}

fn version(answer: &Answer) -> Option<String> {
    let body: serde_json::Value = serde_json::from_str(&answer.body).ok()?;
    Some(body["version"].as_str()?.to_owned())
}

/// The version that answers, once one does; `log` is that of the proxy that is asked.
fn answers_from(url: &str, headers: &[(&str, &str)], expected: &str, log: &Path) {
    eventually(|| {
        let answer = get_with(url, headers).map_err(|error| format!("{error}\n{}", text(log)))?;
        ensure(version(&answer).as_deref() == Some(expected), || format!("{answer:?}"))
    });
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn a_configuration_runs_on_either_proxy() {
    alone("a_configuration_runs_on_either_proxy", || {
        for program in ["sail-proxy", "envoy"] {
            runs_the_front(program);
        }
    });
}

fn runs_the_front(program: &str) {
    const FRONT: &str = "http://127.0.0.1:10000";
    let folder = tempfile::tempdir().unwrap();
    let (first, _second) = (echo("v1", 1, folder.path()), echo("v2", 2, folder.path()));
    let log = folder.path().join("proxy");
    let file = "examples/standalone/front.yaml";
    let checked =
        e2e::command(program).args(["-c", file, "--mode", "validate"]).current_dir(root()).output().unwrap();
    assert!(checked.status.success(), "{program}: {checked:?}");
    let mut flags = vec!["-c", file, "--file-flush-interval-msec", "100"];
    flags.extend(FLAGS);
    let _proxy = Running::start(program, &flags, &log);
    answers_from(&format!("{FRONT}/hello"), &[("end-user", "jason")], "v2", &log);
    answers_from(&format!("{FRONT}/hello"), &[], "v1", &log);
    let denied = get(&format!("{FRONT}/admin")).unwrap();
    assert_eq!((denied.status, denied.body.as_str()), (403, "RBAC: access denied"), "{program}");
    eventually(|| {
        let stats = get("http://127.0.0.1:9901/stats?filter=front.rbac.denied")?.body;
        ensure(stats.contains("http.front.rbac.denied: 1\n"), || format!("{program}: {stats}"))
    });
    eventually(|| ensure(text(&log).contains("GET /admin 403 - "), || format!("{program}: {}", text(&log))));
    // The first version goes: its health checks find it out, and only what is sent to it fails.
    drop(first);
    eventually(|| {
        get(&format!("{FRONT}/hello"))?;
        ensure(text(&log).contains(" 503 UH v1 "), || format!("{program}: {}", text(&log)))
    });
    answers_from(&format!("{FRONT}/hello"), &[("end-user", "jason")], "v2", &log);
}

#[test]
fn either_proxy_asks_the_control_plane() {
    alone("either_proxy_asks_the_control_plane", || {
        let folder = tempfile::tempdir().unwrap();
        // A copy, since the test changes it.
        let registry = folder.path().join("registry");
        std::fs::create_dir(&registry).unwrap();
        let manifest = text(&root().join("examples/standalone/registry/echo.yaml"));
        std::fs::write(registry.join("echo.yaml"), &manifest).unwrap();
        let state = folder.path().join("state");
        let arguments = [
            "discovery",
            "--registry-dir",
            registry.to_str().unwrap(),
            "--state-dir",
            state.to_str().unwrap(),
            "--httpAddr",
            "127.0.0.1:8081",
        ];
        let _saild = Running::start("saild", &arguments, &folder.path().join("saild"));
        let _echoes = (echo("v1", 1, folder.path()), echo("v2", 2, folder.path()));
        for program in ["envoy", "sail-proxy"] {
            follows_the_registry(program, &registry.join("echo.yaml"), &manifest, folder.path());
        }
    });
}

fn follows_the_registry(program: &str, file: &Path, manifest: &str, folder: &Path) {
    const EDGE: &str = "http://127.0.0.1:8080/";
    let log = folder.join(program);
    let mut flags = vec!["-c", "examples/standalone/xds.yaml"];
    flags.extend(FLAGS);
    let _proxy = Running::start(program, &flags, &log);
    answers_from(EDGE, &[], "v1", &log);
    answers_from(EDGE, &[("end-user", "jason")], "v2", &log);
    let synced = get("http://127.0.0.1:8081/debug/syncz").unwrap().body;
    assert!(synced.contains("edge.default"), "{program}: {synced}");
    let put = |text: &str| {
        let temporary = folder.join("next");
        std::fs::write(&temporary, text).unwrap();
        std::fs::rename(&temporary, file).unwrap();
    };
    // What is wrong changes nothing; what is right does.
    put(&manifest.replace("exact: jason", "exact: [jason]"));
    eventually(|| {
        let log = text(&folder.join("saild"));
        ensure(log.contains("echo.yaml") && log.contains("end-user"), || log)
    });
    answers_from(EDGE, &[("end-user", "jason")], "v2", &log);
    put(&manifest.replace("exact: jason", "exact: mary"));
    answers_from(EDGE, &[("end-user", "jason")], "v1", &log);
    answers_from(EDGE, &[("end-user", "mary")], "v2", &log);
    put(manifest);
    answers_from(EDGE, &[("end-user", "jason")], "v2", &log);
}
