//! One stream from its opening to its end: a task that reads requests, makes pushes, and sends responses.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use base::task::Supervised;
use futures_util::stream::BoxStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_stream::StreamExt as _;
use tonic::{Response, Status};
use tracing::{debug, info, warn};
use xds_api::envoy::config::core::v3::Node;
use xds_api::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use xds_api::type_url;
use xds_stream::session::{Demand, Event, Protocol, Reply, Stamp, Step};
use xds_stream::wire;

use crate::connection::{Connection, Hello, Pending};
use crate::host::{Affected, Generator, Identity};
use crate::server::Shared;
use crate::{debug, transport};

/// Responses that wait for the client to read.
const OUTBOUND: usize = 4;

/// Names of one type that a proxy may watch.
const MAX_NAMES: usize = 100_000;

/// The requests of one stream.
pub(crate) type Requests = BoxStream<'static, Result<Inbound, Status>>;

/// A request of either variant.
pub(crate) enum Inbound {
    Delta(DeltaDiscoveryRequest),
    Sotw(DiscoveryRequest),
}

impl Inbound {
    fn node(&self) -> Option<&Node> {
        match self {
            Self::Delta(request) => request.node.as_ref(),
            Self::Sotw(request) => request.node.as_ref(),
        }
    }

    fn type_url(&self) -> &str {
        match self {
            Self::Delta(request) => &request.type_url,
            Self::Sotw(request) => &request.type_url,
        }
    }
}

/// The responses of one stream. Dropping it, as when the client is gone, ends the stream's task.
pub(crate) struct Outbound<T> {
    responses: mpsc::Receiver<Result<Reply, Status>>,
    pick: fn(Reply) -> Option<T>,
    _task: Supervised<()>,
}

impl<T> tokio_stream::Stream for Outbound<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some(next) = std::task::ready!(self.responses.poll_recv(cx)) else {
                return Poll::Ready(None);
            };
            match next.map(self.pick) {
                Ok(Some(response)) => return Poll::Ready(Some(Ok(response))),
                // A reply of the other variant, which a session of this one does not make.
                Ok(None) => {}
                Err(status) => return Poll::Ready(Some(Err(status))),
            }
        }
    }
}

/// A response type, picked from replies of its variant.
pub(crate) trait Pick: Sized {
    fn pick(reply: Reply) -> Option<Self>;
}

impl Pick for wire::DeltaResponse {
    fn pick(reply: Reply) -> Option<Self> {
        match reply {
            Reply::Delta(response) => Some(response),
            Reply::Sotw(_) => None,
        }
    }
}

impl Pick for wire::Response {
    fn pick(reply: Reply) -> Option<Self> {
        match reply {
            Reply::Sotw(response) => Some(response),
            Reply::Delta(_) => None,
        }
    }
}

/// Admits a stream and starts its task.
pub(crate) async fn open<T: Pick>(
    shared: Arc<Shared>,
    protocol: Protocol,
    extensions: ::http::Extensions,
    requests: Requests,
) -> Result<Response<Outbound<T>>, Status> {
    let refuse = |status: Status| {
        shared.metrics.refused.increment(&format!("{:?}", status.code()));
        status
    };
    if !shared.host.ready() {
        return Err(refuse(Status::unavailable("the configuration has not been read yet; try again")));
    }
    if shared.drain.is_signaled() {
        return Err(refuse(Status::unavailable("shutting down; try another replica")));
    }
    shared.opened.admit().await.map_err(refuse)?;
    let identity = shared.host.authenticate(&extensions).await.map_err(refuse)?;
    let peer = extensions.get::<transport::Peer>().map(|peer| peer.address.to_string()).unwrap_or_default();
    let (send, receive) = mpsc::channel(OUTBOUND);
    let task = Supervised::spawn(async move {
        let stream = Task { shared: Arc::clone(&shared), protocol, peer, responses: send.clone() };
        if let Err(status) = stream.run(requests, identity).await {
            shared.metrics.refused.increment(&format!("{:?}", status.code()));
            // The client may be gone already, or read nothing: its stream ends as the task does.
            let _ = send.try_send(Err(status));
        }
    });
    Ok(Response::new(Outbound { responses: receive, pick: T::pick, _task: task }))
}

