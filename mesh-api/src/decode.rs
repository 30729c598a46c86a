//! Reading proto-JSON as Istio reads it, with the path of whatever does not fit, and writing it again.
//!
//! Names are accepted in camelCase and snake_case, numbers as strings, enums by name or number, and `null` is absence.
//! A field that the type does not have is an error: a manifest never means less than it says.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::duration;
use crate::field::Cx;

/// A type that proto-JSON becomes. `None` means that an error was recorded.
pub trait Decode: Sized {
    /// Reads `value`, recording what is wrong at the cursor.
    fn decode(value: &Value, cx: &mut Cx) -> Option<Self>;
}

/// A type that can be written as proto-JSON.
pub trait Encode {
    /// The JSON form.
    fn encode(&self) -> Value;
    /// Whether the field that holds this value is left out.
    fn skip(&self) -> bool;
}

/// Whether the JSON key `key` names the field `snake` (in either spelling).
pub fn names(key: &str, snake: &str) -> bool {
    let snake = snake.strip_prefix("r#").unwrap_or(snake);
    if key == snake {
        return true;
    }
    let mut upper = false;
    let mut chars = key.chars();
    for c in snake.chars() {
        if c == '_' {
            upper = true;
            continue;
        }
        let expected = if upper { c.to_ascii_uppercase() } else { c };
        upper = false;
        if chars.next() != Some(expected) {
            return false;
        }
    }
    chars.next().is_none()
}

/// The camelCase spelling of a snake_case name.
pub fn camel(snake: &str) -> String {
    let snake = snake.strip_prefix("r#").unwrap_or(snake);
    let mut out = String::with_capacity(snake.len());
    let mut upper = false;
    for c in snake.chars() {
        if c == '_' {
            upper = true;
        } else if upper {
            out.push(c.to_ascii_uppercase());
            upper = false;
        } else {
            out.push(c);
        }
    }
    out
}

/// Takes a field out of a map, in either spelling; `null` counts as absent.
pub fn take(map: &mut Map<String, Value>, snake: &str) -> Option<Value> {
    let key = map.keys().find(|k| names(k, snake))?.clone();
    map.shift_remove(&key).filter(|v| !v.is_null())
}

/// Whether a field is in a map, in either spelling.
pub fn has(map: &Map<String, Value>, snake: &str) -> bool {
    map.iter().any(|(k, v)| names(k, snake) && !v.is_null())
}

/// The map in `value`, or an error at the cursor.
pub fn object<'a>(value: &'a Value, cx: &mut Cx) -> Option<&'a Map<String, Value>> {
    let map = value.as_object();
    if map.is_none() {
        expected("an object", value, cx);
    }
    map
}

/// Records that something else was expected here.
pub fn expected(what: &str, value: &Value, cx: &mut Cx) {
    let got = match value {
        Value::Null => "null".to_owned(),
        Value::Bool(b) => format!("the boolean {b}"),
        Value::Number(n) => format!("the number {n}"),
        Value::String(s) => format!("the string {s:?}"),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    };
    let hint = match value {
        Value::Number(_) | Value::Bool(_) if what == "a string" => " (put it in quotes)",
        _ => "",
    };
    cx.error(format!("expected {what}, got {got}{hint}"));
}

impl Decode for String {
    fn decode(value: &Value, cx: &mut Cx) -> Option<Self> {
        let text = value.as_str();
        if text.is_none() {
            expected("a string", value, cx);
        }
        text.map(str::to_owned)
    }
}

impl Encode for String {
    fn encode(&self) -> Value {
        Value::String(self.clone())
    }
    fn skip(&self) -> bool {
        self.is_empty()
    }
}

impl Decode for bool {
    fn decode(value: &Value, cx: &mut Cx) -> Option<Self> {
        let flag = value.as_bool();
        if flag.is_none() {
            expected("true or false", value, cx);
        }
        flag
    }
}

impl Encode for bool {
    fn encode(&self) -> Value {
        Value::Bool(*self)
    }
    fn skip(&self) -> bool {
        !self
    }
}

/// A whole number written as a number, a float without fraction, or a string.
fn integer(value: &Value) -> Option<i128> {
    match value {
        Value::Number(n) => n.as_i64().map(i128::from).or_else(|| n.as_u64().map(i128::from)).or_else(|| {
            let float = n.as_f64()?;
            (float.fract() == 0.0 && float.abs() < 1e18).then_some(float as i128)
        }),
        Value::String(s) => s.trim().parse().ok(),
        _ => None,
    }
}

