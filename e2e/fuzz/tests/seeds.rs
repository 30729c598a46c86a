//! Every property over its seeds (findings of fuzzers among them) and over seeds that were changed; and the fuzzers run
//! just these properties.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use e2e_fuzz::{ALL, Property};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{name} has no seeds");
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// A change to a seed.
#[derive(Clone, Debug)]
enum Edit {
    Set(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
    /// The rest of another seed.
    Join(prop::sample::Index, prop::sample::Index),
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        (at(), prop::sample::select(b" \r\n\0%/.\\:{}[]()\"'-0aA~?*".to_vec()))
            .prop_map(|(at, byte)| Edit::Set(at, byte)),
        (at(), prop::collection::vec(any::<u8>(), 1..6)).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        (at(), 1_usize..8).prop_map(|(at, count)| Edit::Remove(at, count)),
        (at(), at()).prop_map(|(at, other)| Edit::Join(at, other)),
    ]
}

fn apply(bytes: &mut Vec<u8>, edit: &Edit, seeds: &[Vec<u8>]) {
    let place = |at: &prop::sample::Index, bytes: &[u8]| at.index(bytes.len() + 1);
    match edit {
        Edit::Set(at, byte) => {
            let at = place(at, bytes);
            match bytes.get_mut(at) {
                Some(old) => *old = *byte,
                None => bytes.push(*byte),
            }
        }
        Edit::Insert(at, new) => {
            let at = place(at, bytes);
            bytes.splice(at..at, new.iter().copied());
        }
        Edit::Remove(at, count) => {
            let at = place(at, bytes);
            let end = bytes.len().min(at + count);
            bytes.drain(at..end);
        }
        Edit::Join(at, other) => {
            let rest = other.get(seeds);
            bytes.truncate(place(at, bytes));
            let from = at.index(rest.len() + 1);
            bytes.extend_from_slice(&rest[from..]);
        }
    }
}

fn holds(name: &str, cases: u32) {
    let &(_, property): &(&str, Property) = ALL.iter().find(|(known, _)| *known == name).unwrap();
    let seeds = seeds(name);
    property(b"");
    for seed in &seeds {
        property(seed);
    }
    let changed = (any::<prop::sample::Index>(), prop::collection::vec(edit(), 1..6));
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let result = TestRunner::new(config).run(&changed, |(seed, edits)| {
        let mut bytes = seed.get(&seeds).clone();
        for edit in &edits {
            apply(&mut bytes, edit, &seeds);
        }
        property(&bytes);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{name}: {error}");
    }
}

macro_rules! properties {
    ($($name:ident: $cases:literal,)*) => {
        $(#[test]
        fn $name() {
            holds(stringify!($name), $cases);
        })*

        #[test]
        fn every_property_is_tested() {
            let tested = [$(stringify!($name)),*];
            assert_eq!(tested.to_vec(), ALL.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        }
    };
}

properties! {
    bootstrap: 64,
    cel: 2000,
    client_hello: 500,
    dns: 2000,
    format: 2000,
    forwarded: 2000,
    header_value: 2000,
    http1_head: 4000,
    http1_requests: 4000,
    http1_response: 4000,
    http2_client: 2000,
    http2_upstream: 2000,
    http_inspector: 500,
    jwks: 500,
    jwt: 1000,
    manifest: 400,
    mesh_config: 400,
    path: 8000,
    path_template: 2000,
    proxy_protocol: 1000,
    resource: 500,
    route_table: 64,
}

#[test]
fn each_has_a_fuzzer() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let names: BTreeSet<String> = ALL.iter().map(|(name, _)| (*name).to_owned()).collect();
    let targets = fs::read_dir(fuzz.join("fuzz_targets")).unwrap();
    let found: BTreeSet<String> = targets
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(found, names);
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    for name in names {
        let target = fs::read_to_string(fuzz.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        let call = format!("libfuzzer_sys::fuzz_target!(|data: &[u8]| e2e_fuzz::{name}(data));\n");
        assert!(target.ends_with(&call), "{name}: {target}");
        let bin = format!("[[bin]]\nname = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"\n");
        assert!(manifest.contains(&bin), "Cargo.toml does not have {name}");
    }
}
