//! Numbers with a fraction that can still be compared and hashed, as the caches of the control plane need.

use serde_json::{Map, Value, json};

use crate::decode::{Decode, Encode, expected, names, object};
use crate::field::Cx;

/// A finite double.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Float(u64);

impl Float {
    /// The number, with -0 made 0.
    pub fn new(value: f64) -> Self {
        Self((value + 0.0).to_bits())
    }

    /// The number.
    pub fn get(self) -> f64 {
        f64::from_bits(self.0)
    }
}

impl Decode for Float {
    fn decode(value: &Value, cx: &mut Cx) -> Option<Self> {
        number(value, cx).map(Self::new)
    }
}

impl Encode for Float {
    fn encode(&self) -> Value {
        json!(self.get())
    }
    fn skip(&self) -> bool {
        self.get() == 0.0
    }
}

fn number(value: &Value, cx: &mut Cx) -> Option<f64> {
    let number = match value {
        Value::String(s) => s.trim().parse().ok(),
        other => other.as_f64(),
    };
    let number = number.filter(|n: &f64| n.is_finite());
    if number.is_none() {
        expected("a number", value, cx);
    }
    number
}

/// `type.Percent` (`{value: 12.5}`), exact to a millionth of the whole, as Envoy's largest denominator is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Percent {
    per_million: u32,
}

impl Percent {
    /// All of it.
    pub const HUNDRED: Self = Self { per_million: 1_000_000 };

    /// `percent` of a hundred, if that is between 0 and 100.
    pub fn new(percent: f64) -> Option<Self> {
        (0.0..=100.0).contains(&percent).then(|| Self { per_million: (percent * 10_000.0).round() as u32 })
    }

    /// The numerator over a million.
    pub fn per_million(self) -> u32 {
        self.per_million
    }

    /// The number of percent.
    pub fn value(self) -> f64 {
        f64::from(self.per_million) / 10_000.0
    }
}

impl Decode for Percent {
    fn decode(value: &Value, cx: &mut Cx) -> Option<Self> {
        let mut percent = 0.0;
        for (key, value) in object(value, cx)? {
            if !names(key, "value") {
                cx.error_at(key, "unknown field");
                return None;
            }
            if !value.is_null() {
                percent = cx.field(key, |cx| number(value, cx))?;
            }
        }
        let percentage = Self::new(percent);
        if percentage.is_none() {
            cx.error(format!("{percent} is not a percentage between 0 and 100"));
        }
        percentage
    }
}

impl Encode for Percent {
    fn encode(&self) -> Value {
        let mut map = Map::new();
        map.insert("value".to_owned(), json!(self.value()));
        Value::Object(map)
    }
    fn skip(&self) -> bool {
        false
    }
}
