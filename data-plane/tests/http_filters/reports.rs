//! What filters tell of their work: in statistics, headers and trailers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

use super::setup::{APP, bootstrap, cluster, filter, logged};
use super::support::{Backend, Proxy, call};

#[test]
fn headers_to_metadata_are_counted() {
    let backend = Backend::start("here");
    let config = "header_to_metadata.v3.Config, stat_prefix: pre, \
                  request_rules: [{header: x-a, on_header_present: {key: a, type: NUMBER}, on_header_missing: {key: b, value: c}}, \
                  {header: x-b, on_header_present: {key: a, encode: BASE64}}], \
                  response_rules: [{header: content-length, on_header_present: {key: n}}]";
    let config = bootstrap(&filter("h2m", config), APP, &cluster("app", &[backend.address], ""));
    let proxy = Proxy::ready(&config, &[]);
    let at = proxy.listener("l");
    call(at, "GET", "/", &[("x-a", "5"), ("x-b", "%%%")]).unwrap();
    call(at, "GET", "/", &[]).unwrap();
    let counters = [
        ("request_rules_processed", 4),
        ("request_metadata_added", 2),
        ("request_header_not_found", 2),
        ("base64_decode_failed", 1),
        ("response_rules_processed", 2),
        ("response_metadata_added", 2),
    ];
    for (name, count) in counters {
        assert_eq!(proxy.stat(&format!("http_filter_name.pre.{name}")), Some(count), "{name}");
    }
}

#[test]
fn a_compressor_tells_what_it_did() {
    let large = Backend::start(Box::leak("x".repeat(500).into_boxed_str()));
    let small = Backend::start("x");
    let gzip = "compressor.v3.Compressor, response_direction_config: {status_header_enabled: true}, \
                compressor_library: {name: gzip, typed_config: {\"@type\": \
                type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip}}";
    let routes =
        "{match: {prefix: /small}, route: {cluster: small}}, {match: {prefix: /}, route: {cluster: app}}";
    let clusters = cluster("app", &[large.address], "") + &cluster("small", &[small.address], "");
    let proxy = Proxy::ready(&bootstrap(&filter("gz", gzip), routes, &clusters), &[]);
    let at = proxy.listener("l");
    let status = |path: &str, accept: &str| {
        let head = call(at, "GET", path, &[("accept-encoding", accept)]).unwrap().head;
        head.lines().find_map(|line| line.strip_prefix("x-envoy-compression-status: ").map(str::to_owned))
    };
    assert_eq!(status("/", "gzip").as_deref(), Some("gzip;Compressed;OriginalLength=500"));
    assert_eq!(status("/small", "gzip").as_deref(), Some("gzip;ContentLengthTooSmall"));
    assert_eq!(status("/", "br"), None);
}

#[test]
fn tags_of_addresses_come_from_a_file() {
    let backend = Backend::start("here");
    let mut file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    file.write_all(
        b"ip_tags:\n- ip_tag_name: home\n  ip_list: [{address_prefix: 127.0.0.0, prefix_len: 8}]\n",
    )
    .unwrap();
    let config =
        format!("ip_tagging.v3.IPTagging, ip_tags_datasource: {{filename: {}}}", file.path().display());
    let config = bootstrap(&filter("tags", &config), APP, &cluster("app", &[backend.address], ""));
    let proxy = Proxy::ready(&config, &[]);
    call(proxy.listener("l"), "GET", "/", &[]).unwrap();
    assert!(backend.next().contains("x-envoy-ip-tags: home\r\n"));
}

#[test]
fn bandwidth_limits_tell_their_delays_in_trailers() {
    // Without a length, so that there is room for trailers.
    let backend = chunked(&"x".repeat(3 * 1024));
    let config = "bandwidth_limit.v3.BandwidthLimit, stat_prefix: b, enable_mode: RESPONSE, limit_kbps: 2, \
                  enable_response_trailers: true, response_trailer_prefix: x-p";
    let config = bootstrap(&filter("bw", config), APP, &cluster("app", &[backend], ""));
    let told = "%TRAILER(x-p-bandwidth-response-filter-delay-ms)% %TRAILER(x-p-bandwidth-request-delay-ms)%";
    let config = config.replace("%RESPONSE_CODE% %RESPONSE_CODE_DETAILS% %RESPONSE_FLAGS%", told);
    let proxy = Proxy::ready(&config, &[]);
    assert_eq!(call(proxy.listener("l"), "GET", "/", &[]).unwrap().status, 200);
    let line = logged(&proxy, 1);
    let (response, request) = line.split_once(' ').unwrap();
    assert!(response.parse::<u64>().is_ok_and(|millis| millis > 0), "{line}");
    assert_eq!(request, "-");
}

/// A server that answers with a body in one chunk.
fn chunked(body: &str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
                head.push(byte[0]);
            }
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}
