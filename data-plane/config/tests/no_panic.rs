//! Whatever comes as a resource is accepted or refused; nothing panics.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::{ProptestConfig, any, prop, proptest};
use sail_proxy_config::{Kind, NoSources, State};
use xds_api::codec::Codec;
use xds_api::envoy::service::discovery::v3::DiscoveryResponse;
use xds_api::google::protobuf::Any;

const KINDS: [Kind; 7] = [
    Kind::Cluster,
    Kind::Assignment,
    Kind::Listener,
    Kind::RouteTable,
    Kind::Scope,
    Kind::Secret,
    Kind::Extension,
];

/// The resources of all golden cases.
static SEEDS: LazyLock<Vec<Any>> = LazyLock::new(|| {
    let codec = Codec::new();
    let cases = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")).unwrap();
    let inputs = cases.filter_map(|case| fs::read_to_string(case.unwrap().path().join("in.yaml")).ok());
    inputs.flat_map(|input| codec.from_yaml::<DiscoveryResponse>(&input).unwrap().resources).collect()
});

fn put(type_url: &str, value: Vec<u8>) {
    let mut state = State::new(Box::new(NoSources));
    // Whether it is accepted does not matter here.
    let _ = state.put(&Any { type_url: type_url.into(), value });
    let _ = state.wanted();
    let _ = state.snapshot();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes(kind in 0_usize..KINDS.len(), bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        put(KINDS[kind].type_url(), bytes);
    }

    #[test]
    fn mutated_resources(
        seed in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let seed = seed.get(&SEEDS);
        let mut bytes = seed.value.clone();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        put(&seed.type_url, bytes);
    }
}