macro_rules! integers {
    ($($ty:ident),*) => {$(
        impl Decode for $ty {
            fn decode(value: &Value, cx: &mut Cx) -> Option<Self> {
                let Some(number) = integer(value) else {
                    expected("a whole number", value, cx);
                    return None;
                };
                let fitting = Self::try_from(number).ok();
                if fitting.is_none() {
                    cx.error(format!("{number} is out of range ({} to {})", Self::MIN, Self::MAX));
                }
                fitting
            }
        }
        impl Encode for $ty {
            fn encode(&self) -> Value {
                Value::from(*self)
            }
            fn skip(&self) -> bool {
                *self == 0
            }
        }
    )*};
}
integers!(u16, u32, u64, i32, i64);

impl<T: Decode> Decode for Option<T> {
    fn decode(value: &Value, cx: &mut Cx) -> Option<Self> {
        T::decode(value, cx).map(Some)
    }
}

impl<T: Encode> Encode for Option<T> {
    fn encode(&self) -> Value {
        self.as_ref().map_or(Value::Null, Encode::encode)
    }
    fn skip(&self) -> bool {
        self.is_none()
    }
}

impl<T: Decode> Decode for Box<T> {
    fn decode(value: &Value, cx: &mut Cx) -> Option<Self> {
        T::decode(value, cx).map(Box::new)
    }
}

impl<T: Encode> Encode for Box<T> {
    fn encode(&self) -> Value {
        T::encode(self)
    }
    fn skip(&self) -> bool {
        T::skip(self)
    }
}

impl<T: Decode> Decode for Vec<T> {
    fn decode(value: &Value, cx: &mut Cx) -> Option<Self> {
        let Some(items) = value.as_array() else {
            expected("a list", value, cx);
            return None;
        };
        let mut out = Vec::with_capacity(items.len());
        for (i, item) in items.iter().enumerate() {
            out.extend(cx.index(i, |cx| T::decode(item, cx)));
        }
        Some(out)
    }
}

impl<T: Encode> Encode for Vec<T> {
    fn encode(&self) -> Value {
        Value::Array(self.iter().map(Encode::encode).collect())
    }
    fn skip(&self) -> bool {
        self.is_empty()
    }
}

/// A key of a proto map.
pub trait MapKey: Ord + Sized + ToString {
    /// Reads the key.
    fn read(key: &str, cx: &mut Cx) -> Option<Self>;
}

impl MapKey for String {
    fn read(key: &str, _: &mut Cx) -> Option<Self> {
        Some(key.to_owned())
    }
}

impl MapKey for u16 {
    fn read(key: &str, cx: &mut Cx) -> Option<Self> {
        let port = key.parse().ok();
        if port.is_none() {
            cx.error(format!("the key {key:?} is not a port number"));
        }
        port
    }
}

impl<K: MapKey, T: Decode> Decode for BTreeMap<K, T> {
    fn decode(value: &Value, cx: &mut Cx) -> Option<Self> {
        let mut out = BTreeMap::new();
        for (key, item) in object(value, cx)? {
            let entry = cx.key(key, |cx| Some((K::read(key, cx)?, T::decode(item, cx)?)));
            out.extend(entry);
        }
        Some(out)
    }
}

impl<K: MapKey, T: Encode> Encode for BTreeMap<K, T> {
    fn encode(&self) -> Value {
        Value::Object(self.iter().map(|(k, v)| (k.to_string(), v.encode())).collect())
    }
    fn skip(&self) -> bool {
        self.is_empty()
    }
}

impl Decode for Value {
    fn decode(value: &Value, _: &mut Cx) -> Option<Self> {
        Some(value.clone())
    }
}

impl Encode for Value {
    fn encode(&self) -> Value {
        self.clone()
    }
    fn skip(&self) -> bool {
        self.is_null()
    }
}

impl Decode for Duration {
    fn decode(value: &Value, cx: &mut Cx) -> Option<Self> {
        let Some(text) = value.as_str() else {
            expected("a duration like \"5s\"", value, cx);
            return None;
        };
        duration::parse(text).map_err(|e| cx.error(format!("{text:?} is not a duration: {e}"))).ok()
    }
}

impl Encode for Duration {
    fn encode(&self) -> Value {
        Value::String(duration::format(*self))
    }
    fn skip(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_name_a_field() {
        assert!(names("consecutive5xxErrors", "consecutive_5xx_errors"));
        assert!(names("consecutive_5xx_errors", "consecutive_5xx_errors"));
        assert!(names("http1MaxPendingRequests", "http1_max_pending_requests"));
        assert!(!names("host", "hosts"));
        assert!(!names("hosts", "host"));
        assert_eq!(camel("per_try_timeout"), "perTryTimeout");
    }
}
