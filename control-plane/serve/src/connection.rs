//! A connected proxy: what it watches, and the push that waits for it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use saild_model::ChangeSet;
use tokio::sync::Notify;
use tokio::time::Instant;
use xds_api::envoy::config::core::v3::Node;
use xds_stream::session::{Protocol, Session};

use crate::host::{Identity, View};

/// A push that waits. Further changes are merged into it, so that there is never more than one.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) change: ChangeSet,
    /// When the oldest of its changes came in.
    pub(crate) since: Instant,
    /// When it began to wait.
    pub(crate) queued: Instant,
}

/// One stream.
pub struct Connection {
    /// Unique in this process.
    pub id: u64,
    /// Who it says it is.
    pub node: Node,
    /// Who it was recognized as.
    pub identity: Option<Identity>,
    /// Where it connects from.
    pub peer: String,
    /// Since when.
    pub connected: Timestamp,
    /// Its side of the configuration.
    pub view: Arc<dyn View>,
    session: Mutex<Session>,
    pending: Mutex<Option<Pending>>,
    wake: Notify,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("id", &self.id)
            .field("node", &self.node.id)
            .finish_non_exhaustive()
    }
}

/// What is known of a proxy when it connects.
pub(crate) struct Hello {
    pub(crate) id: u64,
    pub(crate) node: Node,
    pub(crate) identity: Option<Identity>,
    pub(crate) peer: String,
    pub(crate) view: Arc<dyn View>,
    pub(crate) protocol: Protocol,
}

impl Connection {
    pub(crate) fn new(hello: Hello) -> Self {
        Self {
            id: hello.id,
            node: hello.node,
            identity: hello.identity,
            peer: hello.peer,
            connected: Timestamp::now(),
            view: hello.view,
            session: Mutex::new(Session::new(hello.protocol)),
            pending: Mutex::new(None),
            wake: Notify::new(),
        }
    }

    /// Istio's name for a connection: the node and a number.
    pub fn name(&self) -> String {
        format!("{}-{}", self.proxy(), self.id)
    }

    /// `<pod>.<namespace>`, or the whole node id if it is none of Istio's.
    pub fn proxy(&self) -> &str {
        self.node.id.split('~').nth(2).unwrap_or(&self.node.id)
    }

    /// The namespace that its node id names.
    pub fn namespace(&self) -> &str {
        self.proxy().rsplit_once('.').map_or("", |(_, namespace)| namespace)
    }

    /// A text in the node's metadata.
    pub fn metadata(&self, key: &str) -> &str {
        use xds_api::google::protobuf::value::Kind;
        let value = self.node.metadata.as_ref().and_then(|metadata| metadata.fields.get(key));
        match value.and_then(|value| value.kind.as_ref()) {
            Some(Kind::StringValue(text)) => text,
            _ => "",
        }
    }

    /// Reads or advances what it watches.
    pub fn with_session<R>(&self, f: impl FnOnce(&mut Session) -> R) -> R {
        f(&mut self.session.lock())
    }

    /// Queues a push, or adds to the one that waits.
    pub(crate) fn queue(&self, change: &ChangeSet, since: Instant) {
        let mut pending = self.pending.lock();
        match &mut *pending {
            Some(pending) => pending.change.merge(change.clone()),
            None => *pending = Some(Pending { change: change.clone(), since, queued: Instant::now() }),
        }
        drop(pending);
        self.wake.notify_one();
    }

    /// Resolves when a push may be waiting.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Takes the push that waits.
    pub(crate) fn take(&self) -> Option<Pending> {
        self.pending.lock().take()
    }

    /// How long the push that waits has been waiting.
    pub fn waiting(&self) -> Option<Duration> {
        self.pending.lock().as_ref().map(|pending| pending.queued.elapsed())
    }
}
