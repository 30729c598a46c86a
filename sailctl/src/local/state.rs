//! Where a mesh keeps what it knows: one directory, named by its paths here and nowhere else.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::Environment;

/// Below it all: objects, logs, the control plane's state, the daemon's socket.
#[derive(Debug, Clone)]
pub(crate) struct StateDir {
    name: String,
    root: PathBuf,
}

/// What `down` removes; anything else in the directory is somebody's.
const OWNED: [&str; 7] = ["objects", "logs", "istiod", "run", "issuer", "tmp", "etc"];
const OWNED_FILES: [&str; 4] = ["node.sock", "node.pid", "node.log", "images.yaml"];

impl StateDir {
    pub(crate) fn new(name: &str, root: Option<PathBuf>, environment: &Environment) -> anyhow::Result<Self> {
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 40 || !name.chars().all(legal) {
            bail!("--name {name:?}: use lower-case letters, digits and dashes, at most 40");
        }
        let root = root.unwrap_or_else(|| environment.state_home.join("ironsail/local").join(name));
        let root = std::path::absolute(&root).with_context(|| format!("--state-dir {}", root.display()))?;
        Ok(Self { name: name.to_owned(), root })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// One file an object; the control plane's registry directory.
    pub(crate) fn objects(&self) -> PathBuf {
        self.root.join("objects")
    }

    /// Half-written files, on the same file system as the objects.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// The control plane's own state: its root certificate survives here.
    pub(crate) fn istiod(&self) -> PathBuf {
        self.root.join("istiod")
    }

    /// Key and key set of the service-account token issuer.
    pub(crate) fn issuer(&self) -> PathBuf {
        self.root.join("issuer")
    }

    /// What lives as long as the daemon: a tmpfs that only its mount namespace sees.
    pub(crate) fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.root.join("node.sock")
    }

    pub(crate) fn pid_file(&self) -> PathBuf {
        self.root.join("node.pid")
    }

    pub(crate) fn node_log(&self) -> PathBuf {
        self.root.join("node.log")
    }

    /// The user's mapping of images to programs.
    pub(crate) fn images(&self) -> PathBuf {
        self.root.join("images.yaml")
    }

    /// What a container's runs printed: `0.log`, `1.log`, …
    pub(crate) fn container_logs(&self, namespace: &str, pod: &str, container: &str) -> PathBuf {
        self.root.join("logs").join(namespace).join(pod).join(container)
    }

    pub(crate) fn create(&self) -> anyhow::Result<()> {
        for dir in OWNED {
            let path = self.root.join(dir);
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
            // Secrets and keys are in there.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
        }
        Ok(())
    }

    /// Removes what the mesh wrote, and the directory when nothing else is in it.
    pub(crate) fn remove(&self) -> anyhow::Result<()> {
        let missing_is_fine = |result: std::io::Result<()>| match result {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        for dir in OWNED {
            let path = self.root.join(dir);
            missing_is_fine(fs::remove_dir_all(&path))
                .with_context(|| format!("cannot remove {}", path.display()))?;
        }
        for file in OWNED_FILES {
            let path = self.root.join(file);
            missing_is_fine(fs::remove_file(&path))
                .with_context(|| format!("cannot remove {}", path.display()))?;
        }
        // It fails when somebody else's files are in it, and then it stays.
        let _ = fs::remove_dir(&self.root);
        Ok(())
    }
}

/// The daemon, as its pid file tells: a pid and the moment at which that process started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Incarnation {
    pub(crate) pid: i32,
    started: u64,
}

impl Incarnation {
    /// Reads when a process started, in ticks since boot. One that has ended is no process, also while its parent does not ask
    /// for its status: in a container, the first process often never does.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in brackets may hold anything; fields are counted after it.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        if matches!(fields.next()?, "Z" | "X") {
            return None;
        }
        let started = fields.nth(18)?.parse().ok()?;
        Some(Self { pid, started })
    }

    pub(crate) fn write(self, path: &Path) -> anyhow::Result<()> {
        fs::write(path, format!("{} {}\n", self.pid, self.started))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    pub(crate) fn read(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        let (pid, started) = text.trim().split_once(' ')?;
        Some(Self { pid: pid.parse().ok()?, started: started.parse().ok()? })
    }

    /// Whether that very process still runs.
    pub(crate) fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }
}
