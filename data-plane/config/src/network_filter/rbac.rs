//! `envoy.filters.network.rbac`: who may connect.

use std::sync::Arc;
use std::time::Duration;

use sail_proxy_decide::rbac::RbacConfig;

use crate::convert::{Cx, arc, values};
use crate::{pb, rbac};

/// The network filter `rbac`.
#[derive(Debug)]
pub struct NetworkRbac {
    /// What its statistics are called.
    pub stat_prefix: Arc<str>,
    /// The rules.
    pub config: RbacConfig,
    /// Whether every read is checked again, rather than the first one.
    pub continuous: bool,
    /// How long a refused connection is kept.
    pub delay_deny: Option<Duration>,
}

pub(super) fn network_rbac(
    cx: &mut Cx<'_>,
    value: pb::filters::network::rbac::v3::Rbac,
) -> Option<NetworkRbac> {
    use pb::filters::network::rbac::v3 as network;
    let network::Rbac {
        rules,
        matcher,
        shadow_rules,
        shadow_matcher,
        shadow_rules_stat_prefix,
        stat_prefix,
        enforcement_type,
        delay_deny,
    } = value;
    Some(NetworkRbac {
        // Istio writes the dot that joins the parts of a name.
        stat_prefix: arc(stat_prefix.strip_suffix('.').unwrap_or(&stat_prefix).to_owned()),
        config: RbacConfig {
            rules: rbac::engine(cx, ("rules", rules), ("matcher", matcher)),
            shadow_rules: rbac::engine(
                cx,
                ("shadow_rules", shadow_rules),
                ("shadow_matcher", shadow_matcher),
            ),
            rules_stat_prefix: Arc::from(""),
            shadow_rules_stat_prefix: arc(shadow_rules_stat_prefix),
            track_per_rule_stats: false,
        },
        continuous: enforcement_type == network::rbac::EnforcementType::Continuous as i32,
        delay_deny: values::limit(cx, "delay_deny", delay_deny, None),
    })
}
