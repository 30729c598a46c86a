//! Bodies of gRPC that a processor sees message by message. What is expected is what the API says: Envoy 1.40 has the mode
//! in its API, and does not take messages apart.

use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver};

use xds_api::envoy::service::ext_proc::v3 as proc;
use xds_api::envoy::service::ext_proc::v3::processing_request::Request;
use xds_api::envoy::service::ext_proc::v3::processing_response::Response;

use super::grpc::{self, Say};
use super::h2;
use super::setup::{APP, HTTP2, agrees, bootstrap, cluster, filter};
use super::support::Proxy;

/// What a message of gRPC looks like on the wire.
fn framed(compressed: bool, text: &str) -> Vec<u8> {
    let mut bytes = vec![u8::from(compressed)];
    bytes.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
    bytes.extend(text.as_bytes());
    bytes
}

/// Answers each piece with one in capitals, and tells what it heard.
fn processor() -> (SocketAddr, Receiver<String>) {
    let (send, heard) = mpsc::channel();
    let address = grpc::play(move |_| {
        let send = send.clone();
        move |message: Option<proc::ProcessingRequest>| {
            let Some(message) = message else { return vec![Say::End(0, "")] };
            let piece = |body: &proc::HttpBody| {
                let told = format!(
                    "{:?}{}{}{}",
                    String::from_utf8_lossy(&body.body),
                    if body.end_of_stream { " end" } else { "" },
                    if body.end_of_stream_without_message { " without message" } else { "" },
                    if body.grpc_message_compressed { " compressed" } else { "" },
                );
                let mutation = proc::body_mutation::Mutation::StreamedResponse(proc::StreamedBodyResponse {
                    body: body.body.to_ascii_uppercase(),
                    end_of_stream: body.end_of_stream,
                    end_of_stream_without_message: body.end_of_stream_without_message,
                    grpc_message_compressed: body.grpc_message_compressed,
                    ..Default::default()
                });
                let body_mutation = Some(proc::BodyMutation { mutation: Some(mutation) });
                let response = Some(proc::CommonResponse { body_mutation, ..Default::default() });
                (told, proc::BodyResponse { response })
            };
            let (told, response) = match message.request.as_ref().unwrap() {
                Request::RequestHeaders(head) => (
                    format!("request{}", if head.end_of_stream { " end" } else { "" }),
                    Response::RequestHeaders(proc::HeadersResponse::default()),
                ),
                Request::ResponseHeaders(_) => {
                    ("response".to_owned(), Response::ResponseHeaders(proc::HeadersResponse::default()))
                }
                Request::RequestBody(body) => {
                    let (told, body) = piece(body);
                    (format!("up {told}"), Response::RequestBody(body))
                }
                Request::ResponseBody(body) => {
                    let (told, body) = piece(body);
                    (format!("down {told}"), Response::ResponseBody(body))
                }
                Request::RequestTrailers(_) => (
                    "request trailers".to_owned(),
                    Response::RequestTrailers(proc::TrailersResponse::default()),
                ),
                Request::ResponseTrailers(_) => (
                    "response trailers".to_owned(),
                    Response::ResponseTrailers(proc::TrailersResponse::default()),
                ),
            };
            send.send(told).unwrap();
            vec![Say::Message(proc::ProcessingResponse { response: Some(response), ..Default::default() })]
        }
    });
    (address, heard)
}

fn proxy(mode: &str, app: SocketAddr, service: SocketAddr) -> Proxy {
    let config = format!(
        "ext_proc.v3.ExternalProcessor, grpc_service: {{envoy_grpc: {{cluster_name: service}}}}, message_timeout: 5s, \
         processing_mode: {{{mode}}}"
    );
    let clusters = cluster("app", &[app], HTTP2) + &cluster("service", &[service], HTTP2);
    Proxy::ready(&bootstrap(&filter("proc", &config), APP, &clusters), &[])
}

/// Its name, the body's pieces, and trailers.
type Case<'a> = (&'a str, &'a [&'a [u8]], &'a [(&'a str, &'a str)]);

#[test]
fn messages_of_grpc() {
    let app = h2::serve(|asked| h2::Message {
        body: asked.body.clone(),
        trailers: h2::map(&[("grpc-status", "0")]),
        ..Default::default()
    });
    let one = framed(false, "one");
    let two = [framed(false, "one"), framed(true, "second")].concat();
    let (begin, end) = two.split_at(6);
    let cases: [Case<'_>; 6] = [
        ("one", &[&one], &[]),
        ("two in one piece", &[&two], &[]),
        ("two in pieces", &[begin, end], &[]),
        ("an empty one", &[&framed(false, "")], &[]),
        ("trailers", &[&one], &[("x-t", "end")]),
        ("none", &[], &[]),
    ];
    let mut lines = Vec::new();
    for mode in [
        "request_body_mode: GRPC, request_trailer_mode: SEND",
        "response_body_mode: GRPC, response_trailer_mode: SEND",
        "request_body_mode: GRPC",
        "response_body_mode: GRPC",
    ] {
        lines.push(mode.to_owned());
        let (service, heard) = processor();
        let proxy = proxy(mode, app, service);
        for (case, pieces, trailers) in cases {
            let head = [("content-type", "application/grpc"), ("te", "trailers")];
            let answer = h2::call(proxy.listener("l"), "POST", "/s/m", &head, pieces, trailers);
            let heard: Vec<_> = heard.try_iter().collect();
            let body = String::from_utf8_lossy(&answer.body).escape_default().to_string();
            let status = answer.trailer("grpc-status");
            lines.push(format!("  {case}: {} [{body}] {status}; {}", answer.status, heard.join(", ")));
        }
    }
    agrees("ext_proc_grpc", &lines);
}
