//! The client: sends requests and prints what came back, counted.

mod grpc;
mod http;
mod tcp;
mod websocket;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::bail;
use futures_util::StreamExt;
use serde::Serialize;

#[derive(Clone, clap::Args)]
pub(crate) struct Options {
    /// `http://`, `ws://`, `grpc://` or `tcp://`, a host, a port and, where the protocol has one, a path.
    url: String,
    /// How many requests to send.
    #[arg(short = 'n', long, default_value_t = 1)]
    requests: usize,
    /// How many to have under way at once.
    #[arg(short, long, default_value_t = 1)]
    concurrency: usize,
    /// A header to send, as NAME:VALUE.
    #[arg(short = 'H', long = "header")]
    headers: Vec<String>,
    /// The HTTP method.
    #[arg(short = 'X', long, default_value = "GET")]
    method: String,
    /// The body or message to send.
    #[arg(short, long, default_value = "")]
    data: String,
    /// How long one request may take, in milliseconds.
    #[arg(long, default_value_t = 15_000)]
    timeout: u64,
    /// A new connection for each request.
    #[arg(long)]
    no_keepalive: bool,
    /// Speak HTTP/2 without an upgrade.
    #[arg(long)]
    http2: bool,
}

/// What came back for one request.
#[derive(Clone, Debug)]
struct Outcome {
    /// The status code, `ok`, or what went wrong.
    status: String,
    /// The version that answered, where the answer tells it.
    version: Option<String>,
    body: String,
    headers: BTreeMap<String, String>,
}

/// What came back for all of them.
#[derive(Serialize)]
struct Summary {
    requests: usize,
    statuses: BTreeMap<String, usize>,
    versions: BTreeMap<String, usize>,
    milliseconds: Latency,
    /// The answer to the last request that ended.
    last: Last,
}

#[derive(Serialize)]
struct Latency {
    min: u128,
    p50: u128,
    max: u128,
}

#[derive(Default, Serialize)]
struct Last {
    headers: BTreeMap<String, String>,
    body: serde_json::Value,
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    if options.requests == 0 || options.concurrency == 0 {
        bail!("--requests and --concurrency must be at least 1");
    }
    let caller = http::Caller::new(&options)?;
    let timeout = Duration::from_millis(options.timeout);
    let outcomes: Vec<(Outcome, u128)> = futures_util::stream::iter(0..options.requests)
        .map(|_| async {
            let start = Instant::now();
            let outcome = match tokio::time::timeout(timeout, once(&options, &caller)).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(error)) => failed(format!("{error:#}")),
                Err(_) => failed("timeout".to_owned()),
            };
            (outcome, start.elapsed().as_millis())
        })
        .buffer_unordered(options.concurrency)
        .collect()
        .await;
    println!("{}", serde_json::to_string(&summarise(&outcomes))?);
    Ok(())
}

async fn once(options: &Options, caller: &http::Caller) -> anyhow::Result<Outcome> {
    match options.url.split_once("://") {
        Some(("http", _)) => caller.call(options).await,
        Some(("ws", rest)) => websocket::call(options, rest).await,
        Some(("grpc", rest)) => grpc::call(options, rest).await,
        Some(("tcp", rest)) => tcp::call(options, rest).await,
        _ => bail!("{} does not start with http://, ws://, grpc:// or tcp://", options.url),
    }
}

fn failed(status: String) -> Outcome {
    Outcome { status, version: None, body: String::new(), headers: BTreeMap::new() }
}

fn summarise(outcomes: &[(Outcome, u128)]) -> Summary {
    let mut times: Vec<u128> = outcomes.iter().map(|(_, time)| *time).collect();
    times.sort_unstable();
    let at = |index: usize| times.get(index).copied().unwrap_or_default();
    let mut summary = Summary {
        requests: outcomes.len(),
        statuses: BTreeMap::new(),
        versions: BTreeMap::new(),
        milliseconds: Latency {
            min: at(0),
            p50: at(times.len() / 2),
            max: at(times.len().saturating_sub(1)),
        },
        last: Last::default(),
    };
    for (outcome, _) in outcomes {
        *summary.statuses.entry(outcome.status.clone()).or_default() += 1;
        if let Some(version) = &outcome.version {
            *summary.versions.entry(version.clone()).or_default() += 1;
        }
    }
    if let Some((last, _)) = outcomes.last() {
        let body = serde_json::from_str(&last.body).unwrap_or_else(|_| last.body.clone().into());
        summary.last = Last { headers: last.headers.clone(), body };
    }
    summary
}

/// A `NAME:VALUE` option.
fn header(option: &str) -> anyhow::Result<(&str, &str)> {
    match option.split_once(':') {
        Some((name, value)) => Ok((name.trim(), value.trim())),
        None => bail!("the header {option:?} is not of the form NAME:VALUE"),
    }
}
