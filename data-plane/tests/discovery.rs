//! Discovery against a delta server that answers step by step.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;

use prost::Message as _;
use serde_json::{Value, json};
use support::xds::Server;
use support::{Backend, Proxy, call, wait};
use xds_api::any;
use xds_api::codec::Codec;
use xds_api::envoy::config::cluster::v3::{Cluster, Filter as UpstreamFilter};
use xds_api::envoy::config::core::v3::TypedExtensionConfig;
use xds_api::envoy::config::endpoint::v3::ClusterLoadAssignment;
use xds_api::envoy::config::listener::v3::{Listener, filter};
use xds_api::envoy::config::route::v3::RouteConfiguration;
use xds_api::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, http_filter,
};
use xds_api::envoy::service::runtime::v3::Runtime;
use xds_api::google::protobuf::{Any, Struct};
use xds_api::type_url;

fn bootstrap(server: &Server) -> String {
    format!(
        r#"
node: {{id: "sidecar~10.0.0.1~a.default~default.svc.cluster.local", cluster: a.default}}
dynamic_resources:
  ads_config: {{api_type: DELTA_GRPC, transport_api_version: V3, grpc_services: [{{envoy_grpc: {{cluster_name: xds}}}}]}}
  cds_config: {{ads: {{}}, initial_fetch_timeout: 0s, resource_api_version: V3}}
  lds_config: {{ads: {{}}, initial_fetch_timeout: 0s, resource_api_version: V3}}
static_resources:
  clusters:
  - name: xds
    type: STATIC
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment:
      cluster_name: xds
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {}}}}}}}}}]}}]
"#,
        server.address.port()
    )
}

struct Resources(Codec);

impl Resources {
    fn cluster(&self, name: &str) -> Cluster {
        let ads = json!({ "ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3" });
        let text = json!({ "name": name, "type": "EDS", "eds_cluster_config": { "eds_config": ads } });
        self.0.from_json_value(&text).unwrap()
    }

    fn endpoints(&self, name: &str, backend: &Backend) -> ClusterLoadAssignment {
        let address = json!({ "address": "127.0.0.1", "port_value": backend.address.port() });
        let endpoint = json!({ "endpoint": { "address": { "socket_address": address } } });
        let text = json!({ "cluster_name": name, "endpoints": [{ "lb_endpoints": [endpoint] }] });
        self.0.from_json_value(&text).unwrap()
    }

    fn listener(&self, name: &str, prefix: &str) -> Listener {
        self.listener_with(name, prefix, None)
    }

    /// A listener with another filter before the router.
    fn listener_with(&self, name: &str, prefix: &str, filter: Option<Value>) -> Listener {
        let ads = json!({ "ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3" });
        let router = json!({ "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" });
        let router = json!({ "name": "envoy.filters.http.router", "typed_config": router });
        let filters: Vec<Value> = filter.into_iter().chain([router]).collect();
        let hcm = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.\
                      HttpConnectionManager",
            "stat_prefix": prefix,
            "rds": { "route_config_name": "80", "config_source": ads },
            "http_filters": filters,
        });
        let filter = json!({ "name": "envoy.filters.network.http_connection_manager", "typed_config": hcm });
        let text = json!({
            "name": name,
            "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } },
            "filter_chains": [{ "filters": [filter] }],
        });
        self.0.from_json_value(&text).unwrap()
    }

    fn routes(&self, cluster: &str) -> RouteConfiguration {
        let route = json!({ "match": { "prefix": "/" }, "route": { "cluster": cluster } });
        let host = json!({ "name": "all", "domains": ["*"], "routes": [route] });
        let text = json!({ "name": "80", "virtual_hosts": [host], "validate_clusters": false });
        self.0.from_json_value(&text).unwrap()
    }
}

/// Brings a proxy up to a listener that leads to the cluster `one`.
fn bring_up(server: &mut Server, proxy: &Proxy, resources: &Resources, backend: &Backend) {
    let first = server.subscription(type_url::CLUSTER);
    let node = first.node.expect("the first request has the node");
    assert_eq!(node.user_agent_name, "envoy");
    assert!(node.extensions.iter().any(|extension| extension.name == "istio.stats"));
    let answer = server.send(&[("one", resources.cluster("one"))], &[]);
    assert_eq!(answer.error_detail, None);
    assert_eq!(server.subscription(type_url::ENDPOINT).resource_names_subscribe, ["one"]);
    assert_eq!(proxy.admin("GET", "/ready").status, 503, "listeners are missing still");
    server.send(&[("one", resources.endpoints("one", backend))], &[]);
    server.subscription(type_url::LISTENER);
    server.send(&[("in", resources.listener("in", "ingress"))], &[]);
    assert_eq!(server.subscription(type_url::ROUTE).resource_names_subscribe, ["80"]);
    assert_eq!(proxy.admin("GET", "/ready").status, 503, "routes are missing still");
    let clusters = proxy.admin("GET", "/clusters").body;
    assert!(clusters.contains(&format!("one::{}::cx_active::0", backend.address)), "{clusters}");
    server.send(&[("80", resources.routes("one"))], &[]);
    wait("readiness", || (proxy.admin("GET", "/ready").status == 200).then_some(()));
}

