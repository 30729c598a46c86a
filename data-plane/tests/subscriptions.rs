//! Statistics of what is asked for by name: endpoints, route tables, secrets. The numbers are Envoy's, which passes these
//! tests, too.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

#[path = "support/certs.rs"]
mod certs;

use serde_json::{Value, json};
use support::xds::Server;
use support::{Proxy, wait};
use xds_api::codec::Codec;
use xds_api::envoy::config::cluster::v3::Cluster;
use xds_api::envoy::config::endpoint::v3::ClusterLoadAssignment;
use xds_api::envoy::config::listener::v3::Listener;
use xds_api::envoy::config::route::v3::{RouteConfiguration, ScopedRouteConfiguration};
use xds_api::type_url;

const ENDPOINTS: &str = "envoy.config.endpoint.v3.ClusterLoadAssignment";
const ROUTES: &str = "envoy.config.route.v3.RouteConfiguration";
const SECRET: &str = "envoy.extensions.transport_sockets.tls.v3.Secret";

fn cluster(name: &str, source: &Value) -> Value {
    json!({"name": name, "connect_timeout": "1s", "type": "EDS", "eds_cluster_config": {"eds_config": source}})
}

fn endpoints(name: &str, port: u16) -> Value {
    let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    json!({"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]})
}

fn routes(name: &str, status: u16) -> Value {
    let route = json!({"match": {"prefix": "/"}, "direct_response": {"status": status}});
    json!({"name": name, "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [route]}]})
}

/// A listener that asks for the route table `table`, and for its certificate if `secret` says whence.
fn listener(source: &Value, secret: Option<&Value>) -> Value {
    let router = json!({"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"});
    let hcm = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.\
                  HttpConnectionManager",
        "stat_prefix": "in",
        "rds": {"route_config_name": "table", "config_source": source},
        "http_filters": [{"name": "router", "typed_config": router}],
    });
    let mut chain = json!({"filters": [{"name": "hcm", "typed_config": hcm}]});
    if let Some(secret) = secret {
        chain["transport_socket"] = json!({"name": "tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "tls_certificate_sds_secret_configs": [{"name": "own", "sds_config": secret}],
            },
        }});
    }
    let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": 0}});
    json!({"name": "l", "address": address, "filter_chains": [chain]})
}

/// A bootstrap, section by section.
fn sections(bootstrap: &Value) -> String {
    let sections = bootstrap.as_object().into_iter().flatten();
    sections.map(|(name, section)| format!("{name}: {section}\n")).collect()
}

/// A folder of files with resources.
struct Files(tempfile::TempDir);

impl Files {
    fn put(&self, file: &str, text: &str) {
        let new = self.0.path().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, self.0.path().join(file)).unwrap();
    }

    fn resource(&self, file: &str, message: &str, mut resource: Value) {
        resource["@type"] = format!("type.googleapis.com/{message}").into();
        self.put(file, &json!({"version_info": file, "resources": [resource]}).to_string());
    }

    fn source(&self, file: &str) -> Value {
        json!({"path_config_source": {"path": self.0.path().join(file)}, "resource_api_version": "V3"})
    }
}

const COUNTERS: [&str; 5] = ["attempt", "success", "failure", "rejected", "empty"];

/// Waits until these are what the [`COUNTERS`] of an object say.
fn expect(proxy: &Proxy, what: &str, object: &str, counters: [i64; 5]) {
    let mut seen = [0; 5];
    let as_wanted = || {
        seen = COUNTERS.map(|name| proxy.stat(&format!("{object}.update_{name}")).unwrap_or(0));
        (seen[0] >= counters[0]).then_some(())
    };
    wait(&format!("{what} to be counted"), as_wanted);
    assert_eq!(seen, counters, "{what}: {COUNTERS:?} of {object}");
}

