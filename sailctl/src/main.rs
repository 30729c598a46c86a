//! sailctl: the command line of the mesh. One file a verb.

mod local;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "sailctl", version, about = "Runs a mesh on this machine, and looks into one.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The mesh on this machine, without a cluster.
    Local(local::Arguments),
}

/// What the environment says; nothing else in this program asks it.
#[expect(clippy::disallowed_methods, reason = "main reads the environment for everyone")]
fn environment() -> local::Environment {
    let path = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state_home = path("XDG_STATE_HOME").or_else(|| path("HOME").map(|home| home.join(".local/state")));
    local::Environment {
        state_home: state_home.unwrap_or_else(|| PathBuf::from("/var/lib")),
        path: std::env::var("PATH").unwrap_or_default(),
        log: std::env::var("SAILCTL_LOG").unwrap_or_else(|_| "info".into()),
    }
}

fn main() -> ExitCode {
    let Command::Local(arguments) = Arguments::parse().command;
    match local::run(arguments, &environment()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        super::Arguments::command().debug_assert();
    }
}
