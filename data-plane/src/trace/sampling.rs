//! Whether a request is traced, as Envoy decides it.

use http::HeaderMap;
use sail_proxy_decide::fraction::Fraction;

use super::span::Way;

/// Why a request is traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is not.
    None,
    /// By chance.
    Sampled,
    /// By `x-envoy-force-trace`.
    Forced,
    /// By `x-client-trace-id`.
    Client,
}

/// The connection manager's fractions.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    /// Of requests with `x-client-trace-id`.
    pub client: Fraction,
    /// Of all others.
    pub random: Fraction,
    /// Of those that the others chose.
    pub overall: Fraction,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { client: Fraction::ALWAYS, random: Fraction::ALWAYS, overall: Fraction::ALWAYS }
    }
}

impl Sampling {
    /// As the request's route has it, and as the runtime overrides it.
    pub(super) fn on(&self, way: &Way<'_>) -> Self {
        let base = way.tracing.map_or(*self, |route| Self {
            client: route.client_sampling,
            random: route.random_sampling,
            overall: route.overall_sampling,
        });
        let now = |key: &str, fraction| way.runtime.fraction(key).unwrap_or(fraction);
        Self {
            client: now("tracing.client_enabled", base.client),
            random: now("tracing.random_sampling", base.random),
            overall: now("tracing.global_enabled", base.overall),
        }
    }

    /// The reason, given the one that the request's id brought and a number drawn for it.
    pub fn decide(&self, headers: &HeaderMap, brought: Reason, random: u64) -> Reason {
        let mut reason = brought;
        if headers.contains_key("x-client-trace-id") && self.client.hit(random) {
            reason = Reason::Client;
        } else if headers.contains_key("x-envoy-force-trace") {
            reason = Reason::Forced;
        } else if reason == Reason::None && self.random.hit(random) {
            reason = Reason::Sampled;
        }
        if reason != Reason::None && !self.overall.hit(random) {
            reason = Reason::None;
        }
        reason
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_and_headers_decide() {
        let one =
            Sampling { random: Fraction { numerator: 100, denominator: 10_000 }, ..Sampling::default() };
        let none = HeaderMap::new();
        let forced: HeaderMap =
            [("x-envoy-force-trace".parse().unwrap(), "1".parse().unwrap())].into_iter().collect();
        assert_eq!(one.decide(&none, Reason::None, 99), Reason::Sampled);
        assert_eq!(one.decide(&none, Reason::None, 100), Reason::None);
        assert_eq!(one.decide(&none, Reason::Sampled, 100), Reason::Sampled, "the id's own reason stays");
        assert_eq!(one.decide(&forced, Reason::None, 100), Reason::Forced);
        let off = Sampling { overall: Fraction::NEVER, ..one };
        assert_eq!(off.decide(&forced, Reason::None, 0), Reason::None);
    }
}
