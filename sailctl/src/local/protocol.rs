//! What verbs say to the daemon over its Unix socket: one request, one JSON line; then one reply, one JSON line.
//! `Tunnel` turns the connection into the bytes of a TCP connection; `Exec` comes with three file descriptors.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::kind::{Key, Kind};

/// A request.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Creates or changes an object.
    Apply { key: Key, object: Value },
    /// Deletes an object; answered when it is gone, with `wait`.
    Delete { key: Key, wait: bool },
    /// All objects of a kind, of one namespace or of all.
    List { kind: Kind, namespace: Option<String> },
    /// Merges labels; null removes one.
    Label { key: Key, labels: serde_json::Map<String, Value>, overwrite: bool },
    /// Replaces a Deployment's pods.
    Restart { key: Key },
    /// How the mesh is.
    Status,
    /// Runs a command in a container, on the descriptors that come along.
    Exec { pod: Key, container: Option<String>, command: Vec<String> },
    /// A connection to a pod or service.
    Tunnel { target: Key, port: u16 },
    /// Ends the mesh.
    Shutdown,
}

/// A reply.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// Done; how, in one word.
    Done(String),
    /// Objects.
    Objects(Vec<Value>),
    /// How the mesh is.
    Status(Box<Status>),
    /// A command ended.
    Exited(i32),
    /// It could not be done.
    Failed(String),
}

/// How the mesh is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Status {
    /// The mesh's name.
    pub(crate) name: String,
    /// Whether control plane and gateway serve.
    pub(crate) ready: bool,
    /// What is waited for.
    pub(crate) waiting_for: Vec<String>,
    /// Where the gateway is reached from this machine.
    pub(crate) ingress: Ingress,
    /// The pods.
    pub(crate) pods: Vec<PodStatus>,
}

/// Ports on 127.0.0.1.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Ingress {
    pub(crate) http: u16,
    pub(crate) https: u16,
}

/// One pod.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PodStatus {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Containers that are ready, of how many.
    pub(crate) ready: (usize, usize),
    pub(crate) restarts: i64,
    /// Phase, or why it waits.
    pub(crate) status: String,
    pub(crate) address: Option<Ipv4Addr>,
    /// What the control plane says of its sidecar; `None` when it has none.
    pub(crate) synced: Option<String>,
}
