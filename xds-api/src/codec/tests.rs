//! What Envoy's configuration files look like, good and bad.

use super::*;
use crate::envoy::config::bootstrap::v3::Bootstrap;
use crate::envoy::config::cluster::v3::Cluster;
use crate::envoy::config::listener::v3::Listener;
use crate::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use crate::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use crate::envoy::extensions::transport_sockets::tls::v3::Secret;

fn error<M: Message + Name + Default + std::fmt::Debug>(yaml: &str) -> String {
    Codec::new().from_yaml::<M>(yaml).expect_err("the text is wrong").to_string()
}

const LISTENER: &str = r#"
name: in
address: {socket_address: {address: 0.0.0.0, port_value: 15006}}
useOriginalDst: true
listener_filters_timeout: 0.5s
filter_chains:
- filters:
  - name: envoy.filters.network.http_connection_manager
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: 9080
      route_config:
        name: local
        virtual_hosts:
        - {name: any, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: app, timeout: 0s}}]}
"#;

#[test]
fn reads_nested_any_both_spellings_and_scalars_that_look_like_numbers() {
    let listener: Listener = Codec::new().from_yaml(LISTENER).unwrap();
    assert_eq!(listener.use_original_dst.as_ref().map(|flag| flag.value), Some(true));
    assert_eq!(listener.listener_filters_timeout.as_ref().map(|timeout| timeout.nanos), Some(500_000_000));
    let filter = &listener.filter_chains[0].filters[0];
    let crate::envoy::config::listener::v3::filter::ConfigType::TypedConfig(any) =
        filter.config_type.as_ref().unwrap()
    else {
        panic!("the filter has no typed config");
    };
    let manager: HttpConnectionManager = crate::any::unpack(any).unwrap();
    assert_eq!(manager.stat_prefix, "9080");
    let Some(RouteSpecifier::RouteConfig(routes)) = manager.route_specifier else { panic!("no routes") };
    assert_eq!(routes.virtual_hosts[0].domains, ["*"]);
}

#[test]
fn what_was_written_reads_back() {
    let codec = Codec::new();
    let listener: Listener = codec.from_yaml(LISTENER).unwrap();
    let json = codec.to_json(&listener).unwrap();
    assert_eq!(json["use_original_dst"], Value::Bool(true));
    assert_eq!(codec.from_json_value::<Listener>(&json).unwrap(), listener);
}

#[test]
fn an_error_names_the_field_inside_an_any() {
    let wrong = LISTENER.replace("domains: [\"*\"]", "domains: {}");
    assert_eq!(
        error::<Listener>(&wrong),
        "filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0].domains: expected a string, found {}"
    );
}

#[test]
fn errors_say_what_was_expected() {
    for (yaml, expected) in [
        ("nmae: x", "nmae: envoy.config.cluster.v3.Cluster has no such field"),
        ("connect_timeout: soon", "connect_timeout: "),
        ("lb_policy: FASTEST", "lb_policy: \"FASTEST\" is not one of ROUND_ROBIN, LEAST_REQUEST"),
        ("type: EDS\ncluster_type: {name: x}", "cluster_type: excludes type, which is given too"),
        ("per_connection_buffer_limit_bytes: -1", "per_connection_buffer_limit_bytes: "),
        ("dns_lookup_family: 1.5", "dns_lookup_family: expected a whole number, found 1.5"),
        (
            "transport_socket: {name: tls, typed_config: {\"@type\": type.googleapis.com/x.Y}}",
            "transport_socket.typed_config.@type: message \"x.Y\" is not known",
        ),
        (
            "transport_socket: {name: tls, typed_config: {sni: x}}",
            "transport_socket.typed_config: has no @type",
        ),
        ("- 1", "expected an object, found [1]"),
        ("{", "not valid YAML or JSON"),
        ("name: !custom x", "not valid YAML or JSON: the tag"),
    ] {
        let message = error::<Cluster>(yaml);
        assert!(message.starts_with(expected), "{yaml:?} gave {message:?}");
    }
}

#[test]
fn unknown_fields_may_be_allowed_and_are_listed() {
    let value = parse("name: x\nflavour: sweet\nload_assignment: {cluster_name: x, colour: red}").unwrap();
    let read = Codec::new().read::<Cluster>(&value, UnknownFields::Allow).unwrap();
    assert_eq!(read.message.name, "x");
    assert_eq!(read.unknown, ["flavour", "load_assignment.colour"]);
}

