//! The local mesh from outside: pods without sidecars, on programs of this machine. Each test has a mesh of its own, which
//! goes away with it. The control plane is a stand-in that never gets ready; with the real one, e2e/ tests the same.

#![allow(clippy::unwrap_used, reason = "a test ends where something goes wrong")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// What a child of this test program is told to do.
const ROLE: &str = "LOCAL_TEST_ROLE";

/// This test program in a pod. Where cargo put it, a container that runs as an ordinary user may not reach it.
const CHILD: &str = "/opt/ironsail/bin/child";

struct Mesh {
    name: String,
    dir: tempfile::TempDir,
}

impl Mesh {
    fn up(name: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("sailctl-test-").tempdir().unwrap();
        let mesh = Self { name: format!("{name}-{}", std::process::id()), dir };
        for program in ["saild", "sail-agent", "sail-proxy"] {
            let path = mesh.dir.path().join("bin").join(program);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "#!/bin/sh\nexec sleep 1000\n").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::copy(std::env::current_exe().unwrap(), mesh.dir.path().join("bin/child")).unwrap();
        fs::create_dir_all(mesh.dir.path().join("state")).unwrap();
        let words = [CHILD, "--exact", "child", "--ignored", "--nocapture", "--test-threads=1"];
        fs::write(mesh.dir.path().join("state/images.yaml"), format!("test/child: {words:?}\n")).unwrap();
        let bin = mesh.dir.path().join("bin").display().to_string();
        mesh.ok(&["up", "--no-wait", "--bin-dir", &bin]);
        mesh
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sailctl"));
        command.args(["local", "--name", &self.name, "--state-dir"]).arg(self.dir.path().join("state"));
        command.args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    /// The one line that an error is.
    #[track_caller]
    fn error(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?} succeeds");
        text(&output.stderr).lines().last().unwrap_or_default().to_owned()
    }

    fn apply_output(&self, arguments: &[&str], manifest: &str) -> Output {
        let mut all = vec!["apply", "-f", "-"];
        all.extend_from_slice(arguments);
        let mut child = self
            .command(&all)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(manifest.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    #[track_caller]
    fn apply(&self, manifest: &str) {
        let output = self.apply_output(&["--wait", "--timeout", "60"], manifest);
        assert!(output.status.success(), "{}\n{}", text(&output.stderr), self.ok(&["get", "pods", "-A"]));
    }

    /// An HTTP request from the pod `client`.
    fn get(&self, url: &str) -> String {
        let script = format!("{ROLE}='get {url}' {CHILD} --exact child --ignored --nocapture");
        let output = self.run(&["exec", "client", "--", "sh", "-c", &script]);
        let all = text(&output.stdout);
        let answer = all.split("GOT:").nth(1).and_then(|rest| rest.split(";;").next());
        answer.map_or_else(|| format!("{all}{}", text(&output.stderr)), str::to_owned)
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("state/node.log")).unwrap_or_default();
            eprintln!("--- node.log\n{log}");
        }
        drop(self.run(&["down"]));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn eventually(mut check: impl FnMut() -> Result<(), String>) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match check() {
            Ok(()) => return,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Processes whose command line or environment names a path.
fn processes_of(path: &Path) -> usize {
    let wanted = path.display().to_string();
    let named = |file: std::path::PathBuf| fs::read(file).is_ok_and(|bytes| text(&bytes).contains(&wanted));
    let entries = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let me = std::process::id().to_string();
    entries
        .filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().parse::<u32>().is_ok() && *name != *me)
        })
        .filter(|path| named(path.join("cmdline")))
        .count()
}

fn server(name: &str, replicas: usize) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 3
      containers:
      - name: server
        image: example.com/test/child:1.0
        env:
        - {{name: POD, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}
        - {{name: {ROLE}, value: serve 8080 $(POD)}}
        ports: [{{name: web, containerPort: 8080}}]
        readinessProbe: {{httpGet: {{path: /, port: web}}, periodSeconds: 1}}
---
"
    )
}

