//! How a text is matched: exact, prefix or RE2 regex.

use serde_json::{Map, Value};

use crate::decode::{Decode, Encode, names, object};
use crate::field::Cx;

/// `StringMatch`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum StringMatch {
    /// `{}` and `regex: "*"`: the thing is there. Only headers and query parameters may say so.
    #[default]
    Present,
    /// Equal.
    Exact(String),
    /// Begins with.
    Prefix(String),
    /// The whole text matches.
    Regex(String),
}

impl Decode for StringMatch {
    fn decode(value: &Value, cx: &mut Cx) -> Option<Self> {
        let mut found: Option<(&str, Self)> = None;
        for (key, value) in object(value, cx)?.iter().filter(|(_, v)| !v.is_null()) {
            let build: fn(String) -> Self = match key.as_str() {
                key if names(key, "exact") => Self::Exact,
                key if names(key, "prefix") => Self::Prefix,
                key if names(key, "regex") => {
                    |text| if text == "*" { Self::Present } else { Self::Regex(text) }
                }
                _ => {
                    cx.error_at(key, "unknown field");
                    return None;
                }
            };
            let text = cx.field(key, |cx| String::decode(value, cx))?;
            if let Some((other, _)) = found {
                cx.error(format!("only one of {other} and {key} may be set"));
                return None;
            }
            found = Some((key, build(text)));
        }
        Some(found.map(|(_, matcher)| matcher).unwrap_or_default())
    }
}

impl Encode for StringMatch {
    fn encode(&self) -> Value {
        let (key, text) = match self {
            Self::Present => return Value::Object(Map::new()),
            Self::Exact(text) => ("exact", text),
            Self::Prefix(text) => ("prefix", text),
            Self::Regex(text) => ("regex", text),
        };
        Value::Object(Map::from_iter([(key.to_owned(), Value::String(text.clone()))]))
    }
    fn skip(&self) -> bool {
        false
    }
}
