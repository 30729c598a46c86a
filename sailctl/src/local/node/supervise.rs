//! Keeps one container going: starts it, probes it, starts it again with growing pauses.

use std::sync::Arc;
use std::time::Duration;

use base::task::Supervised;
use k8s_openapi::api::core::v1::{Container, Probe};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::board::Phase;
use super::container::{self, Running};
use super::pod::PodTask;
use super::probe::Action;
use super::process::Exit;
use super::store::now;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How often a container is asked that has not answered yet.
const EARLY_PERIOD: Duration = Duration::from_millis(200);
/// A run of this length makes up for the failures before it.
const GOOD_RUN: Duration = Duration::from_secs(60);

/// Pauses between restarts: none after the first failure, then doubling.
struct Pauses(Option<Duration>);

impl Pauses {
    fn next(&mut self) -> Duration {
        let pause = self.0.unwrap_or_default();
        self.0 = Some(if pause.is_zero() { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) });
        pause
    }
}

/// Runs an init container until it succeeds.
pub(super) async fn to_completion(task: &Arc<PodTask>, container: &Container) {
    let mut pauses = Pauses(None);
    let mut attempt = 0;
    loop {
        if let Some(running) = launch(task, container, attempt).await {
            let exit = running.process.wait().await;
            ended(task, container, exit);
            if exit.code == 0 {
                task.change_entry(&container.name, |entry| {
                    entry.ready = true;
                    entry.started = true;
                });
                return;
            }
            attempt += 1;
        }
        pause(task, container, pauses.next()).await;
    }
}

/// Keeps a container going until the pod stops. `launched` is told when it runs and its postStart hook is through.
pub(super) async fn keep(
    task: Arc<PodTask>,
    container: Container,
    policy: &'static str,
    mut launched: Option<oneshot::Sender<()>>,
) {
    let mut pauses = Pauses(None);
    let mut attempt = 0;
    loop {
        let began = Instant::now();
        if let Some(running) = launch(&task, &container, attempt).await {
            post_start(&task, &container, &running).await;
            // Nobody may wait for it any more.
            let _ = launched.take().map(|launched| launched.send(()));
            let probes = Supervised::spawn(probe(task.clone(), container.clone(), running.clone()));
            let exit = running.process.wait().await;
            drop(probes);
            ended(&task, &container, exit);
            if task.is_stopping() || policy == "Never" || (policy == "OnFailure" && exit.code == 0) {
                return;
            }
            attempt += 1;
        }
        if began.elapsed() > GOOD_RUN {
            pauses = Pauses(None);
        }
        pause(&task, &container, pauses.next()).await;
        if task.is_stopping() {
            return;
        }
    }
}

async fn launch(task: &Arc<PodTask>, container: &Container, attempt: i32) -> Option<Running> {
    match container::start(task, container, attempt).await {
        Ok(running) => {
            task.change_entry(&container.name, |entry| {
                entry.phase = Phase::Running { since: now() };
                entry.running = Some(running.clone());
                entry.restarts = attempt;
            });
            Some(running)
        }
        Err(error) => {
            tracing::warn!(pod = %task.key, container = container.name, "{}: {}", error.reason, error.message);
            task.change_entry(&container.name, |entry| {
                entry.phase = Phase::Waiting { reason: error.reason.into(), message: error.message };
            });
            None
        }
    }
}

fn ended(task: &PodTask, container: &Container, exit: Exit) {
    task.change_entry(&container.name, |entry| {
        entry.running = None;
        entry.ready = false;
        entry.started = false;
        entry.phase = Phase::Ended { exit, since: now() };
        entry.last = Some((exit, now()));
    });
}

async fn pause(task: &PodTask, container: &Container, pause: Duration) {
    if pause.is_zero() {
        return;
    }
    task.change_entry(&container.name, |entry| {
        if matches!(entry.phase, Phase::Ended { .. }) {
            let message = format!("starts again in {} s", pause.as_secs());
            entry.phase = Phase::Waiting { reason: "CrashLoopBackOff".into(), message };
        }
    });
    let mut stopping = task.stopping.clone();
    let _ = timeout(pause, stopping.wait_for(|stop| *stop)).await;
}

