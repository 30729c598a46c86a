//! Every manifest in examples/ is read without error, and without warning but for old spellings.

use std::path::{Path, PathBuf};

use saild_registry::Object;
use serde::Deserialize;

fn manifests(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("examples") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            manifests(&path, found);
        } else if path.extension().is_some_and(|e| e == "yaml") {
            found.push(path);
        }
    }
}

#[test]
fn examples_are_read() {
    let mut found = Vec::new();
    manifests(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples"), &mut found);
    found.sort();
    let mut wrong = Vec::new();
    for path in found {
        let text = std::fs::read_to_string(&path).expect("file");
        for document in serde_norway::Deserializer::from_str(&text) {
            let value = serde_json::Value::deserialize(document).expect("yaml");
            if value.get("apiVersion").is_none() {
                // Values, mappings and configuration are no manifests.
                continue;
            }
            match Object::decode(&value) {
                Err(error) => wrong.push(format!(
                    "{}: {error}: {:?}",
                    path.display(),
                    std::error::Error::source(&error)
                )),
                Ok(decoded) => {
                    // Old spellings are shown on purpose.
                    let surprising = decoded.warnings.iter().filter(|w| !w.message.contains("deprecated"));
                    wrong.extend(surprising.map(|w| format!("{}: warning: {w}", path.display())));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