#[test]
fn warms_up_in_order_and_follows_changes() {
    let (resources, one, two) = (Resources(Codec::new()), Backend::start("one"), Backend::start("two"));
    let mut server = Server::start(None);
    let proxy = Proxy::start(&bootstrap(&server), &[]);
    bring_up(&mut server, &proxy, &resources, &one);
    let listener = proxy.listener("in");
    assert_eq!(call(listener, "GET", "/", &[]).unwrap().body, "one");
    assert_eq!(proxy.stat("cluster_manager.cds.update_success"), Some(1));
    assert_eq!(proxy.stat("listener_manager.lds.update_success"), Some(1));

    server.send(&[("one", resources.endpoints("one", &two))], &[]);
    wait("the new endpoint", || (call(listener, "GET", "/", &[]).ok()?.body == "two").then_some(()));

    server.send(&[("two", resources.cluster("two"))], &[]);
    assert_eq!(server.subscription(type_url::ENDPOINT).resource_names_subscribe, ["two"]);
    let warming = || ["one", "two"].map(|name| proxy.stat(&format!("cluster.{name}.warming_state")));
    assert_eq!(warming(), [Some(0), Some(1)]);
    server.send(&[("two", resources.endpoints("two", &one))], &[]);
    assert_eq!(warming(), [Some(0), Some(0)]);
    server.send(&[("80", resources.routes("two"))], &[]);
    wait("the new route", || (call(listener, "GET", "/", &[]).ok()?.body == "one").then_some(()));
    server.send::<Cluster>(&[], &["one"]);
    assert_eq!(server.subscription(type_url::ENDPOINT).resource_names_unsubscribe, ["one"]);
    assert_eq!(call(listener, "GET", "/", &[]).unwrap().body, "one");
}

#[test]
fn what_cannot_run_is_refused_by_name_and_the_last_good_one_stays() {
    let (resources, one) = (Resources(Codec::new()), Backend::start("one"));
    let mut server = Server::start(None);
    let proxy = Proxy::start(&bootstrap(&server), &[]);
    bring_up(&mut server, &proxy, &resources, &one);
    let listener = proxy.listener("in");

    let mut bad = resources.cluster("one");
    bad.eds_cluster_config = None;
    bad.lb_policy = 77;
    let answer = server.send(&[("one", bad), ("three", resources.cluster("three"))], &[]);
    let error = answer.error_detail.expect("a refusal").message;
    assert!(error.contains("one: ") && !error.contains("three: "), "{error}");
    assert_eq!(proxy.stat("cluster_manager.cds.update_rejected"), Some(1));
    assert_eq!(call(listener, "GET", "/", &[]).unwrap().body, "one");
    assert_eq!(
        server.subscription(type_url::ENDPOINT).resource_names_subscribe,
        ["three"],
        "the good one is taken"
    );
    let dump = proxy.admin("GET", "/config_dump?resource=dynamic_active_clusters").body;
    assert!(dump.contains("error_state"), "{dump}");

    let mut bad = resources.listener("in", "ingress");
    bad.filter_chains[0].filters[0].name.clear();
    bad.filter_chains[0].filters[0].config_type = None;
    let answer = server.send(&[("in", bad)], &[]);
    let error = answer.error_detail.expect("a refusal").message;
    assert!(error.contains("in: ") && error.contains("filter_chains[0].filters[0]"), "{error}");
    assert_eq!(call(listener, "GET", "/", &[]).unwrap().body, "one");
}

