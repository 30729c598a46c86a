//! Fractions: "5 of 100", "3 of 10,000", decisions by them, and the runtime that may override them by key.

/// `envoy.type.v3.FractionalPercent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fraction {
    /// How many.
    pub numerator: u32,
    /// Of how many: 100, 10,000 or 1,000,000.
    pub denominator: u32,
}

impl Fraction {
    /// Always.
    pub const ALWAYS: Self = Self { numerator: 100, denominator: 100 };
    /// Never.
    pub const NEVER: Self = Self { numerator: 0, denominator: 100 };

    /// So many of a hundred.
    pub const fn percent(numerator: u32) -> Self {
        Self { numerator, denominator: 100 }
    }

    /// Whether it happens, for a random number.
    pub fn hit(self, random: u64) -> bool {
        if self.numerator >= self.denominator {
            return true;
        }
        self.numerator > 0 && random % u64::from(self.denominator) < u64::from(self.numerator)
    }
}

/// `RuntimeFractionalPercent`: a fraction that the runtime may override under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeFraction {
    /// What holds without an override.
    pub default: Fraction,
    /// The runtime key; empty for none.
    pub runtime_key: std::sync::Arc<str>,
}

impl RuntimeFraction {
    /// A fraction without a key.
    pub fn fixed(default: Fraction) -> Self {
        Self { default, runtime_key: "".into() }
    }

    /// What holds now.
    pub fn now(&self, runtime: &dyn Runtime) -> Fraction {
        if self.runtime_key.is_empty() {
            return self.default;
        }
        runtime.fraction(&self.runtime_key).unwrap_or(self.default)
    }

    /// Whether it happens, for a random number.
    pub fn hit(&self, random: u64, runtime: &dyn Runtime) -> bool {
        self.now(runtime).hit(random)
    }
}

/// A switch and the runtime key that may override it; an empty key has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeFlag {
    /// What holds without an override.
    pub default: bool,
    /// The runtime key.
    pub runtime_key: std::sync::Arc<str>,
}

impl RuntimeFlag {
    /// Whether it is on now.
    pub fn now(&self, runtime: &dyn Runtime) -> bool {
        if self.runtime_key.is_empty() {
            return self.default;
        }
        runtime.boolean(&self.runtime_key).unwrap_or(self.default)
    }
}

/// A number that the runtime may override under a key.
#[derive(Clone, Debug, PartialEq)]
pub struct RuntimeNumber {
    /// What holds without an override.
    pub default: f64,
    /// The runtime key; empty for none.
    pub runtime_key: std::sync::Arc<str>,
}

impl RuntimeNumber {
    /// What holds now.
    pub fn now(&self, runtime: &dyn Runtime) -> f64 {
        if self.runtime_key.is_empty() {
            return self.default;
        }
        runtime.number(&self.runtime_key).unwrap_or(self.default)
    }
}

/// The runtime's values, as decisions read them: `None` where the key has no value of the kind.
pub trait Runtime: std::fmt::Debug {
    /// A fraction; a whole number is so many per cent.
    fn fraction(&self, key: &str) -> Option<Fraction>;

    /// A number.
    fn number(&self, key: &str) -> Option<f64>;

    /// A truth value.
    fn boolean(&self, key: &str) -> Option<bool>;

    /// A whole number that is not negative, or what holds without an override. An empty key has no value.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be whole and in range"
    )]
    fn integer_or(&self, key: &str, default: u64) -> u64 {
        if key.is_empty() {
            return default;
        }
        let whole = |number: &f64| number.fract() == 0.0 && (0.0..1e18).contains(number);
        self.number(key).filter(whole).map_or(default, |number| number as u64)
    }
}

/// A runtime without values.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRuntime;

impl Runtime for NoRuntime {
    fn fraction(&self, _: &str) -> Option<Fraction> {
        None
    }

    fn number(&self, _: &str) -> Option<f64> {
        None
    }

    fn boolean(&self, _: &str) -> Option<bool> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numerators_decide() {
        assert!(Fraction::ALWAYS.hit(u64::MAX));
        assert!(!Fraction::NEVER.hit(0));
        let hits =
            (0..10_000).filter(|random| Fraction { numerator: 25, denominator: 10_000 }.hit(*random)).count();
        assert_eq!(hits, 25);
        assert!(Fraction { numerator: 500, denominator: 100 }.hit(499));
    }
}
