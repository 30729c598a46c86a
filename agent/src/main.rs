//! The `sail-agent` binary.

use std::process::ExitCode;

use clap::Parser as _;
use sail_agent::cli::Cli;

// One thread: the agent waits most of the time, and its memory is paid once for every pod.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match sail_agent::cmd::run(Cli::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("sail-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
