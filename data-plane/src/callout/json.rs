//! Protobuf's `Struct` and JSON, both ways.

use serde_json::{Map, Number, Value};
use xds_api::google::protobuf as proto;
use xds_api::google::protobuf::value::Kind;

/// A `Struct` as JSON.
pub(crate) fn object(value: proto::Struct) -> Map<String, Value> {
    let mut fields: Vec<_> = value.fields.into_iter().collect();
    // Protobuf's maps have no order, JSON's should have one.
    fields.sort_by(|(left, _), (right, _)| left.cmp(right));
    fields.into_iter().map(|(key, value)| (key, self::value(value))).collect()
}

fn value(value: proto::Value) -> Value {
    match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::NumberValue(value)) => number(value),
        Some(Kind::StringValue(text)) => Value::String(text),
        Some(Kind::BoolValue(value)) => Value::Bool(value),
        Some(Kind::StructValue(fields)) => Value::Object(object(fields)),
        Some(Kind::ListValue(list)) => Value::Array(list.values.into_iter().map(self::value).collect()),
    }
}

/// Whole numbers as integers.
fn number(value: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "checked: whole and below 2^53")]
    if value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 {
        return Value::Number(Number::from(value as i64));
    }
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

/// JSON as a `Struct`; what is no object is an empty one.
pub(crate) fn to_struct(value: &Value) -> proto::Struct {
    let fields = value.as_object().into_iter().flatten();
    proto::Struct { fields: fields.map(|(key, value)| (key.clone(), to_value(value))).collect() }
}

fn to_value(value: &Value) -> proto::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(items) => {
            Kind::ListValue(proto::ListValue { values: items.iter().map(to_value).collect() })
        }
        Value::Object(_) => Kind::StructValue(to_struct(value)),
    };
    proto::Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_ways() {
        let value = json!({ "a": 1, "b": [true, null, "x"], "c": { "d": 1.5 } });
        assert_eq!(Value::Object(object(to_struct(&value))), value);
    }
}
