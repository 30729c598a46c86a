//! RBAC rules, of the HTTP filter and of the network filter.

use std::collections::HashMap;

use sail_proxy_decide::cel::Program;
use sail_proxy_decide::rbac::{
    Engine, Invert, NamedAction, Permission, Policy, Principal, RbacConfig, RuleAction, Rules, SanKind,
    SanMatcher,
};
use xds_api::xds::r#type::matcher::v3::Matcher;

use crate::convert::{Cx, address, arc, matchers, tree, type_name};
use crate::route::matching::template;
use crate::{cel, pb};

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
    Some(RbacConfig {
        rules: engine(cx, ("rules", rules), ("matcher", matcher)),
        shadow_rules: engine(cx, ("shadow_rules", shadow_rules), ("shadow_matcher", shadow_matcher)),
        rules_stat_prefix: arc(rules_stat_prefix),
        shadow_rules_stat_prefix: arc(shadow_rules_stat_prefix),
        track_per_rule_stats,
    })
}

/// Rules, or a tree in their place. The tree wins, as in Envoy.
pub(crate) fn engine(
    cx: &mut Cx<'_>,
    rules: (&str, Option<pb::rbac::Rbac>),
    matcher: (&str, Option<Matcher>),
) -> Option<Engine> {
    if matcher.1.is_some() {
        cx.ignore(rules.0, &rules.1, "the matcher decides");
        return cx
            .option(matcher.0, matcher.1, |cx, value| tree::tree(cx, value, &leaf))
            .map(Engine::Matcher);
    }
    cx.option(rules.0, rules.1, self::rules).map(Engine::Policies)
}

fn leaf(cx: &mut Cx<'_>, any: &pb::Any) -> Option<NamedAction> {
    let pb::rbac::Action { name, action } = cx.unpack(any)?;
    Some(NamedAction { name: arc(name), action: self::action(cx, action)? })
}

fn action(cx: &mut Cx<'_>, action: i32) -> Option<RuleAction> {
    use pb::rbac::rbac::Action;
    match Action::try_from(action) {
        Ok(Action::Allow) => Some(RuleAction::Allow),
        Ok(Action::Deny) => Some(RuleAction::Deny),
        Ok(Action::Log) => Some(RuleAction::Log),
        Err(_) => {
            cx.error("action", "it is not known");
            None
        }
    }
}

/// `envoy.config.rbac.v3.RBAC`
fn rules(cx: &mut Cx<'_>, value: pb::rbac::Rbac) -> Option<Rules> {
    let pb::rbac::Rbac { action, policies, audit_logging_options } = value;
    cx.ignore("audit_logging_options", &audit_logging_options, "as in Envoy, whose audits are gRPC's alone");
    let action = self::action(cx, action)?;
    Some(Rules { action, policies: sorted(cx, policies).into() })
}

fn sorted(cx: &mut Cx<'_>, policies: HashMap<String, pb::rbac::Policy>) -> Vec<Policy> {
    let mut policies: Vec<_> = policies.into_iter().collect();
    policies.sort_by(|(left, _), (right, _)| left.cmp(right));
    let each = policies.into_iter().map(|(name, value)| {
        cx.within(format!("policies[{name}]"), |cx| {
            let pb::rbac::Policy { permissions, principals, condition, checked_condition, cel_config } =
                value;
            cx.ignore("cel_config", &cel_config, "its string functions are there always");
            let condition = self::condition(cx, condition, checked_condition);
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
                condition,
                name: arc(name),
            }
        })
    });
    each.collect()
}

fn condition(
    cx: &mut Cx<'_>,
    parsed: Option<xds_api::google::api::expr::v1alpha1::Expr>,
    checked: Option<xds_api::google::api::expr::v1alpha1::CheckedExpr>,
) -> Option<Program> {
    let parsed = cx.option("condition", parsed, cel::parsed);
    parsed.or_else(|| cx.option("checked_condition", checked, cel::checked))
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
        Some(Identifier::Custom(value)) => cx.within("custom", |cx| custom(cx, value)),
        None => {
            cx.error("identifier", "it must be set");
            None
        }
    }
}

fn custom(cx: &mut Cx<'_>, value: pb::core::TypedExtensionConfig) -> Option<Principal> {
    use pb::tls::subject_alt_name_matcher::SanType;
    use xds_api::envoy::extensions::rbac::principals::mtls_authenticated::v3::Config;
    let any = cx.required("typed_config", value.typed_config, |_, any| Some(any))?;
    if type_name(&any) != "envoy.extensions.rbac.principals.mtls_authenticated.v3.Config" {
        cx.error("typed_config", format_args!("there is no principal {:?}", type_name(&any)));
        return None;
    }
    let Config { san_matcher, any_validated_client_certificate } = cx.unpack(&any)?;
    let Some(san) = san_matcher else {
        if !any_validated_client_certificate {
            cx.error("typed_config", "one of its fields must be set");
        }
        return Some(Principal::Certificate(None));
    };
    let kind = match SanType::try_from(san.san_type) {
        Ok(SanType::Uri) => SanKind::Uri,
        Ok(SanType::Dns) => SanKind::Dns,
        _ => {
            cx.error("typed_config.san_matcher.san_type", "only URI and DNS are supported");
            return None;
        }
    };
    let name = cx.required("typed_config.san_matcher.matcher", san.matcher, matchers::string)?;
    Some(Principal::Certificate(Some(SanMatcher { kind, name })))
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
            let found = cx.within("address_match", |cx| address::matcher(cx, value));
            let invert = if found.invert { Invert::Yes } else { Invert::No };
            Some(Principal::FilterStateAddress(key.into(), found.ranges, invert))
        }
        None => {
            cx.error("matcher", "it must be set");
            None
        }
    }
}
