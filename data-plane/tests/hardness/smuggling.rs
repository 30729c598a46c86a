//! HTTP/1 requests that two parsers might read differently.

use crate::{Gate, talk};

/// What follows a request whose end was misjudged: it must never be taken for a request.
const SMUGGLED: &str = "GET /admin/smuggled HTTP/1.1\r\nhost: test\r\n\r\n";

/// What ends the conversation, if the connection lives that long.
const LAST: &str = "GET /last HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";

/// Sends a head (and a body) and what follows; returns the answer, and what reached the backend.
fn send(gate: &Gate, request: &str) -> (String, Vec<String>) {
    let answer = talk(gate.to, format!("{request}{LAST}").as_bytes());
    (String::from_utf8_lossy(&answer).into_owned(), gate.seen_after(request))
}

/// The request is answered with an error, the connection ends, and the backend hears nothing.
fn refused(gate: &Gate, request: &str) {
    let (answer, seen) = send(gate, request);
    let status = answer.split(' ').nth(1).unwrap_or_default();
    assert!(answer.is_empty() || status.starts_with('4') || status == "501", "{request:?}: {answer}");
    assert_eq!(seen, Vec::<String>::new(), "{request:?}: {answer}");
}

/// The request arrives once, with these lines and without those; after it comes only the last.
fn harmless(gate: &Gate, request: &str, with: &[&str], without: &[&str]) {
    let (answer, seen) = send(gate, request);
    assert_eq!(seen.len(), 2, "{request:?}: {answer} {seen:?}");
    let first = seen[0].to_lowercase();
    for line in with {
        assert!(first.contains(line), "{request:?}: {line:?} is missing in {first}");
    }
    for line in without {
        assert!(!first.contains(line), "{request:?}: {line:?} is in {first}");
    }
    assert!(seen[1].starts_with("GET /last "), "{request:?}: {seen:?}");
}

fn post(lines: &str, body: &str) -> String {
    format!("POST /x HTTP/1.1\r\nhost: test\r\n{lines}\r\n{body}")
}

#[test]
fn lengths_that_conflict_are_refused() {
    let gate = Gate::new("", "");
    let length = format!("content-length: {}\r\n", SMUGGLED.len());
    for lines in [format!("content-length: 0\r\n{length}"), format!("{length}content-length: 0\r\n")] {
        refused(&gate, &post(&lines, SMUGGLED));
    }
    let both = [
        format!("{length}transfer-encoding: chunked\r\n"),
        format!("transfer-encoding: chunked\r\n{length}"),
    ];
    // Where a length may stand beside chunks it is forgotten, as RFC 9112 allows: what goes on has none.
    let lenient = Gate::new("", "http_protocol_options: {allow_chunked_length: true},");
    for lines in both {
        refused(&gate, &post(&lines, &format!("0\r\n\r\n{SMUGGLED}")));
        let gate = &lenient;
        let (_, seen) = send(gate, &post(&lines, &format!("0\r\n\r\n{SMUGGLED}")));
        let first = seen[0].to_lowercase();
        assert!(
            first.contains("transfer-encoding: chunked") && !first.contains("content-length"),
            "{seen:?}"
        );
        assert!(!seen.iter().any(|seen| seen.starts_with("GET /admin")), "{seen:?}");
    }
}

#[test]
fn lengths_that_are_no_numbers_are_refused() {
    let gate = Gate::new("", "");
    for length in ["+5", "-1", "5, 6", "0x5", "5 5", "five", "", "99999999999999999999999"] {
        refused(&gate, &post(&format!("content-length: {length}\r\n"), "hello"));
    }
}

#[test]
fn encodings_that_do_not_end_a_body_are_refused() {
    let gate = Gate::new("", "");
    for encoding in
        ["identity", "chunked, identity", "xchunked", "gzip", "chunked chunked", "\x0bchunked", ""]
    {
        refused(&gate, &post(&format!("transfer-encoding: {encoding}\r\n"), "0\r\n\r\n"));
    }
    refused(&gate, "POST /x HTTP/1.0\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n");
}