#[test]
fn layers_of_the_runtime_come_first_and_change() {
    let runtime = |values: Value| -> Runtime {
        let values: serde_json::Map<String, Value> = serde_json::from_value(values).unwrap();
        Codec::new().from_json_value(&json!({"name": "dynamic", "layer": values})).unwrap()
    };
    let mut server = Server::start(None);
    let layers = "layered_runtime: {layers: [{name: base, static_layer: {a: 1, b: {c: 2}}}, {name: rtds, rtds_layer: \
        {name: dynamic, rtds_config: {ads: {}, initial_fetch_timeout: 0s, resource_api_version: V3}}}]}";
    let proxy = Proxy::start(&format!("{}{layers}\n", bootstrap(&server)), &[]);
    assert_eq!(server.subscription(type_url::RUNTIME).resource_names_subscribe, ["dynamic"]);
    assert!(!server.types().contains(type_url::CLUSTER), "clusters wait");
    let value = |key: &str| -> Value {
        let page: Value = serde_json::from_str(&proxy.admin("GET", "/runtime").body).unwrap();
        page["entries"][key]["final_value"].clone()
    };
    assert_eq!((value("a"), value("b.c")), (json!("1"), json!("2")));
    server.send(&[("dynamic", runtime(json!({"b": {"c": 3}})))], &[]);
    server.subscription(type_url::CLUSTER);
    assert_eq!((value("a"), value("b.c")), (json!("1"), json!("3")));
    server.send(&[("dynamic", runtime(json!({"a": 4})))], &[]);
    assert_eq!((value("a"), value("b.c")), (json!("4"), json!("2")));
    server.send::<Runtime>(&[], &["dynamic"]);
    assert_eq!(value("a"), json!("1"));
}

/// As in Envoy: what was refused is not waited for, and what comes in its place is taken.
#[test]
fn what_is_refused_holds_up_nobody() {
    let (resources, one) = (Resources(Codec::new()), Backend::start("one"));
    let mut server = Server::start(None);
    let proxy = Proxy::start(&bootstrap(&server), &[]);
    let mut cluster = resources.cluster("one");
    let check = json!({"timeout": "1s", "interval": "1s", "unhealthy_threshold": 1, "healthy_threshold": 1,
        "tcp_health_check": {}});
    cluster.health_checks.push(resources.0.from_json_value(&check).unwrap());
    server.send(&[("one", cluster)], &[]);
    let mut bad = resources.endpoints("one", &one);
    bad.endpoints[0].priority = 200;
    assert!(server.send(&[("one", bad)], &[]).error_detail.is_some());
    server.send(&[("in", resources.listener("in", "ingress"))], &[]);
    let mut bad = resources.routes("one");
    bad.virtual_hosts[0].domains.push("*".to_owned());
    assert!(server.send(&[("80", bad)], &[]).error_detail.is_some());
    wait("readiness", || (proxy.admin("GET", "/ready").status == 200).then_some(()));
    let listener = proxy.listener("in");
    assert_eq!(call(listener, "GET", "/", &[]).unwrap().status, 404);

    server.send(&[("80", resources.routes("one"))], &[]);
    wait("routes", || (call(listener, "GET", "/", &[]).ok()?.status == 503).then_some(()));
    server.send(&[("one", resources.endpoints("one", &one))], &[]);
    wait("endpoints", || (call(listener, "GET", "/", &[]).ok()?.status == 200).then_some(()));
    let types = server.types();
    assert!(types.iter().all(|one| one.starts_with("type.googleapis.com/envoy.")), "{types:?}");
}

/// As Envoy does, but that the good one beside it is taken.
#[test]
fn a_resource_without_a_body_is_refused_unless_it_says_that_nothing_changed() {
    let (resources, one) = (Resources(Codec::new()), Backend::start("one"));
    let mut server = Server::start(None);
    let proxy = Proxy::start(&bootstrap(&server), &[]);
    bring_up(&mut server, &proxy, &resources, &one);
    let listener = proxy.listener("in");
    let mut check = |type_url: &str, name: &str, version: &str, refused: bool| {
        let resource = xds_api::envoy::service::discovery::v3::Resource {
            name: name.to_owned(),
            version: version.to_owned(),
            ..Default::default()
        };
        let answer = server.send_as_is(type_url, vec![resource], &[]);
        let expect = format!("{name}: it has no body");
        match answer.error_detail {
            Some(error) => assert!(refused && error.message.ends_with(&expect), "{}", error.message),
            None => assert!(!refused, "{type_url} {version}"),
        }
        assert_eq!(call(listener, "GET", "/", &[]).unwrap().body, "one");
    };
    for (type_url, name, held) in [
        (type_url::CLUSTER, "one", "n1"),
        (type_url::ENDPOINT, "one", "n2"),
        (type_url::LISTENER, "in", "n3"),
        (type_url::ROUTE, "80", "n4"),
    ] {
        check(type_url, name, held, false);
        check(type_url, name, "other", true);
    }
    check(type_url::CLUSTER, "two", "n1", true);
}

