//! A processor that sees requests whole, in pieces, and with attributes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;

use xds_api::envoy::extensions::filters::http::ext_proc::v3::ProcessingMode;
use xds_api::envoy::service::ext_proc::v3 as proc;
use xds_api::envoy::service::ext_proc::v3::processing_request::Request;
use xds_api::envoy::service::ext_proc::v3::processing_response::Response;

use super::grpc;
use super::setup::{APP, HTTP2, cluster, filter, proxy};
use super::support::{Backend, Proxy};

/// Tells what it was asked; upper-cases bodies; on response headers it asks for the body whole.
fn processor() -> (SocketAddr, mpsc::Receiver<proc::ProcessingRequest>) {
    let (send, asked) = mpsc::channel();
    let address = grpc::serve(move || {
        let send = send.clone();
        move |message: proc::ProcessingRequest| {
            let upper = |body: &proc::HttpBody| {
                let mutation = proc::body_mutation::Mutation::Body(body.body.to_ascii_uppercase());
                proc::BodyResponse {
                    response: Some(proc::CommonResponse {
                        body_mutation: Some(proc::BodyMutation { mutation: Some(mutation) }),
                        ..Default::default()
                    }),
                }
            };
            let mut mode = None;
            let response = match message.request.as_ref().unwrap() {
                Request::RequestHeaders(_) => Response::RequestHeaders(proc::HeadersResponse::default()),
                Request::ResponseHeaders(_) => {
                    mode = Some(ProcessingMode { response_body_mode: 2, ..Default::default() });
                    Response::ResponseHeaders(proc::HeadersResponse::default())
                }
                Request::RequestBody(body) => Response::RequestBody(upper(body)),
                Request::ResponseBody(body) => Response::ResponseBody(upper(body)),
                Request::RequestTrailers(_) => Response::RequestTrailers(proc::TrailersResponse::default()),
                _ => return Vec::new(),
            };
            send.send(message).unwrap();
            vec![proc::ProcessingResponse {
                response: Some(response),
                mode_override: mode,
                ..Default::default()
            }]
        }
    });
    (address, asked)
}

fn with_processor(more: &str, app: &Backend, service: SocketAddr) -> Proxy {
    let config = format!(
        "ext_proc.v3.ExternalProcessor, grpc_service: {{envoy_grpc: {{cluster_name: service}}}}, message_timeout: 10s, \
         {more}"
    );
    let clusters = cluster("app", &[app.address], "") + &cluster("service", &[service], HTTP2);
    proxy(&filter("proc", &config), APP, &clusters)
}

fn post(to: SocketAddr, body: &str) -> String {
    let mut stream = TcpStream::connect(to).unwrap();
    let head = format!(
        "POST /a?b HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + body).as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn request_bodies_are_changed_before_the_upstream_sees_them() {
    let app = Backend::start("app");
    let (service, _asked) = processor();
    for mode in ["BUFFERED", "BUFFERED_PARTIAL"] {
        let proxy = with_processor(&format!("processing_mode: {{request_body_mode: {mode}}}"), &app, service);
        assert!(post(proxy.listener("l"), "hello").ends_with("app"), "{mode}");
        assert!(app.next().ends_with("\r\n\r\nHELLO"), "{mode}");
    }
}

#[test]
fn the_mode_may_change_and_attributes_are_told() {
    let app = Backend::start("app");
    let (service, asked) = processor();
    let proxy = with_processor(
        "stat_prefix: x, allow_mode_override: true, request_attributes: [request.path, source.address, request.size], \
         response_attributes: [response.code, connection.mtls]",
        &app,
        service,
    );
    assert!(post(proxy.listener("l"), "hello").ends_with("APP"));
    let told = |message: proc::ProcessingRequest| {
        let mut all: Vec<_> = message.attributes["envoy.filters.http.ext_proc"]
            .fields
            .iter()
            .map(|(name, value)| format!("{name} {:?}", value.kind.as_ref().unwrap()))
            .collect();
        all.sort();
        all
    };
    let request = told(asked.recv().unwrap());
    assert_eq!(request[0], "request.path StringValue(\"/a?b\")");
    assert!(request[2].starts_with("source.address StringValue(\"127.0.0.1:"), "{request:?}");
    assert_eq!(
        told(asked.recv().unwrap()),
        ["connection.mtls BoolValue(false)", "response.code NumberValue(200.0)"]
    );
    assert!(asked.recv().unwrap().attributes.is_empty());
    assert_eq!(proxy.stat("http.in.ext_proc.x.streams_started"), Some(1));
}

#[test]
fn modes_that_are_not_allowed_are_not_taken() {
    let app = Backend::start("app");
    let (service, _asked) = processor();
    let more = "allow_mode_override: true, allowed_override_modes: [{response_body_mode: STREAMED}]";
    let proxy = with_processor(more, &app, service);
    assert!(post(proxy.listener("l"), "hello").ends_with("app"));
}
