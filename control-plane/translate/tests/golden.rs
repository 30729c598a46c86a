//! What proxies get for manifests: `testdata/<case>/{in,proxy,out}.yaml`. `UPDATE_GOLDENS=1` writes the outputs anew.

#[path = "common/common.rs"]
mod common;

use serde_json::{Map, Value};
use xds_api::codec::Codec;

#[test]
fn resources_are_as_written() {
    let update = option_env_set("UPDATE_GOLDENS");
    let codec = Codec::new();
    let mut wrong = Vec::new();
    for dir in common::cases() {
        let (case, mesh, proxy) = common::Case::load(&dir);
        let all = common::everything(&mesh, &proxy, &codec);
        let mut out = Map::new();
        for (kind, resources) in all.resources {
            let shown: Vec<Value> = resources
                .into_iter()
                .filter(|(name, _)| case.shows(kind, name))
                .map(|(_, value)| value)
                .collect();
            if !shown.is_empty() {
                out.insert(kind.to_owned(), Value::Array(shown));
            }
        }
        if !all.warnings.is_empty() {
            out.insert("warnings".to_owned(), all.warnings.into());
        }
        let text = serde_norway::to_string(&Value::Object(out)).unwrap();
        let path = dir.join("out.yaml");
        if update {
            std::fs::write(path, text).unwrap();
        } else if std::fs::read_to_string(&path).unwrap_or_default() != text {
            wrong.push(dir.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    assert!(wrong.is_empty(), "differ from out.yaml (UPDATE_GOLDENS=1 writes it anew): {wrong:?}");
}

#[expect(clippy::disallowed_methods, reason = "the switch of golden tests")]
fn option_env_set(name: &str) -> bool {
    std::env::var_os(name).is_some()
}
