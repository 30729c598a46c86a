//! Takes connections from a worker's listening sockets.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use sail_proxy_decide::address::Address;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::AbortHandle;

use super::connection;
use super::sockets::{Opened, Socket};
use crate::net::Raw;
use crate::worker::state::Worker;

/// A task that takes connections; dropped, it stops, and its socket is closed.
#[derive(Debug)]
pub(crate) struct Accepting {
    pub(crate) address: Address,
    task: AbortHandle,
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts taking connections from sockets that were opened for this worker.
pub(crate) fn start(worker: &Rc<Worker>, sockets: Vec<Opened>) {
    for Opened { listener, address, socket } in sockets {
        let task = match socket {
            Socket::Tcp(socket) => match TcpListener::from_std(socket) {
                Ok(socket) => tokio::task::spawn_local(tcp(worker.clone(), listener.clone(), socket)),
                Err(error) => {
                    tracing::error!(%listener, %error, "cannot watch the listening socket");
                    continue;
                }
            },
            Socket::Unix(socket) => match UnixListener::from_std(socket) {
                Ok(socket) => tokio::task::spawn_local(unix(worker.clone(), listener.clone(), socket)),
                Err(error) => {
                    tracing::error!(%listener, %error, "cannot watch the listening socket");
                    continue;
                }
            },
        };
        let mut accepting = worker.accepting.borrow_mut();
        accepting.entry(listener).or_default().push(Accepting { address, task: task.abort_handle() });
    }
}

async fn tcp(worker: Rc<Worker>, name: Arc<str>, socket: TcpListener) {
    loop {
        under_pressure(&worker, &name).await;
        match socket.accept().await {
            Ok((stream, remote)) => {
                let _ = stream.set_nodelay(true);
                // The listener of the moment: a new version takes over between two connections.
                let listener = worker.listeners.borrow().get(&name).cloned();
                if let Some(listener) = listener {
                    connection::spawn(&worker, listener, Raw::Tcp(stream), Some(remote));
                }
            }
            Err(error) => wait_after(&name, &error).await,
        }
    }
}

async fn unix(worker: Rc<Worker>, name: Arc<str>, socket: UnixListener) {
    loop {
        under_pressure(&worker, &name).await;
        match socket.accept().await {
            Ok((stream, _)) => {
                let listener = worker.listeners.borrow().get(&name).cloned();
                if let Some(listener) = listener {
                    connection::spawn(&worker, listener, Raw::Unix(stream), None);
                }
            }
            Err(error) => wait_after(&name, &error).await,
        }
    }
}

/// Waits while the process takes no connections.
async fn under_pressure(worker: &Worker, name: &str) {
    while worker.shared.options.overload.stops_accepting() {
        let bypasses = |listener: &Rc<super::Listener>| listener.config.bypass_overload_manager;
        if worker.listeners.borrow().get(name).is_some_and(bypasses) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Out of descriptors, most likely: the connection stays in the kernel's queue, and trying at once would only spin.
async fn wait_after(listener: &str, error: &std::io::Error) {
    if error.kind() == std::io::ErrorKind::ConnectionAborted {
        return;
    }
    tracing::warn!(listener, %error, "cannot take a connection");
    tokio::time::sleep(Duration::from_millis(20)).await;
}
