//! `logs`: what a container printed, from the files in the state directory.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

use super::{find_pod, list};
use crate::local::StateDir;
use crate::local::kind::Kind;

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
    /// Go on as the container prints more.
    #[arg(short, long)]
    follow: bool,
    /// The run before this one.
    #[arg(short, long)]
    previous: bool,
    /// Only so many of the last lines.
    #[arg(long)]
    tail: Option<usize>,
}

pub(crate) fn run(state: &StateDir, options: &Options) -> anyhow::Result<ExitCode> {
    let key = find_pod(state, &options.namespace, &options.pod)?;
    let pods = list(state, &Kind::core("Pod"), Some(&key.namespace))?;
    let pod = pods.iter().find(|pod| pod["metadata"]["name"] == key.name).context("the pod is gone")?;
    let names: Vec<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|field| pod["spec"][field].as_array().into_iter().flatten())
        .filter_map(|container| container["name"].as_str())
        .collect();
    let default = names.iter().find(|name| **name != "istio-proxy").or(names.first());
    let container = options.container.as_deref().or(default.copied()).unwrap_or_default();
    if !names.contains(&container) {
        bail!("{key} has no container {container:?}; there are {}", names.join(", "));
    }
    let dir = state.container_logs(&key.namespace, &key.name, container);
    let runs = runs(&dir);
    let wanted = if options.previous { runs.iter().rev().nth(1) } else { runs.last() };
    let Some((mut number, path)) = wanted.cloned() else {
        bail!(
            "container {container} of {key} has {}",
            if options.previous { "not been restarted" } else { "not started yet" }
        );
    };
    let mut file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
    print_start(&mut file, options.tail)?;
    if !options.follow || options.previous {
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        std::thread::sleep(Duration::from_millis(200));
        copy(&mut file)?;
        let next = dir.join(format!("{}.log", number + 1));
        if next.exists() {
            copy(&mut file)?;
            file = File::open(next)?;
            number += 1;
        }
        if !dir.exists() {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// Runs whose output is kept, oldest first.
fn runs(dir: &Path) -> Vec<(u32, PathBuf)> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut runs: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let path = entry.path();
            Some((path.file_stem()?.to_str()?.parse().ok()?, path))
        })
        .collect();
    runs.sort();
    runs
}

fn print_start(file: &mut File, tail: Option<usize>) -> anyhow::Result<()> {
    let Some(count) = tail else { return copy(file) };
    let mut last = VecDeque::new();
    for line in BufReader::new(&mut *file).split(b'\n') {
        last.push_back(line?);
        if last.len() > count {
            last.pop_front();
        }
    }
    for line in last {
        stdout().write_all(&line)?;
        stdout().write_all(b"\n")?;
    }
    Ok(())
}

fn copy(file: &mut File) -> anyhow::Result<()> {
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    stdout().write_all(&text)?;
    Ok(stdout().flush()?)
}
