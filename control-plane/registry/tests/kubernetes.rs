//! The Kubernetes source against an API server of the test's own: lists, watches, and kinds that are not installed.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::StreamBody;
use http_body_util::combinators::BoxBody;
use saild_model::Mesh;
use saild_registry::{Kubernetes, Options, Registry, Updates};
use serde_json::{Value, json};
use tokio::sync::mpsc;

type Body = BoxBody<Bytes, Infallible>;
type Frame = Result<http_body::Frame<Bytes>, Infallible>;

/// What the server has: items by path, and where to send what happens there.
#[derive(Default)]
struct Server {
    items: Vec<(&'static str, &'static str, Value)>,
    watches: Mutex<Vec<(String, mpsc::UnboundedSender<Frame>)>>,
}

impl Server {
    fn answer(&self, request: &Request<kube::client::Body>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        if request.uri().query().is_some_and(|q| q.contains("watch=true")) {
            return self.watch(path);
        }
        let Some((_, kind, items)) = self.items.iter().find(|(p, _, _)| *p == path) else {
            // Mesh kinds are CRDs that may not be installed; Kubernetes' own are always there.
            if path.contains("istio.io") {
                let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404,
                    "message": "the server could not find the requested resource", "reason": "NotFound"});
                return response(404, &status);
            }
            return response(200, &list("Empty", &json!([])));
        };
        response(200, &list(kind, items))
    }

    fn watch(&self, path: String) -> Response<Body> {
        let (send, receive) = mpsc::unbounded_channel();
        self.watches.lock().expect("lock").push((path, send));
        let stream =
            futures_util::stream::unfold(receive, |mut receive: mpsc::UnboundedReceiver<Frame>| async move {
                receive.recv().await.map(|frame| (frame, receive))
            });
        Response::new(BoxBody::new(StreamBody::new(stream)))
    }

    /// Something happens at a path; waits until it is watched.
    async fn happen(&self, path: &str, event: &str, object: &Value) {
        let line = format!("{}\n", json!({"type": event, "object": object}));
        let wait = async {
            loop {
                let sent = {
                    let watches = self.watches.lock().expect("lock");
                    let frame = Ok(http_body::Frame::data(Bytes::from(line.clone())));
                    watches
                        .iter()
                        .rev()
                        .find(|(p, _)| p == path)
                        .is_some_and(|(_, send)| send.send(frame).is_ok())
                };
                if sent {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.expect("the path must be watched");
    }
}

fn list(kind: &str, items: &Value) -> Value {
    json!({"kind": format!("{kind}List"), "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items})
}

fn response(status: u16, body: &Value) -> Response<Body> {
    let bytes = Bytes::from(body.to_string());
    let stream = futures_util::stream::iter([Ok(http_body::Frame::data(bytes))]);
    let mut response = Response::new(BoxBody::new(StreamBody::new(stream)));
    *response.status_mut() = http::StatusCode::from_u16(status).expect("status");
    response
}

fn start(server: &Arc<Server>) -> (Registry, Updates) {
    let server = server.clone();
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(server.answer(&request)) }
    });
    let source = Kubernetes::new(kube::Client::new(service, "default"), "istio-system");
    let options = Options { endpoints_from_pods: false, ..Options::default() };
    Registry::start(source, options)
}

async fn until(updates: &mut Updates, wanted: impl Fn(&Mesh) -> bool) {
    let wait = async { while !wanted(&updates.next().await.mesh) {} };
    tokio::time::timeout(Duration::from_secs(10), wait).await.expect("the mesh must become as wanted");
}

fn meta(name: &str, version: &str) -> Value {
    json!({"name": name, "namespace": "default", "resourceVersion": version})
}

#[tokio::test]
async fn lists_and_watches_become_the_mesh() {
    let mut slice_meta = meta("reviews-1", "1");
    slice_meta["labels"] = json!({"kubernetes.io/service-name": "reviews"});
    let slice = |addresses: Value| {
        json!({"metadata": slice_meta, "addressType": "IPv4", "ports": [{"name": "http", "port": 9080}],
            "endpoints": [{"addresses": addresses, "targetRef": {"kind": "Pod", "name": "a", "namespace": "default"}}]})
    };
    let pod = json!({"metadata": {"name": "a", "namespace": "default", "labels": {"app": "reviews"}},
        "spec": {"serviceAccountName": "sa", "containers": [{"name": "c"}]}, "status": {"podIP": "10.1.0.1"}});
    let service = json!({"metadata": meta("reviews", "1"),
        "spec": {"clusterIP": "10.0.0.1", "selector": {"app": "reviews"}, "ports": [{"name": "http", "port": 80}]}});
    let rule = |host: &str, version: &str| {
        json!({"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": meta("rule", version),
            "spec": {"host": host}})
    };
    let rules = "/apis/networking.istio.io/v1/destinationrules";
    let slices = "/apis/discovery.k8s.io/v1/endpointslices";
    let server = Arc::new(Server {
        items: vec![
            ("/api/v1/services", "Service", json!([service])),
            ("/api/v1/pods", "Pod", json!([pod])),
            (slices, "EndpointSlice", json!([slice(json!(["10.1.0.1"]))])),
            (rules, "DestinationRule", json!([rule("reviews", "1")])),
        ],
        ..Server::default()
    });
    let (registry, mut updates) = start(&server);
    let first = tokio::time::timeout(Duration::from_secs(10), updates.next()).await.expect("first update");
    assert!(first.changes.full);
    let service = first.mesh.services()[0].clone();
    let endpoints = first.mesh.endpoints(&service, "http");
    assert_eq!(endpoints[0].service_account.as_deref(), Some("sa"));
    assert_eq!(registry.store().of_kind("DestinationRule").count(), 1);

    server.happen(slices, "MODIFIED", &slice(json!(["10.1.0.1", "10.1.0.2"]))).await;
    until(&mut updates, |mesh| mesh.endpoints(&service, "http").len() == 2).await;

    // What is broken keeps its last good content.
    server.happen(rules, "MODIFIED", &rule("", "2")).await;
    server.happen("/api/v1/services", "ADDED", &json!({"metadata": meta("other", "3"), "spec": {}})).await;
    until(&mut updates, |mesh| mesh.services().len() == 2).await;
    assert_eq!(registry.store().of_kind("DestinationRule").count(), 1);

    server.happen(rules, "DELETED", &rule("reviews", "4")).await;
    until(&mut updates, |_| registry.store().of_kind("DestinationRule").count() == 0).await;
}
