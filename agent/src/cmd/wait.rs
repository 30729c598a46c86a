//! `wait`: holds the application's start until the proxy is ready.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::Instant;

use crate::cli::WaitArgs;
use crate::http_client::Fetch;

/// Asks until the answer is 200.
pub(super) async fn run(args: &WaitArgs) -> anyhow::Result<ExitCode> {
    let url = url::Url::parse(&args.url).with_context(|| format!("--url {:?}", args.url))?;
    let (Some(host), Some(port), "http") = (url.host_str(), url.port_or_known_default(), url.scheme()) else {
        bail!("--url {:?} is no HTTP URL", args.url);
    };
    let deadline = Instant::now() + Duration::from_secs(args.timeout_seconds);
    let request_timeout = Duration::from_millis(args.request_timeout_millis);
    let mut last = "it was not asked".to_owned();
    while Instant::now() < deadline {
        match Fetch::get(host, port, url.path(), request_timeout).send().await {
            Ok(answer) if answer.status == http::StatusCode::OK => {
                tracing::info!("the proxy is ready");
                return Ok(ExitCode::SUCCESS);
            }
            Ok(answer) => {
                last = format!("{}: {}", answer.status, String::from_utf8_lossy(&answer.body).trim());
            }
            Err(error) => last = format!("{:#}", anyhow::Error::from(error)),
        }
        tokio::time::sleep(Duration::from_millis(args.period_millis)).await;
    }
    bail!("the proxy was not ready within {} s; last answer of {}: {last}", args.timeout_seconds, args.url);
}
