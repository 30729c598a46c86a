//! JSON as Lua has it, and back.

use mlua::{Lua, Result, Value};
use serde_json::{Map, Number};

/// Deeper tables are not looked into: they may be their own parts.
const DEPTH: usize = 64;

/// A JSON value for a script.
pub(super) fn to_lua(lua: &Lua, value: &serde_json::Value) -> Result<Value> {
    use serde_json::Value as Json;
    Ok(match value {
        Json::Null => Value::Nil,
        Json::Bool(value) => Value::Boolean(*value),
        Json::Number(number) => Value::Number(number.as_f64().unwrap_or_default()),
        Json::String(text) => Value::String(lua.create_string(text)?),
        Json::Array(items) => {
            let table = lua.create_table_with_capacity(items.len(), 0)?;
            for (index, item) in items.iter().enumerate() {
                table.raw_set(index + 1, to_lua(lua, item)?)?;
            }
            Value::Table(table)
        }
        Json::Object(fields) => {
            let table = lua.create_table_with_capacity(0, fields.len())?;
            for (key, item) in fields {
                table.raw_set(&**key, to_lua(lua, item)?)?;
            }
            Value::Table(table)
        }
    })
}

/// A script's value as JSON; the error names a type that JSON does not have.
pub(super) fn to_json(value: &Value) -> std::result::Result<serde_json::Value, &'static str> {
    json(value, DEPTH)
}

fn json(value: &Value, depth: usize) -> std::result::Result<serde_json::Value, &'static str> {
    use serde_json::Value as Json;
    Ok(match value {
        Value::Nil => Json::Null,
        Value::Boolean(value) => Json::Bool(*value),
        Value::Integer(number) => Json::from(*number),
        Value::Number(number) => number_of(*number),
        Value::String(text) => Json::String(text.to_string_lossy()),
        Value::Table(table) if depth > 0 => {
            let length = table.raw_len();
            if length > 0 {
                let items = (1..=length)
                    .map(|index| json(&table.raw_get::<Value>(index).map_err(|_| "table")?, depth - 1));
                return items.collect::<std::result::Result<_, _>>().map(Json::Array);
            }
            let mut fields = Map::new();
            for pair in table.pairs::<Value, Value>() {
                let (key, value) = pair.map_err(|_| "table")?;
                let key = key.to_string().map_err(|_| "table")?;
                fields.insert(key, json(&value, depth - 1)?);
            }
            Json::Object(fields)
        }
        other => return Err(other.type_name()),
    })
}

fn number_of(number: f64) -> serde_json::Value {
    // Whole numbers are written as such.
    #[expect(clippy::cast_possible_truncation, reason = "it is whole and small enough")]
    if number.fract() == 0.0 && number.abs() < 9e15 {
        return (number as i64).into();
    }
    Number::from_f64(number).map_or(serde_json::Value::Null, Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_there_and_back() {
        let lua = Lua::new();
        let value = serde_json::json!({"a": [1, "x", true], "b": {"c": 1.5}, "e": {}});
        assert_eq!(to_json(&to_lua(&lua, &value).unwrap()), Ok(value));
        let own = lua.load("local t = {}; t.t = t; return t").eval::<Value>().unwrap();
        assert_eq!(to_json(&own), Err("table"));
        let function = lua.load("return print").eval::<Value>().unwrap();
        assert_eq!(to_json(&function), Err("function"));
    }
}
