//! Becomes a container's process: takes a file that says what the container is, builds its root, gives up rights, executes.
//! It runs as a program of its own, with one thread, inside the network and pid namespace that the daemon chose: so every
//! step is an ordinary system call and nothing runs between fork and exec.

mod root;

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Gid, Uid, chdir, execve, setgid, setgroups, sethostname, setuid};
use serde::{Deserialize, Serialize};

/// Where the mesh's programs are inside a container.
pub(crate) const BIN_DIR: &str = "/opt/ironsail/bin";
/// Other names under which they are known.
pub(crate) const ALIAS_DIR: &str = "/opt/ironsail/alias";

#[derive(Args)]
pub(crate) struct Options {
    /// File that describes the container.
    #[arg(long)]
    spec: PathBuf,
}

/// A process in a container.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    /// Where it runs.
    pub(crate) place: Place,
    pub(crate) working_dir: PathBuf,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
}

/// A container of its own, or one that runs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Place {
    /// A new container.
    New(Layout),
    /// That of a process.
    Join(i32),
}

/// What a container sees.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Layout {
    pub(crate) hostname: String,
    /// A directory over which the root is mounted.
    pub(crate) root: PathBuf,
    /// The machine's directory of the mesh's programs.
    pub(crate) bin_dir: PathBuf,
    pub(crate) mounts: Vec<Mount>,
    /// Path and content.
    pub(crate) files: Vec<(PathBuf, String)>,
}

/// A directory or file of the machine, at a path of the container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Mount {
    pub(crate) source: PathBuf,
    pub(crate) path: PathBuf,
    pub(crate) read_only: bool,
}

/// Runs; returns only when that fails.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let text = fs::read_to_string(&options.spec)
        .with_context(|| format!("cannot read {}", options.spec.display()))?;
    let spec: Spec = serde_json::from_str(&text)?;
    match &spec.place {
        Place::New(layout) => {
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)
                .context("cannot make a mount namespace")?;
            sethostname(&layout.hostname).context("cannot set the host name")?;
            root::build(layout)?;
        }
        Place::Join(pid) => join(*pid)?,
    }
    chdir(&spec.working_dir).with_context(|| format!("working directory {}", spec.working_dir.display()))?;
    let program = find(&spec)?;
    own_logs(&spec);
    become_user(&spec)?;
    let argv = spec.argv.iter().map(|word| CString::new(word.as_str())).collect::<Result<Vec<_>, _>>()?;
    let env = spec
        .env
        .iter()
        .map(|(name, value)| CString::new(format!("{name}={value}")))
        .collect::<Result<Vec<_>, _>>()?;
    let path = CString::new(program.as_os_str().as_encoded_bytes())?;
    match execve(&path, &argv, &env) {
        Ok(never) => match never {},
        Err(errno) => bail!("cannot run {}: {}", program.display(), errno.desc()),
    }
}

fn join(pid: i32) -> anyhow::Result<()> {
    for (name, flag) in [("uts", CloneFlags::CLONE_NEWUTS), ("mnt", CloneFlags::CLONE_NEWNS)] {
        let path = format!("/proc/{pid}/ns/{name}");
        let file = File::open(&path).with_context(|| format!("cannot open {path}"))?;
        setns(file, flag).with_context(|| format!("cannot enter {path}"))?;
    }
    Ok(())
}

/// The container's user may open `/dev/stdout` and `/dev/stderr` by name, as with other container runtimes. Log files
/// alone: a terminal or pipe of whoever calls stays theirs. Where it may not be, who opens them by name says so itself.
fn own_logs(spec: &Spec) {
    for stream in [std::io::stdout().as_fd(), std::io::stderr().as_fd()] {
        let file = stream.try_clone_to_owned().map(File::from);
        let log = file.ok().filter(|file| file.metadata().is_ok_and(|meta| meta.is_file()));
        if let Some(log) = log {
            let _ = std::os::unix::fs::fchown(&log, Some(spec.uid), Some(spec.gid));
        }
    }
}

fn become_user(spec: &Spec) -> anyhow::Result<()> {
    let groups: Vec<Gid> = spec.groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups).context("cannot set groups")?;
    setgid(Gid::from_raw(spec.gid)).with_context(|| format!("cannot become group {}", spec.gid))?;
    setuid(Uid::from_raw(spec.uid)).with_context(|| format!("cannot become user {}", spec.uid))
}

/// Looks the program up in the container's own PATH.
fn find(spec: &Spec) -> anyhow::Result<PathBuf> {
    let name = spec.argv.first().context("no command")?;
    let missing = || anyhow!("{name}: no such program in the container (programs are those of this machine)");
    if name.contains('/') {
        let path = Path::new(name);
        if path.exists() {
            return Ok(path.to_path_buf());
        }
        // An image may keep the mesh's programs elsewhere.
        let alias = Path::new(ALIAS_DIR).join(path.file_name().unwrap_or_default());
        return if alias.exists() { Ok(alias) } else { Err(missing()) };
    }
    let path = spec.env.iter().find(|(key, _)| key == "PATH").map_or("/usr/bin:/bin", |(_, value)| value);
    let runs = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    path.split(':').map(|dir| Path::new(dir).join(name)).find(runs).ok_or_else(missing)
}
