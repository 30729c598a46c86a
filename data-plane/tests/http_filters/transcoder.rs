//! JSON requests to gRPC services.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use prost::Message;

use super::grpc;
use super::setup::{APP, HTTP2, cluster, filter, proxy};
use super::support::{Answer, Proxy, call};

/// As in the tests of `sail-proxy-decide`, which has the `.proto` file.
#[derive(Clone, PartialEq, Message)]
struct Item {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(int32, tag = "3")]
    colour: i32,
    #[prost(string, repeated, tag = "4")]
    tags: Vec<String>,
}

/// Answers every item with itself, marked; an item of number 0 with nothing, and one of number 3 three times.
fn shop() -> SocketAddr {
    grpc::serve(|| {
        |item: Item| {
            let count = usize::from(item.id != 0) + 2 * usize::from(item.id == 3);
            let name = format!("{}!", item.name);
            vec![Item { name, ..item }; count]
        }
    })
}

/// A proxy that transcodes; the descriptor set is in a file beside its bootstrap.
fn transcoding(more: &str) -> Proxy {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/decide/testdata/transcoder");
    let mut compiler = protox::Compiler::new([root]).unwrap();
    compiler.include_imports(true).open_file("shop.proto").unwrap();
    let set = compiler.encode_file_descriptor_set();
    let dir = tempfile::tempdir().unwrap().keep();
    let path = dir.join("shop.binpb");
    std::fs::write(&path, set).unwrap();
    let config = format!(
        "grpc_json_transcoder.v3.GrpcJsonTranscoder, services: [shop.Shop], {more} proto_descriptor: {}",
        path.display()
    );
    let proxy = proxy(&filter("json", &config), APP, &cluster("app", &[shop()], HTTP2));
    std::fs::remove_dir_all(dir).unwrap();
    proxy
}

/// A request with a body.
fn send(to: SocketAddr, method: &str, path: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect(to).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + body).as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked {
        // Every other line is a size.
        body.split("\r\n").skip(1).step_by(2).collect()
    } else {
        body.to_owned()
    };
    Answer { status, head: head.to_owned(), body }
}

#[test]
fn requests_become_calls_and_answers_json() {
    let proxy = transcoding("");
    let address = proxy.listener("l");
    let answer = call(address, "GET", "/v1/items/7?name=n&tags=a&tags=b", &[]).unwrap();
    assert_eq!((answer.status, &*answer.body), (200, r#"{"id":"7","name":"n!","tags":["a","b"]}"#));
    assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
    assert!(answer.head.contains("grpc-status: 0"), "{}", answer.head);
    let answer = send(address, "PUT", "/v1/items/7", r#"{"name": "put", "colour": "DARK_RED"}"#);
    assert_eq!((answer.status, &*answer.body), (200, r#"{"id":"7","name":"put!","colour":"DARK_RED"}"#));
    let answer = send(address, "PUT", "/v1/items/7", "{");
    assert_eq!(answer.status, 400, "{}", answer.body);
    let answer = call(address, "GET", "/v1/watch/3?name=w", &[]).unwrap();
    let one = r#"{"id":"3","name":"w!"}"#;
    assert_eq!((answer.status, answer.body), (200, format!("[{one},{one},{one}]")));
    let answer = call(address, "GET", "/v1/watch/0", &[]).unwrap();
    assert_eq!((answer.status, &*answer.body), (200, "[]"));
    let answer = send(address, "POST", "/v1/talk", r#"[{"id": 1}, {"id": "2", "name": "b"}]"#);
    assert_eq!((answer.status, &*answer.body), (200, r#"[{"id":"1","name":"!"},{"id":"2","name":"b!"}]"#));
}

#[test]
fn what_cannot_be_transcoded_is_refused_where_asked() {
    let proxy = transcoding(
        "max_request_body_size: 20, request_validation_options: {reject_unknown_method: true, \
         reject_unknown_query_parameters: true},",
    );
    let address = proxy.listener("l");
    assert_eq!(call(address, "GET", "/nothing", &[]).unwrap().status, 404);
    assert_eq!(call(address, "GET", "/v1/items/7?x=1", &[]).unwrap().status, 400);
    assert_eq!(send(address, "PUT", "/v1/items/7", r#"{"name": "longer than twenty"}"#).status, 413);
}

#[test]
fn streams_may_have_lines_and_events() {
    for (framing, expected) in [
        ("stream_newline_delimited: true", "{\"id\":\"3\",\"name\":\"!\"}\n".repeat(3)),
        ("stream_sse_style_delimited: true", "data: {\"id\":\"3\",\"name\":\"!\"}\n\n".repeat(3)),
    ] {
        let proxy = transcoding(&format!("print_options: {{{framing}}},"));
        assert_eq!(call(proxy.listener("l"), "GET", "/v1/watch/3", &[]).unwrap().body, expected);
    }
}
