//! A local mesh for one test file. It goes away with its last test, also when that fails.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use serde::Deserialize;

use crate::{Answer, eventually, get_with, root};

/// A mesh of this process's own.
pub struct Mesh {
    name: String,
    /// What stands for the whole file, as paths.
    base: Vec<String>,
    state: tempfile::TempDir,
    ingress: String,
    ingress_tls: u16,
}

/// What `mesh-echo call` prints.
#[derive(Debug, Deserialize)]
pub struct Summary {
    /// How many requests were sent.
    pub requests: usize,
    /// How often each status came back.
    pub statuses: BTreeMap<String, usize>,
    /// How often each version answered.
    pub versions: BTreeMap<String, usize>,
    /// In milliseconds.
    pub milliseconds: Latency,
    /// The last answer.
    pub last: Last,
}

/// How long answers took.
#[derive(Debug, Deserialize)]
pub struct Latency {
    /// The shortest.
    pub min: u64,
    /// The median.
    pub p50: u64,
    /// The longest.
    pub max: u64,
}

/// The last answer.
#[derive(Debug, Deserialize)]
pub struct Last {
    /// Its headers.
    pub headers: BTreeMap<String, String>,
    /// Its body, as JSON where it is that.
    pub body: serde_json::Value,
}

impl Summary {
    /// How often a status came back.
    pub fn status(&self, status: &str) -> usize {
        self.statuses.get(status).copied().unwrap_or_default()
    }

    /// How often a version answered.
    pub fn version(&self, version: &str) -> usize {
        self.versions.get(version).copied().unwrap_or_default()
    }
}

/// One test's turn on the mesh; what it applied is deleted at its end.
pub struct Turn {
    mesh: &'static Mesh,
    applied: Vec<PathBuf>,
    _exclusive: MutexGuard<'static, ()>,
}

