//! The difference of two pods as a JSON Patch (RFC 6902).

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Map, Value, json};

use crate::error::Error;

/// The operations that make `after` of `before`, as an array.
pub fn json_patch(before: &Pod, after: &Pod) -> Result<Value, Error> {
    let written = |pod: &Pod| {
        serde_json::to_value(pod).map_err(|source| Error::Json { what: "the pod cannot be written", source })
    };
    let mut operations = Vec::new();
    diff(&mut String::new(), &written(before)?, &written(after)?, &mut operations);
    Ok(Value::Array(operations))
}

fn diff(path: &mut String, before: &Value, after: &Value, out: &mut Vec<Value>) {
    match (before, after) {
        _ if before == after => {}
        (Value::Object(before), Value::Object(after)) => diff_maps(path, before, after, out),
        (Value::Array(before), Value::Array(after)) => diff_lists(path, before, after, out),
        _ => out.push(json!({"op": "replace", "path": path, "value": after})),
    }
}

fn diff_maps(
    path: &mut String,
    before: &Map<String, Value>,
    after: &Map<String, Value>,
    out: &mut Vec<Value>,
) {
    for (key, old) in before {
        within(path, &escape(key), |path| match after.get(key) {
            None => out.push(json!({"op": "remove", "path": path})),
            Some(new) => diff(path, old, new, out),
        });
    }
    for (key, new) in after.iter().filter(|(key, _)| !before.contains_key(*key)) {
        within(path, &escape(key), |path| out.push(json!({"op": "add", "path": path, "value": new})));
    }
}

/// Elements that are equal at both ends stay; the rest is compared in pairs, then removed or inserted.
fn diff_lists(path: &mut String, before: &[Value], after: &[Value], out: &mut Vec<Value>) {
    let head = before.iter().zip(after).take_while(|(a, b)| a == b).count();
    let (old, new) = (&before[head..], &after[head..]);
    let tail = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[..old.len() - tail], &new[..new.len() - tail]);
    let pairs = old.len().min(new.len());
    for index in 0..pairs {
        within(path, &(head + index).to_string(), |path| diff(path, &old[index], &new[index], out));
    }
    for index in (pairs..old.len()).rev() {
        within(path, &(head + index).to_string(), |path| out.push(json!({"op": "remove", "path": path})));
    }
    for (index, value) in new.iter().enumerate().skip(pairs) {
        within(path, &(head + index).to_string(), |path| {
            out.push(json!({"op": "add", "path": path, "value": value}));
        });
    }
}

fn within(path: &mut String, step: &str, f: impl FnOnce(&mut String)) {
    let length = path.len();
    path.push('/');
    path.push_str(step);
    f(path);
    path.truncate(length);
}

fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(before: Value, after: Value, expect: Value) {
        let mut out = Vec::new();
        diff(&mut String::new(), &before, &after, &mut out);
        assert_eq!(Value::Array(out), expect);
    }

    #[test]
    fn patches() {
        check(json!({"a": 1}), json!({"a": 1}), json!([]));
        check(
            json!({"a/b": 1, "c": 2}),
            json!({"a/b": 2, "d~": 3}),
            json!([
                {"op": "replace", "path": "/a~1b", "value": 2},
                {"op": "remove", "path": "/c"},
                {"op": "add", "path": "/d~0", "value": 3},
            ]),
        );
        check(
            json!({"l": [1, 2, 3]}),
            json!({"l": [0, 1, 2, 3]}),
            json!([{"op": "add", "path": "/l/0", "value": 0}]),
        );
        check(
            json!([1, 2, 3, 4]),
            json!([1, 5]),
            json!([
                {"op": "replace", "path": "/1", "value": 5},
                {"op": "remove", "path": "/3"},
                {"op": "remove", "path": "/2"},
            ]),
        );
    }
}