#[test]
fn files_are_counted_for_each_who_reads_them() {
    let files = Files(tempfile::tempdir().unwrap());
    let authority = certs::Authority::new();
    let secret = |serial| {
        let signed = authority.sign(serial, &["localhost"]);
        let (chain, key) = (json!({"inline_string": signed.cert}), json!({"inline_string": signed.key}));
        json!({"name": "own", "tls_certificate": {"certificate_chain": chain, "private_key": key}})
    };
    files.resource("eds.yaml", ENDPOINTS, endpoints("one", 1));
    files.resource("rds.yaml", ROUTES, routes("table", 201));
    files.resource("sds.yaml", SECRET, secret(1));
    let bootstrap = json!({"node": {"id": "n", "cluster": "c"}, "static_resources": {
        "clusters": [cluster("one", &files.source("eds.yaml"))],
        "listeners": [listener(&files.source("rds.yaml"), Some(&files.source("sds.yaml")))],
    }});
    let proxy = Proxy::ready(&sections(&bootstrap), &[]);
    let (eds, rds, sds) = ("cluster.one", "http.in.rds.table", "sds.own");
    for object in [eds, rds, sds] {
        expect(&proxy, "the first look", object, [1, 1, 0, 0, 0]);
        assert_ne!(proxy.stat(&format!("{object}.update_time")).unwrap_or(0), 0, "{object}");
        // Envoy's may be larger than what fits into 63 bits.
        let page = proxy.admin("GET", &format!("/stats?usedonly&filter={object}.version$")).body;
        assert!(page.contains(&format!("{object}.version: ")), "{page}");
    }
    files.put("eds.yaml", "resources: [{");
    expect(&proxy, "a file that is none", eds, [2, 1, 1, 0, 0]);
    files.resource("eds.yaml", ENDPOINTS, endpoints("two", 1));
    expect(&proxy, "another's endpoints", eds, [3, 1, 1, 1, 0]);
    files.put("eds.yaml", "resources: []");
    expect(&proxy, "no endpoints", eds, [4, 2, 1, 1, 1]);
    files.resource("eds.yaml", ENDPOINTS, endpoints("one", 1));
    expect(&proxy, "the same endpoints", eds, [5, 3, 1, 1, 1]);
    assert_eq!(proxy.stat("cluster.one.update_no_rebuild"), Some(1));
    files.resource("eds.yaml", ENDPOINTS, endpoints("one", 2));
    expect(&proxy, "other endpoints", eds, [6, 4, 1, 1, 1]);
    assert_eq!(proxy.stat("cluster.one.update_no_rebuild"), Some(1));

    files.resource("eds.yaml", ENDPOINTS, endpoints("one", 2));
    expect(&proxy, "the same file again", eds, [7, 5, 1, 1, 1]);
    assert_eq!(proxy.stat("cluster.one.update_no_rebuild"), Some(2));

    let of = |name| {
        let mut resource = endpoints(name, 1);
        resource["@type"] = format!("type.googleapis.com/{ENDPOINTS}").into();
        resource
    };
    files.put("eds.yaml", &json!({"resources": [of("one"), of("two")]}).to_string());
    expect(&proxy, "endpoints of two", eds, [8, 5, 1, 2, 1]);
    let clusters = proxy.admin("GET", "/clusters").body;
    assert!(clusters.contains("one::127.0.0.1:2::"), "the old ones stay: {clusters}");

    files.put("rds.yaml", "resources: []");
    expect(&proxy, "no routes", rds, [2, 2, 0, 0, 1]);
    files.resource("rds.yaml", ROUTES, routes("table", 2));
    expect(&proxy, "a status that is none", rds, [3, 2, 0, 1, 1]);
    assert_eq!(proxy.stat("http.in.rds.table.config_reload"), Some(1));
    files.resource("rds.yaml", ROUTES, routes("table", 202));
    expect(&proxy, "other routes", rds, [4, 3, 0, 1, 1]);
    assert_eq!(proxy.stat("http.in.rds.table.config_reload"), Some(2));

    files.put("sds.yaml", "resources: []");
    expect(&proxy, "no secret", sds, [2, 1, 0, 1, 0]);
    let mut broken = secret(2);
    broken["tls_certificate"]["private_key"] = json!({"inline_string": "no key"});
    files.resource("sds.yaml", SECRET, broken);
    expect(&proxy, "a broken secret", sds, [3, 1, 0, 2, 0]);
    files.resource("sds.yaml", SECRET, secret(3));
    expect(&proxy, "another secret", sds, [4, 2, 0, 2, 0]);
    let metrics = proxy.admin("GET", "/stats/prometheus").body;
    for line in [
        "envoy_http_rds_update_success{envoy_rds_route_config=\"table\",envoy_http_conn_manager_prefix=\"in\"} 3",
        "envoy_sds_update_rejected{envoy_xds_resource_name=\"own\"} 2",
        "envoy_cluster_update_empty{envoy_cluster_name=\"one\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is in {metrics}");
    }
}

