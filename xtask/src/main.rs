//! The repository's own checks: what clippy and rustfmt cannot say.

mod goldens;
mod graph;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "xtask", about)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// File length, module docs, links and leftovers.
    Tidy,
    /// Which crate may know which: the invariants of ARCHITECTURE.md.
    Graph,
    /// Runs the golden tests and rewrites what they compare with.
    Goldens,
}

fn main() -> anyhow::Result<ExitCode> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let root = root.parent().context("xtask lies in the workspace's root")?;
    let findings = match Arguments::parse().task {
        Task::Tidy => tidy::check(root)?,
        Task::Graph => graph::check(root)?,
        Task::Goldens => {
            goldens::rewrite(root)?;
            Vec::new()
        }
    };
    for finding in &findings {
        eprintln!("{finding}");
    }
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
