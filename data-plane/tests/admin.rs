//! The admin pages, logs and spans of a proxy with a static configuration.

mod support;

use support::{Backend, Proxy, call, wait};

fn bootstrap(backend: &Backend, more: &str) -> String {
    let (ip, port) = (backend.address.ip(), backend.address.port());
    format!(
        r#"
node: {{id: "sidecar~10.0.0.1~a.default~default.svc.cluster.local", cluster: a.default}}
static_resources:
  listeners:
  - name: in
    traffic_direction: INBOUND
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          generate_request_id: true
          access_log:
          - name: envoy.access_loggers.file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: $DIR/access.log
              log_format: {{text_format_source: {{inline_string: "%REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %ROUTE_NAME% %UPSTREAM_CLUSTER%\n"}}}}
          - name: envoy.access_loggers.file
            filter: {{status_code_filter: {{comparison: {{op: GE, value: {{default_value: 400, runtime_key: x}}}}}}}}
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: $DIR/errors.json
              log_format: {{json_format: {{code: "%RESPONSE_CODE%", details: "%RESPONSE_CODE_DETAILS%"}}}}
{more}
          route_config:
            name: r
            virtual_hosts:
            - name: v
              domains: ["*"]
              routes:
              - {{name: none, match: {{prefix: /none}}, direct_response: {{status: 404}}}}
              - {{name: all, match: {{prefix: /}}, route: {{cluster: backend}}, decorator: {{operation: "backend:80/*"}}}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: backend
    type: STATIC
    connect_timeout: 1s
    load_assignment:
      cluster_name: backend
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: "{ip}", port_value: {port}}}}}}}}}]}}]
"#
    )
}

#[test]
fn pages_show_what_the_proxy_does() {
    let backend = Backend::start("hello");
    let mut proxy = Proxy::ready(&bootstrap(&backend, ""), &[]);
    let listener = proxy.listener("in");
    assert_eq!(call(listener, "GET", "/x", &[]).unwrap().body, "hello");
    assert_eq!(call(listener, "GET", "/none", &[]).unwrap().status, 404);

    wait("statistics", || (proxy.stat("http.ingress.downstream_rq_2xx")? == 1).then_some(()));
    assert_eq!(proxy.stat("cluster.backend.upstream_rq_total"), Some(1));
    assert_eq!(proxy.stat("cluster.backend.upstream_rq_200"), Some(1));
    assert_eq!(proxy.stat("cluster.backend.membership_healthy"), Some(1));
    let agent = "/stats?usedonly&filter=^(server\\.state|listener_manager\\.workers_started)";
    assert_eq!(proxy.admin("GET", agent).body, "listener_manager.workers_started: 1\nserver.state: 0\n");
    let prometheus = proxy.admin("GET", "/stats/prometheus?usedonly").body;
    let line =
        r#"envoy_cluster_upstream_rq_xx{envoy_response_code_class="2",envoy_cluster_name="backend"} 1"#;
    assert!(prometheus.lines().any(|l| l == line), "{prometheus}");

    let info: serde_json::Value = serde_json::from_str(&proxy.admin("GET", "/server_info").body).unwrap();
    assert_eq!((&info["state"], &info["node"]["cluster"]), (&"LIVE".into(), &"a.default".into()));
    let clusters = proxy.admin("GET", "/clusters").body;
    assert!(
        clusters.contains(&format!("backend::{}::health_flags::healthy\n", backend.address)),
        "{clusters}"
    );
    for line in ["cx_total::1", "rq_pending_active::0", "success_rate::-1", "local_origin_success_rate::-1"] {
        assert!(clusters.contains(&format!("backend::{}::{line}\n", backend.address)), "{line}: {clusters}");
    }
    let dump = proxy.admin("GET", "/config_dump").body;
    let dump: serde_json::Value = serde_json::from_str(&dump).unwrap();
    let types: Vec<&str> =
        dump["configs"].as_array().unwrap().iter().map(|c| c["@type"].as_str().unwrap()).collect();
    for part in ["Bootstrap", "Clusters", "Listeners", "Routes", "Secrets"] {
        let wanted = format!("type.googleapis.com/envoy.admin.v3.{part}ConfigDump");
        assert!(types.contains(&wanted.as_str()), "{types:?}");
    }

    assert_eq!(proxy.admin("GET", "/quitquitquit").status, 405);
    assert_eq!(proxy.admin("GET", "/nothing").status, 404);
    assert_eq!(proxy.admin("POST", "/reset_counters").body, "OK\n");
    assert_eq!(proxy.stat("cluster.backend.upstream_rq_total"), None);
    assert_eq!(proxy.admin("POST", "/healthcheck/fail").status, 200);
    assert_eq!(proxy.admin("GET", "/ready").status, 503);
    assert_eq!(proxy.admin("POST", "/healthcheck/ok").status, 200);
    assert_eq!(proxy.admin("GET", "/ready").body, "LIVE\n");

    let log = proxy.dir.path().join("access.log");
    let log =
        wait("two lines", || std::fs::read_to_string(&log).ok().filter(|text| text.lines().count() == 2));
    assert_eq!(log, "GET /x 200 - all backend\nGET /none 404 - none -\n");
    let errors = std::fs::read_to_string(proxy.dir.path().join("errors.json")).unwrap();
    assert_eq!(errors, "{\"code\":404,\"details\":\"direct_response\"}\n");

    assert_eq!(proxy.admin("POST", "/quitquitquit").status, 200);
    assert!(proxy.exit().success());
}

