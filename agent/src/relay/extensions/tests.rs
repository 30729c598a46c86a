//! What a proxy gets of plugins whose modules are there, late, wrong and gone.

use prost::Message as _;
use xds_api::any;
use xds_api::envoy::config::core::v3::async_data_source::Specifier;
use xds_api::envoy::config::core::v3::{AsyncDataSource, DataSource, TypedExtensionConfig, data_source};
use xds_api::envoy::extensions::filters::http::fault::v3::HttpFault;
use xds_api::envoy::extensions::filters::http::rbac::v3::Rbac;
use xds_api::envoy::extensions::filters::http::wasm::v3::Wasm;
use xds_api::envoy::extensions::wasm::v3::plugin_config::Vm;
use xds_api::envoy::extensions::wasm::v3::{FailurePolicy, PluginConfig, VmConfig};
use xds_api::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use xds_api::type_url::EXTENSION_CONFIG;

use super::*;
use crate::relay::modules::hash;
use crate::relay::modules::tests::{Server, module, remote};

fn config(name: &str, specifier: Specifier, failure_policy: FailurePolicy) -> Resource {
    let vm = VmConfig { code: Some(AsyncDataSource { specifier: Some(specifier) }), ..Default::default() };
    let config = PluginConfig {
        vm: Some(Vm::VmConfig(vm)),
        failure_policy: failure_policy as i32,
        ..Default::default()
    };
    let wasm = any::pack(&Wasm { config: Some(config) });
    let config = TypedExtensionConfig { name: name.to_owned(), typed_config: Some(wasm) };
    Resource {
        name: name.to_owned(),
        version: "v".into(),
        resource: Some(any::pack(&config)),
        ..Default::default()
    }
}

fn by_url(name: &str, url: &str, code: &[u8]) -> Resource {
    config(name, Specifier::Remote(remote(url, &hash(code))), FailurePolicy::FailClosed)
}

fn by_file(name: &str) -> Resource {
    let file = data_source::Specifier::Filename("/m.wasm".into());
    let source = DataSource { specifier: Some(file), ..Default::default() };
    config(name, Specifier::Local(source), FailurePolicy::FailClosed)
}

fn response(nonce: &str, resources: Vec<Resource>) -> Bytes {
    let response = DeltaDiscoveryResponse {
        resources,
        type_url: EXTENSION_CONFIG.into(),
        nonce: nonce.into(),
        ..Default::default()
    };
    response.encode_to_vec().into()
}

/// What a resource is, in short: `file` and its content, `refuses`, `passes`.
fn short(resource: &Resource) -> String {
    let config: TypedExtensionConfig = any::unpack(resource.resource.as_ref().unwrap()).unwrap();
    assert!(resource.name.is_empty() || resource.name == config.name);
    let typed = config.typed_config.unwrap();
    let what = if let Ok(wasm) = any::unpack::<Wasm>(&typed) {
        let Some(Vm::VmConfig(vm)) = wasm.config.unwrap().vm else { panic!("it has a VM") };
        match vm.code.unwrap().specifier.unwrap() {
            Specifier::Local(DataSource {
                specifier: Some(data_source::Specifier::Filename(path)), ..
            }) => format!("file {}", String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default())),
            other => format!("{other:?}"),
        }
    } else if let Ok(fault) = any::unpack::<HttpFault>(&typed) {
        assert!(fault.abort.is_some() && resource.version.is_empty());
        "refuses".to_owned()
    } else {
        assert_eq!(any::unpack::<Rbac>(&typed).unwrap(), Rbac::default());
        "passes".to_owned()
    };
    format!("{}: {what}", config.name)
}

/// Nonce and resources of a delta response.
fn told(response: Option<Bytes>) -> (String, Vec<String>) {
    let response = DeltaDiscoveryResponse::decode(response.unwrap()).unwrap();
    assert_eq!(response.type_url, EXTENSION_CONFIG);
    (response.nonce, response.resources.iter().map(short).collect())
}

