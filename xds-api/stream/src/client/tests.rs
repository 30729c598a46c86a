//! The client against messages of a server.

use super::*;
use bytes::Bytes;
use prost::Message;
use xds_api::envoy::config::cluster::v3::Cluster;
use xds_api::type_url::{CLUSTER, ENDPOINT};

fn client(protocol: Protocol) -> Client {
    Client::new(protocol, Node { id: "sidecar~10.0.0.1~a.b~b.svc".into(), ..Default::default() })
}

fn only(names: &[&str]) -> Names {
    Names::Only(names.iter().map(|&name| name.into()).collect())
}

fn delta(client: &mut Client) -> Option<DeltaDiscoveryRequest> {
    match client.next_request()? {
        Request::Delta(request) => Some(request),
        Request::Sotw(_) => panic!("a delta client"),
    }
}

fn sotw(client: &mut Client) -> Option<DiscoveryRequest> {
    match client.next_request()? {
        Request::Sotw(request) => Some(request),
        Request::Delta(_) => panic!("a state-of-the-world client"),
    }
}

fn delta_response(type_url: &str, nonce: &str, names: &[&str], removed: &[&str]) -> wire::DeltaResponse {
    wire::DeltaResponse {
        type_url: type_url.into(),
        nonce: nonce.into(),
        resources: names
            .iter()
            .map(|&name| wire::Resource {
                name: name.into(),
                version: format!("v-{nonce}"),
                resource: Some(wire::Any { type_url: type_url.into(), value: Bytes::from_static(b"x") }),
                ..Default::default()
            })
            .collect(),
        removed_resources: removed.iter().map(|&name| name.into()).collect(),
        ..Default::default()
    }
}

fn cluster(name: &str) -> wire::Any {
    let cluster = Cluster { name: name.into(), alt_stat_name: "alt".into(), ..Default::default() };
    wire::Any { type_url: CLUSTER.into(), value: cluster.encode_to_vec().into() }
}

#[test]
fn asks_in_push_order_and_says_who_it_is_once() {
    let mut client = client(Protocol::Delta);
    client.watch(xds_api::type_url::LISTENER, Names::All);
    client.watch(ENDPOINT, only(&["a"]));
    client.watch(CLUSTER, Names::All);
    let first = delta(&mut client).unwrap();
    assert_eq!((first.type_url.as_str(), first.node.is_some()), (CLUSTER, true));
    assert!(first.resource_names_subscribe.is_empty());
    let second = delta(&mut client).unwrap();
    assert_eq!((second.type_url.as_str(), second.node.is_some()), (ENDPOINT, false));
    assert_eq!(second.resource_names_subscribe, ["a"]);
    assert_eq!(delta(&mut client).unwrap().type_url, xds_api::type_url::LISTENER);
    assert_eq!(delta(&mut client), None);
}

#[test]
fn accepts_and_refuses() {
    let mut client = client(Protocol::Delta);
    client.watch(CLUSTER, Names::All);
    delta(&mut client);
    let received = client.on_delta(delta_response(CLUSTER, "1", &["a", "b"], &[])).unwrap();
    client.accept(&received);
    let ack = delta(&mut client).unwrap();
    assert_eq!((ack.response_nonce.as_str(), ack.error_detail), ("1", None));

    let received = client.on_delta(delta_response(CLUSTER, "2", &["a", "bad"], &["b"])).unwrap();
    client.reject(&received, Rejection::of(CLUSTER, &[("bad".into(), "lb_policy 77 is unknown".into())]));
    let nack = delta(&mut client).unwrap();
    assert_eq!(
        nack.error_detail.unwrap().message,
        "Error adding/updating cluster(s) bad: lb_policy 77 is unknown"
    );
    assert!(client.holds(CLUSTER, "a") && !client.holds(CLUSTER, "bad") && !client.holds(CLUSTER, "b"));
    assert_eq!(delta(&mut client), None);
}

/// What Envoy takes for a heartbeat, and what it refuses.
#[test]
fn a_resource_without_a_body_says_that_what_is_held_holds() {
    let mut client = client(Protocol::Delta);
    client.watch(CLUSTER, Names::All);
    let received = client.on_delta(delta_response(CLUSTER, "1", &["a"], &[])).unwrap();
    client.accept(&received);
    let mut check = |name: &str, version: &str, aliases: &[&str], passed_on: bool| {
        let mut response = delta_response(CLUSTER, "2", &[name], &[]);
        response.resources[0].resource = None;
        response.resources[0].version = version.to_owned();
        response.resources[0].aliases = aliases.iter().map(|&alias| alias.to_owned()).collect();
        let received = client.on_delta(response).unwrap();
        let types: Vec<_> = received.resources.iter().map(|resource| &*resource.type_url).collect();
        assert_eq!(types, if passed_on { vec![""] } else { vec![] }, "{name} {version}");
    };
    check("a", "v-1", &[], false);
    check("a", "v-2", &[], true);
    check("b", "v-1", &[], true);
    check("b", "v-1", &["other"], false);
}

#[test]
fn reconnects_with_the_versions_that_it_holds() {
    let mut client = client(Protocol::Delta);
    client.watch(ENDPOINT, only(&["a", "b", "c"]));
    delta(&mut client);
    let received = client.on_delta(delta_response(ENDPOINT, "1", &["a", "b"], &["c"])).unwrap();
    client.accept(&received);
    client.watch(ENDPOINT, only(&["a", "c"]));
    client.reconnect();
    let first = delta(&mut client).unwrap();
    assert!(first.node.is_some() && first.response_nonce.is_empty());
    assert_eq!(first.resource_names_subscribe, ["a", "c"]);
    assert_eq!(first.initial_resource_versions, [("a".into(), "v-1".into())].into());
    assert_eq!(delta(&mut client), None);
}

