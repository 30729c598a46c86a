//! Bodies that are no JSON, and errors as JSON, where requests become gRPC calls. What is expected was written by Envoy.

use std::net::SocketAddr;

use base64::Engine as _;
use prost::Message as _;

use super::grpc::{framed, take};
use super::h2::{self, Message};
use super::setup::{APP, HTTP2, agrees, cluster, filter, line, proxy};
use super::support::Proxy;

const PROTO: &str = r#"
syntax = "proto3";
package files;
import "google/api/annotations.proto";
import "google/api/httpbody.proto";
service Files {
  rpc Get(Name) returns (google.api.HttpBody) { option (google.api.http) = { get: "/files/{name}" }; }
  rpc List(Name) returns (stream google.api.HttpBody) { option (google.api.http) = { get: "/lists/{name}" }; }
  rpc Echo(google.api.HttpBody) returns (google.api.HttpBody) { option (google.api.http) = { post: "/echo" body: "*" }; }
  rpc Put(Blob) returns (Name) { option (google.api.http) = { post: "/blobs/{name}" body: "content" }; }
  rpc Pour(stream Blob) returns (Name) { option (google.api.http) = { post: "/streams/{name}" body: "content" }; }
  rpc Fill(stream google.api.HttpBody) returns (stream google.api.HttpBody) {
    option (google.api.http) = { post: "/fill" body: "*" };
  }
  rpc Fail(Name) returns (Name) { option (google.api.http) = { get: "/fail/{name}" }; }
  rpc FailLate(Name) returns (stream Name) { option (google.api.http) = { get: "/late/{name}" }; }
}
message Name { string name = 1; int32 count = 2; }
message Blob { string name = 1; google.api.HttpBody content = 2; }
message Reason { string why = 1; }
"#;

#[derive(Clone, PartialEq, prost::Message)]
struct Name {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "2")]
    count: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HttpBody {
    #[prost(string, tag = "1")]
    content_type: String,
    #[prost(bytes = "vec", tag = "2")]
    data: Vec<u8>,
    #[prost(message, repeated, tag = "3")]
    extensions: Vec<xds_api::google::protobuf::Any>,
}

