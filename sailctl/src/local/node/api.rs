//! The daemon's API: what a Kubernetes API server does with objects, and what verbs ask beside that.

use std::net::Ipv4Addr;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::{Pod, Service};
use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::{UnixListener, UnixStream};

use super::process::Pipes;
use super::store::{merge, now};
use super::{Node, admission, container, forward, status};
use crate::local::kind::{Key, Kind};
use crate::local::protocol::{Reply, Request};

/// Serves verbs.
pub(crate) async fn run(node: Arc<Node>, listener: UnixListener) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let node = node.clone();
        tokio::spawn(async move {
            if let Err(error) = serve(&node, stream).await {
                tracing::debug!("a verb's connection: {error:#}");
            }
        });
    }
}

async fn serve(node: &Arc<Node>, stream: UnixStream) -> anyhow::Result<()> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    let (stream, line, fds) = tokio::task::spawn_blocking(move || {
        let (line, fds) = receive(&stream)?;
        anyhow::Ok((stream, line, fds))
    })
    .await??;
    stream.set_nonblocking(true)?;
    let mut stream = UnixStream::from_std(stream)?;
    let request: Request = serde_json::from_slice(&line)?;
    if let Request::Tunnel { target, port } = &request {
        let connected = forward::connect(node, target, *port).await;
        let reply = match &connected {
            Ok(_) => Reply::Done("connected".into()),
            Err(error) => Reply::Failed(format!("{error:#}")),
        };
        answer(&mut stream, &reply).await?;
        if let Ok(mut inner) = connected {
            copy_bidirectional(&mut stream, &mut inner).await?;
        }
        return Ok(());
    }
    let ends = matches!(request, Request::Shutdown);
    let reply = handle(node, request, fds).await.unwrap_or_else(|error| Reply::Failed(format!("{error:#}")));
    answer(&mut stream, &reply).await?;
    if ends {
        node.shutdown.notify_one();
    }
    Ok(())
}

async fn answer(stream: &mut UnixStream, reply: &Reply) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    Ok(stream.write_all(&line).await?)
}

/// Reads a line and the descriptors that came with it.
fn receive(stream: &StdUnixStream) -> anyhow::Result<(Vec<u8>, Vec<OwnedFd>)> {
    use std::io::IoSliceMut;
    use std::os::fd::AsRawFd;

    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

    let (mut line, mut fds) = (Vec::new(), Vec::new());
    while !line.ends_with(b"\n") {
        let mut buffer = vec![0; 64 * 1024];
        let mut control = nix::cmsg_space!([RawFd; 3]);
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let message =
            recvmsg::<()>(stream.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
        for part in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = part {
                fds.extend(raw.into_iter().map(own));
            }
        }
        let length = message.bytes;
        if length == 0 {
            bail!("the verb went away");
        }
        line.extend_from_slice(&buffer[..length]);
    }
    Ok((line, fds))
}

#[expect(unsafe_code, reason = "the kernel hands descriptors over as numbers")]
fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the descriptor was made for this process by recvmsg a moment ago, and nothing else knows of it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

async fn handle(node: &Arc<Node>, request: Request, fds: Vec<OwnedFd>) -> anyhow::Result<Reply> {
    match request {
        Request::Apply { key, object } => apply(node, &key, object).await.map(Reply::Done),
        Request::Delete { key, wait } => delete(node, &key, wait).await.map(Reply::Done),
        Request::List { kind, namespace } => {
            let objects = node.store.list(&kind, namespace.as_deref());
            Ok(Reply::Objects(objects.iter().map(|object| (**object).clone()).collect()))
        }
        Request::Label { key, labels, overwrite } => label(node, &key, &labels, overwrite).map(Reply::Done),
        Request::Restart { key } => restart(node, &key).map(Reply::Done),
        Request::Status => Ok(Reply::Status(Box::new(status::of(node).await))),
        Request::Exec { pod, container, command } => {
            let [stdin, stdout, stderr] =
                <[OwnedFd; 3]>::try_from(fds).ok().context("exec comes with three descriptors")?;
            let pipes = Pipes { stdin: stdin.into(), stdout: stdout.into(), stderr: stderr.into() };
            exec(node, &pod, container.as_deref(), command, pipes).await.map(Reply::Exited)
        }
        Request::Shutdown => Ok(Reply::Done("stopping".into())),
        Request::Tunnel { .. } => bail!("a tunnel is served elsewhere"),
    }
}

