//! The proxy's process: started, started again when it dies, drained and ended.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use base::backoff::Backoff;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::admin::Admin;
use crate::cli::Role;
use crate::stats::AgentStats;

const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Who lived so long did not die of its start.
const SETTLED: Duration = Duration::from_secs(20);
/// How long an ended proxy may take to be gone.
const GRACE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(500);

/// Why there is no proxy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not there.
    #[error(
        "the proxy {} was not found: install it, or let ProxyConfig.binaryPath (annotation proxy.istio.io/config) name it",
        .0.display()
    )]
    NotFound(PathBuf),
    /// It cannot be started.
    #[error("starting the proxy {}", .0.display())]
    Start(PathBuf, #[source] std::io::Error),
    /// It cannot be waited for.
    #[error("waiting for the proxy")]
    Wait(#[source] std::io::Error),
}

/// What the proxy is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Drain, then end: the pod is being stopped.
    Terminate,
    /// End at once.
    Quit,
    /// Drain; a later [`Order::Terminate`] ends at once.
    Drain,
}

/// How a drain goes.
#[derive(Clone, Copy, Debug)]
pub struct DrainPolicy {
    /// What is drained.
    pub role: Role,
    /// How long a drain takes.
    pub duration: Duration,
    /// A drain that ends as soon as no connection is active, but not before this time.
    pub until_idle: Option<Duration>,
}

/// How to run the proxy.
#[derive(Clone, Debug)]
pub struct ProxyCommand {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Added to its environment.
    pub env: Vec<(String, String)>,
}

/// Runs the proxy.
#[derive(Debug)]
pub struct Supervisor {
    /// What to run.
    pub command: ProxyCommand,
    /// Its admin interface.
    pub admin: Admin,
    /// How to end it.
    pub drain: DrainPolicy,
    /// What is counted.
    pub stats: Arc<AgentStats>,
}

impl Supervisor {
    /// Runs until an order ends it. `on_exit` is called whenever a proxy has died on its own.
    pub async fn run(&self, mut orders: mpsc::Receiver<Order>, on_exit: impl Fn()) -> Result<(), Error> {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        let mut drained = false;
        loop {
            let started = Instant::now();
            let mut child = self.start()?;
            let status = loop {
                tokio::select! {
                    status = child.wait() => break status.map_err(Error::Wait)?,
                    order = orders.recv() => match order {
                        Some(Order::Drain) => {
                            self.drain_listeners().await;
                            drained = true;
                        }
                        Some(Order::Terminate) if !drained => return self.terminate(child, &mut orders).await,
                        Some(Order::Terminate | Order::Quit) | None => return end(child).await,
                    },
                }
            };
            on_exit();
            if started.elapsed() > SETTLED {
                backoff.reset();
            }
            let delay = backoff.next_delay(&mut rand::rng());
            tracing::error!(status = describe(status), restart_in = ?delay, "the proxy ended");
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                order = orders.recv() => if order != Some(Order::Drain) { return Ok(()) },
            }
        }
    }

    fn start(&self) -> Result<Child, Error> {
        let program = &self.command.program;
        let mut command = Command::new(program);
        command
            .args(&self.command.args)
            .envs(self.command.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            // A signal from a terminal reaches the agent only, which then ends the proxy in order.
            .process_group(0);
        die_with_parent(&mut command);
        let child = command.spawn().map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => Error::NotFound(program.clone()),
            _ => Error::Start(program.clone(), source),
        })?;
        self.stats.proxy_starts.inc();
        let epoch = self.stats.proxy_starts.get() - 1;
        tracing::info!(program = %program.display(), pid = child.id(), epoch, "proxy started");
        Ok(child)
    }

    async fn drain_listeners(&self) {
        match self.admin.drain(self.drain.role).await {
            Ok(()) => tracing::info!("the proxy drains"),
            Err(error) => {
                let error = anyhow::Error::from(error);
                tracing::warn!(error = format!("{error:#}"), "the proxy was not told to drain");
            }
        }
    }

    async fn terminate(&self, mut child: Child, orders: &mut mpsc::Receiver<Order>) -> Result<(), Error> {
        self.drain_listeners().await;
        let hurry = async {
            while let Some(order) = orders.recv().await {
                if order == Order::Quit {
                    return;
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = self.drained() => {}
            () = hurry => {}
            status = child.wait() => {
                status.map_err(Error::Wait)?;
                return Ok(());
            }
        }
        end(child).await
    }

    async fn drained(&self) {
        let Some(minimum) = self.drain.until_idle else {
            return tokio::time::sleep(self.drain.duration).await;
        };
        tokio::time::sleep(minimum).await;
        loop {
            match self.admin.active_connections().await {
                Ok(0) => return,
                Ok(connections) => tracing::info!(connections, "connections are still active"),
                Err(error) => tracing::warn!(%error, "active connections cannot be counted"),
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Asks the proxy to end, and makes it if it does not.
async fn end(mut child: Child) -> Result<(), Error> {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
    if let Some(pid) = pid
        && kill(pid, Signal::SIGTERM).is_ok()
        && tokio::time::timeout(GRACE, child.wait()).await.is_ok()
    {
        return Ok(());
    }
    child.kill().await.map_err(Error::Wait)
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown".to_owned(),
    }
}

/// A proxy without its agent would run on without certificates: it dies with it, however that ends.
fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    let before_exec = move || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        // The agent may have ended before the call above.
        if u32::try_from(nix::unistd::getppid().as_raw()) == Ok(parent) {
            return Ok(());
        }
        Err(std::io::Error::from_raw_os_error(libc::ESRCH))
    };
    // SAFETY: between fork and exec only two system calls are made, and nothing is allocated and no lock is taken.
    #[expect(unsafe_code, reason = "the kernel's parent-death signal can be set in the child only")]
    unsafe {
        command.pre_exec(before_exec);
    }
}