/// As Envoy does.
#[test]
fn what_the_bootstrap_has_stays_and_the_server_hears_of_no_error() {
    let (resources, one) = (Resources(Codec::new()), Backend::start("one"));
    let mut server = Server::start(None);
    let fixed = resources.0.to_json(&resources.listener("fixed", "fixed")).unwrap();
    let proxy = Proxy::start(&format!("{}  listeners: [{fixed}]\n", bootstrap(&server)), &[]);
    bring_up(&mut server, &proxy, &resources, &one);
    let fixed = proxy.listener("fixed");
    let sent = [("xds", resources.cluster("xds")), ("one", resources.cluster("one"))];
    assert_eq!(server.send(&sent, &[]).error_detail, None);
    let mut broken = resources.listener("fixed", "fixed");
    broken.filter_chains[0].filters[0].config_type = None;
    assert_eq!(server.send(&[("fixed", broken)], &[]).error_detail, None);
    assert_eq!(proxy.stat("cluster_manager.cds.update_rejected").unwrap_or(0), 0);
    assert_eq!(proxy.stat("listener_manager.lds.update_success"), Some(2));
    assert_eq!(server.send::<Cluster>(&[], &["xds"]).error_detail, None);
    assert_eq!(server.send::<Listener>(&[], &["fixed"]).error_detail, None);
    let page = proxy.admin("GET", "/config_dump").body;
    let page: Value = serde_json::from_str(&page).unwrap();
    let found = |field: &str| -> Vec<&Value> {
        page["configs"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|config| config[field].as_array())
            .flatten()
            .collect()
    };
    assert_eq!(found("dynamic_active_clusters").len(), 1);
    assert!(found("dynamic_warming_clusters").is_empty());
    assert_eq!(found("dynamic_listeners").len(), 1);
    assert_eq!(call(fixed, "GET", "/", &[]).unwrap().body, "one");
}

#[test]
fn a_cluster_that_changes_goes_on_counting() {
    let (resources, one) = (Resources(Codec::new()), Backend::start("one"));
    let mut server = Server::start(None);
    let proxy = Proxy::start(&bootstrap(&server), &[]);
    bring_up(&mut server, &proxy, &resources, &one);
    let listener = proxy.listener("in");
    let names = ["upstream_rq_total", "upstream_cx_total", "upstream_rq_200", "external.upstream_rq_200"];
    let counts = || names.map(|name| proxy.stat(&format!("cluster.one.{name}")).unwrap_or(0));
    assert_eq!(call(listener, "GET", "/", &[]).unwrap().body, "one");
    wait("the first request", || (counts()[3] == 1).then_some(()));
    let mut changed = resources.cluster("one");
    changed.connect_timeout = Some(xds_api::google::protobuf::Duration { seconds: 3, nanos: 0 });
    assert_eq!(server.send(&[("one", changed)], &[]).error_detail, None);
    assert_eq!(proxy.stat("cluster_manager.cluster_modified"), Some(1));
    assert_eq!(call(listener, "GET", "/", &[]).unwrap().body, "one");
    wait("the second request", || (counts()[3] == 2).then_some(()));
    assert_eq!(counts(), [2; 4]);
}

/// As Envoy counts.
#[test]
fn members_that_come_and_go_are_told_from_those_that_change() {
    let (resources, one) = (Resources(Codec::new()), Backend::start("one"));
    let mut server = Server::start(None);
    let proxy = Proxy::start(&bootstrap(&server), &[]);
    bring_up(&mut server, &proxy, &resources, &one);
    let endpoints = |hosts: &[(u16, u32, u32)]| -> ClusterLoadAssignment {
        let groups = hosts.iter().map(|(port, weight, priority)| {
            let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
            let endpoint = json!({"endpoint": {"address": address}, "load_balancing_weight": weight});
            json!({"lb_endpoints": [endpoint], "priority": priority})
        });
        let groups: Vec<Value> = groups.collect();
        resources.0.from_json_value(&json!({"cluster_name": "one", "endpoints": groups})).unwrap()
    };
    let mut check = |what: &str, hosts: &[(u16, u32, u32)], expect: [i64; 2]| {
        assert_eq!(server.send(&[("one", endpoints(hosts))], &[]).error_detail, None);
        let names = ["cluster.one.membership_change", "cluster_manager.cluster_updated"];
        assert_eq!(names.map(|name| proxy.stat(name).unwrap_or(0)), expect, "{what}");
    };
    let port = one.address.port();
    check("another weight", &[(port, 2, 0)], [1, 1]);
    check("the same", &[(port, 2, 0)], [1, 1]);
    check("one comes", &[(port, 2, 0), (1, 1, 0)], [2, 2]);
    check("one comes elsewhere", &[(port, 2, 0), (1, 1, 0), (2, 1, 1)], [3, 3]);
    check("all go", &[], [5, 4]);
    check("one is back", &[(port, 1, 0)], [6, 5]);
}