fn one(nonce: &str, what: &str) -> (String, Vec<String>) {
    (nonce.to_owned(), vec![what.to_owned()])
}

/// What the control plane hears when the proxy acknowledges.
fn acknowledged(ledger: &Ledger, nonce: &str) -> String {
    let request = DeltaDiscoveryRequest {
        type_url: EXTENSION_CONFIG.into(),
        response_nonce: nonce.into(),
        ..Default::default()
    };
    let request = ledger.request(Wire::Delta, request.encode_to_vec().into());
    let request = DeltaDiscoveryRequest::decode(request).unwrap();
    request.error_detail.map(|status| status.message).unwrap_or_default()
}

struct Fixture {
    _dir: tempfile::TempDir,
    modules: Modules,
    ledger: Ledger,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let modules = Modules::new(dir.path().to_owned());
        Self { _dir: dir, modules, ledger: Ledger::default() }
    }

    fn stream(&self, wire: Wire) -> Extensions<'_> {
        Extensions::new(wire, &self.modules, &self.ledger)
    }
}

#[tokio::test]
async fn a_slow_module_holds_up_nobody_else() {
    let server = Server::start(vec![("200 OK", module("a"))]).await;
    let fixture = Fixture::new();
    let mut stream = fixture.stream(Wire::Delta);
    let slow = by_url("slow", &server.url, &module("a"));
    let now = stream.take(response("1", vec![slow.clone(), by_file("local")])).await;
    assert_eq!(told(now), one("1", "local: file "));
    assert_eq!(told(stream.next().await.for_proxy), one("1", "slow: file \0asma"));
    // It is there now.
    let again = stream.take(response("2", vec![slow.clone()])).await;
    assert_eq!(told(again), one("2", "slow: file \0asma"));
    assert_eq!(told(fixture.stream(Wire::Delta).take(response("1", vec![slow])).await).1.len(), 1);
    assert_eq!(server.asked(), 1);
    assert_eq!(acknowledged(&fixture.ledger, "2"), "");
}

#[tokio::test]
async fn a_plugin_that_comes_late_is_stood_in_for_until_then() {
    let server = Server::start(vec![("200 OK", b"another".to_vec()), ("200 OK", module("a"))]).await;
    let fixture = Fixture::new();
    let mut stream = fixture.stream(Wire::Delta);
    assert!(stream.take(response("1", vec![by_url("p", &server.url, &module("a"))])).await.is_none());
    let news = stream.next().await;
    assert_eq!(told(news.for_proxy), one("1", "p: refuses"));
    let refusal = DeltaDiscoveryRequest::decode(news.for_control_plane.unwrap()).unwrap();
    assert!(refusal.error_detail.unwrap().message.contains("SHA-256") && refusal.response_nonce == "1");
    assert!(acknowledged(&fixture.ledger, "1").starts_with("p: "));
    // Another response meanwhile: what comes later goes by its nonce.
    assert_eq!(told(stream.take(response("2", vec![by_file("q")])).await), one("2", "q: file "));
    let news = stream.next().await;
    assert_eq!(told(news.for_proxy), one("2", "p: file \0asma"));
    assert!(news.for_control_plane.is_none());
    assert_eq!(acknowledged(&fixture.ledger, "2"), "");
}

#[tokio::test]
async fn failing_open_lets_pass() {
    let server = Server::start(vec![("200 OK", b"another".to_vec())]).await;
    let fixture = Fixture::new();
    let mut stream = fixture.stream(Wire::Delta);
    let source = Specifier::Remote(remote(&server.url, &hash(b"x")));
    stream.take(response("1", vec![config("p", source, FailurePolicy::FailOpen)])).await;
    assert_eq!(told(stream.next().await.for_proxy), one("1", "p: passes"));
}

