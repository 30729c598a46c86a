//! One file: its manifests and their errors.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::object::Object;

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) objects: Vec<Object>,
    pub(super) warnings: Vec<String>,
}

/// Whether a file is one of manifests: not hidden, not an editor's, with one of our endings.
pub(super) fn is_manifest(path: &Path) -> bool {
    let hidden =
        path.file_name().and_then(|n| n.to_str()).is_none_or(|n| n.starts_with('.') || n.starts_with('#'));
    let ending = path.extension().and_then(|e| e.to_str());
    !hidden && matches!(ending, Some("yaml" | "yml" | "json"))
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |e| e.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Reads all manifests of a text. The error names the document and, within it, object and field.
pub(super) fn read(text: &str) -> Result<Content, String> {
    let mut content = Content::default();
    for (index, document) in serde_norway::Deserializer::from_str(text).enumerate() {
        let at = |message: String| format!("document {}: {message}", index + 1);
        let value = Value::deserialize(document).map_err(|e| at(e.to_string()))?;
        if value.is_null() {
            continue;
        }
        let mut decoded = Object::decode(&value).map_err(|e| at(chain(&e)))?;
        for warning in &decoded.warnings {
            let name = decoded.objects.first().map(|o| o.key().to_string()).unwrap_or_default();
            content.warnings.push(format!("{name}: {warning}"));
        }
        content.objects.append(&mut decoded.objects);
    }
    Ok(content)
}