/// Creates or changes an object; says which.
pub(crate) async fn apply(node: &Arc<Node>, key: &Key, object: Value) -> anyhow::Result<String> {
    if key.kind.is_namespaced() && node.store.get(&Key::core("Namespace", "", &key.namespace)).is_none() {
        bail!("{key}: namespace {:?} not found", key.namespace);
    }
    let Some(current) = node.store.get(key) else {
        create(node, key, object).await.with_context(|| key.to_string())?;
        return Ok("created".into());
    };
    let merged = merge(&current, &object);
    if merged == *current {
        return Ok("unchanged".into());
    }
    if key.kind.name == "Pod"
        && current["metadata"]["annotations"]["sidecar.istio.io/status"].is_null()
        && merged["spec"] != current["spec"]
    {
        bail!("{key}: the spec of a pod cannot be changed; delete the pod first");
    }
    if key.kind.name == "Pod" {
        // What injection made of the spec stays.
        node.store.update(key, |pod| pod["metadata"] = merged["metadata"].clone())?;
        return Ok("configured".into());
    }
    check_type(key, &merged)?;
    admission::validate(node, key, &merged).await.with_context(|| key.to_string())?;
    node.store.put(key, merged)?;
    Ok("configured".into())
}

async fn create(node: &Arc<Node>, key: &Key, mut object: Value) -> anyhow::Result<()> {
    check_type(key, &object)?;
    match (key.kind.group.as_str(), key.kind.name.as_str()) {
        ("", "Pod") => return create_pod(node, key, object).await,
        ("", "Service") => give_address(node, &mut object)?,
        _ => admission::validate(node, key, &object).await?,
    }
    node.store.put(key, object).map(drop)
}

/// An object of a kind that this node itself acts on must be of its type.
fn check_type(key: &Key, object: &Value) -> anyhow::Result<()> {
    fn check<T: serde::de::DeserializeOwned>(object: &Value) -> anyhow::Result<()> {
        serde_json::from_value::<T>(object.clone()).map(drop).context("wrong field")
    }
    use k8s_openapi::api::{apps::v1, core};
    match (key.kind.group.as_str(), key.kind.name.as_str()) {
        ("", "Pod") => check::<Pod>(object),
        ("", "Service") => check::<Service>(object),
        ("", "ConfigMap") => check::<core::v1::ConfigMap>(object),
        ("", "Secret") => check::<core::v1::Secret>(object),
        ("apps", "Deployment") => check::<v1::Deployment>(object),
        _ => Ok(()),
    }
}

fn give_address(node: &Node, service: &mut Value) -> anyhow::Result<()> {
    let headless = service["spec"]["clusterIP"] == "None";
    if headless || service["spec"]["type"] == "ExternalName" {
        return Ok(());
    }
    let wanted = match service["spec"]["clusterIP"].as_str().filter(|ip| !ip.is_empty()) {
        Some(text) => Some(text.parse().with_context(|| format!("spec.clusterIP {text:?}"))?),
        None => None,
    };
    let address = node.network.service_address(wanted)?;
    service["spec"]["clusterIP"] = address.to_string().into();
    service["spec"]["clusterIPs"] = json!([address.to_string()]);
    Ok(())
}

/// Creates a pod: through the webhook, onto this node.
pub(crate) async fn create_pod(node: &Arc<Node>, key: &Key, mut pod: Value) -> anyhow::Result<()> {
    if pod["spec"]["serviceAccountName"].is_null() {
        pod["spec"]["serviceAccountName"] = "default".into();
    }
    let account = pod["spec"]["serviceAccountName"].as_str().unwrap_or_default();
    if node.store.get(&Key::core("ServiceAccount", &key.namespace, account)).is_none() {
        bail!("serviceaccount {account:?} not found in namespace {:?}", key.namespace);
    }
    if pod["spec"]["hostNetwork"] == true {
        bail!("spec.hostNetwork: a pod of the local mesh always has a network of its own");
    }
    admission::mutate(node, key, &mut pod).await?;
    pod["spec"]["nodeName"] = super::NODE_NAME.into();
    pod["status"] = json!({"phase": "Pending"});
    serde_json::from_value::<Pod>(pod.clone()).context("after injection")?;
    node.store.put(key, pod).map(drop)
}

