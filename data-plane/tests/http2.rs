//! The same HTTP/2 frames to Envoy and to sail-proxy, from a client and from an upstream: what comes back, what is logged
//! and what is counted must not tell the two apart.
//!
//! Each file in `http2/` has a list of cases. Where we mean to differ, or do not yet do the same, `http2/differs.txt` says
//! why, and the test fails if we no longer do. It needs `envoy` on PATH, as `make test` provides it.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a test: what fails here fails the test"
)]

#[path = "support/beside.rs"]
mod beside;
#[path = "support/frames.rs"]
mod frames;
mod support;

#[path = "http2/answers.rs"]
mod answers;
#[path = "http2/case.rs"]
mod case;
#[path = "http2/dozes.rs"]
mod dozes;
#[path = "http2/drains.rs"]
mod drains;
#[path = "http2/fields.rs"]
mod fields;
#[path = "http2/floods.rs"]
mod floods;
#[path = "http2/framing.rs"]
mod framing;
#[path = "http2/keepalives.rs"]
mod keepalives;
#[path = "http2/requests.rs"]
mod requests;
#[path = "http2/resets.rs"]
mod resets;
#[path = "http2/side.rs"]
mod side;
#[path = "http2/streams.rs"]
mod streams;
#[path = "http2/tunnels.rs"]
mod tunnels;
#[path = "http2/upstream.rs"]
mod upstream;
#[path = "http2/windows.rs"]
mod windows;
#[path = "http2/wire.rs"]
mod wire;

use std::collections::{BTreeMap, BTreeSet};

use beside::Running;
use case::Case;
use side::{LOG, Side};

/// Runs cases on both, and says where they differ.
fn compare(list: &str, config: &str, cases: &[Case]) {
    let known = known(list);
    let (theirs, ours) = std::thread::scope(|scope| {
        let theirs = scope.spawn(|| run(Running::envoy, config, cases));
        let ours = scope.spawn(|| run(Running::ours, config, cases));
        (theirs.join().unwrap(), ours.join().unwrap())
    });
    let named = |case: &Case| format!("{list} {}: {}", case.listener, case.name);
    let names: Vec<_> = cases.iter().map(named).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "two cases of one name");
    let strange =
        known.keys().filter(|name| !names.contains(name)).map(|name| format!("{name}: no such case"));
    let mut wrong: Vec<_> = strange.collect();
    for (name, (theirs, ours)) in names.iter().zip(theirs.iter().zip(&ours)) {
        // Nothing comes that is waited for: such a case is wrong, and slow.
        if theirs.contains("nothing;") {
            wrong.push(format!("{name}: Envoy keeps silent\n{theirs}"));
        }
        match known.get(name) {
            None if !same(theirs, ours) => {
                wrong.push(format!("{name}\n--- Envoy\n{theirs}\n--- sail-proxy\n{ours}"));
            }
            Some(why) if same(theirs, ours) => wrong.push(format!("{name}: no longer differs: {why}")),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{} differences\n\n{}", wrong.len(), wrong.join("\n\n"));
}

/// Whether both show the same, but for what we mean to say otherwise in any case.
fn same(theirs: &str, ours: &str) -> bool {
    let (mut theirs, mut ours) = (theirs.lines(), ours.lines());
    loop {
        match (theirs.next(), ours.next()) {
            (None, None) => return true,
            (Some(theirs), Some(ours)) if theirs == ours || alike(theirs, ours) => {}
            _ => return false,
        }
    }
}

/// We say GOAWAY, and why, where Envoy closes without a word; an upstream learns that its answer is not wanted any more,
/// and not that something broke; and both have their own words for what is wrong with frames.
fn alike(theirs: &str, ours: &str) -> bool {
    let [words, goaway, codec] =
        ["GOAWAY (\\d+ \\w+)( \"[^\"]*\")?", "GOAWAY \\d+ \\w+; ", "codec_error:\\S+"]
            .map(|pattern| regex::Regex::new(pattern).unwrap());
    let plain = |line: &str| {
        let line = words.replace_all(line, "GOAWAY $1");
        let line = codec.replace_all(&line, "codec_error");
        let line = if theirs.contains("GOAWAY") { line } else { goaway.replace_all(&line, "") };
        if line.starts_with("upstream: ") {
            line.replace("INTERNAL_ERROR", "CANCEL")
        } else {
            line.into_owned()
        }
    };
    plain(theirs) == plain(ours)
}

/// The cases of a list that are known to differ, and why.
fn known(list: &str) -> BTreeMap<String, &'static str> {
    let mut why = "";
    let lines = include_str!("http2/differs.txt").lines().filter_map(|line| {
        if let Some(title) = line.strip_prefix("--- ") {
            why = title;
        }
        line.starts_with(&format!("{list} ")).then(|| (line.to_owned(), why))
    });
    lines.collect()
}

/// What each case showed on one of them.
fn run(start: fn(&str, &str) -> Running, config: &str, cases: &[Case]) -> Vec<String> {
    let side = Side::start(|config| start(config, LOG), config);
    cases.iter().map(|case| side.show(case)).collect()
}

macro_rules! lists {
    ($($name:ident),* $(,)?) => {
        $(#[test] fn $name() { compare(stringify!($name), &$name::config(), &$name::cases()); })*
    };
}

lists! { framing, streams, fields, requests, windows, floods, drains, resets, answers, keepalives, dozes, tunnels }
