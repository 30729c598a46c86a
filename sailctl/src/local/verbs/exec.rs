//! `exec`: a command in a pod's container, on this terminal.

use std::io::{BufReader, stderr, stdin, stdout};
use std::os::fd::AsFd;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use super::find_pod;
use crate::local::protocol::{Reply, Request};
use crate::local::{StateDir, client};

#[derive(Args)]
pub(crate) struct Options {
    /// The pod: its name, or deploy/NAME.
    pod: String,
    /// The container [default: the application's first]
    #[arg(short, long)]
    container: Option<String>,
    /// The namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

pub(crate) fn run(state: &StateDir, options: &Options) -> anyhow::Result<ExitCode> {
    let pod = find_pod(state, &options.namespace, &options.pod)?;
    let stream = client::connect(state)?;
    let request =
        Request::Exec { pod, container: options.container.clone(), command: options.command.clone() };
    let (stdin, stdout, stderr) = (stdin(), stdout(), stderr());
    client::send_with(&stream, &request, &[stdin.as_fd(), stdout.as_fd(), stderr.as_fd()])?;
    match client::receive(&mut BufReader::new(stream))? {
        Reply::Exited(code) => Ok(ExitCode::from(u8::try_from(code).unwrap_or(1))),
        other => bail!("unexpected answer: {other:?}"),
    }
}