impl HttpBody {
    /// The query parameters that it tells of.
    fn unknown(&self) -> String {
        use xds_api::envoy::extensions::filters::http::grpc_json_transcoder::v3::UnknownQueryParams;
        let told = self.extensions.iter().flat_map(|any| {
            let all: UnknownQueryParams = xds_api::any::unpack(any).unwrap();
            let mut all: Vec<_> = all.key.into_iter().map(|(name, all)| (name, all.values)).collect();
            all.sort();
            all
        });
        told.map(|(name, values)| format!("&{name}={values:?}")).collect()
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct Blob {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    content: Option<HttpBody>,
}

/// `google.rpc.Status`
#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<xds_api::google::protobuf::Any>,
}

fn body(kind: &str, data: &str) -> HttpBody {
    HttpBody { content_type: kind.to_owned(), data: data.into(), extensions: Vec::new() }
}

fn failing(name: &str) -> Vec<(&'static str, String)> {
    let details = |type_url: &str| {
        let value = Name { name: "because".to_owned(), count: 0 }.encode_to_vec();
        let any = xds_api::google::protobuf::Any { type_url: type_url.to_owned(), value };
        let status = Status { code: 5, message: "from the details".to_owned(), details: vec![any] };
        base64::engine::general_purpose::STANDARD_NO_PAD.encode(status.encode_to_vec())
    };
    let status = |code: &str| ("grpc-status", code.to_owned());
    let text = ("grpc-message", "not%20found \"here\"".to_owned());
    match name {
        "plain" => vec![status("5"), text],
        "silent" => vec![status("7")],
        "details" => {
            vec![status("5"), text, ("grpc-status-details-bin", details("type.googleapis.com/files.Reason"))]
        }
        "unknown" => {
            vec![status("5"), text, ("grpc-status-details-bin", details("type.googleapis.com/files.Nobody"))]
        }
        "broken" => vec![status("5"), text, ("grpc-status-details-bin", "%%%".to_owned())],
        "ok" => vec![status("0")],
        "none" => vec![],
        other => vec![status(other)],
    }
}

/// An answer: messages, and how it ends.
fn answer(messages: &[HttpBody], end: &[(&str, String)]) -> Message {
    answer_framed(messages.iter().map(|message| framed(message).to_vec()).collect::<Vec<_>>().concat(), end)
}

fn answer_framed(body: Vec<u8>, end: &[(&str, String)]) -> Message {
    let pairs: Vec<_> = end.iter().map(|(name, value)| (*name, &**value)).collect();
    let mut said = Message { head: h2::map(&[("content-type", "application/grpc")]), ..Message::default() };
    if body.is_empty() {
        said.head.extend(h2::map(&pairs));
    } else {
        said.trailers = h2::map(&pairs);
    }
    said.body = body;
    said
}

/// An answer without a message, whose status comes in trailers all the same.
fn headed(name: &str) -> Message {
    let said = answer_framed(vec![0], &failing(name));
    Message { body: Vec::new(), ..said }
}

fn serve(asked: &Message) -> Message {
    let mut seen = asked.body.as_slice().into();
    let mut messages = Vec::new();
    while let Some(message) = take(&mut seen) {
        messages.push(message);
    }
    let first = messages.first().cloned().unwrap_or_default();
    let name = || Name::decode(first.clone()).unwrap().name;
    let ok = [("grpc-status", "0".to_owned())];
    let named = |name: String| framed(&Name { name, count: messages.len() as i32 }).to_vec();
    match &*asked.path {
        "/files.Files/Get" => match &*name() {
            "html" => answer(&[body("text/html", "<p>")], &ok),
            "untyped" => answer(&[body("", "data")], &ok),
            "empty" => answer(&[body("text/plain", "")], &ok),
            other => answer(&[], &failing(other)),
        },
        "/files.Files/List" => match &*name() {
            "three" => {
                answer(&[body("text/plain", "one,"), body("text/html", "two,"), body("", "three")], &ok)
            }
            "untyped" => answer(&[body("", "data")], &ok),
            "empty" => answer(&[], &ok),
            "late" => answer(&[body("text/plain", "one")], &failing("plain")),
            other => answer(&[], &failing(other)),
        },
        "/files.Files/Echo" => answer(&[HttpBody::decode(first).unwrap()], &ok),
        "/files.Files/Put" | "/files.Files/Pour" => {
            let told = messages.iter().map(|message| {
                let Blob { name, content } = Blob::decode(message.clone()).unwrap();
                let content = content.unwrap_or_default();
                let data = std::str::from_utf8(&content.data).unwrap();
                format!("{name}={}:{data}{}", content.content_type, content.unknown())
            });
            answer_framed(named(told.collect::<Vec<_>>().join(" ")), &ok)
        }
        "/files.Files/Fill" => {
            let all: Vec<_> =
                messages.iter().map(|message| HttpBody::decode(message.clone()).unwrap()).collect();
            answer(&all, &ok)
        }
        "/files.Files/FailLate" if name() == "only" => answer(&[], &failing("plain")),
        "/files.Files/FailLate" if name() == "nothing" => answer(&[], &failing("ok")),
        "/files.Files/FailLate" => answer_framed(named("one".to_owned()), &failing(&name())),
        _ => match &*name() {
            "late" => answer_framed(named("one".to_owned()), &failing("plain")),
            "headed" => headed("plain"),
            "headed-details" => headed("details"),
            "web" => Message { status: 503, body: b"busy".to_vec(), ..Message::default() },
            other => answer(&[], &failing(other)),
        },
    }
}

fn transcoding(more: &str) -> Proxy {
    let dir = tempfile::tempdir().unwrap();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("decide/testdata/transcoder");
    std::fs::write(dir.path().join("files.proto"), PROTO).unwrap();
    let mut compiler = protox::Compiler::new([dir.path(), &root]).unwrap();
    compiler.include_imports(true).open_file("files.proto").unwrap();
    let set = dir.path().join("files.binpb");
    std::fs::write(&set, compiler.encode_file_descriptor_set()).unwrap();
    let config = format!(
        "grpc_json_transcoder.v3.GrpcJsonTranscoder, services: [files.Files], {more} proto_descriptor: {}",
        set.display()
    );
    let address: SocketAddr = h2::serve(serve);
    proxy(&filter("json", &config), APP, &cluster("app", &[address], HTTP2))
}

const NAMES: [&str; 6] =
    ["content-length", "content-type", "grpc-message", "grpc-status", "grpc-status-details-bin", "trailer"];

fn ask_one(
    to: SocketAddr,
    method: &str,
    path: &str,
    head: &[(&str, &str)],
    pieces: &[&[u8]],
    title: &str,
) -> String {
    let call = || h2::call(to, method, path, head, pieces, &[]);
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)) {
        Ok(answer) => line(title, &answer, &NAMES),
        Err(_) => format!("{title}: no answer"),
    }
}

