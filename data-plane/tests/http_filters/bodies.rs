//! Bodies that are held, packed and unpacked.

use std::io::Write;

use super::h2::{Message, call, map};
use super::setup::{
    APP, FILTERS, HTTP2, agrees, cluster, counted, filter, http1, line, logged, mirror, proxy,
};

#[test]
fn what_is_too_long_to_be_held_is_refused() {
    let app = mirror(&["content-length", "transfer-encoding"], |_| Message::default());
    let routes = format!(
        "{{match: {{prefix: /off}}, route: {{cluster: app}}, typed_per_filter_config: {{buffer: {{\"@type\": \
         {FILTERS}.buffer.v3.BufferPerRoute, disabled: true}}}}}}, {{match: {{prefix: /more}}, route: {{cluster: app}}, \
         typed_per_filter_config: {{buffer: {{\"@type\": {FILTERS}.buffer.v3.BufferPerRoute, buffer: \
         {{max_request_bytes: 20}}}}}}}}, {APP}"
    );
    let clusters = cluster("app", &[app], HTTP2);
    let proxy = proxy(&filter("buffer", "buffer.v3.Buffer, max_request_bytes: 10"), &routes, &clusters);
    let to = proxy.listener("l");
    let shown = &["content-type", "connection"];
    let mut seen = Vec::new();
    for (case, path, body) in [
        ("short", "/", &b"0123456789"[..]),
        ("long", "/", b"0123456789a"),
        ("not held", "/off", b"0123456789a"),
        ("more", "/more", b"0123456789a"),
        ("too much", "/more", b"0123456789a0123456789a"),
    ] {
        seen.push(line(&format!("h1 {case}"), &http1(to, "POST", path, &[], body), shown));
        seen.push(format!("  {}", logged(&proxy, seen.len() / 2 + 1)));
    }
    for (case, body) in [("short", &[&b"01234"[..], b"56789"]), ("long", &[&b"0123456"[..], b"789a"])] {
        seen.push(line(&format!("h2 {case}"), &call(to, "POST", "/", &[], body, &[("a", "b")]), shown));
        seen.push(format!("  {}", logged(&proxy, seen.len() / 2 + 1)));
    }
    agrees("buffer", &seen);
}

fn packed(kind: &str, text: &[u8]) -> Vec<u8> {
    match kind {
        "gzip" => {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            writer.write_all(text).unwrap();
            writer.finish().unwrap()
        }
        "br" => {
            let mut writer = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 20);
            writer.write_all(text).unwrap();
            writer.into_inner()
        }
        _ => zstd::encode_all(text, 3).unwrap(),
    }
}

#[test]
fn packed_bodies_are_unpacked_both_ways() {
    let app = mirror(&["content-encoding", "accept-encoding", "content-length"], |asked| {
        let kind = asked.path.trim_start_matches('/').split('?').next().unwrap();
        match kind {
            "gzip" | "br" | "zstd" => Message {
                head: map(&[("content-encoding", kind), ("etag", "\"e\"")]),
                status: 200,
                body: packed(kind, b"an answer"),
                ..Default::default()
            },
            "kept" => Message {
                head: map(&[("content-encoding", "gzip"), ("cache-control", "no-transform")]),
                status: 200,
                body: b"packed".to_vec(),
                ..Default::default()
            },
            "bomb" => Message {
                head: map(&[("content-encoding", "gzip")]),
                status: 200,
                body: packed("gzip", &vec![0; 10_000_000]),
                ..Default::default()
            },
            _ => Message::default(),
        }
    });
    let kinds = [("gzip", "gzip", "Gzip"), ("br", "brotli", "Brotli"), ("zstd", "zstd", "Zstd")];
    let filters: String = kinds
        .iter()
        .map(|(name, kind, message)| {
            let library = format!(
                "decompressor_library: {{name: lib, typed_config: {{\"@type\": \
                 type.googleapis.com/envoy.extensions.compression.{kind}.decompressor.v3.{message}}}}}"
            );
            filter(name, &format!("decompressor.v3.Decompressor, {library}"))
        })
        .collect();
    let proxy = proxy(&filters, APP, &cluster("app", &[app], HTTP2));
    let to = proxy.listener("l");
    let shown = &["content-encoding", "etag", "content-length", "vary", "content-type"];
    let mut seen = Vec::new();
    for kind in ["gzip", "br", "zstd", "deflate"] {
        let body = if kind == "deflate" { b"as it is".to_vec() } else { packed(kind, b"a question") };
        let answer = call(to, "POST", "/", &[("content-encoding", kind)], &[&body], &[]);
        seen.push(line(&format!("request {kind}"), &answer, shown));
    }
    for path in ["/gzip", "/br", "/zstd", "/kept"] {
        seen.push(line(path, &call(to, "GET", path, &[("accept-encoding", "gzip, x")], &[], &[]), shown));
    }
    for kind in ["gzip", "brotli", "zstd"] {
        seen.push(counted(&proxy, &format!("http.in.decompressor.lib.{kind}")));
    }
    let bomb = http1(to, "GET", "/bomb", &[], b"");
    assert!(bomb.body.len() < 5_000_000, "{}", bomb.body.len());
    agrees("decompressor", &seen);
}
