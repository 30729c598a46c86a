//! The mesh's network: a bridge in the daemon's network namespace, and a namespace for each pod.
//!
//! A pod's address stands alone (/32) and everything goes to the gateway, so that pod-to-pod traffic is routed and the
//! service rules of [`super::kube_proxy`] see both directions.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail};
use nix::sched::{CloneFlags, setns, unshare};

/// The daemon's address on the bridge; the pods' gateway.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
/// Where pods ask for names.
pub(crate) const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// The range of pods.
pub(crate) const POD_RANGE: &str = "10.244.0.0/16";
/// The range of services.
pub(crate) const SERVICE_RANGE: &str = "10.96.0.0/16";
const BRIDGE: &str = "sail0";

/// Addresses in use.
#[derive(Default)]
pub(crate) struct Network {
    pods: Mutex<BTreeSet<Ipv4Addr>>,
    services: Mutex<BTreeSet<Ipv4Addr>>,
}

/// A pod's network namespace; it goes with its last process and this handle.
pub(crate) struct PodNetwork {
    pub(crate) address: Ipv4Addr,
    pub(crate) namespace: Arc<File>,
    network: Arc<Network>,
}

impl Drop for PodNetwork {
    fn drop(&mut self) {
        lock(&self.network.pods).remove(&self.address);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Leaves the machine's network and sets the mesh's up. Threads started afterwards are in it.
pub(crate) fn enter() -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace")?;
    ip(&format!(
        "link set lo up\n\
         link add {BRIDGE} type bridge\n\
         addr add {GATEWAY}/16 dev {BRIDGE}\n\
         addr add {DNS}/32 dev {BRIDGE}\n\
         link set {BRIDGE} up\n"
    ))?;
    for (name, value) in [
        ("ip_forward", "1"),
        ("conf/all/send_redirects", "0"),
        ("conf/default/send_redirects", "0"),
        (&format!("conf/{BRIDGE}/send_redirects"), "0"),
        ("conf/all/rp_filter", "0"),
        (&format!("conf/{BRIDGE}/rp_filter"), "0"),
        ("ip_unprivileged_port_start", "0"),
    ] {
        sysctl(name, value)?;
    }
    Ok(())
}

fn sysctl(name: &str, value: &str) -> anyhow::Result<()> {
    let path = format!("/proc/sys/net/ipv4/{name}");
    fs::write(&path, value).with_context(|| format!("cannot set {path}; is /proc/sys mounted read-only?"))
}

/// Several `ip` commands in one go.
fn ip(commands: &str) -> anyhow::Result<()> {
    feed(Command::new("ip").args(["-batch", "-"]), "ip (package iproute2)", commands)
}

/// Runs a program on an input; its complaint becomes the error.
pub(crate) fn feed(command: &mut Command, name: &str, input: &str) -> anyhow::Result<()> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {name}"))?;
    // A program that ends early says why on its standard error.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{name} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

impl Network {
    /// Makes a pod's namespace, with its address.
    pub(crate) fn add_pod(self: &Arc<Self>) -> anyhow::Result<PodNetwork> {
        let address = self.pod_address()?;
        let name = format!("veth{:x}", u32::from(address) & 0xffff);
        let inside = name.clone();
        // A namespace belongs to a thread: one is started to make it, and ends.
        let made = std::thread::spawn(move || -> anyhow::Result<File> {
            unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace")?;
            ip(&format!(
                "link set lo up\n\
                 link add eth0 type veth peer name {inside} netns 1\n\
                 addr add {address}/32 dev eth0\n\
                 link set eth0 up\n\
                 route add {GATEWAY} dev eth0\n\
                 route add default via {GATEWAY} dev eth0\n"
            ))?;
            sysctl("ip_unprivileged_port_start", "0")?;
            File::open("/proc/thread-self/ns/net").context("cannot open the network namespace")
        });
        let namespace = match made.join() {
            Ok(result) => result,
            Err(_) => bail!("the thread that makes network namespaces failed"),
        };
        let network = PodNetwork { address, namespace: Arc::new(namespace?), network: self.clone() };
        ip(&format!("link set {name} master {BRIDGE} up\n"))?;
        Ok(network)
    }

    fn pod_address(&self) -> anyhow::Result<Ipv4Addr> {
        let mut used = lock(&self.pods);
        let base = u32::from(GATEWAY) & 0xffff_0000;
        // The address after the last given: a new pod does not take the place of one that others still talk to.
        let last = used.last().map_or(base + 9, |last| u32::from(*last));
        let free = (last + 1..base + 0xfffe)
            .chain(base + 10..last)
            .map(Ipv4Addr::from)
            .find(|ip| !used.contains(ip));
        let address = free.context("no pod address is left")?;
        used.insert(address);
        Ok(address)
    }

    /// Gives a service an address, that which it asks for if it is free.
    pub(crate) fn service_address(&self, wanted: Option<Ipv4Addr>) -> anyhow::Result<Ipv4Addr> {
        let mut used = lock(&self.services);
        let base = u32::from(DNS) & 0xffff_0000;
        if let Some(wanted) = wanted {
            if u32::from(wanted) & 0xffff_0000 != base || wanted == DNS || !used.insert(wanted) {
                bail!("spec.clusterIP {wanted}: taken, or not of the range {SERVICE_RANGE}");
            }
            return Ok(wanted);
        }
        let address = (base + 256..base + 0xfffe).map(Ipv4Addr::from).find(|ip| !used.contains(ip));
        let address = address.context("no service address is left")?;
        used.insert(address);
        Ok(address)
    }

    pub(crate) fn free_service_address(&self, address: Ipv4Addr) {
        lock(&self.services).remove(&address);
    }
}

/// Moves the calling thread into a network namespace.
pub(crate) fn join(namespace: &File) -> anyhow::Result<()> {
    setns(namespace, CloneFlags::CLONE_NEWNET).context("cannot enter the pod's network namespace")
}
