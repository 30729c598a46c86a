//! Formats with operators whose outcome is a text or JSON: log entries, and bodies of local replies.

use serde_json::Value;

use crate::format::{Attributes, Format, Missing};

/// A log entry's text.
#[derive(Clone, Debug)]
pub enum LogFormat {
    /// Text.
    Text {
        /// The line, with its end.
        format: Format,
        /// Whether missing values are empty rather than `-`.
        omit_empty_values: bool,
    },
    /// JSON, a line.
    Json {
        /// The object.
        format: JsonFormat,
        /// Whether missing values are left out rather than null.
        omit_empty_values: bool,
        /// Whether keys are sorted.
        sort_properties: bool,
    },
}

/// A JSON value with operators.
#[derive(Clone, Debug)]
pub enum JsonFormat {
    /// An object.
    Object(Box<[(Box<str>, JsonFormat)]>),
    /// A list.
    List(Box<[JsonFormat]>),
    /// A string with operators.
    Format(Format),
    /// A value without.
    Value(serde_json::Value),
}

impl LogFormat {
    /// Appends what it comes to.
    pub fn write(&self, attributes: &impl Attributes, out: &mut String) {
        match self {
            Self::Text { format, omit_empty_values } => {
                let missing = if *omit_empty_values { Missing::Empty } else { Missing::Dash };
                format.write(attributes, missing, out);
            }
            Self::Json { format, omit_empty_values, sort_properties } => {
                let missing = if *omit_empty_values { Missing::Empty } else { Missing::Dash };
                let mut value = format.value(attributes, missing, *omit_empty_values);
                if *sort_properties {
                    value.sort_all_objects();
                }
                out.push_str(&value.to_string());
                out.push('\n');
            }
        }
    }
}

/// As Envoy: an object of which nothing is left is nothing, and an empty list is something.
fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty)
}

impl JsonFormat {
    /// What it comes to; `omit` leaves out what is nothing.
    pub fn value(&self, attributes: &impl Attributes, missing: Missing, omit: bool) -> Value {
        match self {
            Self::Value(value) => value.clone(),
            Self::Format(format) => format.json(attributes, missing),
            Self::List(list) => {
                let items = list.iter().map(|item| item.value(attributes, missing, omit));
                items.filter(|value| !(omit && is_nothing(value))).collect()
            }
            Self::Object(fields) => {
                let fields = fields
                    .iter()
                    .map(|(key, value)| (key.to_string(), value.value(attributes, missing, omit)));
                Value::Object(fields.filter(|(_, value)| !(omit && is_nothing(value))).collect())
            }
        }
    }
}
