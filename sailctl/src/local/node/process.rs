//! Processes in pods: each started by a thread of its own, which enters the pod's namespaces, starts it, and waits for it.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::Context;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::{oneshot, watch};

use super::network;
use crate::local::sandbox::{Place, Spec};

/// What a process reads and writes.
pub(crate) struct Pipes {
    pub(crate) stdin: Stdio,
    pub(crate) stdout: Stdio,
    pub(crate) stderr: Stdio,
}

impl Pipes {
    /// Nothing in, everything to one file.
    pub(crate) fn log(file: File) -> std::io::Result<Self> {
        Ok(Self { stdin: Stdio::null(), stdout: file.try_clone()?.into(), stderr: file.into() })
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit {
    pub(crate) code: i32,
    pub(crate) signal: Option<i32>,
}

/// A process that runs. It goes on when this handle is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    exit: watch::Receiver<Option<Exit>>,
}

impl Process {
    /// Starts a process in a pod's network namespace. With a new place it is the first process of a pid namespace, so that
    /// with it all that it started ends.
    pub(crate) async fn start(
        netns: Arc<File>,
        spec: &Spec,
        file: PathBuf,
        pipes: Pipes,
    ) -> anyhow::Result<Self> {
        std::fs::write(&file, serde_json::to_vec(spec)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
        let join = match &spec.place {
            Place::New(_) => None,
            Place::Join(pid) => {
                let path = format!("/proc/{pid}/ns/pid");
                Some(File::open(&path).with_context(|| format!("cannot open {path}"))?)
            }
        };
        let (started, result) = oneshot::channel();
        let (exited, exit) = watch::channel(None);
        std::thread::Builder::new().name("container".into()).spawn(move || {
            let child = network::join(&netns).and_then(|()| {
                match join {
                    None => unshare(CloneFlags::CLONE_NEWPID).context("cannot make a pid namespace")?,
                    Some(namespace) => {
                        setns(namespace, CloneFlags::CLONE_NEWPID)
                            .context("cannot enter the pid namespace")?;
                    }
                }
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["local", "sandbox", "--spec"]).arg(&file).env_clear();
                command.stdin(pipes.stdin).stdout(pipes.stdout).stderr(pipes.stderr);
                command.spawn().context("cannot start a process")
            });
            let mut child = match child {
                Ok(child) => {
                    let pid = child.id().cast_signed();
                    drop(started.send(Ok(pid)));
                    child
                }
                Err(error) => return drop(started.send(Err(error))),
            };
            let exit = match child.wait() {
                Ok(status) => Exit {
                    code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()),
                    signal: status.signal(),
                },
                Err(_) => Exit { code: 255, signal: None },
            };
            let _ = std::fs::remove_file(&file);
            exited.send_replace(Some(exit));
        })?;
        let pid = result.await.context("the thread that starts processes failed")??;
        Ok(Self { pid, exit })
    }

    /// Waits for the end.
    pub(crate) async fn wait(&self) -> Exit {
        let mut exit = self.exit.clone();
        let lost = Exit { code: 255, signal: None };
        exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit).unwrap_or(lost)
    }

    /// Asks it to end. One that does not listen is ended at once: as the first of its namespace it would not even notice.
    pub(crate) fn terminate(&self) {
        let signal = if self.handles(Signal::SIGTERM) { Signal::SIGTERM } else { Signal::SIGKILL };
        self.signal(signal);
    }

    /// Ends it.
    pub(crate) fn kill(&self) {
        self.signal(Signal::SIGKILL);
    }

    fn signal(&self, signal: Signal) {
        // A process that has been waited for has given its number back.
        if self.exit.borrow().is_none() {
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }

    fn handles(&self, signal: Signal) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let caught = status
            .lines()
            .find_map(|line| u64::from_str_radix(line.strip_prefix("SigCgt:")?.trim(), 16).ok());
        caught.is_some_and(|caught| caught & (1 << (signal as i32 - 1)) != 0)
    }
}
