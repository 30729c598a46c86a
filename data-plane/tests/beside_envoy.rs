//! The same configuration on Envoy and on sail-proxy, and the same requests to both: clients, access logs and statistics
//! must not tell them apart.
//!
//! Each file in `beside_envoy/` is a configuration and its requests; where we mean to differ, the file says why, and
//! the test fails if we no longer do. It needs `envoy` on PATH, as `make test` provides it.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a test: what fails here fails the test"
)]

mod support;

#[path = "beside_envoy/backend.rs"]
mod backend;
#[path = "support/beside.rs"]
mod beside;
#[path = "beside_envoy/case.rs"]
mod case;
#[path = "beside_envoy/side.rs"]
mod side;

use case::Case;
use side::Side;

/// Runs a case on both, and says where they differ.
fn compare(name: &str) {
    let path = format!("{}/tests/beside_envoy/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let case = Case::read(&std::fs::read_to_string(&path).unwrap());
    let envoy = Side::envoy(&case).run(&case);
    let ours = Side::ours(&case).run(&case);
    let mut wrong = Vec::new();
    for (at, request) in case.requests.iter().enumerate() {
        let (theirs, ours) = (&envoy.seen[at], &ours.seen[at]);
        let first = request.bytes.split(|byte| *byte == b'\r').next().unwrap();
        let line: String = String::from_utf8_lossy(first).chars().take(60).collect();
        match &request.differs {
            None if theirs != ours => {
                wrong.push(format!("request {at} ({line})\n--- Envoy\n{theirs}\n--- sail-proxy\n{ours}"));
            }
            Some(why) if theirs == ours => {
                wrong.push(format!("request {at} ({line}) no longer differs: {why}"));
            }
            _ => {}
        }
    }
    for start in case.stats.iter().filter_map(|stat| stat.strip_suffix('*')) {
        let (theirs, ours) = (envoy.counted(start), ours.counted(start));
        if theirs != ours {
            wrong.push(format!("{start}*\n--- Envoy\n{theirs}\n--- sail-proxy\n{ours}"));
        }
    }
    for stat in case.stats.iter().filter(|stat| !stat.ends_with('*')) {
        let (theirs, ours) = (envoy.stat(stat), ours.stat(stat));
        if theirs != ours {
            wrong.push(format!("{stat}: {theirs:?} in Envoy, {ours:?} here"));
        }
    }
    for known in case.names.iter().flatten() {
        let lacks = |name: &&String| known.is_match(name) && !ours.names.contains(name);
        if !envoy.names.iter().any(|name| lacks(&name)) {
            wrong.push(format!("we have all of {known}"));
        }
    }
    if let Some(known) = &case.names {
        let lacking = envoy.names.iter().filter(|name| !ours.names.contains(name));
        let lacking = lacking.filter(|name| !known.iter().any(|known| known.is_match(name)));
        wrong.extend(lacking.map(|name| format!("{name}: not here")));
    }
    assert!(wrong.is_empty(), "{name}: {} differences\n\n{}", wrong.len(), wrong.join("\n\n"));
}

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        $(#[test] fn $name() { compare(stringify!($name)); })*

        #[test]
        fn every_file_is_run() {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/beside_envoy");
            let mut files: Vec<String> = std::fs::read_dir(folder)
                .unwrap()
                .filter_map(|entry| Some(entry.unwrap().file_name().to_str()?.strip_suffix(".txt")?.to_owned()))
                .collect();
            files.sort();
            let mut run = [$(stringify!($name)),*];
            run.sort_unstable();
            assert_eq!(files, run);
        }
    };
}

cases! {
    requests,
    replies,
    headers,
    front_proxy,
    cors,
    csrf,
    fault,
    local_rate_limit,
    rbac,
    redirects,
    routing,
    routes_odd,
    targets,
    own_replies,
    logged,
    jwt,
    basic_auth,
    ratelimit,
    ext_authz,
    mirror,
    limits,
    retries,
    settings,
    retry_edges,
    hedges,
    ends,
    upstream,
    upstream_filters,
    upstream_odd,
    names,
    strict,
    internal,
    informs,
    gateways,
    gateways_clients,
}