#[test]
fn a_filter_waits_for_its_configuration_and_follows_it() {
    const RBAC: &str = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";
    let (resources, one) = (Resources(Codec::new()), Backend::start("one"));
    let mut server = Server::start(None);
    let proxy = Proxy::start(&bootstrap(&server), &[]);
    bring_up(&mut server, &proxy, &resources, &one);
    let ads = json!({ "ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3" });
    let discovery = json!({ "config_source": ads, "type_urls": [RBAC] });
    let filter = json!({ "name": "policy", "config_discovery": discovery });
    let answer =
        server.send(&[("guarded", resources.listener_with("guarded", "guarded", Some(filter)))], &[]);
    assert_eq!(answer.error_detail, None);
    let wanted = server.subscription(type_url::EXTENSION_CONFIG);
    assert_eq!(wanted.resource_names_subscribe, ["policy"]);
    let pages = proxy.admin("GET", "/listeners").body;
    assert!(!pages.contains("guarded"), "it is not there before its filter is: {pages}");
    let policy = |action: &str| -> TypedExtensionConfig {
        let any = json!({ "permissions": [{ "any": true }], "principals": [{ "any": true }] });
        let rules = json!({ "action": action, "policies": { "all": any } });
        let text = json!({ "name": "policy", "typed_config": { "@type": RBAC, "rules": rules } });
        resources.0.from_json_value(&text).unwrap()
    };
    server.send(&[("policy", policy("DENY"))], &[]);
    let listener = proxy.listener("guarded");
    assert_eq!(call(listener, "GET", "/", &[]).unwrap().status, 403);
    server.send(&[("policy", policy("ALLOW"))], &[]);
    wait("the new policy", || (call(listener, "GET", "/", &[]).ok()?.body == "one").then_some(()));
    assert_eq!(proxy.stat("listener_manager.listener_modified").unwrap_or(0), 0);

    let mut bad = policy("ALLOW");
    bad.typed_config.as_mut().unwrap().type_url = "type.googleapis.com/no.such.Filter".to_owned();
    let error = server.send(&[("policy", bad)], &[]).error_detail.expect("a refusal").message;
    assert!(error.contains("policy: ") && error.contains("no.such.Filter"), "{error}");
    assert_eq!(call(listener, "GET", "/", &[]).unwrap().body, "one");
    server.send::<TypedExtensionConfig>(&[], &["policy"]);
    wait("requests to be refused without a policy", || {
        (call(listener, "GET", "/", &[]).ok()?.status == 500).then_some(())
    });
}

#[test]
fn a_configuration_that_no_filter_names_is_given_up_and_waited_for_again() {
    const RBAC: &str = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";
    let (resources, one) = (Resources(Codec::new()), Backend::start("one"));
    let mut server = Server::start(None);
    let proxy = Proxy::start(&bootstrap(&server), &["--drain-time-s", "3600"]);
    bring_up(&mut server, &proxy, &resources, &one);
    let ads = json!({ "ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3" });
    let discovery = json!({ "config_source": ads, "type_urls": [RBAC] });
    let filter = json!({ "name": "policy", "config_discovery": discovery });
    let guarded = || resources.listener_with("guarded", "guarded", Some(filter.clone()));
    server.send(&[("guarded", guarded())], &[]);
    server.subscription(type_url::EXTENSION_CONFIG);
    let text = json!({ "name": "policy", "typed_config": { "@type": RBAC, "rules": { "action": "ALLOW" } } });
    let nobody: TypedExtensionConfig = resources.0.from_json_value(&text).unwrap();
    server.send(&[("policy", nobody.clone())], &[]);
    let listener = proxy.listener("guarded");
    let mut kept = Kept::open(listener);
    assert_eq!(kept.get(), 403);

    server.send(&[("guarded", resources.listener_with("guarded", "guarded", None))], &[]);
    let unwanted = server.subscription(type_url::EXTENSION_CONFIG);
    assert_eq!(unwanted.resource_names_unsubscribe, ["policy"]);
    wait("the listener without it", || (call(listener, "GET", "/", &[]).ok()?.body == "one").then_some(()));
    assert_eq!(kept.get(), 403, "a connection that drains has what it had");

    server.send(&[("guarded", guarded())], &[]);
    assert_eq!(server.subscription(type_url::EXTENSION_CONFIG).resource_names_subscribe, ["policy"]);
    assert_eq!(
        call(listener, "GET", "/", &[]).unwrap().body,
        "one",
        "what it was is not taken for what it is"
    );
    server.send(&[("policy", nobody)], &[]);
    wait("the policy", || (call(listener, "GET", "/", &[]).ok()?.status == 403).then_some(()));
}

