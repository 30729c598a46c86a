//! Streams of well-behaved and of other clients, to a server whose host is the test.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base::drain;
use base::task::Supervised;
use bytes::Bytes;
use saild_model::ChangeSet;
use saild_serve::debounce::Delays;
use saild_serve::metrics::Metrics;
use saild_serve::{Ads, Affected, Generator, Host, Identity, Options, Pusher, View};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::client::Grpc;
use tonic::transport::{Endpoint, Server};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;
use xds_api::envoy::config::core::v3::Node;
use xds_api::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use xds_api::type_url::CLUSTER;
use xds_stream::resource::Resource;
use xds_stream::session::Demand;
use xds_stream::wire;

const PATIENCE: Duration = Duration::from_secs(20);

/// One resource whose content differs with each generation.
#[derive(Default)]
struct World {
    ready: AtomicBool,
    /// The size of the resource.
    size: AtomicUsize,
    made: AtomicUsize,
    making: AtomicUsize,
    most: AtomicUsize,
}

struct TheHost(Arc<World>);

#[async_trait]
impl Host for TheHost {
    fn ready(&self) -> bool {
        self.0.ready.load(Ordering::SeqCst)
    }

    async fn authenticate(&self, _: &http::Extensions) -> Result<Option<Identity>, Status> {
        Ok(None)
    }

    async fn connect(&self, _: &Node, _: Option<&Identity>) -> Result<Arc<dyn View>, Status> {
        Ok(Arc::new(TheView(Arc::clone(&self.0))))
    }
}

struct TheView(Arc<World>);

impl View for TheView {
    fn affected(&self, _: &ChangeSet, _: &str, _: &BTreeSet<String>) -> Affected {
        Affected::Anything
    }

    fn now(&self) -> Box<dyn Generator + '_> {
        let now = self.0.making.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.most.fetch_max(now, Ordering::SeqCst);
        Box::new(TheMoment(&self.0))
    }
}

struct TheMoment<'a>(&'a World);

impl Drop for TheMoment<'_> {
    fn drop(&mut self) {
        self.0.making.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Generator for TheMoment<'_> {
    fn version(&self) -> String {
        "1".to_owned()
    }

    fn generate(&self, type_url: &str, _: &Demand) -> Vec<Resource> {
        let number = self.0.made.fetch_add(1, Ordering::SeqCst);
        // Others get the chance to be here at the same time.
        for _ in 0..100 {
            std::thread::yield_now();
        }
        vec![Resource {
            name: "one".into(),
            version: number.to_string().into(),
            type_url: type_url.into(),
            body: Bytes::from(vec![0; self.0.size.load(Ordering::SeqCst)]),
        }]
    }
}

struct Running {
    world: Arc<World>,
    metrics: Arc<Metrics>,
    address: SocketAddr,
    pusher: Pusher,
    drain: drain::Signal,
    _task: Supervised<()>,
}

async fn start(change: impl FnOnce(&mut Options)) -> Running {
    let world = Arc::new(World::default());
    world.ready.store(true, Ordering::SeqCst);
    let mut options = Options::for_cores(2);
    options.delays = Delays { quiet: Duration::from_millis(1), max: Duration::from_millis(5) };
    options.streams_per_second = 10_000.0;
    change(&mut options);
    let (drain, watch) = drain::channel();
    let metrics = Arc::new(Metrics::default());
    let host = Arc::new(TheHost(Arc::clone(&world)));
    let (ads, pusher) = Ads::new(host, options, Arc::clone(&metrics), watch);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = Supervised::spawn(async move {
        let incoming = TcpListenerStream::new(listener);
        Server::builder().add_service(ads).serve_with_incoming(incoming).await.unwrap();
    });
    Running { world, metrics, address, pusher, drain, _task: task }
}

struct Client {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl Client {
    async fn open(to: &Running) -> Result<Self, Status> {
        let (requests, receive) = mpsc::channel(16);
        let node = Node { id: "sidecar~10.0.0.1~a.b~c".to_owned(), ..Node::default() };
        let first =
            DeltaDiscoveryRequest { node: Some(node), type_url: CLUSTER.to_owned(), ..Default::default() };
        requests.send(first).await.unwrap();
        let channel =
            Endpoint::from_shared(format!("http://{}", to.address)).unwrap().connect().await.unwrap();
        let mut grpc = Grpc::new(channel).max_decoding_message_size(64 << 20);
        grpc.ready().await.unwrap();
        let codec = ProstCodec::<DeltaDiscoveryRequest, DeltaDiscoveryResponse>::default();
        let path = http::uri::PathAndQuery::from_static(wire::DELTA_PATH);
        let request = Request::new(ReceiverStream::new(receive));
        let responses = grpc.streaming(request, path, codec).await?.into_inner();
        Ok(Self { requests, responses })
    }

