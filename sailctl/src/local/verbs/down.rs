//! `down`: ends the mesh, also one whose daemon does not answer, and removes its state.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::local::StateDir;
use crate::local::client;
use crate::local::protocol::Request;
use crate::local::state::Incarnation;

const POLITE: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(10);

#[derive(Args)]
pub(crate) struct Options {
    /// Keep logs, certificates and objects.
    #[arg(long)]
    keep_state: bool,
}

pub(crate) fn run(state: &StateDir, options: &Options) -> anyhow::Result<ExitCode> {
    let daemon = Incarnation::read(&state.pid_file()).filter(|daemon| daemon.is_alive());
    if let Some(daemon) = daemon {
        // One that does not answer is ended all the same.
        let _ = client::ask(state, &Request::Shutdown);
        if !gone(daemon, POLITE) {
            // Its namespaces end with it, and everything in them.
            let _ = kill(Pid::from_raw(daemon.pid), Signal::SIGKILL);
            if !gone(daemon, LIMIT) {
                bail!("process {} does not end; it may belong to another user", daemon.pid);
            }
        }
    }
    if !options.keep_state {
        state.remove()?;
    }
    match daemon {
        Some(_) => eprintln!("mesh {:?} is down", state.name()),
        None => eprintln!("mesh {:?} was not running", state.name()),
    }
    Ok(ExitCode::SUCCESS)
}

fn gone(daemon: Incarnation, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while daemon.is_alive() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}