#[test]
fn yaml_beyond_json() {
    let yaml = "
node: {id: &id sidecar~10.0.0.1, cluster: *id, metadata: {PORTS: {8080: http}, RATE: 1.5, NONE: null}}
static_resources:
  clusters:
  - &base {name: a, type: STATIC, connect_timeout: 1s}
  - {<<: *base, name: b}
";
    let bootstrap: Bootstrap = Codec::new().from_yaml(yaml).unwrap();
    let node = bootstrap.node.unwrap();
    assert_eq!(node.cluster, "sidecar~10.0.0.1");
    assert!(node.metadata.unwrap().fields.contains_key("PORTS"));
    let clusters = bootstrap.static_resources.unwrap().clusters;
    assert_eq!((clusters[1].name.as_str(), clusters[1].connect_timeout), ("b", clusters[0].connect_timeout));
}

/// What stands in many of Envoy's examples, and Envoy 1.40 reads.
#[test]
fn files_that_envoy_reads_are_read() {
    let cluster = |yaml: &str| Codec::new().from_yaml::<Cluster>(yaml).unwrap();
    let strict =
        cluster("{type: STRICT_DNS, lb_policy: LEAST_REQUEST, respect_dns_ttl: true, connect_timeout: 1.5s}");
    let loose = "{type: strict_dns, lb_policy: Least_Request, respect_dns_ttl: yes, \
                 connect_timeout: {seconds: 1, nanos: 500000000}}";
    assert_eq!(cluster(loose), strict);
    assert_eq!(cluster(&loose.replace("yes", "\"true\"")), strict);
    assert_eq!(cluster(&format!("\u{feff}{loose}")), strict);
    assert_eq!(
        cluster(&loose.replace("strict_dns", "\"1\"").replace("seconds: 1", "seconds: \"1.0\"")),
        strict
    );
    // A list of one without its brackets, and a wrapper as the message that it is.
    assert_eq!(
        cluster(
            "{health_checks: {timeout: 1s, interval: 1s, http_health_check: {path: /, expected_statuses: \
             {start: 1, end: 2}}}, circuit_breakers: {thresholds: {max_requests: {value: 1}}}}"
        ),
        cluster(
            "{health_checks: [{timeout: 1s, interval: 1s, http_health_check: {path: /, expected_statuses: \
             [{start: 1, end: 2}]}}], circuit_breakers: {thresholds: [{max_requests: 1}]}}"
        )
    );
    for (yaml, expected) in [
        ("respect_dns_ttl: maybe", "respect_dns_ttl: expected true or false, found \"maybe\""),
        (
            "connect_timeout: {second: 1}",
            "connect_timeout.second: google.protobuf.Duration has no such field",
        ),
    ] {
        assert_eq!(error::<Cluster>(yaml), expected);
    }
}

#[test]
fn a_typed_struct_is_the_message_that_it_stands_for() {
    let socket = |any: &str| format!("name: c\ntransport_socket: {{name: t, typed_config: {any}}}");
    let url = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
    let plain: Cluster = Codec::new().from_yaml(&socket(&format!("{{'@type': {url}, sni: a}}"))).unwrap();
    for kind in ["xds.type.v3", "udpa.type.v1"] {
        let wrapped = format!(
            "{{'@type': type.googleapis.com/{kind}.TypedStruct, type_url: {url}, value: {{sni: a}}}}"
        );
        let bytes = encode_text::<Cluster>(&socket(&wrapped), UnknownFields::Reject).unwrap().message;
        assert_eq!(Cluster::decode(bytes.as_slice()).unwrap(), plain, "{kind}");
    }
    let wrong =
        socket(&format!("{{'@type': x/xds.type.v3.TypedStruct, type_url: {url}, value: {{sno: a}}}}"));
    assert!(error::<Cluster>(&wrong).starts_with("transport_socket.typed_config.value.sno: "));
}

#[test]
fn bytes_are_base64_and_an_empty_any_is_allowed() {
    let secret: Secret =
        Codec::new().from_yaml("name: s\ngeneric_secret: {secret: {inline_bytes: aGVsbG8=}}").unwrap();
    assert!(format!("{secret:?}").contains("[104, 101, 108, 108, 111]"));
    let cluster: Cluster = Codec::new().from_yaml("transport_socket: {name: raw, typed_config: {}}").unwrap();
    assert!(cluster.transport_socket.unwrap().config_type.is_some());
}

