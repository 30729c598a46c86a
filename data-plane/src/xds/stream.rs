//! One management server: a stream, kept up for as long as it is wanted, with back-off between attempts. Nothing that
//! runs depends on it being up.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use base::backoff::Backoff;
use http::uri::PathAndQuery;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic_prost::ProstCodec;
use xds_api::envoy::config::core::v3::ControlPlane;
use xds_api::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use xds_stream::client::{self, Client, Protocol, Received, Rejection, Request};
use xds_stream::wire;

use crate::dial::{self, H2Service, Target};

/// A client and the bell that says it has something new to say.
#[derive(Debug)]
pub(super) struct Subscription {
    client: RefCell<Client>,
    changed: Notify,
}

impl Subscription {
    /// A subscription that wants nothing yet.
    pub(super) fn new(client: Client) -> Rc<Self> {
        Rc::new(Self { client: RefCell::new(client), changed: Notify::new() })
    }

    /// Changes what is wanted.
    pub(super) fn update(&self, change: impl FnOnce(&mut Client)) {
        change(&mut self.client.borrow_mut());
        self.changed.notify_one();
    }

    /// Looks at the client.
    pub(super) fn read<T>(&self, look: impl FnOnce(&Client) -> T) -> T {
        look(&self.client.borrow())
    }
}

/// Who takes what a stream brings.
pub(super) trait Applier {
    /// The server's endpoints as they are now; a server in a discovered cluster may move.
    fn target(&self) -> Option<Target>;
    /// Applies a response: all of it, or what the rejection leaves.
    fn apply(&self, received: &Received) -> Result<(), Rejection>;
    /// A response of this type cannot be read.
    fn refused(&self, type_url: &str);
    /// The stream is opened; the server has not said anything yet.
    fn opened(&self);
    /// The server calls itself so.
    fn identified(&self, identifier: &str);
    /// The stream stands, or fell with this reason.
    fn connected(&self, up: Result<(), &str>);
}

/// Which service is called.
#[derive(Clone, Debug)]
pub(super) struct Service {
    /// The gRPC path.
    pub(super) path: String,
    /// The authority, where the configuration names one.
    pub(super) authority: Option<String>,
    /// Metadata of the stream.
    pub(super) initial_metadata: Vec<(String, String)>,
    /// How long a message may be.
    pub(super) max_message: Option<u32>,
    /// The first wait between attempts, and the longest.
    pub(super) backoff: (Duration, Duration),
}

/// Keeps the stream up until it is dropped.
pub(super) async fn run(subscription: Rc<Subscription>, service: Service, applier: Rc<dyn Applier>) {
    let mut backoff = Backoff::new(service.backoff.0, service.backoff.1);
    loop {
        let answered = Cell::new(false);
        let result = match subscription.read(Client::protocol) {
            Protocol::Delta => session::<Delta>(&subscription, &service, &*applier, &answered).await,
            Protocol::Sotw => session::<Sotw>(&subscription, &service, &*applier, &answered).await,
        };
        let reason = match &result {
            Ok(()) => "the server closed the stream".to_owned(),
            Err(error) => describe(error.as_ref()),
        };
        applier.connected(Err(&reason));
        // A server that spoke is no reason to wait longer than for a first attempt.
        if answered.get() {
            backoff.reset();
        }
        tokio::time::sleep(backoff.next_delay(&mut rand::rng())).await;
    }
}

type SessionError = Box<dyn std::error::Error>;

