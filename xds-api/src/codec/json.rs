//! JSON as the reader walks it: a text's strings stay where they are, and an object is a list, so that a configuration of
//! megabytes costs little more than its text.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};

use crate::google::protobuf::{self, Struct, value::Kind};
use crate::type_url::message as message_of;

/// Any JSON.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json<'a> {
    Null,
    Bool(bool),
    Number(Number),
    String(Cow<'a, str>),
    List(Box<[Json<'a>]>),
    Object(Object<'a>),
}

/// Names and values in their order; each name once.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Object<'a>(Box<[(Cow<'a, str>, Json<'a>)]>);

impl<'a> Object<'a> {
    /// Of a name that is given more than once, the last value stands in the first one's place.
    fn new(mut entries: Vec<(Cow<'a, str>, Json<'a>)>) -> Self {
        if has_twice(&entries) {
            let mut known: HashMap<Cow<'a, str>, usize> = HashMap::new();
            let mut once: Vec<(Cow<'a, str>, Json<'a>)> = Vec::new();
            for (name, value) in entries {
                match known.get(&name).and_then(|place| once.get_mut(*place)) {
                    Some((_, first)) => *first = value,
                    None => {
                        known.insert(name.clone(), once.len());
                        once.push((name, value));
                    }
                }
            }
            entries = once;
        }
        Self(entries.into())
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Json<'a>)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }

    pub(super) fn get(&self, name: &str) -> Option<&Json<'a>> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// More names than this are not compared each with each.
const FEW: usize = 16;

fn has_twice(entries: &[(Cow<'_, str>, Json<'_>)]) -> bool {
    if entries.len() > FEW {
        let mut seen = HashSet::with_capacity(entries.len());
        return !entries.iter().all(|(name, _)| seen.insert(name));
    }
    let mut rest = entries;
    while let Some(((name, _), others)) = rest.split_first() {
        if others.iter().any(|(other, _)| other == name) {
            return true;
        }
        rest = others;
    }
    false
}

impl Json<'_> {
    /// The names of all messages that `Any`s are said to hold.
    pub(super) fn types(&self) -> HashSet<&str> {
        let mut found = HashSet::new();
        self.add_types(&mut found);
        found
    }

    fn add_types<'j>(&'j self, found: &mut HashSet<&'j str>) {
        match self {
            Json::List(items) => items.iter().for_each(|item| item.add_types(found)),
            Json::Object(object) => {
                for (name, value) in object.iter() {
                    match value {
                        Json::String(url) if name == "@type" || name == "type_url" => {
                            found.insert(message_of(url));
                        }
                        other => other.add_types(found),
                    }
                }
            }
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
        }
    }
}

impl<'a> From<&'a Value> for Json<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(value) => Self::Number(value.clone()),
            Value::String(value) => Self::String(Cow::Borrowed(value)),
            Value::Array(items) => Self::List(items.iter().map(Self::from).collect()),
            Value::Object(entries) => {
                let entries = entries.iter().map(|(name, value)| (name.as_str().into(), value.into()));
                Self::Object(Object(entries.collect()))
            }
        }
    }
}

impl<'a> From<&'a Struct> for Json<'a> {
    fn from(object: &'a Struct) -> Self {
        let entries = object.fields.iter().map(|(name, value)| (name.as_str().into(), value.into()));
        Self::Object(Object(entries.collect()))
    }
}

impl<'a> From<&'a protobuf::Value> for Json<'a> {
    fn from(value: &'a protobuf::Value) -> Self {
        match &value.kind {
            None | Some(Kind::NullValue(_)) => Self::Null,
            Some(Kind::BoolValue(value)) => Self::Bool(*value),
            Some(Kind::NumberValue(value)) => number(*value).map_or(Self::Null, Self::Number),
            Some(Kind::StringValue(value)) => Self::String(Cow::Borrowed(value)),
            Some(Kind::ListValue(list)) => Self::List(list.values.iter().map(Self::from).collect()),
            Some(Kind::StructValue(object)) => object.into(),
        }
    }
}

/// A whole number as one: a `Struct` knows doubles alone.
fn number(value: f64) -> Option<Number> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= EXACT {
        return Some(Number::from(value as i64));
    }
    Number::from_f64(value)
}

impl From<&Json<'_>> for Value {
    fn from(json: &Json<'_>) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(value) => Self::Number(value.clone()),
            Json::String(value) => Self::String(value.to_string()),
            Json::List(items) => Self::Array(items.iter().map(Self::from).collect()),
            Json::Object(object) => {
                let entries = object.iter().map(|(name, value)| (name.to_owned(), value.into()));
                Self::Object(entries.collect())
            }
        }
    }
}

impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Value::from(self).fmt(f)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Json<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyJson)
    }
}

struct AnyJson;

impl<'de> Visitor<'de> for AnyJson {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Number::from_f64(value).map_or(Json::Null, Json::Number))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Json::String(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Json::String(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut object = Vec::new();
        while let Some((Name(name), value)) = entries.next_entry()? {
            object.push((name, value));
        }
        Ok(Json::Object(Object::new(object)))
    }
}

/// `Cow` itself is never read as borrowed.
struct Name<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(AnyName)
    }
}

struct AnyName;

impl<'de> Visitor<'de> for AnyName {
    type Value = Name<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Name(Cow::Borrowed(name)))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Name(Cow::Owned(name.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `serde_json` reads it.
    fn agree(text: &str) {
        let json: Json<'_> = serde_json::from_str(text).unwrap();
        let value: Value = serde_json::from_str(text).unwrap();
        assert_eq!(Value::from(&json), value, "{text}");
        assert_eq!(json, Json::from(&value), "{text}");
        assert_eq!(json.to_string(), value.to_string());
    }

    #[test]
    fn it_reads_what_values_hold() {
        agree(
            r#"{"a": [null, true, -1, 18446744073709551615, 1.5, 1e300, ""], "b\n": {"c\u00e9": "d\"e"}, "f": {}}"#,
        );
    }

    #[test]
    fn of_what_is_given_twice_the_last_stands() {
        agree(r#"{"a": 1, "b": 2, "a": 3}"#);
        let many: Vec<String> =
            (0..FEW * 2).map(|number| format!("\"n{}\": {number}", number % 20)).collect();
        agree(&format!("{{{}}}", many.join(",")));
        assert_eq!(
            serde_json::from_str::<Json<'_>>(r#"{"a": 1, "b": 2, "a": 3}"#).unwrap().to_string(),
            r#"{"a":3,"b":2}"#
        );
    }

    #[test]
    fn strings_stay_in_the_text() {
        let json: Json<'_> = serde_json::from_str(r#"{"name": "value"}"#).unwrap();
        let Json::Object(object) = json else { panic!("{json:?}") };
        assert!(matches!(&*object.0, [(Cow::Borrowed("name"), Json::String(Cow::Borrowed("value")))]));
    }
}
