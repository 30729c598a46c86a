//! Golden files: their tests rewrite them when `UPDATE_GOLDENS` is set.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

/// The packages that compare with golden files.
const PACKAGES: [&str; 5] = ["capture", "injector", "sail-proxy-config", "saild-translate", "sailctl"];

/// Runs those packages' tests with the order to rewrite.
pub(crate) fn rewrite(root: &Path) -> anyhow::Result<()> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root).env("UPDATE_GOLDENS", "1").arg("test");
    for package in PACKAGES {
        cargo.args(["--package", package]);
    }
    let status = cargo.status().context("cannot run cargo")?;
    if !status.success() {
        bail!("the golden tests failed: {status}");
    }
    Ok(())
}
