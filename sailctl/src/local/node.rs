//! The node daemon: plays API server, scheduler, kubelet, kube-proxy and DNS of a mesh on this machine. It is the first
//! process of the mesh's namespaces ([`isolate`]); what it starts ends with it.

mod admission;
mod api;
mod board;
mod container;
mod deployment;
mod dns;
mod egress;
mod env;
mod forward;
mod hostnet;
mod http;
mod images;
pub(crate) mod isolate;
mod issuer;
mod kube_proxy;
mod network;
mod patch;
mod pod;
mod pods;
mod probe;
mod process;
mod status;
mod store;
mod supervise;
mod system;
mod volumes;

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use base::task::Supervised;
use clap::Args;
use nix::mount::{MsFlags, mount};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use super::protocol::Ingress;
use super::{Environment, StateDir};
use forward::Listeners;
use hostnet::HostNet;
use images::Images;
use issuer::Issuer;
use network::Network;
use pods::Pods;
use store::Store;

/// The name of the one node.
pub(crate) const NODE_NAME: &str = "local";

/// What `up` hands over to the daemon.
#[derive(Args, Clone, Debug)]
#[group(id = "node")]
pub(crate) struct Options {
    /// Port of 127.0.0.1 for the gateway's HTTP [default: 8080, or the next that is free]
    #[arg(long)]
    pub(crate) http_port: Option<u16>,
    /// Port of 127.0.0.1 for the gateway's HTTPS [default: 8443, or the next that is free]
    #[arg(long)]
    pub(crate) https_port: Option<u16>,
    /// Where the mesh's programs are [default: beside sailctl]
    #[arg(long)]
    pub(crate) bin_dir: Option<PathBuf>,
}

impl Options {
    /// The same, as arguments.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        let numbers = [("--http-port", self.http_port), ("--https-port", self.https_port)];
        for (flag, port) in numbers {
            arguments.extend(port.map(|port| format!("{flag}={port}")));
        }
        arguments.extend(self.bin_dir.as_ref().map(|dir| format!("--bin-dir={}", dir.display())));
        arguments
    }

    /// The directory of the mesh's programs.
    pub(crate) fn programs(&self) -> anyhow::Result<PathBuf> {
        if let Some(dir) = &self.bin_dir {
            return std::path::absolute(dir).with_context(|| format!("--bin-dir {}", dir.display()));
        }
        let own = std::env::current_exe().context("cannot tell where sailctl is")?;
        Ok(own.parent().context("cannot tell where sailctl is")?.to_path_buf())
    }
}

/// One mesh's daemon, as its parts see it.
pub(crate) struct Node {
    pub(crate) state: StateDir,
    pub(crate) store: Store,
    pub(crate) network: Arc<Network>,
    pub(crate) host: HostNet,
    pub(crate) issuer: Issuer,
    pub(crate) images: Images,
    pub(crate) pods: Pods,
    pub(crate) ingress: Ingress,
    pub(crate) bin_dir: PathBuf,
    /// The PATH of who started the mesh.
    pub(crate) path: String,
    pub(crate) shutdown: Notify,
}

/// Runs the daemon. The machine's ports and sockets are taken before its network is left.
pub(crate) fn run(
    state: &StateDir,
    environment: &Environment,
    options: &Options,
) -> anyhow::Result<ExitCode> {
    // With the outer half dies the mesh.
    set_pdeathsig(Signal::SIGKILL).context("cannot tie the daemon to its parent")?;
    base::log::init(&environment.log, base::log::Format::Text)?;
    own_mounts(state)?;
    let listeners = Listeners::bind(options)?;
    let _ = std::fs::remove_file(state.socket());
    let socket = UnixListener::bind(state.socket()).with_context(|| {
        format!("cannot listen on {} (a path may have 107 bytes)", state.socket().display())
    })?;
    let host = HostNet::start()?;
    network::enter()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let node = Arc::new(Node {
        store: Store::new(state)?,
        network: Arc::default(),
        host,
        issuer: Issuer::open(state)?,
        images: Images::load(&state.images())?,
        pods: Pods::default(),
        ingress: listeners.ingress,
        bin_dir: options.programs()?,
        path: environment.path.clone(),
        shutdown: Notify::new(),
        state: state.clone(),
    });
    runtime.block_on(serve(node, listeners, socket))
}

/// The mesh's own process files, and a file system for what lives as long as it.
fn own_mounts(state: &StateDir) -> anyhow::Result<()> {
    let nothing: Option<&str> = None;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), nothing)
        .context("cannot mount /proc (a container may forbid it; run it privileged)")?;
    let run = state.run();
    mount(Some("tmpfs"), &run, Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))
        .with_context(|| format!("cannot mount {}", run.display()))?;
    for dir in ["root", "specs", "pods"] {
        std::fs::create_dir_all(run.join(dir))?;
    }
    Ok(())
}

async fn serve(node: Arc<Node>, listeners: Listeners, socket: UnixListener) -> anyhow::Result<ExitCode> {
    socket.set_nonblocking(true)?;
    let socket = tokio::net::UnixListener::from_std(socket)?;
    let _loops = [
        Supervised::spawn(kube_proxy::run(node.clone())),
        Supervised::spawn(pods::run(node.clone())),
        Supervised::spawn(pods::refresh(node.clone())),
        Supervised::spawn(deployment::run(node.clone())),
        Supervised::spawn(system::namespaces(node.clone())),
    ];
    let mut ended = signal(SignalKind::terminate())?;
    let asked = node.clone();
    system::install(&node).await?;
    tokio::select! {
        result = api::run(node.clone(), socket) => result?,
        result = listeners.run(node.clone()) => result?,
        result = dns::run(node.clone()) => result.context("the mesh's name server")?,
        result = egress::run(node.clone()) => result.context("the way out of the mesh")?,
        _ = ended.recv() => {}
        () = asked.shutdown.notified() => {}
    }
    Ok(ExitCode::SUCCESS)
}
