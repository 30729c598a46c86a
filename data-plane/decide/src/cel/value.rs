//! Values, and how they compare.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::rc::Rc;

use serde_json::Value as Json;

use super::Table;

/// A value while an expression is evaluated.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// `null`
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number that is not negative.
    Uint(u64),
    /// Any number.
    Double(f64),
    /// Text.
    String(Cow<'a, str>),
    /// Bytes.
    Bytes(Cow<'a, [u8]>),
    /// Nanoseconds.
    Duration(i128),
    /// Nanoseconds since 1970.
    Timestamp(i128),
    /// A list.
    List(Rc<[Value<'a>]>),
    /// A map.
    Map(Rc<[(Value<'a>, Value<'a>)]>),
    /// An object or a list of somebody else's.
    Json(Cow<'a, Json>),
    /// Attributes that are looked into by a key.
    Table(Table),
    /// A type, by its name.
    Type(&'static str),
}

impl<'a> Value<'a> {
    /// Text.
    pub fn text(text: impl Into<Cow<'a, str>>) -> Self {
        Self::String(text.into())
    }

    /// A value of a protobuf `Struct`: its numbers are doubles.
    pub fn from_json(value: Cow<'a, Json>) -> Self {
        match value {
            Cow::Borrowed(Json::String(text)) => Self::String(Cow::Borrowed(text)),
            Cow::Owned(Json::String(text)) => Self::String(Cow::Owned(text)),
            value => match &*value {
                Json::Null => Self::Null,
                Json::Bool(value) => Self::Bool(*value),
                Json::Number(number) => Self::Double(number.as_f64().unwrap_or_default()),
                _ => Self::Json(value),
            },
        }
    }

    /// As an access log writes it.
    pub fn into_json(self) -> Json {
        match self {
            Self::Null | Self::Table(_) => Json::Null,
            Self::Bool(value) => value.into(),
            Self::Int(value) => value.into(),
            Self::Uint(value) => value.into(),
            Self::Double(value) => value.into(),
            Self::String(text) => text.into_owned().into(),
            Self::Bytes(bytes) => String::from_utf8_lossy(&bytes).into(),
            Self::Duration(_) | Self::Timestamp(_) => self.to_text().map_or(Json::Null, Json::String),
            Self::List(items) => items.iter().cloned().map(Value::into_json).collect(),
            Self::Map(entries) => {
                let pairs = entries.iter().cloned();
                pairs.map(|(key, value)| (key.to_text().unwrap_or_default(), value.into_json())).collect()
            }
            Self::Json(value) => value.into_owned(),
            Self::Type(name) => name.into(),
        }
    }

    /// As text; `None` for lists, maps and tables.
    pub fn to_text(&self) -> Option<String> {
        Some(match self {
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Uint(value) => value.to_string(),
            Self::Double(value) => value.to_string(),
            Self::String(text) => text.to_string(),
            Self::Bytes(bytes) => String::from_utf8(bytes.to_vec()).ok()?,
            Self::Duration(nanos) => super::functions::write_duration(*nanos),
            Self::Timestamp(nanos) => super::functions::write_timestamp(*nanos),
            Self::Type(name) => (*name).to_owned(),
            Self::Null | Self::List(_) | Self::Map(_) | Self::Json(_) | Self::Table(_) => return None,
        })
    }

    /// As JSON; `None` for what has no place in it.
    pub fn to_json(&self) -> Option<Json> {
        use base64::Engine as _;
        Some(match self {
            Self::Null => Json::Null,
            Self::Bool(value) => (*value).into(),
            Self::Int(value) => (*value).into(),
            Self::Uint(value) => (*value).into(),
            Self::Double(value) => (*value).into(),
            Self::Json(value) => Json::clone(value),
            Self::Bytes(bytes) => base64::engine::general_purpose::STANDARD.encode(bytes).into(),
            Self::List(items) => Json::Array(items.iter().map(Self::to_json).collect::<Option<_>>()?),
            Self::Map(entries) => {
                let entry = |(key, value): &(Value<'a>, Value<'a>)| Some((key.to_text()?, value.to_json()?));
                Json::Object(entries.iter().map(entry).collect::<Option<_>>()?)
            }
            Self::String(_) | Self::Duration(_) | Self::Timestamp(_) | Self::Type(_) | Self::Table(_) => {
                self.to_text()?.into()
            }
        })
    }

    /// Its type's name.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::List(_) => "list",
            Self::Json(value) if value.is_array() => "list",
            Self::Map(_) | Self::Json(_) | Self::Table(_) => "map",
            Self::Type(_) => "type",
        }
    }

    /// Items of a list, whoever's it is.
    pub(super) fn items(&self) -> Option<Rc<[Self]>> {
        match self {
            Self::List(items) => Some(items.clone()),
            Self::Json(Cow::Borrowed(Json::Array(items))) => {
                Some(items.iter().map(|item| Self::from_json(Cow::Borrowed(item))).collect())
            }
            Self::Json(Cow::Owned(Json::Array(items))) => {
                Some(items.iter().map(|item| Self::from_json(Cow::Owned(item.clone()))).collect())
            }
            _ => None,
        }
    }

    /// Keys of a map, whoever's it is.
    pub(super) fn keys(&self) -> Option<Rc<[Self]>> {
        match self {
            Self::Map(entries) => Some(entries.iter().map(|(key, _)| key.clone()).collect()),
            Self::Json(value) => Some(value.as_object()?.keys().map(|key| Self::text(key.clone())).collect()),
            _ => None,
        }
    }

    /// Whether two values are equal; values of different types are not, except for numbers.
    pub(super) fn is_equal(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(left), Self::Bool(right)) => left == right,
            (Self::String(left), Self::String(right)) => left == right,
            (Self::Bytes(left), Self::Bytes(right)) => left == right,
            (Self::Type(left), Self::Type(right)) => left == right,
            (Self::Map(left), Self::Map(right)) => {
                left.len() == right.len()
                    && left.iter().all(|(key, value)| {
                        right.iter().any(|(other, found)| key.is_equal(other) && value.is_equal(found))
                    })
            }
            (Self::Json(left), Self::Json(right)) => left == right,
            (Self::List(_) | Self::Json(_), Self::List(_) | Self::Json(_)) => {
                let (Some(left), Some(right)) = (self.items(), other.items()) else { return false };
                left.len() == right.len()
                    && left.iter().zip(&*right).all(|(left, right)| left.is_equal(right))
            }
            _ => self.compare(other) == Some(Ordering::Equal),
        }
    }

    /// The order of two values; `None` if they have none.
    pub(super) fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(left), Self::Bool(right)) => Some(left.cmp(right)),
            (Self::String(left), Self::String(right)) => Some(left.cmp(right)),
            (Self::Bytes(left), Self::Bytes(right)) => Some(left.cmp(right)),
            (Self::Duration(left), Self::Duration(right))
            | (Self::Timestamp(left), Self::Timestamp(right)) => Some(left.cmp(right)),
            _ => match (self.whole(), other.whole()) {
                (Some(left), Some(right)) => Some(left.cmp(&right)),
                _ => self.number()?.partial_cmp(&other.number()?),
            },
        }
    }

    fn whole(&self) -> Option<i128> {
        match self {
            Self::Int(value) => Some((*value).into()),
            Self::Uint(value) => Some((*value).into()),
            _ => None,
        }
    }

    /// As a double.
    #[expect(clippy::cast_precision_loss, reason = "doubles are compared as doubles")]
    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Self::Int(value) => Some(*value as f64),
            Self::Uint(value) => Some(*value as f64),
            Self::Double(value) => Some(*value),
            _ => None,
        }
    }
}