#[test]
fn says_only_what_changed_of_its_wishes() {
    let mut client = client(Protocol::Delta);
    client.watch(ENDPOINT, only(&[]));
    assert_eq!(delta(&mut client), None, "nothing is wanted yet");
    client.watch(ENDPOINT, only(&["a", "b"]));
    delta(&mut client);
    client.watch(ENDPOINT, only(&["b", "c"]));
    let change = delta(&mut client).unwrap();
    assert_eq!(change.resource_names_subscribe, ["c"]);
    assert_eq!(change.resource_names_unsubscribe, ["a"]);
    client.ask_again(ENDPOINT, "b");
    assert_eq!(delta(&mut client).unwrap().resource_names_subscribe, ["b"]);
    client.unwatch(ENDPOINT);
    assert_eq!(delta(&mut client).unwrap().resource_names_unsubscribe, ["b", "c"]);
    // What was under way is acknowledged and not handed on.
    assert_eq!(client.on_delta(delta_response(ENDPOINT, "9", &["b"], &[])), None);
    assert_eq!(delta(&mut client).unwrap().response_nonce, "9");
}

#[test]
fn drops_what_it_did_not_ask_for() {
    let mut client = client(Protocol::Delta);
    client.watch(ENDPOINT, only(&["a"]));
    delta(&mut client);
    let received = client.on_delta(delta_response(ENDPOINT, "1", &["a", "x"], &["y"])).unwrap();
    assert_eq!(received.resources.len(), 1);
    assert!(received.removed.is_empty());
}

#[test]
fn sotw_reads_names_and_finds_removals() {
    let mut client = client(Protocol::Sotw);
    client.watch(CLUSTER, Names::All);
    let first = sotw(&mut client).unwrap();
    assert!(first.node.is_some() && first.version_info.is_empty() && first.response_nonce.is_empty());
    let response = |version: &str, nonce: &str, names: &[&str]| wire::Response {
        version_info: version.into(),
        nonce: nonce.into(),
        type_url: CLUSTER.into(),
        resources: names.iter().map(|name| cluster(name)).collect(),
        control_plane: None,
    };
    let received = client.on_sotw(response("v1", "1", &["a", "b"])).unwrap().unwrap();
    assert_eq!(received.resources[1].name.as_ref(), "b");
    client.accept(&received);
    let ack = sotw(&mut client).unwrap();
    assert_eq!((ack.version_info.as_str(), ack.response_nonce.as_str()), ("v1", "1"));
    assert_eq!(sotw(&mut client), None);

    let received = client.on_sotw(response("v2", "2", &["b"])).unwrap().unwrap();
    assert_eq!(received.removed, ["a"]);
    client.reject(&received, Rejection { message: "no".into(), failed: BTreeSet::new() });
    let nack = sotw(&mut client).unwrap();
    assert_eq!((nack.version_info.as_str(), nack.response_nonce.as_str()), ("v1", "2"));
    assert!(client.holds(CLUSTER, "a"));

    client.reconnect();
    let first = sotw(&mut client).unwrap();
    assert_eq!((first.version_info.as_str(), first.response_nonce.as_str()), ("v1", ""));
}

#[test]
fn sotw_repeats_all_names_with_the_latest_nonce() {
    let mut client = client(Protocol::Sotw);
    client.watch(ENDPOINT, only(&[]));
    assert_eq!(sotw(&mut client), None);
    client.watch_also(ENDPOINT, "a");
    sotw(&mut client);
    let response = wire::Response {
        version_info: "v1".into(),
        nonce: "1".into(),
        type_url: ENDPOINT.into(),
        ..Default::default()
    };
    let received = client.on_sotw(response).unwrap().unwrap();
    client.accept(&received);
    sotw(&mut client);
    client.watch_also(ENDPOINT, "b");
    let more = sotw(&mut client).unwrap();
    assert_eq!((more.resource_names, more.response_nonce), (vec!["a".into(), "b".into()], "1".into()));
}

#[test]
fn sotw_refuses_what_it_cannot_read() {
    let mut client = client(Protocol::Sotw);
    client.watch(CLUSTER, Names::All);
    sotw(&mut client);
    let broken = wire::Any { type_url: CLUSTER.into(), value: Bytes::from_static(&[0x0a, 0xff]) };
    let response = wire::Response {
        nonce: "1".into(),
        type_url: CLUSTER.into(),
        resources: vec![broken],
        ..Default::default()
    };
    assert!(client.on_sotw(response).is_err());
    assert!(sotw(&mut client).unwrap().error_detail.is_some());
}

#[test]
fn error_texts_are_bounded() {
    let text = error_text(CLUSTER, &[("ä".repeat(10_000), "reason".into())]);
    assert!(text.len() <= MAX_ERROR + "…".len());
}

#[test]
fn types_that_are_not_kept_are_unsubscribed_from() {
    let mut client = client(Protocol::Delta);
    client.watch(CLUSTER, Names::All);
    client.watch(ENDPOINT, only(&["a"]));
    while delta(&mut client).is_some() {}
    client.unwatch_others(|type_url| type_url == CLUSTER);
    let request = delta(&mut client).unwrap();
    assert_eq!((request.type_url.as_str(), request.resource_names_unsubscribe), (ENDPOINT, vec!["a".into()]));
    assert_eq!(delta(&mut client), None);
}
