//! The namespaces in which a mesh lives. All of a mesh is inside one pid namespace: when its first process ends, the kernel
//! ends the rest, and with the last process go the network namespaces, bridges, rules and mounts.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, User, getpid, setsid};

use super::Options;
use crate::local::state::{Incarnation, StateDir};

/// How many ids a mesh of an ordinary user needs: the sidecar's 1337 is among them.
const NEEDED_IDS: u32 = 2000;

/// Makes the namespaces, starts the daemon as their first process and waits for it.
pub(crate) fn outer(state: &StateDir, options: &Options) -> anyhow::Result<ExitCode> {
    // It fails for a session's leader, which is as good.
    let _ = setsid();
    if !Uid::effective().is_root() {
        user_namespace()?;
    }
    check_capabilities(&fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?)?;
    let flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    unshare(flags).context("cannot make namespaces")?;
    let nothing: Option<&str> = None;
    mount(nothing, "/", nothing, MsFlags::MS_PRIVATE | MsFlags::MS_REC, nothing)
        .context("cannot make mounts private")?;
    if let Some(me) = Incarnation::of(getpid().as_raw()) {
        me.write(&state.pid_file())?;
    }
    let mut daemon = Command::new(std::env::current_exe()?);
    daemon
        .args(["local", "--name", state.name(), "--state-dir"])
        .arg(state.root())
        .arg("node")
        .args(options.arguments());
    let status = daemon.stdin(Stdio::null()).status().context("cannot start the daemon")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What making pods takes, with the numbers of capabilities(7).
const CAPABILITIES: [(&str, u32); 7] = [
    ("CAP_CHOWN", 0),
    ("CAP_KILL", 5),
    ("CAP_SETGID", 6),
    ("CAP_SETUID", 7),
    ("CAP_NET_ADMIN", 12),
    ("CAP_NET_RAW", 13),
    ("CAP_SYS_ADMIN", 21),
];

/// Says which capabilities a root of limited power lacks, before half a mesh stands.
fn check_capabilities(status: &str) -> anyhow::Result<()> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let held = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    let held = held.context("/proc/self/status names no capabilities")?;
    let missing: Vec<&str> =
        CAPABILITIES.iter().filter(|(_, bit)| held & (1 << bit) == 0).map(|(name, _)| *name).collect();
    if !missing.is_empty() {
        let names = missing.join(", ");
        bail!(
            "this root lacks {names}, which making pods takes; run as a root that has them, or as an ordinary user"
        );
    }
    Ok(())
}

#[derive(Args)]
pub(crate) struct MapIds {
    /// Process whose user namespace is mapped, once a byte arrives on standard input.
    #[arg(long)]
    pid: i32,
}

/// A user namespace in which this user is root, and the user's subordinate ids are everybody else.
fn user_namespace() -> anyhow::Result<()> {
    let mut helper = Command::new(std::env::current_exe()?)
        .args(["local", "map-ids", "--pid", &getpid().to_string()])
        .stdin(Stdio::piped())
        .spawn()
        .context("cannot start the helper that maps ids")?;
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|error| {
        anyhow!("this system lets no ordinary user make user namespaces ({}); run as root (sudo), or allow them: sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0", error.desc())
    })?;
    helper.stdin.take().context("no way to the helper")?.write_all(b"!").context("the helper went away")?;
    if !helper.wait()?.success() {
        bail!("user ids could not be mapped, see the line above");
    }
    Ok(())
}

/// The helper: it stands outside of the namespace, where alone mapping is allowed.
pub(crate) fn map_ids(options: &MapIds) -> anyhow::Result<ExitCode> {
    if std::io::stdin().read(&mut [0])? == 0 {
        return Ok(ExitCode::FAILURE);
    }
    let (uid, gid) = (Uid::current(), Gid::current());
    let user = User::from_uid(uid)?.map(|user| user.name).unwrap_or_default();
    for (program, file, own) in
        [("newuidmap", "/etc/subuid", uid.as_raw()), ("newgidmap", "/etc/subgid", gid.as_raw())]
    {
        let (start, count) = subordinate(Path::new(file), &user, uid.as_raw()).with_context(|| {
            format!("{file} gives user {user} no ids; run: sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}")
        })?;
        let numbers = [0, own, 1, 1, start, count].map(|number: u32| number.to_string());
        let status = Command::new(program).arg(options.pid.to_string()).args(numbers).status();
        match status {
            Ok(status) if status.success() => {}
            Ok(_) => bail!("{program} refused to map user ids"),
            Err(_) => bail!("{program} is missing; install package uidmap, or run as root"),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The first range of a user in /etc/subuid or /etc/subgid that is large enough.
fn subordinate(file: &Path, user: &str, uid: u32) -> Option<(u32, u32)> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let owner = fields.next()?;
        let start = fields.next()?.parse().ok()?;
        let count = fields.next()?.trim().parse().ok()?;
        ((owner == user || owner == uid.to_string()) && count >= NEEDED_IDS).then_some((start, count))
    })
}