    /// The next response; nothing at the end.
    async fn read(&mut self) -> Result<Option<DeltaDiscoveryResponse>, Status> {
        tokio::time::timeout(PATIENCE, self.responses.message()).await.expect("in time")
    }

    async fn answer(&self, response: &DeltaDiscoveryResponse, error: Option<&str>) {
        let error_detail = error.map(|text| xds_api::google::rpc::Status {
            code: 13,
            message: text.to_owned(),
            ..Default::default()
        });
        let request = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail,
            ..Default::default()
        };
        self.requests.send(request).await.unwrap();
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{what}: not in time"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_served_before_there_is_something_to_serve() {
    let server = start(|_| {}).await;
    server.world.ready.store(false, Ordering::SeqCst);
    let refused = Client::open(&server).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    server.world.ready.store(true, Ordering::SeqCst);
    let mut client = Client::open(&server).await.unwrap();
    assert_eq!(client.read().await.unwrap().unwrap().resources.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pushes_are_made_a_few_at_a_time() {
    let server = start(|options| options.concurrent_pushes = 2).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = Client::open(&server).await.unwrap();
        client.read().await.unwrap().unwrap();
        clients.push(client);
    }
    for _ in 0..5 {
        server.pusher.changed(ChangeSet::all()).await;
        for client in &mut clients {
            client.read().await.unwrap().unwrap();
        }
    }
    assert!(server.world.most.load(Ordering::SeqCst) <= 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_streams_end_so_that_clients_spread() {
    let server = start(|options| options.max_stream_age = Some(Duration::from_millis(50))).await;
    let mut client = Client::open(&server).await.unwrap();
    client.read().await.unwrap().unwrap();
    // The end is a good one: a client comes back at once.
    assert!(client.read().await.unwrap().is_none());
    Client::open(&server).await.unwrap().read().await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_ends_streams_and_lets_none_in() {
    let server = start(|_| {}).await;
    let mut client = Client::open(&server).await.unwrap();
    client.read().await.unwrap().unwrap();
    let ended = tokio::spawn(server.drain.drain());
    assert!(client.read().await.unwrap().is_none());
    let again = Running { drain: drain::channel().0, ..server };
    assert_eq!(Client::open(&again).await.err().unwrap().code(), Code::Unavailable);
    ended.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_nothing_holds_up_nobody_and_goes() {
    let server = start(|options| {
        options.concurrent_pushes = 1;
        options.send_timeout = Duration::from_millis(200);
    })
    .await;
    let deaf = Client::open(&server).await.unwrap();
    let mut good = Client::open(&server).await.unwrap();
    good.read().await.unwrap().unwrap();
    // More than the windows of a stream and a connection hold.
    server.world.size.store(4 << 20, Ordering::SeqCst);
    for _ in 0..12 {
        server.pusher.changed(ChangeSet::all()).await;
        let pushed = good.read().await.unwrap().unwrap();
        good.answer(&pushed, None).await;
    }
    until("the deaf one is gone", || server.metrics.write_timeouts.load(Ordering::SeqCst) > 0).await;
    until("its connection is forgotten", || server.metrics.connections.get() == 1).await;
    drop(deaf);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_refuses_everything_is_not_sent_it_again() {
    let server = start(|_| {}).await;
    let mut stubborn = Client::open(&server).await.unwrap();
    let mut silent = Client::open(&server).await.unwrap();
    for round in 1..=3 {
        let refused = stubborn.read().await.unwrap().unwrap();
        for _ in 0..10 {
            stubborn.answer(&refused, Some("I do not like it")).await;
        }
        silent.read().await.unwrap().unwrap();
        until("each refusal is counted", || server.metrics.rejects.get("cds") >= 1).await;
        let made = server.world.made.load(Ordering::SeqCst);
        assert_eq!(made, 2 * round, "a refusal is no question");
        server.pusher.changed(ChangeSet::all()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_watches_without_bound_is_refused() {
    let server = start(|_| {}).await;
    let mut client = Client::open(&server).await.unwrap();
    client.read().await.unwrap().unwrap();
    let names = (0..=100_000).map(|number| format!("n{number}")).collect();
    let request = DeltaDiscoveryRequest {
        type_url: CLUSTER.to_owned(),
        resource_names_subscribe: names,
        ..Default::default()
    };
    client.requests.send(request).await.unwrap();
    let refused = loop {
        match client.read().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended without a reason"),
            Err(status) => break status,
        }
    };
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
}