/// A binary of this build.
pub fn command(binary: &str) -> Command {
    let target = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_path_buf();
    let path = target.join(binary);
    assert!(path.exists(), "{} is not built: run `cargo build --workspace --bins` first", path.display());
    Command::new(path)
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

impl Mesh {
    /// Brings a mesh up with manifests (paths below the repository's root), namespace `default` injected.
    pub fn up(name: &str, manifests: &[&str]) -> Self {
        let state = tempfile::Builder::new().prefix("ironsail-e2e-").tempdir().unwrap();
        let mut mesh = Self {
            name: format!("{name}-{}", std::process::id()),
            base: manifests.iter().map(|manifest| root().join(manifest).display().to_string()).collect(),
            state,
            ingress: String::new(),
            ingress_tls: 0,
        };
        mesh.run(&["up"]);
        mesh.run(&["label", "namespace", "default", "istio-injection=enabled"]);
        mesh.apply_base();
        let status: serde_json::Value = serde_json::from_str(&mesh.run(&["status", "-o", "json"])).unwrap();
        let port = |name: &str| {
            status["ingress"][name].as_u64().unwrap_or_else(|| panic!("no ingress port: {status}"))
        };
        mesh.ingress = format!("http://127.0.0.1:{}", port("http"));
        mesh.ingress_tls = u16::try_from(port("https")).unwrap();
        mesh
    }

    /// Applies what stands for the whole file, and waits for its pods.
    fn apply_base(&self) {
        let files = self.base.iter().flat_map(|path| ["-f", path.as_str()]);
        let arguments: Vec<_> = ["apply", "--wait"].into_iter().chain(files).collect();
        let output = self.sailctl(if self.base.is_empty() { &["status"] } else { &arguments });
        assert!(output.status.success() || std::thread::panicking(), "{}", text(&output));
    }

    /// `sailctl local` on this mesh, unchecked.
    pub fn sailctl(&self, arguments: &[&str]) -> Output {
        let mut sailctl = command("sailctl");
        sailctl.args(["local", "--name", &self.name, "--state-dir"]).arg(self.state.path()).args(arguments);
        sailctl.current_dir(root()).output().unwrap()
    }

    /// `sailctl local` on this mesh; what it printed. Panics when it fails.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.sailctl(arguments);
        assert!(output.status.success(), "sailctl local {}: {}", arguments.join(" "), text(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Where the ingress gateway is reached over plain HTTP.
    pub fn ingress(&self) -> &str {
        &self.ingress
    }

    /// The port on 127.0.0.1 where it is reached over TLS.
    pub fn ingress_tls(&self) -> u16 {
        self.ingress_tls
    }

    /// Calls a URL with `mesh-echo call` from the first pod of a Deployment.
    pub fn call(&self, from: &str, arguments: &[&str]) -> Result<Summary, String> {
        self.call_in("default", from, arguments)
    }

    /// The same from another namespace.
    pub fn call_in(&self, namespace: &str, from: &str, arguments: &[&str]) -> Result<Summary, String> {
        let mut all = vec!["exec", "-n", namespace, from, "--", "mesh-echo", "call"];
        all.extend_from_slice(arguments);
        let output = self.sailctl(&all);
        serde_json::from_slice(&output.stdout).map_err(|error| format!("{error}: {}", text(&output)))
    }

    /// The product page, as a signed-in user or as nobody.
    pub fn product_page(&self, user: Option<&str>) -> Result<Answer, String> {
        let url = format!("{}/productpage", self.ingress);
        match user {
            Some(user) => get_with(&url, &[("cookie", &format!("session={user}"))]),
            None => get_with(&url, &[]),
        }
    }

    /// What helps to see why a test failed.
    fn report(&self) -> String {
        let mut report = String::new();
        for arguments in [
            &["status"] as &[&str],
            &["get", "pods", "-A", "-o", "wide"],
            &["logs", "-n", "istio-system", "deploy/istiod", "--tail", "40"],
        ] {
            let _ = writeln!(
                report,
                "--- sailctl local {}\n{}",
                arguments.join(" "),
                text(&self.sailctl(arguments))
            );
        }
        report
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.report());
        }
        let output = self.sailctl(&["down"]);
        if !output.status.success() {
            eprintln!("sailctl local down: {}", text(&output));
        }
    }
}

/// Statics are not dropped at exit, so the mesh of a test file is taken down by an exit handler of its own.
static MESH: OnceLock<Mesh> = OnceLock::new();
static TURNS: Mutex<()> = Mutex::new(());

impl Turn {
    /// Waits for this test's turn on the file's mesh; the first brings it up.
    pub fn take(name: &str, manifests: &[&str]) -> Self {
        let exclusive = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
        let mesh = MESH.get_or_init(|| {
            exit::at_exit(|| {
                if let Some(mesh) = MESH.get() {
                    mesh.sailctl(&["down"]);
                    let _ = std::fs::remove_dir_all(mesh.state.path());
                }
            });
            Mesh::up(name, manifests)
        });
        Self { mesh, applied: Vec::new(), _exclusive: exclusive }
    }

    /// Applies a manifest of the repository until the end of the turn.
    #[track_caller]
    pub fn apply(&mut self, manifest: &str) {
        self.apply_path(&root().join(manifest));
    }

    /// Applies text until the end of the turn.
    #[track_caller]
    pub fn apply_text(&mut self, name: &str, manifest: &str) {
        let path = self.mesh.state.path().join(format!("{name}.yaml"));
        std::fs::write(&path, manifest).unwrap();
        self.apply_path(&path);
    }

    #[track_caller]
    fn apply_path(&mut self, path: &Path) {
        self.mesh.run(&["apply", "-f", &path.display().to_string()]);
        self.applied.push(path.to_path_buf());
    }

    /// Calls until what comes back is as expected.
    #[track_caller]
    pub fn call_until(
        &self,
        from: &str,
        arguments: &[&str],
        mut expect: impl FnMut(&Summary) -> bool,
    ) -> Summary {
        eventually(|| {
            let summary = self.call(from, arguments)?;
            if expect(&summary) { Ok(summary) } else { Err(format!("{summary:?}")) }
        })
    }
}

impl std::ops::Deref for Turn {
    type Target = Mesh;

    fn deref(&self) -> &Mesh {
        self.mesh
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.mesh.report());
        }
        for manifest in self.applied.iter().rev() {
            self.mesh.sailctl(&["delete", "-f", &manifest.display().to_string(), "--ignore-not-found"]);
        }
        // What the test changed of it is as it was, what it deleted is back.
        self.mesh.apply_base();
    }
}

/// The C library's exit handlers.
mod exit {
    /// Runs `handler` when the process ends in order.
    #[allow(unsafe_code, reason = "atexit is a C function")]
    pub(super) fn at_exit(handler: fn()) {
        static HANDLER: std::sync::OnceLock<fn()> = std::sync::OnceLock::new();
        extern "C" fn run() {
            if let Some(handler) = HANDLER.get() {
                handler();
            }
        }
        unsafe extern "C" {
            fn atexit(handler: extern "C" fn()) -> i32;
        }
        if HANDLER.set(handler).is_ok() {
            // SAFETY: `run` is a function that lives as long as the process, and unwinds into nothing: a panic in an
            // `extern "C"` function aborts.
            unsafe { atexit(run) };
        }
    }
}
