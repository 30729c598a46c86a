//! Fractions: "5 of 100", "3 of 10,000", and decisions by them.

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
