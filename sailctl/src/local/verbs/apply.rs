//! `apply`: objects from manifests; with `--wait`, until their pods serve.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::{done, list};
use crate::local::kind::Key;
use crate::local::protocol::{PodStatus, Request};
use crate::local::{StateDir, client, manifest, output};

#[derive(Args)]
pub(crate) struct Options {
    /// A file, a folder, or - for standard input; may be given several times.
    #[arg(short, long = "filename", required = true)]
    filename: Vec<PathBuf>,
    /// Namespace of objects that do not say theirs.
    #[arg(short, long)]
    namespace: Option<String>,
    /// Wait until Deployments and Pods are ready.
    #[arg(long)]
    wait: bool,
    /// How long to wait, in seconds.
    #[arg(long, default_value_t = 120)]
    timeout: u64,
}

pub(crate) fn run(state: &StateDir, options: &Options) -> anyhow::Result<ExitCode> {
    let documents = manifest::read(&options.filename, options.namespace.as_deref())?;
    let mut failures = 0;
    let mut awaited = Vec::new();
    for document in documents {
        let request = Request::Apply { key: document.key.clone(), object: document.object };
        match done(state, &request).with_context(|| document.source.clone()) {
            Ok(word) => println!("{} {word}", document.key),
            Err(error) => {
                failures += 1;
                eprintln!("error: {error:#}");
            }
        }
        if matches!(document.key.kind.name.as_str(), "Deployment" | "Pod") {
            awaited.push(document.key);
        }
    }
    if failures > 0 {
        return Ok(ExitCode::FAILURE);
    }
    if options.wait {
        let limit = Duration::from_secs(options.timeout);
        wait(state, &awaited, limit)?;
        settle(state, limit)?;
        println!("\n{}", output::summary(&client::status(state)?).trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

fn wait(state: &StateDir, keys: &[Key], limit: Duration) -> anyhow::Result<()> {
    let progress = Progress::start("waiting for pods");
    let deadline = Instant::now() + limit;
    loop {
        let mut waiting = Vec::new();
        for key in keys {
            waiting.extend(trouble(state, key)?);
        }
        if waiting.is_empty() {
            progress.end();
            return Ok(());
        }
        progress.waiting(&waiting);
        if Instant::now() > deadline {
            progress.end();
            bail!("after {} s not ready: {}", limit.as_secs(), waiting.join(", "));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// saild gathers changes for a tenth of a second: only what stays in sync for longer has heard of them all.
const SETTLED: Duration = Duration::from_millis(400);

/// Waits until every proxy has the configuration that the last change led to.
fn settle(state: &StateDir, limit: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + limit;
    let mut since = Instant::now();
    while since.elapsed() < SETTLED {
        let status = client::status(state)?;
        let behind: Vec<&str> =
            status.pods.iter().filter(|pod| is_behind(pod)).map(|pod| &*pod.name).collect();
        if !behind.is_empty() {
            since = Instant::now();
            if Instant::now() > deadline {
                bail!("after {} s not in sync: {}", limit.as_secs(), behind.join(", "));
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// A pod with a sidecar that waits for configuration. One that refused it waits for nothing: the table says so.
fn is_behind(pod: &PodStatus) -> bool {
    matches!(pod.synced.as_deref(), Some("STALE" | "NOT CONNECTED"))
}

/// Why an object is not ready yet.
fn trouble(state: &StateDir, key: &Key) -> anyhow::Result<Option<String>> {
    let objects = list(state, &key.kind, Some(&key.namespace))?;
    let object = objects.iter().find(|object| object["metadata"]["name"] == key.name);
    let Some(object) = object else { return Ok(Some(key.name.clone())) };
    if key.kind.name == "Pod" {
        let (ready, total) = output::ready(object);
        return Ok((ready < total).then(|| format!("{} ({})", key.name, output::pod_state(object))));
    }
    let status = &object["status"];
    let wanted = object["spec"]["replicas"].as_u64().unwrap_or(1);
    let count = |field: &str| status[field].as_u64().unwrap_or(0);
    if count("readyReplicas") >= wanted && count("updatedReplicas") >= wanted && count("replicas") == wanted {
        return Ok(None);
    }
    let message = status["conditions"][0]["message"].as_str();
    let pods = list(state, &crate::local::kind::Kind::core("Pod"), Some(&key.namespace))?;
    let own = pods.iter().find(|pod| {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        name.starts_with(&format!("{}-", key.name)) && output::ready(pod).0 < output::ready(pod).1
    });
    let why = message.map(str::to_owned).or_else(|| own.map(output::pod_state));
    Ok(Some(why.map_or_else(|| key.name.clone(), |why| format!("{} ({why})", key.name))))
}

/// Says what is waited for: in place on a terminal, as lines elsewhere.
pub(crate) struct Progress {
    bar: ProgressBar,
    last: std::cell::RefCell<String>,
}

impl Progress {
    pub(crate) fn start(what: &str) -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        let this = Self { bar, last: std::cell::RefCell::default() };
        this.say(what);
        this
    }

    pub(crate) fn waiting(&self, names: &[String]) {
        self.say(&format!("waiting for {}", names.join(", ")));
    }

    fn say(&self, text: &str) {
        if *self.last.borrow() == text {
            return;
        }
        text.clone_into(&mut self.last.borrow_mut());
        if self.bar.is_hidden() {
            eprintln!("{text}");
        } else {
            self.bar.set_message(text.to_owned());
        }
    }

    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
