//! Paths that an RBAC rule and the upstream might read differently, and headers made from what a client sent.

use proptest::prelude::*;

use crate::{Gate, talk};

const STRICT: &str = "normalize_path: true, merge_slashes: true, \
    path_with_escaped_slashes_action: UNESCAPE_AND_FORWARD,";

/// A path as a lenient upstream would read it.
fn lenient(path: &str) -> String {
    let mut path = path.split(['?', '#']).next().unwrap_or_default().to_owned();
    // Some decode twice.
    for _ in 0..2 {
        path = percent_decode(&path);
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split(['/', '\\']) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn percent_decode(text: &str) -> String {
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::new(), 0);
    while at < bytes.len() {
        let escaped = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match escaped.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// What the upstream was asked for, `None` if the proxy refused.
fn forwarded(gate: &Gate, path: &str) -> Option<String> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    let answer = talk(gate.to, request.as_bytes());
    let line = gate.seen().pop()?;
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{path:?} reached the upstream but not back");
    Some(line.split(' ').nth(1).unwrap_or_default().to_owned())
}

#[test]
fn known_spellings_of_a_denied_path_are_denied() {
    let gate = Gate::new("", STRICT);
    assert_eq!(forwarded(&gate, "/x/./y//z").as_deref(), Some("/x/y/z"));
    for path in [
        "/admin",
        "/admin?x",
        "/admin;x=y",
        "//admin",
        "/./admin",
        "/x/../admin",
        "/x/%2e%2e/admin",
        "/x/.%2E/admin",
        "/%61dmin",
        "/%2fadmin",
        "/%2Fadmin",
        "/x%2f..%2fadmin",
        "/%5cadmin",
        "/\\admin",
        "/x\\..\\admin",
        "http://test/admin",
        "http://test//admin",
    ] {
        assert_eq!(forwarded(&gate, path), None, "{path}");
    }
}

#[test]
fn no_spelling_of_a_denied_path_passes() {
    let gate = Gate::new("", STRICT);
    let piece = prop_oneof![
        4 => Just("/"),
        2 => Just("admin"),
        1 => Just("%61dmin"),
        1 => Just("adm%69n"),
        2 => Just(".."),
        1 => Just("."),
        1 => Just("%2e"),
        1 => Just("%2E."),
        1 => Just("%2f"),
        1 => Just("%5C"),
        1 => Just("\\"),
        1 => Just("x"),
        1 => Just(";y"),
        1 => Just("%00"),
        1 => Just("?"),
    ];
    let paths = prop::collection::vec(piece, 1..8).prop_map(|pieces| format!("/{}", pieces.concat()));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner
        .run(&paths, |path| {
            if let Some(reached) = forwarded(&gate, &path) {
                prop_assert!(!lenient(&reached).starts_with("/admin"), "{} went on as {}", path, reached);
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn rewrites_make_no_lines() {
    let routes = "{match: {prefix: /old/}, route: {cluster: a, regex_rewrite: {pattern: {regex: \"^/old/(.*)$\"}, \
        substitution: \"/new/\\\\1\"}}, request_headers_to_add: [{header: {key: x-copy, value: \"%REQ(:path)%\"}}]}, \
        {match: {prefix: /go/}, redirect: {prefix_rewrite: /gone/}}, ";
    let gate = Gate::new(routes, "");
    for bad in ["%0d%0aevil:%20yes", "%0Aevil:yes", "%00", "%E2%80%A8evil"] {
        assert!(forwarded(&gate, &format!("/old/{bad}")).is_some_and(|path| path.starts_with("/new/")));
        let request = format!("GET /go/{bad} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        let answer = String::from_utf8_lossy(&talk(gate.to, request.as_bytes())).to_lowercase();
        assert!(!answer.lines().any(|line| line.starts_with("evil")), "{answer}");
        assert!(answer.contains("\r\nlocation: "), "{answer}");
    }
    let request = "GET /old/%0d%0aevil:yes HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    talk(gate.to, request.as_bytes());
    let head = gate.seen().pop().unwrap();
    assert!(!head.lines().any(|line| line.starts_with("evil")), "{head}");
    assert!(head.contains("x-copy: "), "{head}");
}