#[test]
fn a_stream_is_counted_for_each_resource_it_brings() {
    let codec = Codec::new();
    let mut server = Server::start(None);
    let ads = json!({"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"});
    let soon = json!({"ads": {}, "initial_fetch_timeout": "0.05s", "resource_api_version": "V3"});
    let h2 = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let options = json!({"@type": format!("type.googleapis.com/{h2}"),
        "explicit_http_config": {"http2_protocol_options": {}}});
    let bootstrap = json!({"node": {"id": "n", "cluster": "c"},
        "dynamic_resources": {"cds_config": ads, "lds_config": ads, "ads_config": {
            "api_type": "DELTA_GRPC", "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
        }},
        "static_resources": {"clusters": [{"name": "xds", "connect_timeout": "1s",
            "typed_extension_protocol_options": {h2: options},
            "load_assignment": endpoints("xds", server.address.port())}]}});
    let proxy = Proxy::start(&sections(&bootstrap), &[]);
    let one: Cluster = codec.from_json_value(&cluster("one", &ads)).unwrap();
    let late: Cluster = codec.from_json_value(&cluster("late", &soon)).unwrap();
    let at = |name, port| -> ClusterLoadAssignment { codec.from_json_value(&endpoints(name, port)).unwrap() };
    server.send(&[("one", one), ("late", late)], &[]);
    expect(&proxy, "the first request", "cluster.one", [1, 0, 0, 0, 0]);
    wait("the timeout", || (proxy.stat("cluster.late.init_fetch_timeout")? == 1).then_some(()));
    expect(&proxy, "a vain wait", "cluster.late", [2, 0, 0, 0, 0]);
    server.send(&[("one", at("one", 1))], &[]);
    expect(&proxy, "endpoints", "cluster.one", [2, 1, 0, 0, 0]);
    expect(&proxy, "another's endpoints", "cluster.late", [2, 0, 0, 0, 0]);
    server.send(&[("one", at("one", 1))], &[]);
    expect(&proxy, "the same endpoints", "cluster.one", [3, 2, 0, 0, 0]);
    assert_eq!(proxy.stat("cluster.one.update_no_rebuild"), Some(1));

    server.subscription(type_url::LISTENER);
    let l: Listener = codec.from_json_value(&listener(&ads, None)).unwrap();
    server.send(&[("l", l)], &[]);
    expect(&proxy, "the first request", "http.in.rds.table", [1, 0, 0, 0, 0]);
    let table = |status| -> RouteConfiguration { codec.from_json_value(&routes("table", status)).unwrap() };
    server.send(&[("table", table(201))], &[]);
    expect(&proxy, "routes", "http.in.rds.table", [2, 1, 0, 0, 0]);
    assert!(server.send(&[("table", table(2))], &[]).error_detail.is_some());
    expect(&proxy, "bad routes", "http.in.rds.table", [3, 1, 0, 1, 0]);
    assert_eq!(proxy.stat("http.in.rds.table.config_reload"), Some(1));
    server.send::<ClusterLoadAssignment>(&[], &["one"]);
    expect(&proxy, "endpoints that are gone", "cluster.one", [4, 3, 0, 0, 1]);
    let lds = "listener_manager.lds";
    expect(&proxy, "listeners", lds, [2, 1, 0, 0, 0]);
    drop(server);
    wait("the stream's end", || (proxy.stat("cluster.one.update_failure")? >= 1).then_some(()));
    for object in [lds, "cluster_manager.cds", "cluster.late", "http.in.rds.table"] {
        assert!(proxy.stat(&format!("{object}.update_failure")).unwrap_or(0) >= 1, "{object}");
    }
}

#[test]
fn a_server_of_its_own_has_a_state_of_its_own() {
    let server = Server::start(None);
    let h2 = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let options = json!({"@type": format!("type.googleapis.com/{h2}"),
        "explicit_http_config": {"http2_protocol_options": {}}});
    let to = |name: &str, port: u16| {
        json!({"name": name, "connect_timeout": "1s", "load_assignment": endpoints(name, port),
            "typed_extension_protocol_options": {h2: options}})
    };
    let source = |cluster: &str| {
        let services = json!([{"envoy_grpc": {"cluster_name": cluster}}]);
        json!({"initial_fetch_timeout": "0.05s", "resource_api_version": "V3", "api_config_source":
            {"api_type": "DELTA_GRPC", "transport_api_version": "V3", "grpc_services": services}})
    };
    let bootstrap = json!({"node": {"id": "one", "cluster": "c"},
        "dynamic_resources": {"cds_config": source("away")},
        "static_resources": {"clusters": [to("away", 1), to("there", server.address.port())],
            "listeners": [listener(&source("there"), None)]}});
    let proxy = Proxy::ready(&sections(&bootstrap), &[]);
    let state = |object: &str| proxy.stat(&format!("{object}.control_plane.connected_state"));
    wait("a failure", || (proxy.stat("cluster_manager.cds.update_failure")? >= 1).then_some(()));
    assert_eq!(state("cluster_manager.cds"), Some(0));
    assert_eq!(proxy.stat("control_plane.connected_state").unwrap_or(0), 0, "nobody is aggregated");
    wait("the end of a stream to a server that lacks the service", || {
        (proxy.stat("http.in.rds.table.update_failure")? >= 1 && state("http.in.rds.table")? == 0)
            .then_some(())
    });
}

