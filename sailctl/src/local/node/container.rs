//! One container: from its manifest to a process, and what is remembered while it runs.

use std::fs::{self, File, OpenOptions};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::pod::PodTask;
use super::process::{Exit, Pipes, Process};
use super::{Node, env, network};
use crate::local::sandbox::{ALIAS_DIR, BIN_DIR, Layout, Place, Spec};

/// A container's process and what a further process in it needs.
#[derive(Clone)]
pub(crate) struct Running {
    pub(crate) address: Ipv4Addr,
    pub(crate) netns: Arc<File>,
    pub(crate) process: Process,
    user: User,
    working_dir: PathBuf,
    env: Vec<(String, String)>,
}

#[derive(Debug, Clone)]
struct User {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

/// Why a container does not run, as Kubernetes names it.
#[derive(Debug)]
pub(crate) struct StartError {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

fn failed(reason: &'static str) -> impl Fn(anyhow::Error) -> StartError {
    move |error| StartError { reason, message: format!("{error:#}") }
}

/// Starts a container for the nth time.
pub(crate) async fn start(
    task: &PodTask,
    container: &Container,
    attempt: i32,
) -> Result<Running, StartError> {
    let node = &task.node;
    let argv = command(node, container)?;
    let config = failed("CreateContainerConfigError");
    let pod = task.current();
    let env = environment(node, &pod, container).map_err(&config)?;
    let argv = expand_all(argv, &env);
    let mounts = task.volumes.mounts(container).map_err(&config)?;
    let user = user(&pod, container);
    let working_dir =
        PathBuf::from(container.working_dir.as_deref().filter(|dir| !dir.is_empty()).unwrap_or("/"));
    let hostname = pod.spec.as_ref().and_then(|spec| spec.hostname.clone());
    let hostname = hostname.or_else(|| pod.metadata.name.clone()).unwrap_or_default();
    let layout = Layout {
        files: own_files(&pod, &hostname, task.network.address),
        hostname: hostname.chars().take(63).collect(),
        root: node.state.run().join("root"),
        bin_dir: node.bin_dir.clone(),
        mounts,
    };
    let spec = Spec {
        place: Place::New(layout),
        working_dir: working_dir.clone(),
        uid: user.uid,
        gid: user.gid,
        groups: user.groups.clone(),
        argv,
        env: env.clone(),
    };
    let run = failed("RunContainerError");
    let log = log_file(node, &pod, &container.name, attempt).map_err(&run)?;
    let pipes = Pipes::log(log).map_err(|error| run(error.into()))?;
    let netns = task.network.namespace.clone();
    let process = Process::start(netns.clone(), &spec, spec_file(node), pipes).await.map_err(&run)?;
    Ok(Running { address: task.network.address, netns, process, user, working_dir, env })
}

/// Runs a further command in a container. Its output is thrown away unless pipes are given.
pub(crate) async fn exec(
    node: &Node,
    _pod: &Pod,
    _container: &Container,
    running: &Running,
    argv: Vec<String>,
    pipes: Option<Pipes>,
) -> anyhow::Result<Exit> {
    let null = || std::process::Stdio::null();
    let pipes = pipes.unwrap_or_else(|| Pipes { stdin: null(), stdout: null(), stderr: null() });
    let spec = Spec {
        place: Place::Join(running.process.pid),
        working_dir: running.working_dir.clone(),
        uid: running.user.uid,
        gid: running.user.gid,
        groups: running.user.groups.clone(),
        argv,
        env: running.env.clone(),
    };
    let process = Process::start(running.netns.clone(), &spec, spec_file(node), pipes).await?;
    Ok(process.wait().await)
}

fn spec_file(node: &Node) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    node.state.run().join("specs").join(format!("{}.json", NEXT.fetch_add(1, Ordering::Relaxed)))
}

fn command(node: &Node, container: &Container) -> Result<Vec<String>, StartError> {
    let image = container.image.as_deref().unwrap_or_default();
    let own = container.command.clone().unwrap_or_default();
    let args = container.args.clone().unwrap_or_default();
    if !own.is_empty() {
        return Ok(own.into_iter().chain(args).collect());
    }
    let Some(entrypoint) = node.images.entrypoint(image) else {
        let message = format!(
            "image {image:?} is no program of this machine; name a command in the container, or map the image in {}",
            node.state.images().display()
        );
        return Err(StartError { reason: "ErrImagePull", message });
    };
    Ok(entrypoint.iter().cloned().chain(args).collect())
}

fn environment(node: &Node, pod: &Pod, container: &Container) -> anyhow::Result<Vec<(String, String)>> {
    let mut env = env::resolve(&node.store, pod, container)?;
    let mut default = |name: &str, value: String| {
        if !env.iter().any(|(key, _)| key == name) {
            env.push((name.to_owned(), value));
        }
    };
    default(
        "PATH",
        format!(
            "{BIN_DIR}:{ALIAS_DIR}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:{}",
            node.path
        ),
    );
    default("HOSTNAME", pod.metadata.name.clone().unwrap_or_default());
    default("HOME", "/tmp".into());
    Ok(env)
}

fn expand_all(argv: Vec<String>, env: &[(String, String)]) -> Vec<String> {
    let map = env.iter().cloned().collect();
    argv.iter().map(|word| env::expand(word, &map)).collect()
}

fn user(pod: &Pod, container: &Container) -> User {
    let pod_context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let own = container.security_context.as_ref();
    let uid =
        own.and_then(|own| own.run_as_user).or_else(|| pod_context.and_then(|context| context.run_as_user));
    let gid =
        own.and_then(|own| own.run_as_group).or_else(|| pod_context.and_then(|context| context.run_as_group));
    let id = |value: Option<i64>| value.and_then(|value| u32::try_from(value).ok());
    let mut groups: Vec<u32> = Vec::new();
    if let Some(context) = pod_context {
        groups.extend(context.supplemental_groups.iter().flatten().filter_map(|gid| id(Some(*gid))));
        groups.extend(id(context.fs_group));
    }
    User { uid: id(uid).unwrap_or(0), gid: id(gid).unwrap_or(0), groups }
}

fn own_files(pod: &Pod, hostname: &str, address: Ipv4Addr) -> Vec<(PathBuf, String)> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let resolv = format!(
        "search {namespace}.svc.cluster.local svc.cluster.local cluster.local\nnameserver {}\noptions ndots:5\n",
        network::DNS
    );
    let mut hosts =
        format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{address}\t{hostname}\n");
    for alias in pod.spec.iter().flat_map(|spec| spec.host_aliases.iter().flatten()) {
        hosts.push_str(&format!("{}\t{}\n", alias.ip, alias.hostnames.clone().unwrap_or_default().join(" ")));
    }
    vec![
        ("/etc/resolv.conf".into(), resolv),
        ("/etc/hosts".into(), hosts),
        ("/etc/hostname".into(), format!("{hostname}\n")),
    ]
}

fn log_file(node: &Node, pod: &Pod, container: &str, attempt: i32) -> anyhow::Result<File> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let dir = node.state.container_logs(namespace, name, container);
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    if attempt >= 2 {
        // This run and the one before it are kept.
        let _ = fs::remove_file(dir.join(format!("{}.log", attempt - 2)));
    }
    let path = dir.join(format!("{attempt}.log"));
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("cannot write {}", path.display()))
}
