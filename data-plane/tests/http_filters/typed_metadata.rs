//! Messages as dynamic metadata: written by a filter or by a processor, and told to processors. What is expected was
//! written by Envoy.

use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver};

use xds_api::any::pack;
use xds_api::envoy::config::core::v3 as core;
use xds_api::envoy::service::ext_proc::v3 as proc;
use xds_api::envoy::service::ext_proc::v3::processing_request::Request;
use xds_api::envoy::service::ext_proc::v3::processing_response::Response;

use super::grpc::{self, Say};
use super::setup::{APP, HTTP2, agrees, cluster, counted, filter, proxy};
use super::support::{Backend, call};

/// Tells of which messages it hears, and gives one of its own in `given` and in `seen`.
fn processor() -> (SocketAddr, Receiver<String>) {
    let (send, heard) = mpsc::channel();
    let address = grpc::play(move |_| {
        let send = send.clone();
        move |message: Option<proc::ProcessingRequest>| {
            let Some(message) = message else { return vec![Say::End(0, "")] };
            let metadata = message.metadata_context.unwrap_or_default();
            let mut typed: Vec<_> = metadata
                .typed_filter_metadata
                .iter()
                .map(|(name, any)| {
                    let address: core::SocketAddress = xds_api::any::unpack(any).unwrap();
                    format!("{name}={}", address.address)
                })
                .collect();
            typed.sort();
            let mut untyped: Vec<_> = metadata.filter_metadata.into_keys().collect();
            untyped.sort();
            let side = match message.request.as_ref().unwrap() {
                Request::RequestHeaders(_) => "request",
                _ => "response",
            };
            send.send(format!("{side}: {typed:?} {untyped:?}")).unwrap();
            let response = match message.request.unwrap() {
                Request::RequestHeaders(_) => Response::RequestHeaders(proc::HeadersResponse::default()),
                _ => Response::ResponseHeaders(proc::HeadersResponse::default()),
            };
            let own = core::SocketAddress { address: format!("of the {side}"), ..Default::default() };
            let own = pack(&own);
            vec![Say::Message(proc::ProcessingResponse {
                response: Some(response),
                typed_dynamic_metadata: ["given", "seen"].map(|name| (name.to_owned(), own.clone())).into(),
                ..Default::default()
            })]
        }
    });
    (address, heard)
}

#[test]
fn messages_as_metadata() {
    let app = Backend::start("app");
    let (service, heard) = processor();
    let entry = |namespace: &str, more: &str, text: &str| {
        format!(
            "{{metadata_namespace: {namespace}, {more}typed_value: {{\"@type\": \
             type.googleapis.com/envoy.config.core.v3.SocketAddress, address: {text}, port_value: 1}}}}"
        )
    };
    let entries = [
        entry("seen", "", "first"),
        entry("seen", "", "second"),
        entry("other", "", "one"),
        entry("other", "allow_overwrite: true, ", "two"),
        entry("both", "value: {a: b}, ", "three"),
    ];
    let config = |more: &str| {
        format!(
            "ext_proc.v3.ExternalProcessor, grpc_service: {{envoy_grpc: {{cluster_name: service}}}}, message_timeout: 5s, \
             metadata_options: {{forwarding_namespaces: {{typed: [seen, other, both, given, none], untyped: [both]}}{more}}}"
        )
    };
    let filters = filter("set", &format!("set_metadata.v3.Config, metadata: [{}]", entries.join(", ")))
        + &filter("one", &config(", receiving_namespaces: {typed: [given]}"))
        + &filter("two", &config(""));
    let clusters = cluster("app", &[app.address], "") + &cluster("service", &[service], HTTP2);
    let proxy = proxy(&filters, APP, &clusters);
    let answer = call(proxy.listener("l"), "GET", "/", &[]).unwrap();
    let mut lines = vec![answer.status.to_string()];
    lines.extend(heard.try_iter());
    lines.push(counted(&proxy, "http.in.set_metadata"));
    agrees("typed_metadata", &lines);
}
