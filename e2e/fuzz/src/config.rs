//! Envoy's configuration: bootstraps as text, resources as a server sends them, route tables with requests.

use std::sync::LazyLock;

use prost::{Message, Name};
use sail_proxy_config::{Kind, NoSources, State};
use sail_proxy_decide::head::RequestHead;
use sail_proxy_decide::route::RouteContext;
use xds_api::codec::{self, Codec, UnknownFields};
use xds_api::envoy::config::bootstrap::v3::Bootstrap;
use xds_api::envoy::config::route::v3::RouteConfiguration;
use xds_api::google::protobuf::Any;

use crate::{parts, text};

static CODEC: LazyLock<Codec> = LazyLock::new(Codec::new);

const KINDS: [Kind; 7] = [
    Kind::Cluster,
    Kind::Assignment,
    Kind::Listener,
    Kind::RouteTable,
    Kind::Secret,
    Kind::Extension,
    Kind::Scope,
];

fn state() -> State {
    State::new(Box::new(NoSources))
}

/// A bootstrap is read or refused, and so is each of its resources; what was read can be shown and read again.
pub fn bootstrap(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let Ok(value) = codec::parse(text) else { return };
    let _ = CODEC.read::<Bootstrap>(&value, UnknownFields::Allow);
    let Ok(read) = CODEC.read::<Bootstrap>(&value, UnknownFields::Reject) else { return };
    let bootstrap = read.message;
    if let Ok(shown) = CODEC.to_json(&bootstrap) {
        let again = CODEC.from_json_value::<Bootstrap>(&shown);
        assert!(again.is_ok(), "what was shown is not read again: {:?}\n{shown}", again.err());
    }
    let Some(resources) = bootstrap.static_resources else { return };
    let mut state = state();
    for cluster in resources.clusters {
        let _ = state.put(&any(&cluster));
    }
    for listener in resources.listeners {
        let _ = state.put(&any(&listener));
    }
    let _ = (state.wanted(), state.snapshot());
}

fn any<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

/// A resource of any kind is taken or refused, and refused again once it was: the first byte is its kind.
pub fn resource(data: &[u8]) {
    let Some((kind, value)) = data.split_first() else { return };
    let kind = KINDS[usize::from(*kind) % KINDS.len()];
    let any = Any { type_url: kind.type_url().to_owned(), value: value.to_vec() };
    let mut state = state();
    let first = state.put(&any).is_ok();
    assert_eq!(first, state.put(&any).is_ok(), "taken once, refused once");
    let _ = (state.wanted(), state.snapshot());
    for name in state.names(kind) {
        state.remove(kind, &name);
    }
    let _ = state.snapshot();
}

/// A route table, as YAML, is taken or refused; what was taken finds a way for any path and host, or none.
pub fn route_table(data: &[u8]) {
    let (table, request) = parts(data);
    let Some(table) = text(table) else { return };
    let Ok(table) = CODEC.from_yaml::<RouteConfiguration>(table) else { return };
    let mut state = state();
    if state.put(&any(&table)).is_err() {
        return;
    }
    let snapshot = state.snapshot();
    let (host, path) = parts(request);
    let (Some(host), Some(path)) = (text(host), text(path)) else { return };
    let headers = http::HeaderMap::new();
    let head = RequestHead {
        method: "GET",
        scheme: "http",
        authority: host,
        path,
        protocol: None,
        headers: &headers,
    };
    for table in snapshot.route_tables.values() {
        if let Some(found) = table.find(&head, &RouteContext::default())
            && table.host_header.is_none()
        {
            let host = table.virtual_host(host).expect("a route was found in it");
            assert!(std::sync::Arc::ptr_eq(host, found.virtual_host), "the route is another host's");
        }
    }
}