#[test]
fn spans_reach_zipkin_with_the_callers_trace() {
    let backend = Backend::start("hello");
    let zipkin = Backend::start("");
    let tracing = r#"
          tracing:
            random_sampling: {value: 100}
            provider:
              name: envoy.tracers.zipkin
              typed_config:
                "@type": type.googleapis.com/envoy.config.trace.v3.ZipkinConfig
                collector_cluster: zipkin
                collector_endpoint: /api/v2/spans
                collector_endpoint_version: HTTP_JSON
"#;
    let cluster = format!(
        r#"
  - name: zipkin
    type: STATIC
    connect_timeout: 1s
    load_assignment:
      cluster_name: zipkin
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {}}}}}}}}}]}}]
"#,
        zipkin.address.port()
    );
    let proxy = Proxy::ready(&(bootstrap(&backend, tracing) + &cluster), &[]);
    let listener = proxy.listener("in");
    let trace = "463ac35c9f6413ad";
    let headers = [("x-b3-traceid", trace), ("x-b3-spanid", "a2fb4a1d1a96d312"), ("x-b3-sampled", "1")];
    assert_eq!(call(listener, "GET", "/x", &headers).unwrap().status, 200);
    let request = backend.next().to_lowercase();
    assert!(request.contains(&format!("x-b3-traceid: {trace}\r\n")), "{request}");

    let posted = zipkin.next();
    let (head, body) = posted.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /api/v2/spans HTTP/1.1"), "{head}");
    let spans: serde_json::Value = serde_json::from_str(body).unwrap();
    let span = &spans[0];
    assert_eq!(span["traceId"], trace);
    assert_eq!(span["id"], "a2fb4a1d1a96d312", "the server shares its client's span");
    assert_eq!(span["name"], "backend:80/*");
    assert_eq!(span["kind"], "SERVER");
    assert_eq!(span["localEndpoint"]["serviceName"], "a.default");
    assert_eq!(span["tags"]["http.status_code"], "200");
    assert_eq!(span["tags"]["upstream_cluster"], "backend");
}

#[test]
fn an_address_in_use_ends_the_process_with_its_name() {
    let backend = Backend::start("hello");
    let taken = backend.address.port().to_string();
    let text = bootstrap(&backend, "").replace("port_value: 0", &format!("port_value: {taken}"));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bootstrap.yaml");
    std::fs::write(&path, text.replace("$DIR", dir.path().to_str().unwrap())).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_sail-proxy"))
        .args(["-c", path.to_str().unwrap(), "-l", "off"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("listener in") && said.contains(&taken), "{said}");
}

#[test]
fn a_wrong_bootstrap_is_told_by_file_and_field() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bootstrap.yaml");
    std::fs::write(&path, "static_resources: {clusters: [{name: a, typ: STATIC}]}").unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_sail-proxy"))
        .args(["-c", path.to_str().unwrap(), "--mode", "validate"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("bootstrap.yaml: static_resources.clusters[0].typ"), "{said}");
}

#[test]
fn flags_of_logs_and_statistics() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let flags =
        ["--stats-tag", "zone:eu-1", "--log-format", "<%l|%n> %v", "--log-path", log.to_str().unwrap()];
    let more = ["--allow-unknown-static-fields", "--enable-core-dump", "--socket-mode", "600"];
    let proxy = Proxy::ready("no_such_field: 1\n", &[&flags[..], &more].concat());
    let stats = proxy.admin("GET", "/stats/prometheus").body;
    assert!(stats.lines().any(|line| line.contains("zone=\"eu-1\"")), "{stats}");
    let lines = std::fs::read_to_string(&log).unwrap();
    assert!(
        lines.lines().any(|line| line.starts_with("<warning|misc> the bootstrap has a field")),
        "{lines}"
    );
    for (method, page) in [
        ("GET", "/heap_dump"),
        ("POST", "/cpuprofiler"),
        ("POST", "/heapprofiler"),
        ("POST", "/allocprofiler"),
    ] {
        assert_eq!(proxy.admin(method, page).status, 501, "{page}");
    }
}
