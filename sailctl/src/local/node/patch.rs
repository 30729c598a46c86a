//! JSON Patch (RFC 6902), as webhooks answer with it.

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Deserialize)]
struct Step {
    op: String,
    path: String,
    #[serde(default)]
    from: Option<String>,
    #[serde(default)]
    value: Value,
}

/// Applies a patch; the first step that cannot be done is named.
pub(crate) fn apply(document: &mut Value, patch: &Value) -> anyhow::Result<()> {
    let steps: Vec<Step> =
        serde_json::from_value(patch.clone()).context("the patch is not a list of steps")?;
    for step in steps {
        one(document, &step).with_context(|| format!("patch: {} {}", step.op, step.path))?;
    }
    Ok(())
}

fn one(document: &mut Value, step: &Step) -> anyhow::Result<()> {
    let from = || step.from.as_deref().context("field from is missing");
    match step.op.as_str() {
        "add" => add(document, &step.path, step.value.clone()),
        "remove" => remove(document, &step.path).map(drop),
        "replace" => {
            *document.pointer_mut(&step.path).context("no such place")? = step.value.clone();
            Ok(())
        }
        "move" => {
            let value = remove(document, from()?)?;
            add(document, &step.path, value)
        }
        "copy" => {
            let value = document.pointer(from()?).context("no such place")?.clone();
            add(document, &step.path, value)
        }
        "test" if document.pointer(&step.path) == Some(&step.value) => Ok(()),
        "test" => bail!("the value is another"),
        _ => bail!("unknown operation"),
    }
}

/// The place that holds a path's last word, and that word.
fn parent<'d>(document: &'d mut Value, path: &str) -> anyhow::Result<(&'d mut Value, String)> {
    let (parent, last) = path.rsplit_once('/').context("a path begins with /")?;
    let parent = document.pointer_mut(parent).context("no such place")?;
    Ok((parent, last.replace("~1", "/").replace("~0", "~")))
}

fn add(document: &mut Value, path: &str, value: Value) -> anyhow::Result<()> {
    if path.is_empty() {
        *document = value;
        return Ok(());
    }
    match parent(document, path)? {
        (Value::Object(map), key) => drop(map.insert(key, value)),
        (Value::Array(list), key) if key == "-" => list.push(value),
        (Value::Array(list), key) => {
            let index: usize = key.parse()?;
            if index > list.len() {
                bail!("index {index} is behind the end");
            }
            list.insert(index, value);
        }
        _ => bail!("neither an object nor a list"),
    }
    Ok(())
}

fn remove(document: &mut Value, path: &str) -> anyhow::Result<Value> {
    match parent(document, path)? {
        (Value::Object(map), key) => map.shift_remove(&key).context("no such field"),
        (Value::Array(list), key) => {
            let index: usize = key.parse()?;
            if index >= list.len() {
                bail!("index {index} is behind the end");
            }
            Ok(list.remove(index))
        }
        _ => bail!("neither an object nor a list"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn patches_are_applied_in_order() {
        let mut document = json!({"spec": {"list": [1, 2]}, "a/b": 1});
        let patch = json!([
            {"op": "add", "path": "/spec/list/1", "value": 9},
            {"op": "add", "path": "/spec/list/-", "value": 3},
            {"op": "remove", "path": "/a~1b"},
            {"op": "replace", "path": "/spec/list/0", "value": 0},
            {"op": "copy", "from": "/spec/list", "path": "/copy"},
        ]);
        apply(&mut document, &patch).unwrap();
        assert_eq!(document, json!({"spec": {"list": [0, 9, 2, 3]}, "copy": [0, 9, 2, 3]}));
    }

    #[test]
    fn a_step_that_fails_is_named() {
        let error = apply(&mut json!({}), &json!([{"op": "remove", "path": "/x"}])).unwrap_err();
        assert_eq!(format!("{error:#}"), "patch: remove /x: no such field");
    }
}
