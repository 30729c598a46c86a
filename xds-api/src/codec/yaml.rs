//! YAML text as a JSON value.

use serde_json::{Map, Number, Value};
use serde_norway::Value as Yaml;

use super::Error;

/// One document. Aliases and merge keys are resolved; a tag other than YAML's own is an error.
pub(super) fn parse(text: &str) -> Result<Value, Error> {
    let mut yaml: Yaml = serde_norway::from_str(text).map_err(|error| Error::Syntax(error.to_string()))?;
    yaml.apply_merge().map_err(|error| Error::Syntax(error.to_string()))?;
    json(yaml)
}

fn json(yaml: Yaml) -> Result<Value, Error> {
    Ok(match yaml {
        Yaml::Null => Value::Null,
        Yaml::Bool(value) => Value::Bool(value),
        Yaml::Number(value) => number(&value)?,
        Yaml::String(value) => Value::String(value),
        Yaml::Sequence(items) => Value::Array(items.into_iter().map(json).collect::<Result<_, _>>()?),
        Yaml::Mapping(entries) => {
            let mut object = Map::with_capacity(entries.len());
            for (name, value) in entries {
                object.insert(key(&name)?, json(value)?);
            }
            Value::Object(object)
        }
        Yaml::Tagged(tagged) => {
            return Err(Error::Syntax(format!("the tag {} has no meaning here", tagged.tag)));
        }
    })
}

fn number(value: &serde_norway::Number) -> Result<Value, Error> {
    if let Some(value) = value.as_u64() {
        return Ok(value.into());
    }
    if let Some(value) = value.as_i64() {
        return Ok(value.into());
    }
    // JSON has no infinities; protobuf spells them as strings.
    let float = value.as_f64().ok_or_else(|| Error::Syntax(format!("{value} is not a number")))?;
    Ok(Number::from_f64(float).map_or_else(
        || {
            Value::String(
                if float.is_nan() {
                    "NaN"
                } else if float > 0.0 {
                    "Infinity"
                } else {
                    "-Infinity"
                }
                .into(),
            )
        },
        Value::Number,
    ))
}

fn key(yaml: &Yaml) -> Result<String, Error> {
    match yaml {
        Yaml::String(value) => Ok(value.clone()),
        Yaml::Number(value) => Ok(value.to_string()),
        Yaml::Bool(value) => Ok(value.to_string()),
        other => Err(Error::Syntax(format!("a key must be a string, not {other:?}"))),
    }
}
