//! `request`: one request to the proxy's admin interface, or to the agent.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use http::Method;

use crate::cli::RequestArgs;
use crate::http_client::Fetch;

const TIMEOUT: Duration = Duration::from_secs(60);

/// Sends it and prints the answer.
pub(super) async fn run(args: &RequestArgs) -> anyhow::Result<ExitCode> {
    let method: Method = args.method.to_ascii_uppercase().parse().context("METHOD")?;
    let path = format!("/{}", args.path.trim_start_matches('/'));
    let mut fetch = Fetch::get("localhost", args.debug_port, &path, TIMEOUT).method(method);
    fetch.body = args.body.clone().into();
    let answer = fetch.send().await?;
    std::io::stdout().write_all(&answer.body).context("writing the answer")?;
    if answer.status.is_client_error() || answer.status.is_server_error() {
        bail!("the answer's status is {}", answer.status);
    }
    Ok(ExitCode::SUCCESS)
}
