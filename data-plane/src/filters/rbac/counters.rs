//! Statistics under names that configurations choose: with a prefix, or a policy's name.

use std::cell::RefCell;
use std::sync::Arc;

use hashbrown::HashMap;
use sail_proxy_decide::rbac::RbacConfig;

use crate::stats::Counter;
use crate::stats::sets::{http_rbac as stats, single_counter};
use crate::stats::{Scope, Store};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Outcome {
    Allowed,
    Denied,
    ShadowAllowed,
    ShadowDenied,
    Logged,
    NotLogged,
}

impl Outcome {
    pub(super) fn is_shadow(self) -> bool {
        matches!(self, Self::ShadowAllowed | Self::ShadowDenied)
    }

    pub(super) fn counter(self) -> Counter<stats::Set> {
        match self {
            Self::Allowed => stats::allowed,
            Self::Denied => stats::denied,
            Self::ShadowAllowed => stats::shadow_allowed,
            Self::ShadowDenied => stats::shadow_denied,
            Self::Logged => stats::logged,
            Self::NotLogged => stats::not_logged,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::ShadowAllowed => "shadow_allowed",
            Self::ShadowDenied => "shadow_denied",
            Self::Logged => "logged",
            Self::NotLogged => "not_logged",
        }
    }
}

type Single = Scope<single_counter::Set>;

/// The counters of one configuration, made when they are first counted up.
pub(super) struct Counters {
    store: Arc<Store>,
    prefix: Box<str>,
    whole: RefCell<HashMap<Outcome, Single>>,
    policies: RefCell<HashMap<(Outcome, Arc<str>), Single>>,
}

impl Counters {
    pub(super) fn new(store: &Arc<Store>, prefix: &str) -> Self {
        Self {
            store: store.clone(),
            prefix: prefix.into(),
            whole: RefCell::default(),
            policies: RefCell::default(),
        }
    }

    pub(super) fn count(&self, config: &RbacConfig, outcome: Outcome, policy: Option<&Arc<str>>) {
        let own =
            if outcome.is_shadow() { &config.shadow_rules_stat_prefix } else { &config.rules_stat_prefix };
        // A part of the name like the others, whether or not it ends as one.
        let dot = if own.is_empty() || own.ends_with('.') { "" } else { "." };
        let prefix = &self.prefix;
        if !own.is_empty() {
            let mut whole = self.whole.borrow_mut();
            let name = || format!("http.{prefix}.rbac.{own}{dot}{}", outcome.name());
            whole.entry(outcome).or_insert_with(|| self.store.counter(&name())).inc(single_counter::value);
        }
        if config.track_per_rule_stats
            && let Some(policy) = policy
        {
            let mut policies = self.policies.borrow_mut();
            let name = || format!("http.{prefix}.rbac.{own}{dot}policy.{policy}.{}", outcome.name());
            let counter = policies.entry((outcome, policy.clone()));
            counter.or_insert_with(|| self.store.counter(&name())).inc(single_counter::value);
        }
    }
}