/// A connection that stays open.
struct Kept(std::net::TcpStream);

impl Kept {
    fn open(address: SocketAddr) -> Self {
        Self(std::net::TcpStream::connect(address).unwrap())
    }

    /// The status of an answer, which must have a length.
    fn get(&mut self) -> u16 {
        self.ask().0
    }

    /// The same, and whether the connection ends with it.
    fn ask(&mut self) -> (u16, bool) {
        self.0.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut reader = BufReader::new(&self.0);
        let (mut status, mut length, mut ends) = (String::new(), 0, false);
        reader.read_line(&mut status).unwrap();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            match line.trim_end().split_once(": ") {
                Some(("content-length", value)) => length = value.parse().unwrap(),
                Some(("connection", "close")) => ends = true,
                Some(_) => {}
                None => break,
            }
        }
        reader.read_exact(&mut vec![0; length]).unwrap();
        (status.split(' ').nth(1).unwrap().parse().unwrap(), ends)
    }
}

/// What Envoy does: of a listener of which only filter chains change, the connections of the others stay.
#[test]
fn a_filter_chain_that_stays_keeps_its_connections() {
    let codec = Codec::new();
    let mut server = Server::start(None);
    let proxy = Proxy::start(&bootstrap(&server), &["--drain-strategy", "immediate"]);
    server.subscription(type_url::CLUSTER);
    server.send::<Cluster>(&[], &[]);
    server.subscription(type_url::LISTENER);
    let chain = |to: &str, status: u16| {
        let router = json!({"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"});
        let route = json!({"match": {"prefix": "/"}, "direct_response": {"status": status, "body":
            {"inline_string": "x"}}});
        let hcm = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.\
                      HttpConnectionManager",
            "stat_prefix": "in",
            "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [route]}]},
            "http_filters": [{"name": "router", "typed_config": router}],
        });
        let ranges = json!([{"address_prefix": to, "prefix_len": 32}]);
        json!({"filter_chain_match": {"prefix_ranges": ranges}, "filters": [{"name": "hcm", "typed_config": hcm}]})
    };
    let listener = |chains: &[Value], backlog: u32| -> Listener {
        let address = json!({"socket_address": {"address": "0.0.0.0", "port_value": 0}});
        let text =
            json!({"name": "l", "address": address, "filter_chains": chains, "tcp_backlog_size": backlog});
        codec.from_json_value(&text).unwrap()
    };
    server.send(&[("l", listener(&[chain("127.0.0.1", 201), chain("127.0.0.2", 202)], 64))], &[]);
    let port = proxy.listener("l").port();
    let open = |ip: [u8; 4]| Kept::open((ip, port).into());
    let (mut one, mut two) = (open([127, 0, 0, 1]), open([127, 0, 0, 2]));
    assert_eq!((one.ask(), two.ask()), ((201, false), (202, false)));
    server.send(&[("l", listener(&[chain("127.0.0.3", 200), chain("127.0.0.1", 201)], 64))], &[]);
    wait("the new chain", || {
        (call(([127, 0, 0, 3], port).into(), "GET", "/", &[]).ok()?.status == 200).then_some(())
    });
    assert_eq!(two.ask(), (202, true), "its chain is gone");
    assert_eq!(one.ask(), (201, false), "its chain stays");
    server.send(&[("l", listener(&[chain("127.0.0.1", 203)], 64))], &[]);
    wait("the other answer", || (open([127, 0, 0, 1]).get() == 203).then_some(()));
    assert_eq!(one.ask(), (201, true), "its chain is another");
    let mut one = open([127, 0, 0, 1]);
    assert_eq!(one.ask(), (203, false));
    assert_eq!(proxy.stat("listener_manager.listener_in_place_updated"), Some(2));
    assert_eq!(proxy.stat("listener_manager.total_filter_chains_draining"), Some(3));
    server.send(&[("l", listener(&[chain("127.0.0.1", 203)], 65))], &[]);
    wait("the whole listener's change", || one.ask().1.then_some(()));
    assert_eq!(proxy.stat("listener_manager.total_listeners_draining"), Some(1));
    let page = proxy.admin("GET", "/config_dump?resource=dynamic_listeners").body;
    let page: Value = serde_json::from_str(&page).unwrap();
    let backlog = |state: &str| page["configs"][0][state]["listener"]["tcp_backlog_size"].clone();
    assert_eq!((backlog("active_state"), backlog("draining_state")), (65.into(), 64.into()));
    assert_eq!(proxy.stat("listener_manager.listener_in_place_updated"), Some(2));
}

