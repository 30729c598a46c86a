//! RBAC rules, of the HTTP filter and of the network filter.

use std::collections::HashMap;

use sail_proxy_decide::rbac::{Invert, Permission, Policy, Principal, RbacConfig, RuleAction, Rules};

use crate::convert::{Cx, address, arc, matchers};
use crate::pb;
use crate::route::matching::template;

/// `envoy.extensions.filters.http.rbac.v3.RBAC`
pub(crate) fn http(cx: &mut Cx<'_>, value: pb::filters::http::rbac::v3::Rbac) -> Option<RbacConfig> {
    let pb::filters::http::rbac::v3::Rbac {
        rules,
        rules_stat_prefix,
        matcher,
        shadow_rules,
        shadow_matcher,
        shadow_rules_stat_prefix,
        track_per_rule_stats,
    } = value;
    cx.refuse("matcher", &matcher);
    cx.refuse("shadow_matcher", &shadow_matcher);
    Some(RbacConfig {
        rules: cx.option("rules", rules, self::rules),
        shadow_rules: cx.option("shadow_rules", shadow_rules, self::rules),
        rules_stat_prefix: arc(rules_stat_prefix),
        shadow_rules_stat_prefix: arc(shadow_rules_stat_prefix),
        track_per_rule_stats,
    })
}

/// `envoy.config.rbac.v3.RBAC`
pub(crate) fn rules(cx: &mut Cx<'_>, value: pb::rbac::Rbac) -> Option<Rules> {
    let pb::rbac::Rbac { action, policies, audit_logging_options } = value;
    cx.refuse("audit_logging_options", &audit_logging_options);
    let action = match pb::rbac::rbac::Action::try_from(action) {
        Ok(pb::rbac::rbac::Action::Allow) => RuleAction::Allow,
        Ok(pb::rbac::rbac::Action::Deny) => RuleAction::Deny,
        Ok(pb::rbac::rbac::Action::Log) => RuleAction::Log,
        Err(_) => {
            cx.error("action", "it is not known");
            return None;
        }
    };
    Some(Rules { action, policies: sorted(cx, policies).into() })
}

fn sorted(cx: &mut Cx<'_>, policies: HashMap<String, pb::rbac::Policy>) -> Vec<Policy> {
    let mut policies: Vec<_> = policies.into_iter().collect();
    policies.sort_by(|(left, _), (right, _)| left.cmp(right));
    let each = policies.into_iter().map(|(name, value)| {
        cx.within(format!("policies[{name}]"), |cx| {
            let pb::rbac::Policy { permissions, principals, condition, checked_condition, cel_config } =
                value;
            cx.refuse("condition", &condition);
            cx.refuse("checked_condition", &checked_condition);
            cx.ignore("cel_config", &cel_config, "there is no condition that it could change");
            for (field, empty) in
                [("permissions", permissions.is_empty()), ("principals", principals.is_empty())]
            {
                if empty {
                    cx.error(field, "it must not be empty");
                }
            }
            Policy {
                permissions: cx.each("permissions", permissions, permission).into(),
                principals: cx.each("principals", principals, principal).into(),
                name: arc(name),
            }
        })
    });
    each.collect()
}

fn permission(cx: &mut Cx<'_>, value: pb::rbac::Permission) -> Option<Permission> {
    use pb::rbac::permission::Rule;
    match value.rule {
        Some(Rule::AndRules(set)) => {
            Some(Permission::And(cx.each("and_rules.rules", set.rules, permission).into()))
        }
        Some(Rule::OrRules(set)) => {
            Some(Permission::Or(cx.each("or_rules.rules", set.rules, permission).into()))
        }
        Some(Rule::Any(_)) => Some(Permission::Any),
        Some(Rule::NotRule(rule)) => {
            Some(Permission::Not(Box::new(cx.within("not_rule", |cx| permission(cx, *rule))?)))
        }
        Some(Rule::Header(value)) => {
            cx.within("header", |cx| matchers::header(cx, value)).map(Permission::Header)
        }
        Some(Rule::UrlPath(value)) => cx.within("url_path", |cx| path(cx, value)).map(Permission::UrlPath),
        Some(Rule::UriTemplate(value)) => {
            cx.within("uri_template.typed_config", |cx| template(cx, value)).map(Permission::UriTemplate)
        }
        Some(Rule::DestinationIp(value)) => {
            cx.within("destination_ip", |cx| address::set(cx, value)).map(Permission::DestinationIp)
        }
        Some(Rule::DestinationPort(port)) => Some(Permission::DestinationPort(port..port.saturating_add(1))),
        Some(Rule::DestinationPortRange(range)) => {
            let bound = |cx: &mut Cx<'_>, field: &str, value: i32| {
                cx.ok(field, u32::try_from(value).map_err(|_| "it is below 0"))
            };
            cx.within("destination_port_range", |cx| {
                Some(Permission::DestinationPort(
                    bound(cx, "start", range.start)?..bound(cx, "end", range.end)?,
                ))
            })
        }
        Some(Rule::Metadata(value)) => {
            cx.within("metadata", |cx| matchers::metadata(cx, value)).map(Permission::Metadata)
        }
        Some(Rule::SourcedMetadata(value)) => {
            let (matcher, route) = cx.within("sourced_metadata", |cx| sourced(cx, value))?;
            Some(if route { Permission::RouteMetadata(matcher) } else { Permission::Metadata(matcher) })
        }
        Some(Rule::RequestedServerName(value)) => cx
            .within("requested_server_name", |cx| matchers::string(cx, value))
            .map(Permission::RequestedServerName),
        Some(Rule::Matcher(value)) => {
            cx.error("matcher", format_args!("the matcher {:?} is not supported", value.name));
            None
        }
        None => {
            cx.error("rule", "it must be set");
            None
        }
    }
}