struct Task {
    shared: Arc<Shared>,
    protocol: Protocol,
    peer: String,
    responses: mpsc::Sender<Result<Reply, Status>>,
}

/// In the list of connections while it lives.
struct Listed {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
}

impl Listed {
    fn new(shared: &Arc<Shared>, connection: Arc<Connection>) -> Self {
        shared.connections.insert(connection.id, Arc::clone(&connection));
        shared.metrics.connections.add(1);
        info!(proxy = connection.proxy(), peer = connection.peer, "connected");
        Self { shared: Arc::clone(shared), connection }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.shared.connections.remove(&self.connection.id);
        self.shared.metrics.connections.add(-1);
        info!(proxy = self.connection.proxy(), "disconnected");
    }
}

impl Task {
    async fn run(self, mut requests: Requests, identity: Option<Identity>) -> Result<(), Status> {
        let Some(first) = requests.next().await.transpose()? else { return Ok(()) };
        let node = first
            .node()
            .cloned()
            .ok_or_else(|| Status::invalid_argument("the first request of a stream must have a node"))?;
        let view = self.shared.host.connect(&node, identity.as_ref()).await?;
        let connection = Arc::new(Connection::new(Hello {
            id: self.shared.next_id(),
            node,
            identity,
            peer: self.peer.clone(),
            view,
            protocol: self.protocol,
        }));
        let listed = Listed::new(&self.shared, Arc::clone(&connection));
        self.request(&connection, &first).await?;
        let mut drain = self.shared.drain.clone();
        let age = self.age();
        let too_old = async {
            match age {
                Some(age) => sleep(age).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(too_old);
        loop {
            tokio::select! {
                // Requests first: an acknowledgement that is there makes a push smaller.
                biased;
                () = drain.signaled() => break,
                request = requests.next() => match request {
                    Some(Ok(request)) => self.request(&connection, &request).await?,
                    // The client is gone; how does not matter.
                    Some(Err(_)) | None => break,
                },
                () = connection.woken() => self.push(&connection).await?,
                () = &mut too_old => break,
            }
        }
        drop(listed);
        Ok(())
    }

    fn age(&self) -> Option<std::time::Duration> {
        let age = self.shared.options.max_stream_age?;
        Some(age.mul_f64(rand::random_range(0.9..1.1)))
    }

    async fn request(&self, connection: &Connection, request: &Inbound) -> Result<(), Status> {
        let type_url = request.type_url();
        if type_url == type_url::HEALTH_INFORMATION {
            // A report, not a subscription; the health of machines outside Kubernetes is not tracked yet.
            debug!(proxy = connection.proxy(), "health report");
            return Ok(());
        }
        let step = connection.with_session(|session| match request {
            Inbound::Delta(request) => session.on_delta(request),
            Inbound::Sotw(request) => session.on_sotw(request),
        });
        let Step { event, due } = step.map_err(|error| Status::invalid_argument(error.to_string()))?;
        self.record(connection, type_url, &event);
        if connection.with_session(|session| session.watch(type_url).map_or(0, |w| w.names().len()))
            > MAX_NAMES
        {
            return Err(Status::resource_exhausted(format!("more than {MAX_NAMES} names of one type")));
        }
        if due.is_empty() {
            return Ok(());
        }
        let replies = {
            // Who asks without end waits its turn as those do who are pushed to.
            let Ok(_permit) = self.shared.permits.acquire().await else { return Ok(()) };
            let generator = connection.view.now();
            let mut replies = Vec::new();
            for (type_url, demand) in &due {
                replies.extend(self.make(connection, generator.as_ref(), type_url, demand));
            }
            replies
        };
        self.send(replies).await
    }

    fn record(&self, connection: &Connection, type_url: &str, event: &Event) {
        let kind = || type_url::short_name(type_url).to_ascii_lowercase();
        match event {
            Event::Nacked(message) => {
                self.shared.metrics.rejects.increment(&kind());
                warn!(proxy = connection.proxy(), r#type = kind(), "configuration refused: {message}");
            }
            Event::Stale => self.shared.metrics.expired_nonces.increment(&kind()),
            Event::Opened | Event::Changed | Event::Closed | Event::Acked => {
                debug!(proxy = connection.proxy(), r#type = kind(), ?event, "request");
            }
        }
    }

    /// Sends what a change alters, in the order that loses no traffic.
    async fn push(&self, connection: &Connection) -> Result<(), Status> {
        // Only a closed semaphore gives no permit, and nobody closes it.
        let Ok(permit) = self.shared.permits.acquire().await else { return Ok(()) };
        let Some(pending) = connection.take() else { return Ok(()) };
        let metrics = &self.shared.metrics;
        metrics.queue_time.observe(pending.queued.elapsed());
        let start = Instant::now();
        let replies = self.replies(connection, &pending);
        // Whoever is slow to read keeps nobody else from being served.
        drop(permit);
        let sent = !replies.is_empty();
        self.send(replies).await?;
        metrics.push_time.observe(start.elapsed());
        if sent {
            metrics.convergence_time.observe(pending.since.elapsed());
        }
        Ok(())
    }

    /// What a push consists of.
    fn replies(&self, connection: &Connection, pending: &Pending) -> Vec<Reply> {
        let types = connection.with_session(|session| session.types_in_push_order());
        let mut replies = Vec::new();
        let generator = connection.view.now();
        for type_url in types {
            let demand = connection.with_session(|session| {
                let watch = session.watch(&type_url)?;
                match connection.view.affected(&pending.change, &type_url, watch.names()) {
                    Affected::Nothing => None,
                    Affected::Names(names) => session.demand(&type_url, Some(&names)),
                    Affected::Anything => session.demand(&type_url, None),
                }
            });
            if let Some(demand) = demand {
                replies.extend(self.make(connection, generator.as_ref(), &type_url, &demand));
            }
        }
        replies
    }

    fn make(
        &self,
        connection: &Connection,
        generator: &dyn Generator,
        type_url: &str,
        demand: &Demand,
    ) -> Option<Reply> {
        let resources = if type_url.starts_with(type_url::DEBUG_PREFIX) {
            debug::resources(&self.shared, connection, type_url, demand)
        } else {
            generator.generate(type_url, demand)
        };
        let version = generator.version();
        let stamp = Stamp { nonce: self.shared.next_nonce(&version), version };
        let mut reply =
            connection.with_session(|session| session.answer(type_url, demand, &resources, stamp))?;
        let metrics = &self.shared.metrics;
        let kind = type_url::short_name(type_url).to_ascii_lowercase();
        metrics.pushes.increment(&kind);
        let control_plane = Some(self.shared.options.control_plane.clone());
        let bytes: usize = match &mut reply {
            Reply::Delta(response) => {
                response.control_plane = control_plane;
                response.resources.iter().flat_map(|entry| &entry.resource).map(|any| any.value.len()).sum()
            }
            Reply::Sotw(response) => {
                response.control_plane = control_plane;
                response.resources.iter().map(|any| any.value.len()).sum()
            }
        };
        metrics.bytes.add(&kind, u64::try_from(bytes).unwrap_or(u64::MAX));
        Some(reply)
    }

    async fn send(&self, replies: Vec<Reply>) -> Result<(), Status> {
        let mut drain = self.shared.drain.clone();
        for reply in replies {
            let start = Instant::now();
            let sent = tokio::time::timeout(self.shared.options.send_timeout, self.responses.send(Ok(reply)));
            let sent = tokio::select! {
                biased;
                sent = sent => sent,
                () = drain.signaled() => return Err(Status::unavailable("shutting down; try another replica")),
            };
            match sent {
                Ok(sent) => sent.map_err(|_| Status::cancelled("the client is gone"))?,
                Err(_) => {
                    self.shared.metrics.write_timeouts.fetch_add(1, Ordering::Relaxed);
                    return Err(Status::deadline_exceeded("the client does not read its responses"));
                }
            }
            self.shared.metrics.send_time.observe(start.elapsed());
        }
        Ok(())
    }
}