#[test]
fn losing_the_server_loses_no_traffic_and_the_next_stream_says_what_is_held() {
    let (resources, one) = (Resources(Codec::new()), Backend::start("one"));
    let mut server = Server::start(None);
    let proxy = Proxy::start(&bootstrap(&server), &[]);
    bring_up(&mut server, &proxy, &resources, &one);
    let listener = proxy.listener("in");
    let address = server.address;
    drop(server);
    wait("the stream's end", || (proxy.stat("control_plane.connected_state")? == 0).then_some(()));
    assert_eq!(call(listener, "GET", "/", &[]).unwrap().body, "one");

    let server = Server::start(Some(address));
    let again = server.subscription(type_url::CLUSTER);
    assert!(again.node.is_some());
    assert_eq!(again.initial_resource_versions.keys().collect::<Vec<_>>(), ["one"]);
    let again = server.subscription(type_url::ENDPOINT);
    assert_eq!(again.resource_names_subscribe, ["one"]);
    assert_eq!(again.initial_resource_versions.len(), 1);
    assert_eq!(call(listener, "GET", "/", &[]).unwrap().body, "one");
}

#[test]
fn a_server_that_hangs_up_again_and_again_is_called_again_soon() {
    let resources = Resources(Codec::new());
    let mut server = Server::start(None);
    let proxy = Proxy::start(&bootstrap(&server), &[]);
    let start = std::time::Instant::now();
    for _ in 0..6 {
        server.subscription(type_url::CLUSTER);
        server.send(&[("one", resources.cluster("one"))], &[]);
        server.hang_up();
    }
    server.subscription(type_url::CLUSTER);
    assert!(start.elapsed().as_secs() < 10, "it spoke each time: {:?}", start.elapsed());
    assert!(proxy.stat("cluster_manager.cds.update_failure").unwrap_or(0) >= 6);
}

#[test]
fn a_server_that_has_nothing_to_say_is_connected() {
    let server = Server::start(None);
    server.fall_silent();
    let proxy = Proxy::start(&bootstrap(&server), &[]);
    server.subscription(type_url::CLUSTER);
    wait("the state", || (proxy.stat("control_plane.connected_state")? == 1).then_some(()));
}

/// A cluster of a version to come.
#[derive(Clone, PartialEq, prost::Message)]
struct Newer {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "2")]
    kind: i32,
    #[prost(string, tag = "4999")]
    news: String,
}

impl prost::Name for Newer {
    const NAME: &'static str = "Cluster";
    const PACKAGE: &'static str = "envoy.config.cluster.v3";

    fn type_url() -> String {
        type_url::CLUSTER.to_owned()
    }
}

/// As istiod sends what it has no types for.
#[derive(Clone, PartialEq, prost::Message)]
struct TypedStruct {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Struct>,
}

fn wrapped(message: &str, value: &Value) -> Any {
    let value = Some(Codec::new().from_json_value::<Struct>(value).unwrap());
    let value = TypedStruct { type_url: format!("type.googleapis.com/{message}"), value }.encode_to_vec();
    Any { type_url: "type.googleapis.com/udpa.type.v1.TypedStruct".to_owned(), value }
}