/// Marks a pod; its task does the rest.
pub(crate) fn mark_for_deletion(node: &Node, key: &Key) -> anyhow::Result<()> {
    node.store.update(key, |pod| {
        if pod["metadata"]["deletionTimestamp"].is_null() {
            pod["metadata"]["deletionTimestamp"] = now().into();
            pod["metadata"]["deletionGracePeriodSeconds"] =
                pod["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30).into();
        }
    })?;
    Ok(())
}

async fn delete(node: &Arc<Node>, key: &Key, wait: bool) -> anyhow::Result<String> {
    let object = node.store.get(key).with_context(|| format!("{key} not found"))?;
    let mut pods = Vec::new();
    match (key.kind.group.as_str(), key.kind.name.as_str()) {
        ("", "Pod") => pods.push(key.clone()),
        ("apps", "Deployment") => {
            node.store.remove(key);
            let prefix = format!("{}-", key.name);
            for pod in node.store.list(&Kind::core("Pod"), Some(&key.namespace)) {
                let owner = pod["metadata"]["ownerReferences"][0]["name"].as_str().unwrap_or_default();
                let hash = pod["metadata"]["labels"]["pod-template-hash"].as_str().unwrap_or_default();
                if owner.strip_prefix(&prefix) == Some(hash) {
                    pods.push(Key::of(&pod)?);
                }
            }
        }
        ("", "Namespace") => pods.extend(empty_namespace(node, key)?),
        ("", "Service") => {
            if let Some(Ok(address)) = object["spec"]["clusterIP"].as_str().map(str::parse::<Ipv4Addr>) {
                node.network.free_service_address(address);
            }
            node.store.remove(key);
        }
        _ => drop(node.store.remove(key)),
    }
    for pod in &pods {
        mark_for_deletion(node, pod)?;
    }
    if wait {
        let mut changes = node.store.watch();
        while pods.iter().any(|pod| node.store.get(pod).is_some()) {
            changes.changed().await?;
        }
    }
    Ok("deleted".into())
}

/// Removes everything of a namespace; returns its pods, which end by themselves.
fn empty_namespace(node: &Node, key: &Key) -> anyhow::Result<Vec<Key>> {
    if ["default", "istio-system", "kube-system"].contains(&key.name.as_str()) {
        bail!("{key}: this namespace cannot be deleted");
    }
    let pods = node.store.list(&Kind::core("Pod"), Some(&key.name));
    let pods = pods.iter().map(|pod| Key::of(pod)).collect::<anyhow::Result<Vec<_>>>()?;
    node.store.remove(key);
    for other in node.store.keys(&key.name) {
        if other.kind.name != "Pod" {
            node.store.remove(&other);
        }
    }
    Ok(pods)
}

fn label(
    node: &Node,
    key: &Key,
    labels: &serde_json::Map<String, Value>,
    overwrite: bool,
) -> anyhow::Result<String> {
    let current = node.store.get(key).with_context(|| format!("{key} not found"))?;
    for (name, value) in labels {
        let old = &current["metadata"]["labels"][name];
        if !overwrite && !value.is_null() && !old.is_null() && old != value {
            bail!("{key}: label {name} is {old} already; --overwrite changes it");
        }
    }
    node.store.update(key, |object| {
        for (name, value) in labels {
            if !value.is_null() {
                object["metadata"]["labels"][name] = value.clone();
            } else if let Some(all) = object["metadata"]["labels"].as_object_mut() {
                all.shift_remove(name);
            }
        }
    })?;
    Ok("labeled".into())
}

fn restart(node: &Node, key: &Key) -> anyhow::Result<String> {
    let time = jiff::Timestamp::now().to_string();
    let updated = node.store.update(key, |object| {
        object["spec"]["template"]["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"] =
            time.into();
    })?;
    updated.with_context(|| format!("{key} not found"))?;
    Ok("restarted".into())
}

async fn exec(
    node: &Node,
    key: &Key,
    container: Option<&str>,
    command: Vec<String>,
    pipes: Pipes,
) -> anyhow::Result<i32> {
    let task = node.pods.get(key).with_context(|| format!("{key} does not run"))?;
    let pod = task.pod();
    let spec = pod.spec.clone().unwrap_or_default();
    let default =
        pod.metadata.annotations.as_ref().and_then(|all| all.get("kubectl.kubernetes.io/default-container"));
    let first = spec.containers.iter().find(|one| one.name != "istio-proxy").or(spec.containers.first());
    let name =
        container.or(default.map(String::as_str)).or(first.map(|one| one.name.as_str())).unwrap_or_default();
    let mut all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let found =
        all.find(|one| one.name == name).with_context(|| format!("{key} has no container {name:?}"))?;
    // A container that starts again in this moment is worth a short wait.
    for _ in 0..20 {
        if let Some(running) = task.running(name) {
            let exit = container::exec(node, pod, found, &running, command, Some(pipes)).await?;
            return Ok(exit.code);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("container {name} of {key} does not run")
}