async fn session<W: Wire>(
    subscription: &Subscription,
    service: &Service,
    applier: &dyn Applier,
    answered: &Cell<bool>,
) -> Result<(), SessionError> {
    let target = applier.target().ok_or("the management server's cluster does not exist")?;
    let mut grpc = dial::grpc(&target, service.authority.as_deref()).await?;
    if let Some(max) = service.max_message {
        grpc = grpc.max_decoding_message_size(max as usize);
    }
    grpc.ready().await?;
    subscription.client.borrow_mut().reconnect();
    let (send, requests) = mpsc::channel::<W::Request>(64);
    let mut responses = {
        let open = open::<W>(&mut grpc, service, requests);
        tokio::pin!(open);
        // Many servers send their headers with their first response, for which they want a request; one that has nothing
        // new may send neither for long.
        flush::<W>(subscription, &send).await?;
        applier.opened();
        loop {
            tokio::select! {
                opened = &mut open => break opened?,
                () = subscription.changed.notified() => flush::<W>(subscription, &send).await?,
            }
        }
    };
    applier.connected(Ok(()));
    loop {
        flush::<W>(subscription, &send).await?;
        tokio::select! {
            response = responses.message() => {
                let Some(response) = response? else { return Ok(()) };
                answered.set(true);
                if let Some(control_plane) = W::control_plane(&response) {
                    applier.identified(&control_plane.identifier);
                }
                let type_url = W::type_url(&response).to_owned();
                let received = W::receive(&mut subscription.client.borrow_mut(), response);
                let received = match received {
                    Ok(Some(received)) => received,
                    Ok(None) => continue,
                    Err(error) => {
                        // The server hears of it already; the stream goes on.
                        tracing::warn!(%error, "refused a discovery response");
                        applier.refused(&type_url);
                        continue;
                    }
                };
                // Applying may change what is wanted: the client is not borrowed meanwhile.
                let result = applier.apply(&received);
                let mut client = subscription.client.borrow_mut();
                match result {
                    Ok(()) => client.accept(&received),
                    Err(rejection) => client.reject(&received, rejection),
                }
            }
            () = subscription.changed.notified() => {}
        }
    }
}

async fn open<W: Wire>(
    grpc: &mut tonic::client::Grpc<H2Service>,
    service: &Service,
    requests: mpsc::Receiver<W::Request>,
) -> Result<tonic::Streaming<W::Response>, SessionError> {
    let path: PathAndQuery = service.path.parse()?;
    let mut request = tonic::Request::new(ReceiverStream::new(requests));
    for (name, value) in &service.initial_metadata {
        let name: tonic::metadata::AsciiMetadataKey = name.parse()?;
        request.metadata_mut().insert(name, value.parse()?);
    }
    let codec = ProstCodec::<W::Request, W::Response>::default();
    Ok(grpc.streaming(request, path, codec).await?.into_inner())
}

async fn flush<W: Wire>(
    subscription: &Subscription,
    send: &mpsc::Sender<W::Request>,
) -> Result<(), SessionError> {
    loop {
        let next = subscription.client.borrow_mut().next_request();
        let Some(request) = next.and_then(W::request) else { return Ok(()) };
        send.send(request).await.map_err(|_| "the server closed the stream")?;
    }
}

/// An error and its causes on one line.
fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = match error.downcast_ref::<tonic::Status>() {
        Some(status) => format!("{:?}: {}", status.code(), status.message()),
        None => error.to_string(),
    };
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// The messages of a variant of the protocol.
trait Wire {
    type Request: prost::Message + Send + Sync + 'static;
    type Response: prost::Message + Default + Send + Sync + 'static;

    fn request(request: Request) -> Option<Self::Request>;
    fn type_url(response: &Self::Response) -> &str;
    fn control_plane(response: &Self::Response) -> Option<&ControlPlane>;
    fn receive(client: &mut Client, response: Self::Response) -> Result<Option<Received>, client::Error>;
}

enum Delta {}

impl Wire for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = wire::DeltaResponse;

    fn request(request: Request) -> Option<Self::Request> {
        match request {
            Request::Delta(request) => Some(request),
            Request::Sotw(_) => None,
        }
    }

    fn type_url(response: &Self::Response) -> &str {
        &response.type_url
    }

    fn control_plane(response: &Self::Response) -> Option<&ControlPlane> {
        response.control_plane.as_ref()
    }

    fn receive(client: &mut Client, response: Self::Response) -> Result<Option<Received>, client::Error> {
        Ok(client.on_delta(response))
    }
}

enum Sotw {}

impl Wire for Sotw {
    type Request = DiscoveryRequest;
    type Response = wire::Response;

    fn request(request: Request) -> Option<Self::Request> {
        match request {
            Request::Sotw(request) => Some(request),
            Request::Delta(_) => None,
        }
    }

    fn type_url(response: &Self::Response) -> &str {
        &response.type_url
    }

    fn control_plane(response: &Self::Response) -> Option<&ControlPlane> {
        response.control_plane.as_ref()
    }

    fn receive(client: &mut Client, response: Self::Response) -> Result<Option<Received>, client::Error> {
        client.on_sotw(response)
    }
}