#[test]
fn scopes_of_routes_are_counted_as_a_whole() {
    let codec = Codec::new();
    let mut server = Server::start(None);
    let ads = json!({"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"});
    let h2 = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let options = json!({"@type": format!("type.googleapis.com/{h2}"),
        "explicit_http_config": {"http2_protocol_options": {}}});
    let mut scoped = listener(&ads, None);
    let hcm = &mut scoped["filter_chains"][0]["filters"][0]["typed_config"];
    hcm.as_object_mut().unwrap().remove("rds");
    let fragment = json!({"header_value_extractor": {"name": "x-scope", "index": 0}});
    hcm["scoped_routes"] = json!({"name": "scopes", "scope_key_builder": {"fragments": [fragment]},
        "rds_config_source": ads, "scoped_rds": {"scoped_rds_config_source": ads}});
    let bootstrap = json!({"node": {"id": "one", "cluster": "c"},
        "dynamic_resources": {"ads_config": {
            "api_type": "DELTA_GRPC", "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
        }},
        "static_resources": {"listeners": [scoped], "clusters": [{"name": "xds", "connect_timeout": "1s",
            "typed_extension_protocol_options": {h2: options},
            "load_assignment": endpoints("xds", server.address.port())}]}});
    let proxy = Proxy::start(&sections(&bootstrap), &[]);
    let object = "http.in.scoped_rds.scopes";
    server.subscription(type_url::SCOPED_ROUTE);
    expect(&proxy, "the first request", object, [1, 0, 0, 0, 0]);
    let scope = |name: &str, table: &str| -> ScopedRouteConfiguration {
        let key = json!({"fragments": [{"string_key": name}]});
        let text = json!({"name": name, "route_configuration_name": table, "key": key});
        codec.from_json_value(&text).unwrap()
    };
    server.send(&[("a", scope("a", "table"))], &[]);
    expect(&proxy, "a scope", object, [2, 1, 0, 0, 0]);
    server.subscription(type_url::ROUTE);
    let table: RouteConfiguration = codec.from_json_value(&routes("table", 201)).unwrap();
    server.send(&[("table", table)], &[]);
    let metrics = proxy.admin("GET", "/stats/prometheus").body;
    for line in [
        "envoy_http_scoped_rds_update_success{envoy_scoped_rds_config=\"scopes\",envoy_http_conn_manager_prefix=\"in\"} 1",
        "envoy_http_scoped_rds_all_scopes{envoy_scoped_rds_config=\"scopes\",envoy_http_conn_manager_prefix=\"in\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is in {metrics}");
    }
    let page = proxy.admin("GET", "/config_dump?resource=dynamic_scoped_route_configs").body;
    let page: Value = serde_json::from_str(&page).unwrap();
    let dump = &page["configs"][0];
    assert_eq!([&dump["name"], &dump["version_info"]], ["scopes", "n1"]);
    assert_eq!(dump["scoped_route_configs"][0]["route_configuration_name"], "table");
}

#[test]
fn a_filters_configuration_is_counted() {
    const RBAC: &str = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";
    let files = Files(tempfile::tempdir().unwrap());
    let policy = |name: &str, action: &str| {
        let any = json!({"permissions": [{"any": true}], "principals": [{"any": true}]});
        let rules = json!({"action": action, "policies": {"all": any}});
        let policy = json!({"name": name, "typed_config": {"@type": RBAC, "rules": rules}});
        files.resource("ecds.yaml", "envoy.config.core.v3.TypedExtensionConfig", policy);
    };
    policy("policy", "ALLOW");
    files.resource("rds.yaml", ROUTES, routes("table", 201));
    let mut listener = listener(&files.source("rds.yaml"), None);
    let discovery = json!({"config_source": files.source("ecds.yaml"), "type_urls": [RBAC]});
    let filters = &mut listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"];
    filters.as_array_mut().unwrap().insert(0, json!({"name": "policy", "config_discovery": discovery}));
    let bootstrap =
        json!({"node": {"id": "n", "cluster": "c"}, "static_resources": {"listeners": [listener]}});
    let proxy = Proxy::ready(&sections(&bootstrap), &[]);
    let object = "extension_config_discovery.http_filter.policy";
    let config = |what: &str| proxy.stat(&format!("{object}.config_{what}")).unwrap_or(0);
    expect(&proxy, "the first look", object, [1, 1, 0, 0, 0]);
    policy("policy", "DENY");
    expect(&proxy, "another policy", object, [2, 2, 0, 0, 0]);
    assert_eq!([config("reload"), config("fail")], [2, 0]);
    files.put("ecds.yaml", "resources: [{");
    expect(&proxy, "a file that is none", object, [3, 2, 1, 0, 0]);
    files.put("ecds.yaml", "resources: []");
    expect(&proxy, "no policy", object, [4, 2, 1, 1, 0]);
    policy("other", "ALLOW");
    expect(&proxy, "another's policy", object, [5, 2, 1, 2, 0]);
    assert_eq!([config("reload"), config("fail")], [2, 3]);
}
