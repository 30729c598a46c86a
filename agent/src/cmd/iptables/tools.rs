//! iptables, nft and ip: found, fed, and their complaints passed on.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use capture::{Family, Plan, Ruleset, nft};

use crate::cli::IptablesArgs;

/// Which tool speaks to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backend {
    /// iptables, of the flavour that is the default here, or the named one.
    Iptables(&'static str),
    /// nft.
    Nft,
}

impl Backend {
    /// What the flags ask for, else what is installed.
    pub(super) fn choose(args: &IptablesArgs) -> anyhow::Result<Self> {
        if args.native_nftables {
            return Ok(Self::Nft);
        }
        match args.force_iptables_binary.as_str() {
            "legacy" => return Ok(Self::Iptables("-legacy")),
            "nft" => return Ok(Self::Iptables("-nft")),
            "" => {}
            other => bail!("--force-iptables-binary {other:?} is neither legacy nor nft"),
        }
        if is_installed("iptables-restore") {
            return Ok(Self::Iptables(""));
        }
        if is_installed("nft") {
            return Ok(Self::Nft);
        }
        bail!("neither iptables nor nft is installed: install one of the packages iptables, nftables")
    }
}

fn is_installed(program: &str) -> bool {
    let version = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok()
}

/// Brings the kernel from whatever it holds to the plan.
pub(super) fn apply(backend: Backend, plan: &Plan) -> anyhow::Result<()> {
    match backend {
        Backend::Nft => {
            run("nft", &["-f", "-"], &capture::render_nft(plan))?;
        }
        Backend::Iptables(flavour) => {
            replace(flavour, Family::V4, Some(&plan.v4))?;
            if let Some(v6) = &plan.v6 {
                replace(flavour, Family::V6, Some(v6))?;
            }
        }
    }
    for family in families(plan) {
        for command in plan.routing.map(|routing| routing.setup(family)).into_iter().flatten() {
            route(&command, "File exists")?;
        }
    }
    Ok(())
}

/// Removes every rule of ours.
pub(super) fn remove(backend: Backend, plan: &Plan) -> anyhow::Result<()> {
    match backend {
        Backend::Nft => {
            run("nft", &["-f", "-"], &nft::removal())?;
        }
        Backend::Iptables(flavour) => {
            replace(flavour, Family::V4, None)?;
            if is_installed(&format!("ip6tables{flavour}-save")) {
                replace(flavour, Family::V6, None)?;
            }
        }
    }
    for family in families(plan) {
        for command in plan.routing.map(|routing| routing.teardown(family)).into_iter().flatten() {
            route(&command, "No such")?;
        }
    }
    Ok(())
}

fn families(plan: &Plan) -> Vec<Family> {
    if plan.v6.is_some() { vec![Family::V4, Family::V6] } else { vec![Family::V4] }
}

fn replace(flavour: &str, family: Family, wanted: Option<&Ruleset>) -> anyhow::Result<()> {
    let base = match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    };
    let saved = run(&format!("{base}{flavour}-save"), &[], "")?;
    if let Some(script) = capture::render_iptables(&saved, wanted) {
        run(&format!("{base}{flavour}-restore"), &["--noflush", "--wait=30"], &script)?;
    }
    Ok(())
}

fn route(args: &[String], harmless: &str) -> anyhow::Result<()> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run("ip", &args, "") {
        Err(error) if !format!("{error:#}").contains(harmless) => Err(error),
        _ => Ok(()),
    }
}

fn run(program: &str, args: &[&str], input: &str) -> anyhow::Result<String> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{program} cannot be started: is it installed?"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).with_context(|| format!("feeding {program}"))?;
    }
    let output = child.wait_with_output().with_context(|| format!("waiting for {program}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let complaint = complaint.trim();
    let denied = complaint.contains("Permission denied") || complaint.contains("not permitted");
    let hint = if denied { " (capture rules need the capabilities NET_ADMIN and NET_RAW)" } else { "" };
    bail!("{program} {}: {complaint}{hint}", args.join(" "))
}