#[test]
fn bodies_are_as_they_are() {
    let proxy = transcoding("");
    let to = proxy.listener("l");
    let mut lines = Vec::new();
    let mut ask = |method: &str, path: &str, kind: &str, pieces: &[&[u8]]| {
        let head: &[(&str, &str)] = if kind.is_empty() { &[] } else { &[("content-type", kind)] };
        lines.push(ask_one(to, method, path, head, pieces, &format!("{method} {path} {kind}")));
    };
    for name in ["html", "untyped", "empty", "plain", "ok", "none"] {
        ask("GET", &format!("/files/{name}"), "", &[]);
    }
    for name in ["three", "untyped", "empty", "late", "plain"] {
        ask("GET", &format!("/lists/{name}"), "", &[]);
    }
    ask("POST", "/echo", "image/png", &[b"\x01\x02"]);
    ask("POST", "/echo", "", &[b"data"]);
    ask("POST", "/echo", "text/plain", &[]);
    ask("POST", "/echo", "application/json", &[b"{\"a\": 1}"]);
    ask("POST", "/blobs/n", "text/plain", &[b"one", b"two"]);
    ask("POST", "/blobs/n?content.content_type=mine", "text/plain", &[b"one"]);
    ask("POST", "/streams/n", "text/plain", &[b"one"]);
    ask("POST", "/streams/n", "text/plain", &[]);
    ask("POST", "/fill", "text/plain", &[b"one"]);
    agrees("transcoder_bodies", &lines);
}

#[test]
fn parameters_that_are_no_fields_may_be_told() {
    let proxy = transcoding("capture_unknown_query_parameters: true, ignored_query_parameters: [not],");
    let mut lines = Vec::new();
    for path in
        ["/blobs/n?x=1&not=1&x=2&y=%20z+&a.b=c&content.content_type=mine&none", "/streams/n?x=1", "/blobs/n"]
    {
        let head = [("content-type", "text/plain")];
        lines.push(ask_one(proxy.listener("l"), "POST", path, &head, &[b"one"], path));
    }
    lines.push(ask_one(proxy.listener("l"), "GET", "/files/html?x=1", &[], &[], "no body"));
    agrees("transcoder_unknown", &lines);
}

#[test]
fn errors_are_json_where_that_is_asked_for() {
    let mut lines = Vec::new();
    for (title, more) in [
        ("as it comes", ""),
        ("converted", "convert_grpc_status: true,"),
        (
            "converted, with defaults",
            "convert_grpc_status: true, print_options: {always_print_primitive_fields: true, add_whitespace: true},",
        ),
    ] {
        let proxy = transcoding(more);
        lines.push(format!("{title}:"));
        let paths = [
            "/fail/plain",
            "/fail/silent",
            "/fail/details",
            "/fail/unknown",
            "/fail/broken",
            "/fail/ok",
            "/fail/none",
            "/fail/late",
            "/fail/web",
            "/fail/headed",
            "/fail/headed-details",
            "/late/only",
            "/late/nothing",
            "/fail/3",
            "/fail/16",
            "/fail/99",
            "/late/plain",
            "/late/details",
            "/files/details",
            "/lists/details",
            "/lists/late",
        ];
        for path in paths {
            lines.push(ask_one(proxy.listener("l"), "GET", path, &[], &[], &format!("  {path}")));
        }
    }
    agrees("transcoder_errors", &lines);
}
