//! `version`

use std::process::ExitCode;

use anyhow::bail;

use crate::cli::VersionArgs;

/// Prints the version.
pub(super) fn run(args: &VersionArgs) -> anyhow::Result<ExitCode> {
    let version = env!("CARGO_PKG_VERSION");
    let istio = agent_contract::ISTIO_VERSION;
    match args.output.as_deref() {
        None if args.short => println!("{version}"),
        None => println!("sail-agent {version} (compatible with Istio {istio})"),
        Some("json") => println!("{:#}", serde_json::json!({ "version": version, "istio": istio })),
        Some("yaml") => print!("version: {version}\nistio: {istio}\n"),
        Some(other) => bail!("--output {other:?} is neither yaml nor json"),
    }
    Ok(ExitCode::SUCCESS)
}
