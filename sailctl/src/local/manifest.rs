//! Manifests: files, folders or standard input to objects. Several documents a file, JSON or YAML, lists unpacked.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::Value;

use super::kind::Key;

/// An object and where it was written.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) key: Key,
    pub(crate) object: Value,
    pub(crate) source: String,
}

/// Reads everything that `-f` names. `namespace` is for objects that do not say theirs.
pub(crate) fn read(sources: &[PathBuf], namespace: Option<&str>) -> anyhow::Result<Vec<Document>> {
    let mut documents = Vec::new();
    for source in sources {
        if source == Path::new("-") {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
            documents.extend(parse("standard input", &text, namespace)?);
        } else {
            for file in files(source)? {
                let text =
                    fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
                documents.extend(parse(&file.display().to_string(), &text, namespace)?);
            }
        }
    }
    if documents.is_empty() {
        bail!("no objects in what -f names");
    }
    // Namespaces come first, whatever the order of files; the rest keeps its order.
    documents.sort_by_key(|document| document.key.kind.name != "Namespace");
    Ok(documents)
}

fn files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let meta = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    if !meta.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))? {
        let file = entry?.path();
        let known = file.extension().is_some_and(|ext| ext == "yaml" || ext == "yml" || ext == "json");
        if known && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

pub(crate) fn parse(source: &str, text: &str, namespace: Option<&str>) -> anyhow::Result<Vec<Document>> {
    let mut documents = Vec::new();
    for (index, part) in serde_norway::Deserializer::from_str(text).enumerate() {
        let place = format!("{source}, document {}", index + 1);
        let value = Value::deserialize(part).with_context(|| place.clone())?;
        add(&mut documents, &place, value, namespace)?;
    }
    Ok(documents)
}

fn add(
    documents: &mut Vec<Document>,
    place: &str,
    mut object: Value,
    namespace: Option<&str>,
) -> anyhow::Result<()> {
    if object.is_null() {
        return Ok(());
    }
    if object["kind"] == "List" {
        let items = object["items"].as_array().cloned().unwrap_or_default();
        return items.into_iter().try_for_each(|item| add(documents, place, item, namespace));
    }
    if let (Some(namespace), Some(meta)) = (namespace, object["metadata"].as_object_mut()) {
        meta.entry("namespace").or_insert_with(|| namespace.into());
    }
    let key = Key::of(&object).with_context(|| place.to_owned())?;
    documents.push(Document { key, object, source: place.to_owned() });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_named_by_their_place() {
        let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n---\n---\napiVersion: v1\nmetadata: {name: b}\n";
        let error = parse("x.yaml", text, None).unwrap_err();
        assert_eq!(format!("{error:#}"), "x.yaml, document 3: field kind is missing");
    }

    #[test]
    fn the_namespace_flag_fills_in() {
        let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}";
        let documents = parse("x", text, Some("shop")).unwrap();
        assert_eq!(documents[0].key.namespace, "shop");
    }
}