fn principal(cx: &mut Cx<'_>, value: pb::rbac::Principal) -> Option<Principal> {
    use pb::rbac::principal::Identifier;
    match value.identifier {
        Some(Identifier::AndIds(set)) => {
            Some(Principal::And(cx.each("and_ids.ids", set.ids, principal).into()))
        }
        Some(Identifier::OrIds(set)) => Some(Principal::Or(cx.each("or_ids.ids", set.ids, principal).into())),
        Some(Identifier::Any(_)) => Some(Principal::Any),
        Some(Identifier::NotId(id)) => {
            Some(Principal::Not(Box::new(cx.within("not_id", |cx| principal(cx, *id))?)))
        }
        Some(Identifier::Authenticated(value)) => match value.principal_name {
            None => Some(Principal::Authenticated(None)),
            Some(name) => {
                let name = cx.within("authenticated.principal_name", |cx| matchers::string(cx, name))?;
                Some(Principal::Authenticated(Some(name)))
            }
        },
        Some(Identifier::SourceIp(value)) => {
            cx.within("source_ip", |cx| address::set(cx, value)).map(Principal::SourceIp)
        }
        Some(Identifier::DirectRemoteIp(value)) => {
            cx.within("direct_remote_ip", |cx| address::set(cx, value)).map(Principal::DirectRemoteIp)
        }
        Some(Identifier::RemoteIp(value)) => {
            cx.within("remote_ip", |cx| address::set(cx, value)).map(Principal::RemoteIp)
        }
        Some(Identifier::Header(value)) => {
            cx.within("header", |cx| matchers::header(cx, value)).map(Principal::Header)
        }
        Some(Identifier::UrlPath(value)) => {
            cx.within("url_path", |cx| path(cx, value)).map(Principal::UrlPath)
        }
        Some(Identifier::Metadata(value)) => {
            cx.within("metadata", |cx| matchers::metadata(cx, value)).map(Principal::Metadata)
        }
        Some(Identifier::SourcedMetadata(value)) => {
            let (matcher, route) = cx.within("sourced_metadata", |cx| sourced(cx, value))?;
            Some(if route { Principal::RouteMetadata(matcher) } else { Principal::Metadata(matcher) })
        }
        Some(Identifier::FilterState(value)) => cx.within("filter_state", |cx| filter_state(cx, value)),
        Some(Identifier::Custom(value)) => {
            cx.error("custom", format_args!("the principal {:?} is not supported", value.name));
            None
        }
        None => {
            cx.error("identifier", "it must be set");
            None
        }
    }
}

fn path(
    cx: &mut Cx<'_>,
    value: pb::matcher::PathMatcher,
) -> Option<sail_proxy_decide::matcher::StringMatcher> {
    use pb::matcher::path_matcher::Rule;
    match value.rule {
        Some(Rule::Path(value)) => cx.within("path", |cx| matchers::string(cx, value)),
        None => {
            cx.error("path", "it must be set");
            None
        }
    }
}

fn sourced(
    cx: &mut Cx<'_>,
    value: pb::rbac::SourcedMetadata,
) -> Option<(sail_proxy_decide::matcher::MetadataMatcher, bool)> {
    let pb::rbac::SourcedMetadata { metadata_matcher, metadata_source } = value;
    let matcher = cx.required("metadata_matcher", metadata_matcher, matchers::metadata)?;
    Some((matcher, metadata_source == pb::rbac::MetadataSource::Route as i32))
}

fn filter_state(cx: &mut Cx<'_>, value: pb::matcher::FilterStateMatcher) -> Option<Principal> {
    use pb::matcher::filter_state_matcher::Matcher;
    let pb::matcher::FilterStateMatcher { key, matcher } = value;
    match matcher {
        Some(Matcher::StringMatch(value)) => {
            let matcher = cx.within("string_match", |cx| matchers::string(cx, value))?;
            Some(Principal::FilterState(key.into(), matcher))
        }
        Some(Matcher::AddressMatch(value)) => {
            let pb::matcher::AddressMatcher { ranges, invert_match } = value;
            let ranges = cx.within("address_match", |cx| {
                cx.each("ranges", ranges, |cx, range| {
                    let address_prefix = range.address_prefix;
                    address::range(cx, pb::core::CidrRange { address_prefix, prefix_len: range.prefix_len })
                })
            });
            let invert = if invert_match { Invert::Yes } else { Invert::No };
            Some(Principal::FilterStateAddress(
                key.into(),
                sail_proxy_decide::address::CidrSet::new(ranges),
                invert,
            ))
        }
        None => {
            cx.error("matcher", "it must be set");
            None
        }
    }
}
