//! `docs/envoy-compatibility.md` against the code: every extension of Envoy's API has a row, and what a row says is so.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use clap::CommandFactory as _;
use prost::Message as _;
use sail_proxy_config::{NoSources, State};
use sail_proxy_decide::format::{Field, Format};
use serde_json::{Value, json};
use xds_api::codec::Codec;
use xds_api::envoy::config::{cluster::v3::Cluster, listener::v3::Listener};
use xds_api::google::protobuf::Any;

/// The rows of a section: name, then whether it is there.
fn section(title: &str) -> BTreeMap<String, bool> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/envoy-compatibility.md");
    let text = std::fs::read_to_string(path).unwrap();
    let start = text.find(&format!("\n## {title}\n")).unwrap_or_else(|| panic!("no section {title:?}"));
    let body = text[start + 4..].split("\n## ").next().unwrap();
    let mut rows = BTreeMap::new();
    for line in body.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let &[name, status, notes] = cells.as_slice() else { panic!("{title}: not three columns: {line}") };
        let there = match status {
            "yes" => true,
            "partly" => true,
            "refused" => false,
            other => panic!("{title}: {name} is {other:?}, none of yes, partly, refused"),
        };
        assert!(status != "partly" || !notes.is_empty(), "{title}: {name}: what is missing?");
        let old = rows.insert(name.trim_matches('`').to_owned(), there);
        assert!(old.is_none(), "{title}: {name} stands there twice");
    }
    rows
}

/// Compares a section with what there is.
#[track_caller]
fn check(title: &str, there: impl Fn(&str) -> bool, expected: impl IntoIterator<Item = String>) {
    let rows = section(title);
    let mut wrong = Vec::new();
    for name in expected.into_iter().filter(|name| !rows.contains_key(name)) {
        wrong.push(format!("{name} has no row ({})", if there(&name) { "it is there" } else { "refused" }));
    }
    for (name, said) in &rows {
        match (said, there(name)) {
            (true, false) => wrong.push(format!("{name} is said to be there, and is refused")),
            (false, true) => wrong.push(format!("{name} is said to be refused, and is there")),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{title}:\n{}", wrong.join("\n"));
}

/// The messages of an extension: of the package `PREFIX.NAME.v3`, or the one that a dotted name is.
fn messages(codec: &Codec, prefix: &str, name: &str) -> Vec<String> {
    if name.contains('.') {
        return vec![name.to_owned()];
    }
    let package = format!("{prefix}.{name}.v3.");
    codec
        .messages()
        .filter(|full| full.strip_prefix(&*package).is_some_and(|rest| !rest.contains('.')))
        .collect()
}

/// The extensions whose packages stand below a prefix.
fn extensions(codec: &Codec, prefix: &str) -> BTreeSet<String> {
    let below = format!("{prefix}.");
    let name = |full: String| {
        let (name, rest) = full.strip_prefix(&*below)?.split_once('.')?;
        (rest.starts_with("v3.") && name != "common").then(|| name.to_owned())
    };
    codec.messages().filter_map(name).collect()
}

/// Whether a resource with this message in it is taken, or refused for another reason than what the message is.
fn known(resource: &Any, message: &str) -> bool {
    let mut state = State::new(Box::new(NoSources));
    match state.put(resource) {
        Ok(_) => true,
        Err(diagnostics) => !diagnostics.errors().any(|error| {
            let text = error.to_string();
            let no_such = text.contains("there is no") || text.contains("none of them is supported");
            (no_such && text.contains(message)) || text.contains("not carried out")
        }),
    }
}

fn typed(message: &str) -> Any {
    Any { type_url: format!("type.googleapis.com/{message}"), value: Vec::new() }
}

/// Puts the message in the place of `EXTENSION` in a listener.
fn in_listener(codec: &Codec, message: &str, place: impl Fn(&mut Listener, Any)) -> bool {
    let router = json!({"name": "router", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}});
    let manager = json!({"name": "hcm", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "x", "route_config": {"name": "x"}, "http_filters": [router]}});
    let mut listener: Listener = read(
        codec,
        json!({
        "name": "x", "address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}},
        "filter_chains": [{"filters": [manager]}]}),
    );
    place(&mut listener, typed(message));
    known(&Any { type_url: xds_api::type_url::LISTENER.into(), value: listener.encode_to_vec() }, message)
}

fn in_cluster(codec: &Codec, message: &str, place: impl Fn(&mut Cluster, Any)) -> bool {
    let mut cluster: Cluster = read(codec, json!({"name": "x"}));
    place(&mut cluster, typed(message));
    known(&Any { type_url: xds_api::type_url::CLUSTER.into(), value: cluster.encode_to_vec() }, message)
}

fn read<M: prost::Message + prost::Name + Default>(codec: &Codec, value: Value) -> M {
    codec.from_json_value(&value).unwrap()
}

fn extensions_in_listeners(title: &str, prefix: &str, place: impl Fn(&mut Listener, Any)) {
    let codec = Codec::new();
    let there = |name: &str| {
        messages(&codec, prefix, name).iter().any(|message| in_listener(&codec, message, &place))
    };
    check(title, there, extensions(&codec, prefix));
}

fn extensions_in_clusters(title: &str, prefix: &str, place: impl Fn(&mut Cluster, Any)) {
    let codec = Codec::new();
    let there =
        |name: &str| messages(&codec, prefix, name).iter().any(|message| in_cluster(&codec, message, &place));
    check(title, there, extensions(&codec, prefix));
}

