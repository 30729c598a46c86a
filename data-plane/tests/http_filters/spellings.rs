//! How the names of headers are spelled on the way up and on the way down. What is expected was written by Envoy.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use super::setup::{agrees, bootstrap_with, cluster, raw};
use super::support::Proxy;

const RESPONSE: &str = "HTTP/1.1 200 Fine\r\nX-ReSpOnSe: 1\r\nSET-cookie: a\r\nset-Cookie: b\r\nContent-LENGTH: 4\r\n\
                        CONNECTION: close\r\n\r\nfine";

/// A server that answers each connection's request with this, and tells the heads that it got.
fn server() -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (send, seen) = mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
                head.push(byte[0]);
            }
            let _ = send.send(String::from_utf8(head).unwrap());
            let _ = stream.write_all(RESPONSE.as_bytes());
        }
    });
    (address, seen)
}

/// The first line, and the names of headers, each once, in an order that says nothing.
fn names(head: &str) -> String {
    let (head, _) = head.split_once("\r\n\r\n").unwrap_or((head, ""));
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default().to_owned();
    let mut names: Vec<_> = lines.filter_map(|line| Some(line.split_once(':')?.0)).collect();
    names.sort_by_key(|name| name.to_lowercase());
    names.dedup_by_key(|name| name.to_lowercase());
    format!("{first} | {}", names.join(" "))
}

const PRESERVE: &str = "header_key_format: {stateful_formatter: {name: preserve_case, typed_config: {\"@type\": \
    type.googleapis.com/envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig}}}";

#[test]
fn are_kept_or_made_as_envoy_does() {
    let proper = "header_key_format: {proper_case_words: {}}".to_owned();
    let with = |more: &str| PRESERVE.replace("FormatterConfig}", &format!("FormatterConfig, {more}}}"));
    let others = with("formatter_type_on_envoy_headers: PROPER_CASE");
    let reason = with("forward_reason_phrase: true");
    let preserve = PRESERVE.to_owned();
    let none = String::new();
    let cases = [
        ("neither", &none, &none),
        ("proper downstream", &proper, &none),
        ("proper upstream", &none, &proper),
        ("kept downstream", &preserve, &none),
        ("kept upstream", &none, &preserve),
        ("kept on both sides", &preserve, &preserve),
        ("kept, others proper", &others, &others),
        ("the reason goes on, too", &reason, &reason),
        ("the reason upstream alone", &none, &reason),
        ("the reason downstream alone", &reason, &none),
    ];
    let (to, seen) = server();
    let mut lines = Vec::new();
    for (name, downstream, upstream) in cases {
        let manager = format!("http_protocol_options: {{{downstream}}}, ");
        let routes = "{match: {prefix: /local}, direct_response: {status: 418, body: {inline_string: tea}}, \
            response_headers_to_add: [{header: {key: x-ours, value: \"1\"}}]}, {match: {prefix: /}, route: {cluster: app}, \
            request_headers_to_add: [{header: {key: x-added-here, value: \"1\"}}]}";
        let text = bootstrap_with(
            &manager,
            "",
            routes,
            &cluster("app", &[to], &format!("http_protocol_options: {{{upstream}}}, ")),
        );
        let proxy = Proxy::ready(&text, &[]);
        let listener = proxy.listener("l");
        let ask = |path: &str| {
            raw(
                listener,
                &format!(
                    "GET {path} HTTP/1.1\r\nHOST: test\r\nX-OdD: 1\r\nX-MULTI: a\r\nx-multi: b\r\nCoNnection: close\r\n\
                     Accept-encoding: gzip\r\nX-Forwarded-PROTO: http\r\n\r\n"
                ),
            )
        };
        let answer = ask("/");
        let up = seen.recv_timeout(Duration::from_secs(20)).unwrap();
        lines.push(format!("{name}\n  up: {}\n  down: {}", names(&up), names(&answer)));
        // Nobody has spelled what is in a local reply.
        if downstream.is_empty() || *downstream == proper {
            lines.push(format!("  local: {}", names(&ask("/local"))));
        }
    }
    agrees("spellings", &lines);
}
