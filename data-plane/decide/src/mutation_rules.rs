//! `HeaderMutationRules`: which headers a service that is asked may change.

use crate::matcher::FullRegex;

/// `envoy.config.common.mutation_rules.v3.HeaderMutationRules`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MutationRules {
    /// Whether `host`, `:authority`, `:scheme` and `:method` may be changed.
    pub allow_all_routing: bool,
    /// Whether `x-envoy-` headers may.
    pub allow_envoy: bool,
    /// Whether pseudo-headers may not.
    pub disallow_system: bool,
    /// Whether nothing may but what `allow` names.
    pub disallow_all: bool,
    /// Names that may be changed whatever the fields above say.
    pub allow: Option<FullRegex>,
    /// Names that may not, above all.
    pub disallow: Option<FullRegex>,
    /// Whether a change that is not allowed fails the request; else it is left out.
    pub disallow_is_error: bool,
}

/// What becomes of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// It is made.
    Allowed,
    /// It is left out.
    Ignored,
    /// It fails the request.
    Failed,
}

impl MutationRules {
    /// Whether a header of this name may be set or appended to.
    pub fn may_set(&self, name: &str) -> Check {
        let matches =
            |regex: &Option<FullRegex>| regex.as_ref().is_some_and(|regex| regex.is_match(name.as_bytes()));
        let allowed = if matches(&self.disallow) {
            false
        } else if matches(&self.allow) {
            true
        } else if self.disallow_all {
            false
        } else if matches!(name, "host" | ":authority" | ":scheme" | ":method") {
            self.allow_all_routing
        } else if name.starts_with(':') {
            !self.disallow_system
        } else if name.starts_with("x-envoy-") {
            self.allow_envoy
        } else {
            true
        };
        self.verdict(allowed)
    }

    /// Whether it may be removed: a request is none without its pseudo-headers.
    pub fn may_remove(&self, name: &str) -> Check {
        if name.starts_with(':') || name == "host" {
            return self.verdict(false);
        }
        self.may_set(name)
    }

    fn verdict(&self, allowed: bool) -> Check {
        match (allowed, self.disallow_is_error) {
            (true, _) => Check::Allowed,
            (false, false) => Check::Ignored,
            (false, true) => Check::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routing_and_the_proxys_own_headers_are_guarded() {
        let rules = MutationRules::default();
        assert_eq!(rules.may_set("x-user"), Check::Allowed);
        assert_eq!(rules.may_set("host"), Check::Ignored);
        assert_eq!(rules.may_set(":path"), Check::Allowed);
        assert_eq!(rules.may_set("x-envoy-retry-on"), Check::Ignored);
        assert_eq!(rules.may_remove(":path"), Check::Ignored);
        let only = FullRegex::new("x-ok.*").ok();
        let strict = MutationRules { disallow_all: true, allow: only, disallow_is_error: true, ..rules };
        assert_eq!(strict.may_set("x-ok-then"), Check::Allowed);
        assert_eq!(strict.may_set("x-user"), Check::Failed);
    }
}
