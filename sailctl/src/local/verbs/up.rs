//! `up`: checks what the machine must have, starts the daemon, waits until the mesh serves.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;

use crate::local::client;
use crate::local::node::Options as NodeOptions;
use crate::local::output;
use crate::local::protocol::Status;
use crate::local::state::Incarnation;
use crate::local::{Environment, StateDir};

use super::apply::Progress;

/// What runs in a mesh's own pods.
const PROGRAMS: [&str; 3] = ["saild", "sail-agent", "sail-proxy"];

/// Where ip and nft are, whatever a user's PATH says.
const SYSTEM_PATH: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/bin"];

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    node: NodeOptions,
    /// How long to wait until the mesh serves, in seconds.
    #[arg(long, default_value_t = 60)]
    timeout: u64,
    /// Wait until the mesh serves (that is the default).
    #[arg(long, overrides_with = "no_wait")]
    wait: bool,
    /// Do not wait until the mesh serves.
    #[arg(long)]
    no_wait: bool,
}

pub(crate) fn run(
    state: &StateDir,
    environment: &Environment,
    options: &Options,
) -> anyhow::Result<ExitCode> {
    check_machine(environment, &options.node)?;
    if Incarnation::read(&state.pid_file()).is_some_and(Incarnation::is_alive) {
        if client::status(state).is_ok() {
            eprintln!("mesh {:?} runs already", state.name());
            return finish(state, options, None);
        }
        bail!("mesh {:?} runs but does not answer; stop it with `sailctl local down`", state.name());
    }
    state.create()?;
    // What an earlier daemon left would answer in its place.
    let _ = std::fs::remove_file(state.socket());
    let log = File::create(state.node_log())
        .with_context(|| format!("cannot write {}", state.node_log().display()))?;
    let child = Command::new(std::env::current_exe()?)
        .args(["local", "--name", state.name(), "--state-dir"])
        .arg(state.root())
        .arg("node-outer")
        .args(options.node.arguments())
        // An ordinary user's PATH often lacks the directories of ip and nft.
        .env("PATH", format!("{}:{}", environment.path, SYSTEM_PATH.join(":")))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot start the daemon")?;
    finish(state, options, Some(child))
}

/// One line each for what is missing.
fn check_machine(environment: &Environment, options: &NodeOptions) -> anyhow::Result<()> {
    let mut search: Vec<&Path> = environment.path.split(':').map(Path::new).collect();
    search.extend(SYSTEM_PATH.map(Path::new));
    for (program, package) in [("ip", "iproute2"), ("nft", "nftables")] {
        if !search.iter().any(|dir| dir.join(program).exists()) {
            bail!("{program} is missing; install package {package} (apt-get install {package})");
        }
    }
    let dir = options.programs()?;
    for program in PROGRAMS {
        if !dir.join(program).exists() {
            bail!(
                "{} is missing; build it (cargo build -p {program}) or say where it is with --bin-dir",
                dir.join(program).display()
            );
        }
    }
    Ok(())
}

fn finish(state: &StateDir, options: &Options, mut child: Option<Child>) -> anyhow::Result<ExitCode> {
    let progress = Progress::start("starting the mesh");
    let deadline = Instant::now() + Duration::from_secs(options.timeout);
    let status = loop {
        if let Some(ended) = child.as_mut().and_then(|child| child.try_wait().transpose()) {
            ended?;
            progress.end();
            bail!("{}", first_error(state));
        }
        match client::status(state) {
            Ok(status) if status.ready || options.no_wait => break status,
            Ok(status) => progress.waiting(&status.waiting_for),
            Err(_) => progress.waiting(&["node daemon".into()]),
        }
        if Instant::now() > deadline {
            progress.end();
            return Err(late(state, options.timeout));
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    progress.end();
    print!("{}", output::summary(&status));
    Ok(ExitCode::SUCCESS)
}

fn late(state: &StateDir, seconds: u64) -> anyhow::Error {
    let waiting = client::status(state).map(|status: Status| status.waiting_for).unwrap_or_default();
    anyhow::anyhow!(
        "after {seconds} s the mesh still waits for: {}; look at `sailctl local logs -n istio-system deploy/istiod` and {}",
        waiting.join(", "),
        state.node_log().display()
    )
}

/// What the daemon, or its helper before it, said first.
fn first_error(state: &StateDir) -> String {
    let log = std::fs::read_to_string(state.node_log()).unwrap_or_default();
    let line = log.lines().find_map(|line| line.strip_prefix("error: "));
    line.map_or_else(|| format!("the daemon ended; its log is {}", state.node_log().display()), str::to_owned)
}
