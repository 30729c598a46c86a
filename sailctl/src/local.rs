//! The local mesh: the verbs a user types, the node daemon that plays API server, scheduler, kubelet and DNS, and the
//! sandbox in which a container's process starts. They share [`state`], [`kind`] and [`protocol`].

mod client;
mod kind;
mod manifest;
mod node;
mod output;
mod protocol;
mod sandbox;
mod state;
mod verbs;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

pub(crate) use state::StateDir;

/// What the environment says.
pub(crate) struct Environment {
    /// Where state is kept when no flag says otherwise.
    pub(crate) state_home: PathBuf,
    /// Where programs are looked for.
    pub(crate) path: String,
    /// What the daemon logs.
    pub(crate) log: String,
}

/// `sailctl local`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The mesh's name: several can run side by side.
    #[arg(long, global = true, default_value = "default")]
    name: String,
    /// Where the mesh keeps its state [default: ~/.local/state/ironsail/local/NAME]
    #[arg(long, global = true)]
    state_dir: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Start the mesh: control plane, network, ingress gateway.
    Up(verbs::up::Options),
    /// Stop the mesh, and leave nothing behind.
    Down(verbs::down::Options),
    /// Create or change objects from manifests.
    Apply(verbs::apply::Options),
    /// Delete objects.
    Delete(verbs::delete::Options),
    /// Show objects.
    Get(verbs::get::Options),
    /// Set or remove labels.
    Label(verbs::label::Options),
    /// Run a command in a pod's container.
    Exec(verbs::exec::Options),
    /// Show what a container printed.
    Logs(verbs::logs::Options),
    /// Forward a port of this machine to a pod or service.
    PortForward(verbs::port_forward::Options),
    /// Replace a Deployment's pods, one after the other.
    Restart(verbs::restart::Options),
    /// How the mesh is.
    Status(verbs::status::Options),
    /// The daemon's outer half: makes the namespaces.
    #[command(hide = true)]
    NodeOuter(node::Options),
    /// The daemon itself, first process of its namespaces.
    #[command(hide = true)]
    Node(node::Options),
    /// Maps ids of a user namespace.
    #[command(hide = true)]
    MapIds(node::isolate::MapIds),
    /// Becomes a container's process.
    #[command(hide = true)]
    Sandbox(sandbox::Options),
}

/// Runs a verb.
pub(crate) fn run(arguments: Arguments, environment: &Environment) -> anyhow::Result<ExitCode> {
    let state = StateDir::new(&arguments.name, arguments.state_dir, environment)?;
    match arguments.verb {
        Verb::Up(options) => verbs::up::run(&state, environment, &options),
        Verb::Down(options) => verbs::down::run(&state, &options),
        Verb::Apply(options) => verbs::apply::run(&state, &options),
        Verb::Delete(options) => verbs::delete::run(&state, &options),
        Verb::Get(options) => verbs::get::run(&state, &options),
        Verb::Label(options) => verbs::label::run(&state, &options),
        Verb::Exec(options) => verbs::exec::run(&state, &options),
        Verb::Logs(options) => verbs::logs::run(&state, &options),
        Verb::PortForward(options) => verbs::port_forward::run(&state, &options),
        Verb::Restart(options) => verbs::restart::run(&state, &options),
        Verb::Status(options) => verbs::status::run(&state, &options),
        Verb::NodeOuter(options) => node::isolate::outer(&state, &options),
        Verb::Node(options) => node::run(&state, environment, &options),
        Verb::MapIds(options) => node::isolate::map_ids(&options),
        Verb::Sandbox(options) => sandbox::run(&options),
    }
}
