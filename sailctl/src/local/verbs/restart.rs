//! `restart`: replaces a Deployment's pods, a few at a time.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use super::done;
use crate::local::StateDir;
use crate::local::kind::{Key, Kind};
use crate::local::protocol::Request;

#[derive(Args)]
pub(crate) struct Options {
    /// The Deployment: NAME or deploy/NAME.
    deployment: String,
    /// The namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
}

pub(crate) fn run(state: &StateDir, options: &Options) -> anyhow::Result<ExitCode> {
    let name = match options.deployment.split_once('/') {
        Some((kind, name)) if Kind::parse(kind)?.name == "Deployment" => name,
        Some((kind, _)) => bail!("{kind}: only Deployments can be restarted"),
        None => &options.deployment,
    };
    let key = Key::new(Kind::deployment(), &options.namespace, name);
    let word = done(state, &Request::Restart { key: key.clone() })?;
    println!("{key} {word}");
    Ok(ExitCode::SUCCESS)
}