#[test]
fn a_typed_struct_is_the_filter_that_it_stands_for() {
    let (resources, one) = (Resources(Codec::new()), Backend::start("one"));
    let mut server = Server::start(None);
    let proxy = Proxy::start(&bootstrap(&server), &[]);
    bring_up(&mut server, &proxy, &resources, &one);

    let exchange = "envoy.tcp.metadataexchange.config.MetadataExchange";
    let with_filter = |value: &Value| {
        let typed_config = Some(wrapped(exchange, value));
        let filter = UpstreamFilter { name: "f".to_owned(), typed_config, ..Default::default() };
        let cluster =
            Cluster { name: "three".to_owned(), filters: vec![filter], ..resources.cluster("three") };
        [("three", cluster)]
    };
    let wrong = server.send(&with_filter(&json!({ "enable_discovery": "maybe" })), &[]);
    let error = wrong.error_detail.expect("a refusal").message;
    assert!(error.contains("three: filters[0].typed_config.value.enable_discovery"), "{error}");
    assert_eq!(server.send(&with_filter(&json!({ "protocol": "p" })), &[]).error_detail, None);

    let message = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";
    let header = json!({ "append": { "header": { "key": "x-wrapped", "value": "yes" } } });
    let filter = HttpFilter {
        name: "f".to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(wrapped(
            message,
            &json!({ "mutations": { "response_mutations": [header] } }),
        ))),
        ..Default::default()
    };
    let mut listener = resources.listener("in", "ingress");
    let config = &mut listener.filter_chains[0].filters[0].config_type;
    let Some(filter::ConfigType::TypedConfig(any)) = config else { panic!("no configuration") };
    let mut manager: HttpConnectionManager = any::unpack(any).unwrap();
    manager.http_filters.insert(0, filter);
    *any = any::pack(&manager);
    assert_eq!(server.send(&[("in", listener)], &[]).error_detail, None);
    wait("the filter", || {
        let answer = call(proxy.listener("in"), "GET", "/", &[]).ok()?;
        answer.head.contains("x-wrapped: yes").then_some(())
    });
}

#[test]
fn what_nobody_knows_is_taken_or_refused_as_the_flag_says() {
    for (flags, refused) in [(&[][..], false), (&["--reject-unknown-dynamic-fields"], true)] {
        let mut server = Server::start(None);
        let proxy = Proxy::start(&bootstrap(&server), flags);
        server.subscription(type_url::CLUSTER);
        let newer = Newer { name: "newer".to_owned(), kind: 0, news: "well".to_owned() };
        let error = server.send(&[("newer", newer)], &[]).error_detail;
        assert_eq!(error.is_some(), refused, "{error:?}");
        if let Some(error) = error {
            assert!(
                error.message.contains("unknown field") && error.message.contains("4999"),
                "{}",
                error.message
            );
        }
        let taken = || proxy.stat("cluster_manager.cds.update_success");
        if refused {
            assert_eq!(taken().unwrap_or(0), 0);
        } else {
            wait("the update", || (taken()? == 1).then_some(()));
        }
    }
}

/// What Envoy does: of two listeners of one name the first holds, and what cannot be read is counted.
#[test]
fn files_of_resources_are_counted_and_a_name_stands_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lds.yaml");
    let put = |text: &str| {
        let new = dir.path().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, &path).unwrap();
    };
    let listener = |status: u16| {
        let hcm = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.\
                      HttpConnectionManager",
            "stat_prefix": "in",
            "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes":
                [{"match": {"prefix": "/"}, "direct_response": {"status": status}}]}]},
            "http_filters": [{"name": "router", "typed_config":
                {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
        });
        json!({
            "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
            "name": "l",
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
            "filter_chains": [{"filters": [{"name": "hcm", "typed_config": hcm}]}],
        })
    };
    put(&json!({"resources": [listener(201), listener(202)]}).to_string());
    let lds = format!("{{path_config_source: {{path: {}}}, resource_api_version: V3}}", path.display());
    let proxy = Proxy::start(&format!("dynamic_resources: {{lds_config: {lds}}}\n"), &[]);
    let lds = |what: &str| proxy.stat(&format!("listener_manager.lds.update_{what}")).unwrap_or(0);
    let status = || call(proxy.listener("l"), "GET", "/", &[]).ok().map(|answer| answer.status);
    assert_eq!(status(), Some(201));
    wait("the refusal", || (lds("rejected") == 1).then_some(()));
    assert_eq!([lds("attempt"), lds("success"), lds("failure")], [1, 0, 0]);
    put("resources: [{");
    wait("the failure", || (lds("failure") == 1).then_some(()));
    assert_eq!([lds("attempt"), lds("rejected")], [2, 1]);
    put(&json!({"resources": [listener(203)]}).to_string());
    wait("the success", || (lds("success") == 1).then_some(()));
    wait("the last one", || (status() == Some(203)).then_some(()));
}
