//! Proxies with filters before the router.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::h2::Message;
use super::support::Proxy;

pub(crate) const FILTERS: &str = "type.googleapis.com/envoy.extensions.filters.http";

/// All to the cluster `app`.
pub(crate) const APP: &str = "{match: {prefix: /}, route: {cluster: app}}";

/// A filter of a name, with a configuration that begins with its type's last part.
pub(crate) fn filter(name: &str, config: &str) -> String {
    format!("{{name: {name}, typed_config: {{\"@type\": {FILTERS}.{config}}}}}, ")
}

/// A cluster of these hosts; `more` stands before its endpoints.
pub(crate) fn cluster(name: &str, to: &[SocketAddr], more: &str) -> String {
    let host = |to: &SocketAddr| {
        format!(
            "{{endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}}}",
            to.ip(),
            to.port()
        )
    };
    let hosts: Vec<_> = to.iter().map(host).collect();
    format!(
        "  - {{name: {name}, type: STATIC, connect_timeout: 1s, {more}load_assignment: {{cluster_name: {name}, \
         endpoints: [{{lb_endpoints: [{}]}}]}}}}\n",
        hosts.join(", ")
    )
}

/// The bootstrap of a proxy with these filters before the router, routes and clusters, and a listener `l`.
pub(crate) fn bootstrap(filters: &str, routes: &str, clusters: &str) -> String {
    bootstrap_with("", filters, routes, clusters)
}

/// As [`bootstrap`], with more of the manager's configuration.
pub(crate) fn bootstrap_with(manager: &str, filters: &str, routes: &str, clusters: &str) -> String {
    format!(
        "node: {{id: node, cluster: c}}\nstatic_resources:\n  listeners:\n  - name: l\n    address: {{socket_address: \
         {{address: 127.0.0.1, port_value: 0}}}}\n    filter_chains: [{{filters: [{{name: hcm, typed_config: \
         {{\"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, \
         stat_prefix: in, {manager}{LOG}route_config: {{name: r, virtual_hosts: [{{name: v, domains: [\"*\"], routes: [{routes}]}}]}}, \
         http_filters: [{filters}{{name: router, typed_config: {{\"@type\": {FILTERS}.router.v3.Router}}}}]}}}}]}}]\n  \
         clusters:\n{clusters}"
    )
}

/// That proxy, serving.
pub(crate) fn proxy(filters: &str, routes: &str, clusters: &str) -> Proxy {
    Proxy::ready(&bootstrap(filters, routes, clusters), &[])
}

/// The manager writes what became of each request.
const LOG: &str = "access_log: [{name: f, typed_config: {\"@type\": \
                   type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: $DIR/log, \
                   log_format: {text_format_source: {inline_string: \"%RESPONSE_CODE% %RESPONSE_CODE_DETAILS% \
                   %RESPONSE_FLAGS%\\n\"}}}}], ";

/// What the log says of the request that ended last, of so many.
pub(crate) fn logged(proxy: &Proxy, requests: usize) -> String {
    let path = proxy.dir.path().join("log");
    super::support::wait("the log", || {
        let text = std::fs::read_to_string(&path).ok()?;
        let mut lines = text.lines();
        (text.lines().count() >= requests).then(|| lines.next_back().unwrap_or_default().to_owned())
    })
}