const CLIENT: &str = "apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  containers:
  - name: main
    image: curlimages/curl
    command: [sleep, infinity]
    securityContext: {runAsUser: 1000}
    volumeMounts:
    - {name: config, mountPath: /etc/app/config}
    - {name: token, mountPath: /var/run/secrets/tokens}
    - {name: scratch, mountPath: /scratch}
  volumes:
  - {name: config, configMap: {name: config}}
  - {name: scratch, emptyDir: {}}
  - name: token
    projected: {sources: [{serviceAccountToken: {path: token, audience: istio-ca, expirationSeconds: 43200}}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: config}
data: {greeting: hello}
binaryData: {module: AGzbbv8=}
---
";

const SERVICES: &str = "apiVersion: v1
kind: Service
metadata: {name: server}
spec: {selector: {app: server}, ports: [{name: http, port: 80, targetPort: web}]}
---
apiVersion: v1
kind: Service
metadata: {name: headless}
spec: {clusterIP: None, selector: {app: server}, ports: [{name: http, port: 8080}]}
---
";

#[test]
fn pods_find_and_reach_services() {
    let mesh = Mesh::up("services");
    mesh.apply(&(server("server", 2) + SERVICES + CLIENT));
    // One name leads to both pods in turn.
    let mut seen = std::collections::BTreeSet::new();
    eventually(|| {
        let answer = mesh.get("server.default.svc.cluster.local:80");
        if !answer.starts_with("server-") {
            return Err(answer);
        }
        seen.insert(answer);
        if seen.len() == 2 { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    assert!(mesh.get("headless:8080").starts_with("server-"));
    assert!(!mesh.get("nobody:80").starts_with("server-"));

    // A pod sees its own files and none of the others'.
    let exec = |script: &str| mesh.ok(&["exec", "client", "--", "sh", "-c", script]);
    assert_eq!(exec("cat /etc/app/config/greeting; id -u; hostname"), "hello1000\nclient\n");
    assert_eq!(exec("od -An -tx1 /etc/app/config/module"), " 00 6c db 6e ff\n");
    assert_eq!(
        exec("cut -d. -f2 /var/run/secrets/tokens/token | wc -l; touch /scratch/x && ls /scratch"),
        "1\nx\n"
    );
    assert_eq!(mesh.run(&["exec", "client", "--", "sh", "-c", "exit 7"]).status.code(), Some(7));
    assert!(!Path::new("/etc/app").exists());

    // A port of this machine leads in.
    let mut forward = Forward::start(&mesh, "svc/server", "0:80");
    assert!(forward.get().starts_with("server-"), "through the port-forward");
    drop(forward);

    let json: serde_json::Value =
        serde_json::from_str(&mesh.ok(&["get", "pod", "client", "-o", "json"])).unwrap();
    assert_eq!(json["status"]["phase"], "Running");
    assert!(mesh.ok(&["get", "svc"]).contains("10.96."));
    mesh.ok(&["delete", "deploy", "server"]);
    assert!(!mesh.ok(&["get", "pods"]).contains("server-"));
}

struct Forward(Child, u16);

impl Forward {
    fn start(mesh: &Mesh, target: &str, ports: &str) -> Self {
        let mut child =
            mesh.command(&["port-forward", target, ports]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.split([':', ' ']).nth(1).and_then(|port| port.parse().ok());
        Self(child, port.unwrap_or_else(|| panic!("no port in {line:?}")))
    }

    fn get(&mut self) -> String {
        get(&format!("127.0.0.1:{}", self.1)).unwrap()
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_rolling_restart_loses_no_request() {
    let mesh = Mesh::up("rolling");
    mesh.apply(&(server("server", 2) + SERVICES));
    let mut forward = Forward::start(&mesh, "svc/server", "0:80");
    let before = forward.get();
    mesh.ok(&["restart", "server"]);
    let (mut requests, mut names) = (0, std::collections::BTreeSet::new());
    eventually(|| {
        names.insert(forward.get());
        requests += 1;
        let pods = mesh.ok(&["get", "pods"]);
        let old = before.rsplit_once('-').map(|(set, _)| set.to_owned()).unwrap();
        if pods.contains(&old) || pods.contains("Terminating") { Err(pods) } else { Ok(()) }
    });
    assert!(requests > 20 && names.len() >= 3, "{requests} requests, {names:?}");
}

#[test]
fn what_fails_is_started_again_and_says_why() {
    let mesh = Mesh::up("failures");
    let output = mesh.apply_output(
        &[],
        "apiVersion: v1
kind: Pod
metadata: {name: crash}
spec: {containers: [{name: main, image: busybox, command: [sh, -c, 'echo run; exit 3']}]}
---
apiVersion: v1
kind: Pod
metadata: {name: unknown}
spec: {containers: [{name: main, image: 'nginx:1.27'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: job}
spec: {restartPolicy: Never, containers: [{name: main, image: busybox, command: [sh, -c, 'exit 0']}]}
---
apiVersion: v1
kind: Pod
metadata: {name: mounts}
spec:
  containers: [{name: main, image: busybox, command: [sleep, '1']}]
  volumes: [{name: config, configMap: {name: missing}}]
",
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    eventually(|| {
        let pods = mesh.ok(&["get", "pods"]);
        let line =
            |name: &str| pods.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        let right = line("crash").contains("CrashLoopBackOff")
            && line("unknown").contains("ErrImagePull: image \"nginx:1.27\" is no program of this machine")
            && line("job").contains("Succeeded")
            && line("mounts").contains("FailedMount: volume config: configmap \"missing\" not found");
        if right { Ok(()) } else { Err(pods) }
    });
    assert_eq!(mesh.ok(&["logs", "crash", "--previous"]), "run\n");
}

#[test]
fn wrong_manifests_are_refused_with_their_place() {
    let mesh = Mesh::up("refusals");
    let check = |manifest: &str, expect: &str| {
        let output = mesh.apply_output(&[], manifest);
        let error = text(&output.stderr);
        assert!(!output.status.success() && error.contains(expect), "{error}");
    };
    check(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {name: a}",
        "standard input, document 1: kind Job of batch/v1",
    );
    check("apiVersion: v1\nkind: Service\nmetadata: {name: ../a}", "metadata.name \"../a\"");
    check("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: 5}", "pod/a: wrong field");
    check("apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: b}", "namespace \"b\" not found");
    assert_eq!(mesh.error(&["get", "jobs"]).split(';').next(), Some("error: unknown kind \"jobs\""));
    assert_eq!(mesh.error(&["delete", "pod", "a"]), "error: pod/a not found");
}

#[test]
fn meshes_run_side_by_side_and_leave_nothing() {
    let (one, two) = (Mesh::up("one"), Mesh::up("two"));
    one.apply(CLIENT);
    two.apply(CLIENT);
    // Which pod gets which address is left to chance, so only the network is compared.
    let network = |mesh: &Mesh| {
        let pod: serde_json::Value =
            serde_json::from_str(&mesh.ok(&["get", "pod", "client", "-o", "json"])).unwrap();
        pod["status"]["podIP"].as_str().unwrap().rsplit_once('.').unwrap().0.to_owned()
    };
    assert_eq!(network(&one), network(&two), "each has the whole range of addresses");
    let interfaces = || fs::read_dir("/sys/class/net").unwrap().count();
    let before = interfaces();

    // A daemon that is killed takes everything with it.
    let state = one.dir.path().join("state");
    let pid_file = fs::read_to_string(state.join("node.pid")).unwrap();
    let pid = pid_file.split(' ').next().unwrap().to_owned();
    assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
    eventually(|| match processes_of(one.dir.path()) {
        0 => Ok(()),
        count => Err(format!("{count} processes are left")),
    });
    // A process that ends loses its name before it loses its socket.
    eventually(|| match one.error(&["get", "pods"]) {
        error if error.ends_with("start it with `sailctl local up`") => Ok(()),
        error => Err(error),
    });
    one.ok(&["down"]);
    assert!(!state.exists());
    assert!(two.ok(&["get", "pods"]).contains("client"), "the other mesh goes on");
    two.ok(&["down"]);
    assert_eq!(processes_of(two.dir.path()), 0);
    assert_eq!(interfaces(), before, "the machine's own network is as it was");
}

#[test]
fn a_missing_capability_is_named() {
    let dir = tempfile::tempdir().unwrap();
    // Root of a user namespace of its own, so that any user can run this.
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "setpriv", "--bounding-set=-net_admin,-net_raw"])
        .arg(env!("CARGO_BIN_EXE_sailctl"))
        .args(["local", "--name", "capability", "--state-dir"])
        .arg(dir.path().join("state"))
        .arg("up")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    let error = stderr.lines().last().unwrap_or_default();
    assert!(error.starts_with("error: this root lacks CAP_NET_ADMIN, CAP_NET_RAW"), "{stderr}");
}

#[test]
fn a_port_in_use_and_a_missing_program_are_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let mesh = Mesh::up("named");
    mesh.ok(&["down"]);
    let bin = mesh.dir.path().join("bin").display().to_string();
    let error = mesh.error(&["up", "--bin-dir", &bin, "--http-port", &port]);
    assert!(
        error.starts_with(&format!("error: --http-port {port}: another program has this port")),
        "{error}"
    );
    let error = mesh.error(&["up", "--bin-dir", "/nowhere"]);
    assert!(error.starts_with("error: /nowhere/saild is missing; build it"), "{error}");
}

#[test]
#[ignore = "a role that containers of other tests play"]
#[expect(clippy::disallowed_methods, reason = "the role is handed over so")]
fn child() {
    let role = std::env::var(ROLE).expect("a role");
    match role.split(' ').collect::<Vec<_>>().as_slice() {
        ["serve", port, name] => serve(port.parse().unwrap(), name),
        ["get", url] => println!("GOT:{};;", get(url).unwrap_or_else(|error| error.to_string())),
        _ => panic!("unknown role {role}"),
    }
}

fn serve(port: u16, name: &str) {
    let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
    for mut stream in listener.incoming().flatten() {
        // A connection closed with the request unread would be a reset.
        let mut request = Vec::new();
        let mut part = [0; 1024];
        while !request.ends_with(b"\r\n\r\n") {
            match stream.read(&mut part) {
                Ok(length) if length > 0 => request.extend_from_slice(&part[..length]),
                _ => break,
            }
        }
        let _ = write!(
            stream,
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{name}",
            name.len()
        );
    }
}

fn get(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET / HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}
