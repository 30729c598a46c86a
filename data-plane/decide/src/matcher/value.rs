//! `ValueMatcher` and `MetadataMatcher`: conditions on protobuf `Struct`s, held as JSON.

use std::ops::Range;
use std::sync::Arc;

use serde_json::Value;

use super::StringMatcher;

/// A condition on a value.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueMatcher {
    /// It is null.
    Null,
    /// It is this number.
    Number(f64),
    /// It is a number in a half-open range.
    Range(Range<f64>),
    /// It is a string that matches.
    String(StringMatcher),
    /// It is this truth value.
    Bool(bool),
    /// It is there (`true`) or absent.
    Present(bool),
    /// It is a list, one item of which matches.
    ListAny(Box<ValueMatcher>),
    /// One of these matches.
    Any(Box<[ValueMatcher]>),
}

impl ValueMatcher {
    /// Whether the value matches; `None` is an absent one.
    pub fn is_match(&self, value: Option<&Value>) -> bool {
        match (self, value) {
            (Self::Present(wanted), value) => value.is_some() == *wanted,
            (Self::Any(matchers), value) => matchers.iter().any(|matcher| matcher.is_match(value)),
            (_, None) => false,
            (Self::Null, Some(value)) => value.is_null(),
            // The numbers are compared as Envoy compares them, bit for bit near enough.
            (Self::Number(wanted), Some(value)) => {
                value.as_f64().is_some_and(|number| (number - wanted).abs() < f64::EPSILON)
            }
            (Self::Range(range), Some(value)) => value.as_f64().is_some_and(|number| range.contains(&number)),
            (Self::String(matcher), Some(value)) => {
                value.as_str().is_some_and(|text| matcher.is_match(text.as_bytes()))
            }
            (Self::Bool(wanted), Some(value)) => value.as_bool() == Some(*wanted),
            (Self::ListAny(matcher), Some(value)) => {
                value.as_array().is_some_and(|items| items.iter().any(|item| matcher.is_match(Some(item))))
            }
        }
    }
}

/// `envoy.type.matcher.v3.MetadataMatcher`.
#[derive(Clone, Debug, PartialEq)]
pub struct MetadataMatcher {
    /// The namespace: a filter's name.
    pub filter: Arc<str>,
    /// The path of keys inside it.
    pub path: Box<[Box<str>]>,
    /// What is found there.
    pub value: ValueMatcher,
    /// Whether the result is turned round.
    pub invert: bool,
}

impl MetadataMatcher {
    /// Whether metadata match; the namespace's `Struct` is given.
    pub fn is_match(&self, namespace: Option<&Value>) -> bool {
        self.value.is_match(namespace.and_then(|value| lookup(value, &self.path))) != self.invert
    }
}

/// What lies under a path of keys.
pub fn lookup<'a>(value: &'a Value, path: &[Box<str>]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, key| value.get(key.as_ref()))
}
