//! An agent in a directory of its own, with ports of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tonic::transport::{Channel, Endpoint, Uri};

use super::control_plane::ControlPlane;
use super::free_port;

/// The ports of one agent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) admin: u16,
    pub(crate) status: u16,
    pub(crate) health: u16,
    pub(crate) prometheus: u16,
    pub(crate) dns: u16,
}

/// What to run.
pub(crate) struct Setup {
    pub(crate) dir: TempDir,
    pub(crate) ports: Ports,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) proxy_config: serde_json::Value,
}

impl Setup {
    /// A pod with the control plane's root and a token.
    pub(crate) fn new(plane: &ControlPlane) -> Self {
        let dir = tempfile::tempdir().unwrap();
        plane.write_root(&dir.path().join(agent_contract::paths::ISTIOD_ROOT_CERT));
        let ports = Ports {
            admin: free_port(),
            status: free_port(),
            health: free_port(),
            prometheus: free_port(),
            dns: free_port(),
        };
        let env = [
            ("POD_NAME", "reviews-1".to_owned()),
            ("POD_NAMESPACE", "default".to_owned()),
            ("INSTANCE_IP", "127.0.0.1".to_owned()),
            ("SERVICE_ACCOUNT", "reviews".to_owned()),
            ("ISTIOD_SAN", "istiod.istio-system.svc".to_owned()),
            ("ENVOY_STATUS_PORT", ports.health.to_string()),
            ("ENVOY_PROMETHEUS_PORT", ports.prometheus.to_string()),
            ("DNS_PROXY_ADDR", format!("127.0.0.1:{}", ports.dns)),
        ];
        let proxy_config = serde_json::json!({
            "discoveryAddress": plane.address().to_string(),
            "proxyAdminPort": ports.admin,
            "statusPort": ports.status,
            "terminationDrainDuration": "0.2s",
            "concurrency": 1,
        });
        let env = env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let setup = Self { dir, ports, env, proxy_config };
        setup.write_token("first");
        setup
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn proxy(mut self, field: &str, value: impl Into<serde_json::Value>) -> Self {
        self.proxy_config[field] = value.into();
        self
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    pub(crate) fn write_token(&self, token: &str) {
        let path = self.path(agent_contract::paths::TOKEN);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, format!("{token}\n")).unwrap();
    }

    pub(crate) fn start(self) -> Agent {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sail-agent"));
        command
            .args(["proxy", "sidecar", "--domain", "default.svc.cluster.local"])
            .current_dir(self.dir.path())
            .env_remove("ISTIO_META_DNS_CAPTURE")
            .envs(&self.env)
            .env("PROXY_CONFIG", self.proxy_config.to_string())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        Agent { child: command.spawn().unwrap(), setup: self }
    }
}

/// A running agent; dropping it kills it.
pub(crate) struct Agent {
    pub(crate) child: Child,
    pub(crate) setup: Setup,
}

impl Agent {
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    pub(crate) async fn exit(&mut self) -> ExitStatus {
        let wait = tokio::time::timeout(std::time::Duration::from_secs(20), self.child.wait());
        wait.await.expect("the agent did not end").unwrap()
    }

    /// Status and body; `None` while nobody answers.
    pub(crate) async fn get(&self, port: u16, path: &str) -> Option<(u16, String)> {
        self.request(port, http::Method::GET, path).await
    }

    pub(crate) async fn request(&self, port: u16, method: http::Method, path: &str) -> Option<(u16, String)> {
        let timeout = std::time::Duration::from_secs(5);
        let fetch = sail_agent::http_client::Fetch::get("127.0.0.1", port, path, timeout).method(method);
        let answer = fetch.send().await.ok()?;
        Some((answer.status.as_u16(), String::from_utf8_lossy(&answer.body).into_owned()))
    }

    /// A gRPC channel to one of the agent's sockets, as soon as it is there.
    pub(crate) async fn socket(&self, relative: &str) -> Channel {
        let path = self.setup.path(relative);
        super::until("the agent's socket is there", async || connect(&path).await).await
    }
}

async fn connect(path: &Path) -> Option<Channel> {
    let path = path.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(hyper_util::rt::TokioIo::new) }
    });
    Endpoint::from_static("http://agent").connect_with_connector(connector).await.ok()
}
