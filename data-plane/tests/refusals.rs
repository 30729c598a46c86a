//! What a management server sends that must not be taken, and what it may send. Envoy passes these tests, too.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

#[path = "support/certs.rs"]
mod certs;

use std::collections::HashSet;

use serde_json::{Value, json};
use support::xds::Server;
use support::{Backend, Proxy, call, wait};
use xds_api::codec::Codec;
use xds_api::envoy::config::cluster::v3::Cluster;
use xds_api::envoy::config::endpoint::v3::ClusterLoadAssignment;
use xds_api::envoy::config::listener::v3::Listener;
use xds_api::envoy::config::route::v3::RouteConfiguration;
use xds_api::envoy::extensions::transport_sockets::tls::v3::Secret;

fn ads() -> Value {
    json!({"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"})
}

fn endpoints(name: &str, port: u16) -> Value {
    let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    json!({"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]})
}

fn routes(name: &str, cluster: &str) -> Value {
    let route = json!({"match": {"prefix": "/"}, "route": {"cluster": cluster}});
    json!({"name": name, "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [route]}]})
}

/// A listener with these routes (a field of its connection manager).
fn listener(name: &str, port: u16, field: &str, routes: &Value) -> Value {
    let router = json!({"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"});
    let hcm = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.\
                  HttpConnectionManager",
        "stat_prefix": "in",
        field: routes,
        "http_filters": [{"name": "router", "typed_config": router}],
    });
    let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    let chain = json!({"filters": [{"name": "hcm", "typed_config": hcm}]});
    json!({"name": name, "address": address, "filter_chains": [chain]})
}

fn rds() -> Value {
    json!({"route_config_name": "table", "config_source": ads()})
}

/// A server, a proxy that asks it for everything, and what makes its resources.
struct Mesh {
    server: Server,
    proxy: Proxy,
    codec: Codec,
    asked: HashSet<String>,
}

impl Mesh {
    fn start() -> Self {
        Self::with(&[])
    }

    /// The same with listeners of the bootstrap.
    fn with(listeners: &[Value]) -> Self {
        let server = Server::start(None);
        let h2 = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        let options = json!({"@type": format!("type.googleapis.com/{h2}"),
            "explicit_http_config": {"http2_protocol_options": {}}});
        let api = json!({"api_type": "DELTA_GRPC", "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}]});
        let xds = json!({"name": "xds", "connect_timeout": "1s",
            "typed_extension_protocol_options": {h2: options},
            "load_assignment": endpoints("xds", server.address.port())});
        let bootstrap = format!(
            "node: {{id: one, cluster: some}}\ndynamic_resources: {}\nstatic_resources: {}\n",
            json!({"ads_config": api, "cds_config": ads(), "lds_config": ads()}),
            json!({"clusters": [xds], "listeners": listeners}),
        );
        let proxy = Proxy::start(&bootstrap, &[]);
        Self { server, proxy, codec: Codec::new(), asked: HashSet::new() }
    }

    /// Sends resources, and tells why they were refused.
    fn send<M: prost::Message + prost::Name + Default>(
        &mut self,
        resources: &[(&str, Value)],
        removed: &[&str],
    ) -> Option<String> {
        let resources: Vec<(&str, M)> = resources
            .iter()
            .map(|(name, value)| (*name, self.codec.from_json_value(value).unwrap()))
            .collect();
        if self.asked.insert(M::type_url()) {
            self.server.subscription(&M::type_url());
        }
        self.server.send(&resources, removed).error_detail.map(|error| error.message)
    }

    fn refused<M: prost::Message + prost::Name + Default>(
        &mut self,
        resources: &[(&str, Value)],
        words: &[&str],
    ) {
        let said = self.send::<M>(resources, &[]).expect("a refusal");
        for word in words {
            assert!(said.contains(word), "{word} is in {said}");
        }
    }

    fn taken<M: prost::Message + prost::Name + Default>(
        &mut self,
        resources: &[(&str, Value)],
        removed: &[&str],
    ) {
        assert_eq!(self.send::<M>(resources, removed), None);
    }

    fn body(&self, name: &str) -> String {
        call(self.proxy.listener(name), "GET", "/", &[]).unwrap().body
    }

    fn stat(&self, name: &str) -> i64 {
        self.proxy.stat(name).unwrap_or(0)
    }
}

fn a_cluster(name: &str, backend: &Backend) -> Value {
    json!({"name": name, "connect_timeout": "1s", "load_assignment": endpoints(name, backend.address.port())})
}

/// A port that is free now.
fn port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_resource_is_called_as_it_was_asked_for() {
    let (mut mesh, backend) = (Mesh::start(), Backend::start("one"));
    let at = backend.address.port();
    let eds = json!({"name": "eds", "connect_timeout": "1s", "type": "EDS",
        "eds_cluster_config": {"eds_config": ads()}});
    mesh.taken::<Cluster>(&[("eds", eds)], &[]);
    mesh.refused::<ClusterLoadAssignment>(&[("eds", endpoints("other", at))], &["eds", "other"]);
    mesh.taken::<ClusterLoadAssignment>(&[("eds", endpoints("eds", at))], &[]);
    mesh.taken::<Listener>(&[("l", listener("l", 0, "rds", &rds()))], &[]);
    mesh.refused::<RouteConfiguration>(&[("table", routes("other", "eds"))], &["table", "other"]);
    mesh.taken::<RouteConfiguration>(&[("table", routes("table", "eds"))], &[]);
    assert_eq!(mesh.body("l"), "one");
    assert_eq!(mesh.stat("cluster.eds.update_rejected"), 1);
    assert_eq!(mesh.stat("http.in.rds.table.update_rejected"), 1);
}

#[test]
fn a_secret_is_what_it_is_for() {
    let (mut mesh, backend) = (Mesh::start(), Backend::start("one"));
    let authority = certs::Authority::new();
    let certificate = |name: &str, serial| {
        let signed = authority.sign(serial, &["localhost"]);
        let (chain, key) = (json!({"inline_string": signed.cert}), json!({"inline_string": signed.key}));
        json!({"name": name, "tls_certificate": {"certificate_chain": chain, "private_key": key}})
    };
    mesh.taken::<Cluster>(&[("one", a_cluster("one", &backend))], &[]);
    let mut tls = listener("l", 0, "route_config", &routes("t", "one"));
    tls["filter_chains"][0]["transport_socket"] = json!({"name": "tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {"tls_certificate_sds_secret_configs": [{"name": "own", "sds_config": ads()}]},
    }});
    mesh.taken::<Listener>(&[("l", tls)], &[]);
    let root = json!({"name": "own", "validation_context": {"trusted_ca": {"inline_string": authority.pem}}});
    mesh.refused::<Secret>(&[("own", root.clone())], &[]);
    mesh.taken::<Secret>(&[("own", certificate("own", 1))], &[]);
    let listens = mesh.proxy.listener("l");
    let serves = || authority.connect(listens, "localhost", None).is_ok();
    wait("a handshake", || serves().then_some(()));
    mesh.refused::<Secret>(&[("own", root)], &[]);
    mesh.refused::<Secret>(&[("own", certificate("other", 2))], &["own", "other"]);
    assert!(serves(), "the last good one stays");
    assert_eq!(mesh.stat("sds.own.update_rejected"), 3);
}

#[test]
fn routes_name_clusters_that_are_known() {
    let (mut mesh, backend) = (Mesh::start(), Backend::start("one"));
    mesh.taken::<Cluster>(&[("one", a_cluster("one", &backend))], &[]);
    let inline = |cluster: &str| listener("l", 0, "route_config", &routes("t", cluster));
    mesh.refused::<Listener>(&[("l", inline("gone"))], &["l: ", "unknown cluster", "gone"]);
    let mut silent = routes("t", "gone");
    silent["validate_clusters"] = false.into();
    mesh.taken::<Listener>(&[("l", listener("l", 0, "route_config", &silent))], &[]);
    mesh.taken::<Listener>(&[("l", listener("l", 0, "rds", &rds()))], &[]);
    let mut checked = routes("table", "gone");
    checked["validate_clusters"] = true.into();
    mesh.refused::<RouteConfiguration>(&[("table", checked.clone())], &["unknown cluster", "gone"]);
    checked["virtual_hosts"] = routes("table", "one")["virtual_hosts"].clone();
    mesh.taken::<RouteConfiguration>(&[("table", checked)], &[]);
    wait("the routes", || {
        (call(mesh.proxy.listener("l"), "GET", "/", &[]).ok()?.body == "one").then_some(())
    });
    mesh.taken::<RouteConfiguration>(&[("table", routes("table", "gone"))], &[]);
    wait("503", || (call(mesh.proxy.listener("l"), "GET", "/", &[]).ok()?.status == 503).then_some(()));
}

#[test]
fn an_address_is_one_listeners() {
    let (mut mesh, backend) = (Mesh::start(), Backend::start("one"));
    mesh.taken::<Cluster>(&[("one", a_cluster("one", &backend)), ("two", a_cluster("two", &backend))], &[]);
    let at = port();
    let on = |name: &str, port| listener(name, port, "route_config", &routes("t", "one"));
    mesh.taken::<Listener>(&[("a", on("a", at))], &[]);
    mesh.refused::<Listener>(&[("b", on("b", at)), ("c", on("c", 0))], &["b: ", &at.to_string()]);
    assert_eq!((mesh.body("a"), mesh.body("c")), ("one".to_owned(), "one".to_owned()));
    mesh.taken::<Listener>(&[("b", on("b", at)), ("d", on("d", 0))], &["a", "nobody"]);
    wait("another's listener", || (mesh.proxy.listener("b").port() == at).then_some(()));
    mesh.taken::<Cluster>(&[], &["two", "nobody"]);
    assert_eq!(mesh.stat("listener_manager.listener_removed"), 1);
    assert_eq!(mesh.stat("cluster_manager.cluster_removed"), 1);
    assert_eq!(mesh.stat("cluster_manager.cds.config_reload"), 1, "nothing was added then");
}

/// The version of what changed last is told by each resource, and which was taken last by text and hash.
#[test]
fn a_listener_that_cannot_listen_is_refused_also_where_it_would_wait() {
    let (mut mesh, backend) = (Mesh::start(), Backend::start("one"));
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().port();
    mesh.taken::<Cluster>(&[("c", a_cluster("c", &backend))], &[]);
    let waits = listener("waits", taken, "rds", &rds());
    let free = listener("free", 0, "route_config", &routes("t", "c"));
    mesh.refused::<Listener>(&[("waits", waits.clone()), ("free", free)], &["waits", "cannot bind"]);
    assert_eq!(mesh.stat("listener_manager.listener_create_failure"), 1);
    assert_eq!(mesh.body("free"), "one");
    drop(other);
    mesh.taken::<Listener>(&[("waits", waits)], &[]);
    mesh.taken::<RouteConfiguration>(&[("table", routes("table", "c"))], &[]);
    assert_eq!(mesh.body("waits"), "one");
}

#[test]
fn versions_are_told() {
    let (mut mesh, backend) = (Mesh::start(), Backend::start("one"));
    let (one, two) = (a_cluster("one", &backend), a_cluster("two", &backend));
    mesh.taken::<Cluster>(&[("one", one.clone())], &[]);
    let versions = |mesh: &Mesh| -> Value {
        let page = mesh.proxy.admin("GET", "/config_dump").body;
        let page: Value = serde_json::from_str(&page).unwrap();
        let dump = page["configs"].as_array().unwrap().iter().find(|part| part["version_info"].is_string());
        let dump = dump.unwrap();
        let each = dump["dynamic_active_clusters"].as_array().unwrap().iter();
        json!([dump["version_info"], each.map(|one| one["version_info"].clone()).collect::<Vec<_>>()])
    };
    let told = |mesh: &Mesh| {
        let page = mesh.proxy.admin("GET", "/stats?filter=cluster_manager.cds.version").body;
        page.replace("cluster_manager.cds.", "")
    };
    mesh.taken::<Listener>(&[], &[]);
    assert_eq!(versions(&mesh), json!(["n1", ["n1"]]));
    assert_eq!(told(&mesh), "version_text: \"n1\"\nversion: 5894824055016522919\n");
    mesh.taken::<Cluster>(&[("one", one)], &[]);
    assert_eq!(versions(&mesh), json!(["n1", ["n1"]]), "nothing changed");
    assert!(told(&mesh).starts_with("version_text: \"n3\"\n"));
    mesh.taken::<Cluster>(&[("two", two)], &[]);
    assert_eq!(versions(&mesh), json!(["n4", ["n1", "n4"]]));
    let texts = mesh.proxy.admin("GET", "/stats?type=TextReadouts&usedonly").body;
    assert!(texts.contains("cluster_manager.cds.version_text: \"n4\"\n") && !texts.contains("version: "));
    let metrics = |query: &str| mesh.proxy.admin("GET", &format!("/stats/prometheus{query}")).body;
    let text = "envoy_cluster_manager_cds_version_text{text_value=\"n4\"} 0";
    assert!(metrics("?text_readouts").contains(text) && !metrics("").contains("version_text"));
}

/// What is in force and what is to come stand side by side, and what is waited for is said.
#[test]
fn a_dump_has_both_versions_and_what_is_missing() {
    let (mut mesh, backend) = (Mesh::start(), Backend::start("one"));
    mesh.taken::<Cluster>(&[("one", a_cluster("one", &backend))], &[]);
    let inline = listener("l", 0, "route_config", &routes("t", "one"));
    mesh.taken::<Listener>(&[("l", inline)], &[]);
    mesh.proxy.listener("l");
    let mut late = listener("l", 0, "rds", &rds());
    late["filter_chains"][0]["transport_socket"] = json!({"name": "tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {"tls_certificate_sds_secret_configs": [{"name": "own", "sds_config": ads()}]},
    }});
    mesh.taken::<Listener>(&[("l", late)], &[]);
    let dump = |what: &str| -> Value {
        let page = mesh.proxy.admin("GET", &format!("/config_dump?resource={what}")).body;
        serde_json::from_str::<Value>(&page).unwrap()["configs"][0].take()
    };
    let listener = dump("dynamic_listeners");
    let table = |state: &str| {
        let filter = &listener[state]["listener"]["filter_chains"][0]["filters"][0];
        filter["typed_config"].get("rds").map(|rds| rds["route_config_name"].clone())
    };
    assert!(listener["active_state"].is_object() && table("active_state").is_none(), "{listener}");
    assert_eq!(table("warming_state"), Some("table".into()));
    let mut never = listener["warming_state"]["listener"].clone();
    never.as_object_mut().unwrap().remove("@type");
    never["name"] = "never".into();
    mesh.taken::<Listener>(&[("never", never.clone())], &[]);
    never["tcp_backlog_size"] = 5.into();
    mesh.taken::<Listener>(&[("never", never)], &[]);
    let dump = |what: &str, at: usize| -> Value {
        let page = mesh.proxy.admin("GET", &format!("/config_dump?resource={what}")).body;
        serde_json::from_str::<Value>(&page).unwrap()["configs"][at].take()
    };
    let listener = dump("dynamic_listeners", 1);
    assert_eq!(listener["warming_state"]["listener"]["tcp_backlog_size"], 5, "{listener}");
    assert!(listener.get("active_state").is_none(), "it never was in force: {listener}");
    let secret = dump("dynamic_warming_secrets", 0);
    assert_eq!([&secret["name"], &secret["version_info"]], ["own", "uninitialized"]);
    assert_eq!(mesh.body("l"), "one");
    let clusters = |query: &str| mesh.proxy.admin("GET", &format!("/clusters?filter={query}")).body;
    assert!(clusters("^one$").contains("one::added_via_api::true") && !clusters("^one$").contains("xds::"));
    let inverted = mesh.proxy.admin("GET", "/stats?filter=cluster&invert_filter").body;
    assert!(inverted.contains("server.live: 1\n") && !inverted.contains("cluster."), "{inverted}");
}

#[test]
fn a_secret_that_never_comes_is_told() {
    let (mut mesh, backend) = (Mesh::start(), Backend::start("one"));
    let soon = json!({"ads": {}, "initial_fetch_timeout": "0.05s", "resource_api_version": "V3"});
    let socket = |side: &str, field: &str, secret: Value| {
        json!({"name": "tls", "typed_config": {
            "@type": format!("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{side}TlsContext"),
            "common_tls_context": {field: secret},
        }})
    };
    let secret = |name: &str| json!({"name": name, "sds_config": soon});
    let mut late = a_cluster("late", &backend);
    late["transport_socket"] = socket("Upstream", "validation_context_sds_secret_config", secret("root"));
    mesh.taken::<Cluster>(&[("late", late)], &[]);
    let mut waits = listener("waits", 0, "route_config", &routes("t", "late"));
    let own = json!([secret("own")]);
    waits["stat_prefix"] = "waits".into();
    waits["filter_chains"][0]["transport_socket"] =
        socket("Downstream", "tls_certificate_sds_secret_configs", own);
    let plain = listener("plain", 0, "route_config", &routes("t", "late"));
    mesh.taken::<Listener>(&[("waits", waits), ("plain", plain)], &[]);
    wait("readiness", || (mesh.proxy.admin("GET", "/ready").status == 200).then_some(()));
    assert_eq!(call(mesh.proxy.listener("plain"), "GET", "/", &[]).unwrap().status, 503);
    assert!(mesh.stat("cluster.late.client_ssl_socket_factory.upstream_context_secrets_not_ready") >= 1);
    let waits = mesh.proxy.listener("waits");
    assert!(certs::Authority::new().connect(waits, "localhost", None).is_err());
    wait("the count", || {
        let name = "listener.waits.server_ssl_socket_factory.downstream_context_secrets_not_ready";
        (mesh.stat(name) == 1).then_some(())
    });
}

#[test]
fn a_listener_of_the_bootstrap_is_not_the_servers() {
    let backend = Backend::start("one");
    let fixed = json!([{"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "own"}}}]);
    let table = json!({"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": fixed}]});
    let mut mesh = Mesh::with(&[listener("fixed", 0, "route_config", &table)]);
    mesh.taken::<Cluster>(&[("one", a_cluster("one", &backend))], &[]);
    let other = |name: &str| listener(name, 0, "route_config", &routes("t", "one"));
    // Envoy does not say so.
    let _ = mesh.send::<Listener>(&[("fixed", other("fixed")), ("more", other("more"))], &[]);
    wait("readiness", || (mesh.proxy.admin("GET", "/ready").status == 200).then_some(()));
    assert_eq!((mesh.body("fixed"), mesh.body("more")), ("own".to_owned(), "one".to_owned()));
    mesh.taken::<Listener>(&[], &["fixed", "more"]);
    wait("the end of the other", || {
        (!mesh.proxy.admin("GET", "/listeners").body.contains("more")).then_some(())
    });
    assert_eq!(mesh.body("fixed"), "own");
    assert_eq!(mesh.stat("listener_manager.listener_removed"), 1);
}
