//! Manifests as users write them, old and new, and what they read as.

use std::time::Duration;

use mesh_api::virtual_service::{AbortCode, HttpAction};
use mesh_api::{Kind, MeshConfig, MeshObject, Percent, StringMatch, parse};

fn yaml(text: &str) -> serde_json::Value {
    serde_norway::from_str(text).expect("yaml")
}

fn errors(text: &str) -> String {
    parse(&yaml(text)).expect_err("must be refused").to_string()
}

fn virtual_service(text: &str) -> mesh_api::virtual_service::VirtualService {
    match parse(&yaml(text)).expect("must be read") {
        MeshObject::VirtualService(object) => object.spec.clone(),
        other => panic!("{other:?}"),
    }
}

const OLD_AND_NEW: [&str; 2] = [
    r"
apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata: {name: ratings}
spec:
  hosts: [ratings]
  http:
  - match: [{headers: {end-user: {exact: jason}}}]
    fault: {delay: {percent: 10, fixedDelay: 5s}}
    route: [{destination: {host: ratings, subset: v1}}]
    appendHeaders: {x-a: b}
    websocketUpgrade: true
    mirror_percent: 5
    mirror: {host: other}
",
    r"
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ratings}
spec:
  hosts: [ratings]
  http:
  - match: [{headers: {end-user: {exact: jason}}}]
    fault: {delay: {percentage: {value: 10.0}, fixed_delay: 5s}}
    route: [{destination: {host: ratings, subset: v1}}]
    headers: {request: {add: {x-a: b}}}
    mirrorPercentage: {value: 5}
    mirror: {host: other}
",
];

#[test]
fn old_spellings_read_as_the_new_ones() {
    let [old, new] = OLD_AND_NEW.map(virtual_service);
    assert_eq!(old, new);
    let delay = new.http[0].fault.as_ref().and_then(|f| f.delay.as_ref()).expect("delay");
    assert_eq!(delay.fixed_delay, Some(Duration::from_secs(5)));
    assert_eq!(delay.percentage, Percent::new(10.0));
    assert_eq!(new.http[0].r#match[0].headers["end-user"], StringMatch::Exact("jason".into()));
    assert!(matches!(new.http[0].action(), HttpAction::Route([only]) if only.destination.subset == "v1"));
}

#[test]
fn abort_is_one_of() {
    let vs = virtual_service(
        r"
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata: {name: a, namespace: b}
spec:
  hosts: [ratings]
  http:
  - fault: {abort: {httpStatus: '500', percentage: {value: 0.5}}}
    route: [{destination: {host: ratings, port: {number: 9080}}}]
",
    );
    let abort = vs.http[0].fault.as_ref().and_then(|f| f.abort.as_ref()).expect("abort");
    assert_eq!(abort.code, AbortCode::Http(500));
    assert_eq!(abort.percentage.map(Percent::per_million), Some(5000));
    assert_eq!(vs.http[0].route[0].destination.port, Some(9080));
}

#[test]
fn unknown_fields_are_named_with_their_path() {
    let message = errors(
        r"
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: b}
spec:
  hosts: [x]
  http:
  - route:
    - destination: {host: x}
    - destination: {host: x, hst: y}
",
    );
    assert_eq!(message, "VirtualService b/a: spec.http[0].route[1].destination.hst: unknown field");
}

#[test]
fn kinds_and_versions_are_checked() {
    let gateway_api = "{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: x}}";
    assert!(errors(gateway_api).contains("not supported yet"));
    let version = "{apiVersion: networking.istio.io/v2, kind: Gateway, metadata: {name: x}}";
    assert!(errors(version).contains("must be one of v1, v1beta1, v1alpha3"));
    assert_eq!(Kind::by_resource_name("vs"), Some(Kind::VirtualService));
    assert_eq!(Kind::by_resource_name("ServiceEntries"), Some(Kind::ServiceEntry));
}

#[test]
fn manifests_survive_writing_and_reading() {
    for text in OLD_AND_NEW {
        let object = parse(&yaml(text)).expect("must be read");
        assert_eq!(parse(&object.to_manifest()), Ok(object));
    }
}

#[test]
fn mesh_config_has_istios_defaults_and_overlays() {
    let mesh = MeshConfig::from_yaml("{accessLogFile: /dev/stdout, defaultConfig: {proxyMetadata: {A: b}}}")
        .expect("mesh");
    assert_eq!(mesh.proxy_listen_port, 15001);
    assert!(mesh.enable_auto_mtls);
    assert_eq!(mesh.default_config.proxy_admin_port, 15000);
    let proxy = mesh.default_config.overlaid("{binaryPath: envoy, proxyMetadata: {C: d}}").expect("overlay");
    assert_eq!(proxy.binary_path, "envoy");
    assert_eq!(proxy.proxy_metadata.len(), 2);
    assert_eq!(proxy.drain_duration, Duration::from_secs(45));
    let wrong = mesh.default_config.overlaid("{drainDuration: x}").expect_err("must be refused");
    assert!(wrong.to_string().contains("drainDuration: \"x\" is not a duration"), "{wrong}");
}

#[test]
fn a_mesh_that_never_waits_for_connections_is_refused() {
    let error = MeshConfig::from_yaml("{connectTimeout: 0s}").unwrap_err().to_string();
    assert!(error.contains("connectTimeout") && error.contains("at least 1ms"), "{error}");
    assert!(MeshConfig::from_yaml("{connectTimeout: 1ms}").is_ok());
}
