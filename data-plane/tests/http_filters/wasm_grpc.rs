//! Wasm modules that ask gRPC services. What the module does is said in its text; what comes of it was written by Envoy.
#![cfg(feature = "wasm")]

use super::grpc::{framed, take};
use super::h2::{self, Message};
use super::setup::{APP, HTTP2, agrees, bootstrap, cluster, filter, line};
use super::support::Proxy;

const MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/wasm/testdata/grpc.wat");

#[derive(Clone, PartialEq, prost::Message)]
struct Text {
    #[prost(string, tag = "1")]
    text: String,
}

/// Says the number of messages, or fails as the path of the server's cluster tells.
fn side(fails: bool) -> std::net::SocketAddr {
    h2::serve(move |asked| {
        let mut seen = asked.body.as_slice().into();
        let mut count = 0;
        while let Some(message) = take(&mut seen) {
            assert_eq!(<Text as prost::Message>::decode(message).unwrap().text, "ask");
            count += 1;
        }
        let told = format!("{} {} {count} {}", asked.method, asked.path, asked.header("x-mine"));
        let head = h2::map(&[("content-type", "application/grpc"), ("x-first", "first")]);
        if fails {
            let head = h2::map(&[
                ("content-type", "application/grpc"),
                ("grpc-status", "7"),
                ("grpc-message", "not you"),
            ]);
            return Message { head, ..Message::default() };
        }
        let body: Vec<u8> = (0..count).flat_map(|_| framed(&Text { text: told.clone() }).to_vec()).collect();
        let trailers = h2::map(&[("grpc-status", "0"), ("x-last", "last")]);
        Message { head, body, trailers, ..Message::default() }
    })
}

#[test]
fn modules_call_and_stream() {
    let app = h2::serve(|asked| {
        let names = ["x-first", "x-heard", "x-initial", "x-last", "x-status", "x-text", "x-trailing"];
        Message { body: line("", asked, &names).into_bytes(), ..Message::default() }
    });
    let mut lines = Vec::new();
    for mode in ["call", "stream"] {
        for fails in [false, true] {
            let config = format!(
                "wasm.v3.Wasm, config: {{name: grpc, root_id: r, configuration: {{\"@type\": \
                 type.googleapis.com/google.protobuf.StringValue, value: {mode}}}, vm_config: {{vm_id: {mode}, runtime: \
                 envoy.wasm.runtime.v8, code: {{local: {{filename: {MODULE}}}}}}}}}"
            );
            let clusters = cluster("app", &[app], HTTP2) + &cluster("side", &[side(fails)], HTTP2);
            let proxy = Proxy::ready(&bootstrap(&filter("wasm", &config), APP, &clusters), &[]);
            let answer = h2::call(proxy.listener("l"), "GET", "/", &[], &[], &[]);
            // To the message Envoy adds where it comes from.
            let told = line(&format!("{mode}, fails {fails}"), &answer, &[]);
            lines.push(told.replace("{via_upstream}", "").replace(" x-text=via_upstream", ""));
        }
    }
    agrees("wasm_grpc", &lines);
}