async fn post_start(task: &PodTask, container: &Container, running: &Running) {
    let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
    let Some(action) = hook.and_then(Action::of_hook) else { return };
    let result = tokio::select! {
        result = action.run(&task.node, task.pod(), container, running) => result,
        // What ended needs no hook.
        _ = running.process.wait() => return,
    };
    if let Err(error) = result {
        tracing::warn!(pod = %task.key, container = container.name, "postStart: {error:#}");
        running.process.kill();
    }
}

/// Startup first; liveness and readiness once that has passed.
async fn probe(task: Arc<PodTask>, container: Container, running: Running) {
    if let Some(probe) = &container.startup_probe {
        // It fails for good by killing the container, which ends this task too.
        watch(&task, &container, &running, probe, Kind::Startup).await;
    }
    let has_readiness = container.readiness_probe.is_some();
    task.change_entry(&container.name, |entry| {
        entry.started = true;
        entry.ready = !has_readiness;
    });
    let liveness = async {
        if let Some(probe) = &container.liveness_probe {
            watch(&task, &container, &running, probe, Kind::Liveness).await;
        }
    };
    let readiness = async {
        if let Some(probe) = &container.readiness_probe {
            watch(&task, &container, &running, probe, Kind::Readiness).await;
        }
    };
    tokio::join!(liveness, readiness);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Startup,
    Liveness,
    Readiness,
}

/// Probes until the startup probe passes, or for ever.
async fn watch(task: &PodTask, container: &Container, running: &Running, probe: &Probe, kind: Kind) {
    let Some(action) = Action::of_probe(probe) else { return };
    let seconds = |value: Option<i32>, default: i32| value.filter(|value| *value > 0).unwrap_or(default);
    let period = Duration::from_secs(seconds(probe.period_seconds, 10).cast_unsigned().into());
    let limit = Duration::from_secs(seconds(probe.timeout_seconds, 1).cast_unsigned().into());
    let successes_wanted = seconds(probe.success_threshold, 1);
    let failures_allowed = seconds(probe.failure_threshold, 3);
    sleep(Duration::from_secs(probe.initial_delay_seconds.unwrap_or(0).max(0).cast_unsigned().into())).await;
    let began = Instant::now();
    let (mut successes, mut failures) = (0, 0);
    let mut settled = false;
    loop {
        match timeout(limit, action.run(&task.node, task.pod(), container, running)).await {
            Ok(Ok(())) => (successes, failures) = (successes + 1, 0),
            Ok(Err(error)) => {
                tracing::debug!(pod = %task.key, container = container.name, "probe: {error:#}");
                (successes, failures) = (0, failures + 1);
            }
            Err(_) => (successes, failures) = (0, failures + 1),
        }
        if successes >= successes_wanted {
            settled = true;
            match kind {
                Kind::Startup => return,
                Kind::Readiness => set_ready(task, container, true),
                Kind::Liveness => {}
            }
        } else if failures >= failures_allowed
            && (settled || began.elapsed() >= period * failures_allowed.cast_unsigned())
        {
            match kind {
                Kind::Readiness => set_ready(task, container, false),
                Kind::Startup | Kind::Liveness => {
                    tracing::warn!(pod = %task.key, container = container.name, "does not answer its probe; it is restarted");
                    running.process.terminate();
                    let grace = Duration::from_secs(10);
                    if timeout(grace, running.process.wait()).await.is_err() {
                        running.process.kill();
                    }
                    return std::future::pending().await;
                }
            }
        }
        // Until it first answers it is asked more often than later: nobody should wait for a period that has to pass.
        // So what counts is for how long it has failed, in periods.
        sleep(if settled { period } else { period.min(EARLY_PERIOD) }).await;
    }
}

fn set_ready(task: &PodTask, container: &Container, ready: bool) {
    let now = task.board().entries.get(&container.name).is_some_and(|entry| entry.ready);
    if now != ready {
        task.change_entry(&container.name, |entry| entry.ready = ready);
    }
}