/// One request as it is written, and all that comes back.
pub(crate) fn raw(to: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    // A reset ends it as well.
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A status and a body, chunks joined.
pub(crate) fn outcome(answer: &str) -> String {
    let (head, mut body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let status = head.split(' ').nth(1).unwrap_or("-");
    if !head.to_lowercase().contains("transfer-encoding: chunked") {
        return format!("{status} {body}");
    }
    let mut all = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let Ok(size @ 1..) = usize::from_str_radix(size.trim(), 16) else {
            all.push_str(if rest.len() > 2 { rest.trim_end() } else { "" });
            break;
        };
        all.push_str(rest.get(..size).unwrap_or(rest));
        body = rest.get(size + 2..).unwrap_or("!");
    }
    format!("{status} {all}")
}

/// What a cluster of HTTP/2 hosts says.
pub(crate) const HTTP2: &str = "http2_protocol_options: {}, ";

/// Holds what was seen against what is written down. `UPDATE_GOLDENS=1 PROXY_UNDER_TEST=envoy` has Envoy write it.
pub(crate) fn agrees(name: &str, seen: &[String]) {
    let path = format!("{}/tests/testdata/http_filters/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let seen = seen.join("\n") + "\n";
    #[expect(clippy::disallowed_methods, reason = "as every golden test")]
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        std::fs::create_dir_all(std::path::Path::new(&path).parent().unwrap()).unwrap();
        std::fs::write(&path, &seen).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(seen, written, "{name}");
}

/// An answer in a line: status, headers of these names, body and trailers.
pub(crate) fn line(case: &str, answer: &Message, names: &[&str]) -> String {
    let pairs = |map: &http::HeaderMap, all: bool| -> String {
        let mut pairs: Vec<_> = map
            .iter()
            .filter(|(name, _)| all || names.contains(&name.as_str()))
            .map(|(name, value)| format!(" {name}={}", value.to_str().unwrap()))
            .collect();
        pairs.sort();
        pairs.concat()
    };
    let body = String::from_utf8_lossy(&answer.body).escape_default().to_string();
    format!(
        "{case}: {}{} [{body}]{}",
        answer.status,
        pairs(&answer.head, false),
        pairs(&answer.trailers, true)
    )
}

/// One HTTP/1.1 request, and the answer taken apart.
pub(crate) fn http1(to: SocketAddr, method: &str, path: &str, head: &[(&str, &str)], body: &[u8]) -> Message {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n");
    for (name, value) in head {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    if !head.iter().any(|(name, _)| *name == "transfer-encoding") {
        request.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    let mut bytes = format!("{request}\r\n").into_bytes();
    bytes.extend_from_slice(body);
    stream.write_all(&bytes).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let mut message = Message { body: answer[end..].to_vec(), ..Message::default() };
    for line in head.lines().skip(1) {
        if let Some((name, value)) = line.split_once(": ") {
            let name = http::HeaderName::from_bytes(name.to_lowercase().as_bytes()).unwrap();
            message.head.append(name, value.parse().unwrap());
        }
    }
    message.status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    if message.header("transfer-encoding") == "chunked" {
        message.body = unchunked(&message.body);
    }
    message
}

fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(at) = body.windows(2).position(|two| two == b"\r\n") {
        let size =
            std::str::from_utf8(&body[..at]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let Some(size @ 1..) = size else { break };
        let rest = &body[at + 2..];
        all.extend_from_slice(rest.get(..size).unwrap_or(rest));
        body = rest.get(size + 2..).unwrap_or_default();
    }
    all
}

/// An upstream that answers with what it got: headers of these names, body and trailers.
pub(crate) fn mirror(names: &'static [&'static str], answer: fn(&Message) -> Message) -> SocketAddr {
    super::h2::serve(move |asked| {
        let mut said = answer(asked);
        if said.body.is_empty() && said.status == 0 {
            said.body = line(&asked.path, asked, names).into_bytes();
        }
        said
    })
}

/// Counters of these names that are not zero.
pub(crate) fn counted(proxy: &Proxy, prefix: &str) -> String {
    let body = proxy.admin("GET", "/stats?usedonly").body;
    let mut found: Vec<_> = body
        .lines()
        .filter_map(|line| line.strip_prefix(prefix)?.strip_prefix('.'))
        .filter(|line| !line.ends_with(": 0") && !line.contains("P0("))
        .map(|line| line.replace(": ", "="))
        .collect();
    found.sort();
    format!("{prefix}: {}", found.join(" "))
}
