//! `istio-iptables` and `istio-clean-iptables`.

use std::process::ExitCode;

use anyhow::bail;

/// Applies the rules.
pub(super) fn apply(_args: &[String]) -> anyhow::Result<ExitCode> {
    bail!("capture rules cannot be applied by this build")
}

/// Removes the rules.
pub(super) fn clean(_args: &[String]) -> anyhow::Result<ExitCode> {
    bail!("capture rules cannot be removed by this build")
}