#[test]
fn listener_filters() {
    use xds_api::envoy::config::listener::v3::{ListenerFilter, listener_filter::ConfigType};
    extensions_in_listeners("Listener filters", "envoy.extensions.filters.listener", |listener, any| {
        let config_type = Some(ConfigType::TypedConfig(any));
        listener.listener_filters =
            vec![ListenerFilter { name: "x".into(), config_type, ..Default::default() }];
    });
}

#[test]
fn network_filters() {
    use xds_api::envoy::config::listener::v3::{Filter, filter::ConfigType};
    extensions_in_listeners("Network filters", "envoy.extensions.filters.network", |listener, any| {
        let config_type = Some(ConfigType::TypedConfig(any));
        listener.filter_chains[0].filters.insert(0, Filter { name: "x".into(), config_type });
    });
}

#[test]
fn http_filters() {
    use xds_api::envoy::extensions::filters::network::http_connection_manager::v3::{
        HttpFilter, http_filter::ConfigType,
    };
    extensions_in_listeners("HTTP filters", "envoy.extensions.filters.http", |listener, any| {
        in_manager(listener, |manager| {
            let config_type = Some(ConfigType::TypedConfig(any.clone()));
            manager
                .http_filters
                .insert(0, HttpFilter { name: "x".into(), config_type, ..Default::default() });
        });
    });
}

#[test]
fn access_loggers() {
    use xds_api::envoy::config::accesslog::v3::{AccessLog, access_log::ConfigType};
    extensions_in_listeners("Access loggers", "envoy.extensions.access_loggers", |listener, any| {
        in_manager(listener, |manager| {
            let config_type = Some(ConfigType::TypedConfig(any.clone()));
            manager.access_log = vec![AccessLog { name: "x".into(), filter: None, config_type }];
        });
    });
}

type Manager =
    xds_api::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;

fn in_manager(listener: &mut Listener, change: impl Fn(&mut Manager)) {
    use xds_api::envoy::config::listener::v3::filter::ConfigType;
    let Some(ConfigType::TypedConfig(any)) = &mut listener.filter_chains[0].filters[0].config_type else {
        panic!("the manager is typed");
    };
    let mut manager = Manager::decode(any.value.as_slice()).unwrap();
    change(&mut manager);
    any.value = manager.encode_to_vec();
}

#[test]
fn downstream_transport_sockets() {
    extensions_in_listeners(
        "Transport sockets, downstream",
        "envoy.extensions.transport_sockets",
        |listener, any| {
            listener.filter_chains[0].transport_socket = Some(socket(any));
        },
    );
}

#[test]
fn upstream_transport_sockets() {
    extensions_in_clusters(
        "Transport sockets, upstream",
        "envoy.extensions.transport_sockets",
        |cluster, any| {
            cluster.transport_socket = Some(socket(any));
        },
    );
}

fn socket(any: Any) -> xds_api::envoy::config::core::v3::TransportSocket {
    use xds_api::envoy::config::core::v3::transport_socket::ConfigType;
    xds_api::envoy::config::core::v3::TransportSocket {
        name: "x".into(),
        config_type: Some(ConfigType::TypedConfig(any)),
    }
}

#[test]
fn cluster_types() {
    use xds_api::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, CustomClusterType};
    extensions_in_clusters("Cluster types", "envoy.extensions.clusters", |cluster, any| {
        let custom = CustomClusterType { name: "x".into(), typed_config: Some(any) };
        cluster.cluster_discovery_type = Some(ClusterDiscoveryType::ClusterType(custom));
    });
}

#[test]
fn load_balancing_policies() {
    use xds_api::envoy::config::cluster::v3::{LoadBalancingPolicy, load_balancing_policy::Policy};
    use xds_api::envoy::config::core::v3::TypedExtensionConfig;
    let prefix = "envoy.extensions.load_balancing_policies";
    extensions_in_clusters("Load-balancing policies", prefix, |cluster, any| {
        let typed_extension_config = Some(TypedExtensionConfig { name: "x".into(), typed_config: Some(any) });
        cluster.load_balancing_policy =
            Some(LoadBalancingPolicy { policies: vec![Policy { typed_extension_config }] });
    });
}

#[test]
fn access_log_operators() {
    let there = |name: &str| {
        // What each takes as its arguments is not the question here.
        let tries = [
            "",
            "(x)",
            "(x:y)",
            "(CLUSTER:x)",
            "(DS_RX_BEG:DS_RX_END)",
            "(NQ)",
            "(request.path)",
            "(PLAIN)",
            "({\"operators\": [\"PROTOCOL\"]})",
        ];
        tries.iter().any(|arguments| Format::parse(&format!("%{name}{arguments}%")).is_ok())
    };
    check("Access-log operators", there, Field::ALL.iter().map(|field| field.name().to_owned()));
}

#[test]
fn admin_endpoints() {
    let all: BTreeSet<&str> = sail_proxy::admin::paths().collect();
    check("Admin endpoints", |name| all.contains(name), all.iter().map(|&path| path.to_owned()));
}

#[test]
fn command_line_flags() {
    let command = sail_proxy::cli::Cli::command();
    let visible = command.get_arguments().filter(|argument| !argument.is_hide_set());
    let all: BTreeSet<String> = visible.filter_map(|it| Some(format!("--{}", it.get_long()?))).collect();
    check("Command line", |name| all.contains(name), all.clone());
}