#[tokio::test]
async fn what_the_proxy_runs_is_not_replaced_by_nothing() {
    let server = Server::start(vec![("200 OK", module("a"))]).await;
    let fixture = Fixture::new();
    let mut stream = fixture.stream(Wire::Delta);
    stream.take(response("1", vec![by_url("p", &server.url, &module("a"))])).await;
    assert_eq!(told(stream.next().await.for_proxy), one("1", "p: file \0asma"));
    let wrong = response("2", vec![by_url("p", &server.url, &module("b"))]);
    assert!(stream.take(wrong.clone()).await.is_none());
    let news = stream.next().await;
    assert!(news.for_proxy.is_none() && news.for_control_plane.is_some());

    // The same on the proxy's next stream, on which it says what it has.
    let fixture = Fixture::new();
    let first = DeltaDiscoveryRequest {
        type_url: EXTENSION_CONFIG.into(),
        initial_resource_versions: [("p".to_owned(), "v".to_owned())].into(),
        ..Default::default()
    };
    fixture.ledger.request(Wire::Delta, first.encode_to_vec().into());
    let mut stream = fixture.stream(Wire::Delta);
    assert!(stream.take(wrong).await.is_none());
    assert!(stream.next().await.for_proxy.is_none());
}

#[tokio::test]
async fn only_the_latest_of_a_plugin_counts() {
    let server = Server::start(vec![("200 OK", module("b"))]).await;
    let fixture = Fixture::new();
    let mut stream = fixture.stream(Wire::Delta);
    // The port of a listener that nobody accepts from: this one stays under way.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("http://{}/m.wasm", silent.local_addr().unwrap());
    assert!(stream.take(response("1", vec![by_url("p", &silent, &module("a"))])).await.is_none());
    assert!(stream.take(response("2", vec![by_url("p", &server.url, &module("b"))])).await.is_none());
    assert_eq!(told(stream.next().await.for_proxy), one("2", "p: file \0asmb"));

    assert!(stream.take(response("3", vec![by_url("p", &silent, &module("c"))])).await.is_none());
    let removed = DeltaDiscoveryResponse { removed_resources: vec!["p".into()], ..Default::default() };
    let removal = stream.take(removed.encode_to_vec().into()).await.unwrap();
    assert_eq!(DeltaDiscoveryResponse::decode(removal).unwrap().removed_resources, ["p"]);
    assert!(stream.handles.is_empty());
}

#[tokio::test]
async fn state_of_the_world_is_served_as_well() {
    let server = Server::start(vec![("200 OK", b"another".to_vec()), ("200 OK", module("a"))]).await;
    let fixture = Fixture::new();
    let mut stream = fixture.stream(Wire::Sotw);
    let resources = [by_url("p", &server.url, &module("a")), by_file("q")];
    let response = DiscoveryResponse {
        version_info: "1".into(),
        nonce: "n".into(),
        type_url: EXTENSION_CONFIG.into(),
        resources: resources.into_iter().filter_map(|entry| entry.resource).collect(),
        ..Default::default()
    };
    let told = |response: Option<Bytes>| {
        let response = DiscoveryResponse::decode(response.unwrap()).unwrap();
        assert_eq!((response.version_info.as_str(), response.nonce.as_str()), ("1", "n"));
        let resource = |any| short(&Resource { resource: Some(any), ..Default::default() });
        response.resources.into_iter().map(resource).collect::<Vec<_>>()
    };
    assert_eq!(told(stream.take(response.encode_to_vec().into()).await), ["q: file "]);
    assert_eq!(told(stream.next().await.for_proxy), ["p: refuses"]);
    let request = DiscoveryRequest {
        type_url: EXTENSION_CONFIG.into(),
        response_nonce: "n".into(),
        ..Default::default()
    };
    let request = fixture.ledger.request(Wire::Sotw, request.encode_to_vec().into());
    assert!(DiscoveryRequest::decode(request).unwrap().error_detail.is_some());
    assert_eq!(told(stream.next().await.for_proxy), ["p: file \0asma"]);
}
