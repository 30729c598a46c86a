//! `composite`, and filters with a matcher around them (`ExtensionWithMatcher`): what the request is like decides which
//! filters see it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use sail_proxy_decide::fraction::RuntimeFraction;
use sail_proxy_decide::matcher::tree::MatchTree;
use sail_proxy_decide::route::PerFilterConfig;
use xds_api::envoy::extensions::common::matching::v3 as matching;
use xds_api::xds::r#type::matcher::v3::Matcher;

use super::{Entry, HttpFilterKind, PerRoute};
use crate::convert::{Cx, arc, tree, type_name, values};
use crate::pb;
use crate::pb::filters::http::composite::v3 as proto;

pub(super) const ENTRY: Entry = Entry {
    name: "envoy.extensions.filters.http.composite.v3.Composite",
    convert: |cx, any| Some(HttpFilterKind::Composite(Arc::new(composite(cx, any)?))),
    per_route: Some(PerRoute {
        name: "envoy.extensions.filters.http.composite.v3.CompositePerRoute",
        convert: |cx, any| {
            let proto::CompositePerRoute { matcher } = cx.unpack(any)?;
            let named = HashMap::new();
            let matcher = cx.required("matcher", matcher, |_, matcher| Some(matcher))?;
            Some(PerFilterConfig::typed(matched(cx, "matcher", Some(matcher), &named, None)?))
        },
    }),
};

pub(super) const WITH_MATCHER: Entry = Entry {
    name: "envoy.extensions.common.matching.v3.ExtensionWithMatcher",
    convert: |cx, any| Some(HttpFilterKind::Composite(Arc::new(with_matcher(cx, any)?))),
    per_route: Some(PerRoute {
        name: "envoy.extensions.common.matching.v3.ExtensionWithMatcherPerRoute",
        convert: |cx, any| {
            let matching::ExtensionWithMatcherPerRoute { xds_matcher } = cx.unpack(any)?;
            let named = HashMap::new();
            Some(PerFilterConfig::typed(matched(cx, "xds_matcher", xds_matcher, &named, None)?))
        },
    }),
};

/// Filters of which some see a request.
#[derive(Debug)]
pub struct Composite {
    /// What the request is like, and the action for it.
    pub matcher: Option<MatchTree<usize>>,
    /// What is done.
    pub actions: Box<[Action]>,
    /// What sees the request if there is no action for it; a route has none of its own.
    pub inner: Option<Box<HttpFilterKind>>,
}

/// `ExecuteFilterAction`, or `SkipFilter`, which has no filters.
#[derive(Debug)]
pub struct Action {
    /// Filters in order, by their names.
    pub filters: Box<[(Arc<str>, HttpFilterKind)]>,
    /// Of how many requests.
    pub share: Option<RuntimeFraction>,
}

type Named = HashMap<String, proto::FilterChainConfiguration>;

fn composite(cx: &mut Cx<'_>, any: &pb::Any) -> Option<Composite> {
    let proto::Composite { named_filter_chains, matcher } = cx.unpack(any)?;
    matched(cx, "matcher", matcher, &named_filter_chains.into_iter().collect(), None)
}

fn with_matcher(cx: &mut Cx<'_>, any: &pb::Any) -> Option<Composite> {
    #[allow(deprecated, reason = "it is refused")]
    let matching::ExtensionWithMatcher { matcher, xds_matcher, extension_config } = cx.unpack(any)?;
    cx.refuse("matcher", &matcher);
    let any = cx.required("extension_config", extension_config, |cx, value| {
        cx.required("typed_config", value.typed_config, |_, any| Some(any))
    })?;
    cx.within("extension_config.typed_config", |cx| {
        if type_name(&any) == ENTRY.name {
            let proto::Composite { named_filter_chains, matcher } = cx.unpack(&any)?;
            cx.refuse("matcher", &matcher);
            return Some((named_filter_chains.into_iter().collect(), None));
        }
        let kind = super::kind(cx, &any)?;
        refuse_router(cx, &kind);
        Some((Named::new(), Some(Box::new(kind))))
    })
    .and_then(|(named, inner)| matched(cx, "xds_matcher", xds_matcher, &named, inner))
}

fn matched(
    cx: &mut Cx<'_>,
    field: &str,
    matcher: Option<Matcher>,
    named: &Named,
    inner: Option<Box<HttpFilterKind>>,
) -> Option<Composite> {
    let actions = RefCell::new(Vec::new());
    let leaf = |cx: &mut Cx<'_>, any: &pb::Any| {
        let action = action(cx, any, named)?;
        let mut actions = actions.borrow_mut();
        actions.push(action);
        Some(actions.len() - 1)
    };
    let matcher = match matcher {
        Some(matcher) => Some(cx.within(field, |cx| tree::tree(cx, matcher, &leaf))?),
        None => None,
    };
    Some(Composite { matcher, actions: actions.into_inner().into(), inner })
}

fn action(cx: &mut Cx<'_>, any: &pb::Any, named: &Named) -> Option<Action> {
    match type_name(any) {
        "envoy.extensions.filters.common.matcher.action.v3.SkipFilter" => {
            return Some(Action { filters: Box::default(), share: None });
        }
        "envoy.extensions.filters.http.composite.v3.ExecuteFilterAction" => {}
        other => {
            cx.error("", format_args!("there is no action {other:?}"));
            return None;
        }
    }
    let proto::ExecuteFilterAction {
        typed_config,
        dynamic_config,
        filter_chain,
        filter_chain_name,
        sample_percent,
    } = cx.unpack(any)?;
    cx.refuse("dynamic_config", &dynamic_config);
    let chain = match (typed_config, filter_chain) {
        (Some(one), None) => vec![one],
        (None, Some(chain)) => chain.typed_config,
        (None, None) if !filter_chain_name.is_empty() => {
            // A name that stands for nothing does nothing.
            named.get(&filter_chain_name).map(|chain| chain.typed_config.clone()).unwrap_or_default()
        }
        _ => {
            cx.error("", "one of typed_config, filter_chain and filter_chain_name must be set");
            return None;
        }
    };
    let filters = cx.each("filters", chain, |cx, value| {
        let any = cx.required("typed_config", value.typed_config, |_, any| Some(any))?;
        let kind = cx.within("typed_config", |cx| super::kind(cx, &any))?;
        refuse_router(cx, &kind);
        Some((arc(value.name), kind))
    });
    let share = cx.option("sample_percent", sample_percent, values::runtime_fraction);
    Some(Action { filters: filters.into(), share })
}

fn refuse_router(cx: &mut Cx<'_>, kind: &HttpFilterKind) {
    if matches!(kind, HttpFilterKind::Router(_)) {
        cx.error("", "the router is no filter among others");
    }
}
