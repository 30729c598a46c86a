//! The two forms that nearly every type of the API has: a message and an enumeration.
//!
//! `message!` makes a struct with its reader and writer. A field's JSON name is its camelCase spelling, or what stands
//! after `=`. `legacy(f);` first runs `f` on the JSON map, where deprecated spellings are rewritten.
//! `defaults;` says that the struct has a `Default` of its own, onto which the JSON is laid.

macro_rules! message {
    (legacy($legacy:path); $($rest:tt)*) => {
        message!(@define zero legacy($legacy) $($rest)*);
    };
    (defaults; $($rest:tt)*) => {
        message!(@define own legacy($crate::macros::as_is) $($rest)*);
    };
    (@define $default:tt legacy($legacy:path)
        $(#[$meta:meta])* $vis:vis struct $name:ident {
            $( $(#[$field_meta:meta])* $field:ident : $ty:ty $(= $json:literal $(| $alias:literal)*)? ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "field names are Istio's; what differs from its reference is documented")]
        $vis struct $name { $( $(#[$field_meta])* pub $field: $ty, )* }

        message!(@default $default $name $($field)*);

        impl $crate::decode::Decode for $name {
            fn decode(value: &serde_json::Value, cx: &mut $crate::field::Cx) -> Option<Self> {
                let map = $crate::decode::object(value, cx)?;
                let map = $legacy(std::borrow::Cow::Borrowed(map), cx);
                #[allow(unused_mut, reason = "a message may have no fields")]
                let mut out = Self::default();
                for (key, value) in map.iter() {
                    if value.is_null() {
                        continue;
                    }
                    $(
                        if message!(@is key, $field $(, $json $(, $alias)*)?) {
                            if let Some(decoded) = cx.field(key, |cx| $crate::decode::Decode::decode(value, cx)) {
                                out.$field = decoded;
                            }
                            continue;
                        }
                    )*
                    cx.error_at(key, "unknown field");
                }
                Some(out)
            }
        }

        impl $crate::decode::Encode for $name {
            fn encode(&self) -> serde_json::Value {
                #[allow(unused_mut, reason = "a message may have no fields")]
                let mut map = serde_json::Map::new();
                $(
                    if !message!(@omit $default &self.$field) {
                        map.insert(message!(@json $field $(, $json)?), $crate::decode::Encode::encode(&self.$field));
                    }
                )*
                serde_json::Value::Object(map)
            }
            fn skip(&self) -> bool {
                *self == Self::default()
            }
        }
    };
    (@is $key:ident, $field:ident) => { $crate::decode::names($key, stringify!($field)) };
    (@is $key:ident, $field:ident, $($json:literal),+) => { $( $crate::decode::names($key, $json) )||+ };
    (@json $field:ident) => { $crate::decode::camel(stringify!($field)) };
    (@json $field:ident, $json:literal) => { $json.to_owned() };
    (@omit zero $value:expr) => { $crate::decode::Encode::skip($value) };
    // Where absence means a default that is not zero, everything but null is written.
    (@omit own $value:expr) => { $crate::decode::Encode::encode($value).is_null() };
    (@default own $($rest:tt)*) => {};
    (@default zero $name:ident $($field:ident)*) => {
        #[allow(clippy::derivable_impls, reason = "the same code makes messages with other defaults")]
        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: Default::default(), )* }
            }
        }
    };
    ($($rest:tt)*) => {
        message!(@define zero legacy($crate::macros::as_is) $($rest)*);
    };
}

macro_rules! enumeration {
    (
        $(#[$meta:meta])* $vis:vis enum $name:ident {
            $( $(#[$variant_meta:meta])* $variant:ident = $text:literal $(| $alias:literal)* = $number:literal ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        #[allow(missing_docs, reason = "variant names are Istio's")]
        $vis enum $name { $( $(#[$variant_meta])* $variant, )* }

        impl $name {
            /// The name as manifests spell it.
            pub fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $text, )* }
            }
        }

        impl $crate::decode::Decode for $name {
            fn decode(value: &serde_json::Value, cx: &mut $crate::field::Cx) -> Option<Self> {
                if let Some(number) = value.as_i64() {
                    $( if number == $number { return Some(Self::$variant); } )*
                }
                if let Some(text) = value.as_str() {
                    $( if text == $text $(|| text == $alias)* { return Some(Self::$variant); } )*
                }
                let all = [$( $text ),*].join(", ");
                $crate::decode::expected(&format!("one of {all}"), value, cx);
                None
            }
        }

        impl $crate::decode::Encode for $name {
            fn encode(&self) -> serde_json::Value {
                serde_json::Value::String(self.as_str().to_owned())
            }
            fn skip(&self) -> bool {
                *self == Self::default()
            }
        }
    };
}

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::field::Cx;

/// The map as it is: a message without deprecated spellings.
pub(crate) fn as_is<'a>(map: Cow<'a, Map<String, Value>>, _: &mut Cx) -> Cow<'a, Map<String, Value>> {
    map
}