#[test]
fn lines_that_are_no_headers_are_refused() {
    let gate = Gate::new("", "");
    for lines in [
        "transfer-encoding : chunked\r\n",
        " folded: yes\r\n",
        "a: b\r\n folded\r\n",
        "a: b\r\n\tfolded\r\n",
        "a: b\rtransfer-encoding: chunked\r\n",
        "a: b\0c\r\n",
        "a b: c\r\n",
        "no colon\r\n",
        ": empty\r\n",
        "host: other\r\n",
    ] {
        refused(&gate, &post(lines, ""));
    }
}

#[test]
fn targets_and_hosts_that_mean_two_things_are_refused() {
    let gate = Gate::new("", "");
    for head in [
        "GET /a b HTTP/1.1\r\nhost: test\r\n",
        "GET /a\tb HTTP/1.1\r\nhost: test\r\n",
        "GET /a HTTP/1.1 HTTP/1.1\r\nhost: test\r\n",
        "GET /a HTTP/2.0\r\nhost: test\r\n",
        "GET a HTTP/1.1\r\nhost: test\r\n",
        "GET /a HTTP/1.1\r\n",
        "GET /a HTTP/1.1\r\nhost: a b\r\n",
        "GET /a HTTP/1.1\r\nhost: a/../admin\r\n",
        "G(T /a HTTP/1.1\r\nhost: test\r\n",
    ] {
        refused(&gate, &format!("{head}\r\n"));
    }
}

#[test]
fn chunks_that_are_malformed_do_not_pass() {
    let gate = Gate::new("", "");
    for body in [
        "0x5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX0\r\n\r\n",
        "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
    ] {
        let request = post("transfer-encoding: chunked\r\n", &format!("{body}{SMUGGLED}"));
        let (answer, seen) = send(&gate, &request);
        assert!(!answer.starts_with("HTTP/1.1 200"), "{request:?}: {answer}");
        let leaked = seen.iter().any(|seen| seen.starts_with("GET /admin") || seen.starts_with("GET /last"));
        assert!(!leaked, "{request:?}: {seen:?}");
    }
}

#[test]
fn a_body_is_not_taken_for_a_request() {
    let gate = Gate::new("", "");
    let length = format!("content-length: {}\r\n", SMUGGLED.len());
    harmless(&gate, &post(&length, SMUGGLED), &["/admin/smuggled"], &["transfer-encoding"]);
    let get = format!("GET /x HTTP/1.1\r\nhost: test\r\n{length}\r\n{SMUGGLED}");
    harmless(&gate, &get, &["/admin/smuggled"], &[]);
}

#[test]
fn what_the_proxy_reads_in_one_way_goes_on_in_one_form() {
    let gate = Gate::new("", "");
    harmless(
        &gate,
        "GET /x HTTP/1.1\nhost: test\na: b\n\n",
        &["get /x http/1.1\r\n", "host: test\r\n", "a: b\r\n"],
        &[],
    );
    harmless(
        &gate,
        "GET http://a/x HTTP/1.1\r\nhost: b\r\n\r\n",
        &["get /x http/1.1\r\n", "host: a\r\n"],
        &["host: b"],
    );
    let upgrade = "GET /x HTTP/1.1\r\nhost: test\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\n\
                   http2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n";
    harmless(&gate, upgrade, &["get /x http/1.1\r\n"], &["upgrade", "http2-settings"]);
    let hop = "GET /x HTTP/1.1\r\nhost: test\r\nconnection: keep-alive, te\r\nkeep-alive: 5\r\nte: gzip\r\n\
               proxy-connection: keep-alive\r\n\r\n";
    harmless(&gate, hop, &["host: test\r\n"], &["keep-alive", "te:", "proxy-connection"]);
}