#[test]
fn one_message_lies_over_another() {
    use crate::codec::Lists;
    use crate::envoy::config::cluster::v3::Cluster;
    let codec = Codec::new();
    let base: Cluster = codec
        .from_yaml(
            "{name: a, connect_timeout: 1.5s, type: EDS, respect_dns_ttl: true, alt_stat_name: x, \
             track_cluster_stats: {timeout_budgets: true}, \
             health_checks: [{timeout: 1s, interval: 1s, no_traffic_interval: 9s, tcp_health_check: {}}], \
             typed_extension_protocol_options: {p: {'@type': \
             type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, \
             common_http_protocol_options: {max_requests_per_connection: 5, idle_timeout: 3.5s}, \
             explicit_http_config: {http_protocol_options: {}}}}, \
             transport_socket: {name: t, typed_config: {'@type': \
             type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, sni: a}}, \
             lb_subset_config: {list_as_any: true}, common_lb_config: {healthy_panic_threshold: {value: 50}}}",
        )
        .unwrap();
    let over: Cluster = codec
        .from_yaml(
            "{connect_timeout: 2s, track_cluster_stats: {request_response_sizes: true}, \
             health_checks: [{timeout: 2s, interval: 1s, tcp_health_check: {}}], \
             transport_socket: {typed_config: {'@type': \
             type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, \
             max_session_keys: 0}}, cluster_type: {name: custom}}",
        )
        .unwrap();
    let merged = codec.to_json(&codec.merge(&base, &over, Lists::Append).unwrap()).unwrap();
    assert_eq!(merged["connect_timeout"], "2s");
    assert_eq!(merged["name"], "a");
    assert_eq!(merged["health_checks"].as_array().unwrap().len(), 2);
    assert_eq!(merged["track_cluster_stats"].as_object().unwrap().len(), 2);
    let tls = &merged["transport_socket"]["typed_config"];
    assert_eq!((&tls["sni"], &tls["max_session_keys"]), (&"a".into(), &0.into()));
    // The other member of the oneof gave way.
    assert!(merged.get("type").is_none() && merged["cluster_type"]["name"] == "custom", "{merged}");
    let replaced = codec.to_json(&codec.merge(&base, &over, Lists::Replace).unwrap()).unwrap();
    assert_eq!(replaced["health_checks"].as_array().unwrap().len(), 1);
}

#[test]
fn fields_that_are_not_known_are_found() {
    use prost::Message;
    let codec = Codec::new();
    let yaml = "{name: a, transport_socket: {name: t, typed_config: {'@type': \
                type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, sni: a}}}";
    let cluster: Cluster = codec.from_yaml(yaml).unwrap();
    let find = |cluster: &Cluster, extra: &[u8]| {
        let bytes = [&cluster.encode_to_vec(), extra].concat();
        codec.unknown_fields("envoy.config.cluster.v3.Cluster", &bytes).unwrap()
    };
    // Field 1000, a number.
    let extra = [0xc0, 0x3e, 0x01];
    assert_eq!(find(&cluster, &[]), None);
    assert_eq!(find(&cluster, &extra), Some(("envoy.config.cluster.v3.Cluster".to_owned(), vec![1000])));
    let mut inside = cluster.clone();
    let socket = inside.transport_socket.as_mut().unwrap();
    let Some(crate::envoy::config::core::v3::transport_socket::ConfigType::TypedConfig(any)) =
        socket.config_type.as_mut()
    else {
        panic!("it has a configuration")
    };
    any.value.extend(extra);
    let name = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
    assert_eq!(find(&inside, &[]), Some((name.to_owned(), vec![1000])));
}

/// prost-reflect reads the same into a tree of dynamic messages; what it writes is the reference.
#[test]
fn the_bytes_are_those_of_another_encoder() {
    use prost::Message;
    let json = serde_json::json!({
        "name": "all",
        "metadata": {"filter_metadata": {"a": {"null": null, "text": "x", "flag": true, "number": -1.5,
            "empty": {}, "list": [1, "two", [], {"three": 3}]}}},
        "virtual_hosts": [{
            "name": "v".repeat(300),
            "domains": ["*"],
            "require_tls": "EXTERNAL_ONLY",
            "routes": [{
                "match": {"safe_regex": {"regex": ".*"}, "grpc": {}, "runtime_fraction":
                    {"default_value": {"numerator": 7, "denominator": "MILLION"}}},
                "route": {
                    "cluster": "c", "timeout": "0.250s", "priority": "HIGH", "auto_host_rewrite": false,
                    "retry_policy": {"num_retries": 0, "retriable_status_codes": [200, 503, 70000],
                        "host_selection_retry_max_attempts": "-3"},
                    "hash_policy": [{"terminal": true, "cookie": {"name": "n", "ttl": "0s"}}],
                },
                "typed_per_filter_config": {"f": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue", "value": "wrapped"},
                    "none": {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig"}},
            }],
        }],
        "validate_clusters": false,
        "max_direct_response_body_size_bytes": 4096,
    });
    let codec = Codec::new();
    let name = "envoy.config.route.v3.RouteConfiguration";
    let descriptor = codec.descriptor(name).unwrap();
    let (ours, _) =
        read::Reader::new(&codec.pool, UnknownFields::Reject).read(&descriptor, &Json::from(&json)).unwrap();
    let theirs = DynamicMessage::deserialize(descriptor.clone(), &json).unwrap();
    assert_eq!(DynamicMessage::decode(descriptor, ours.as_slice()).unwrap(), theirs);
    // Neither keeps an order within a map, so only the lengths can be held against each other.
    assert_eq!(ours.len(), theirs.encode_to_vec().len());
}
