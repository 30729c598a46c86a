//! `xds.type.matcher.v3.Matcher`

use ipnet::IpNet;
use sail_proxy_decide::address::CidrSet;
use sail_proxy_decide::head::HeaderKey;
use sail_proxy_decide::matcher::tree::{Branches, Input, MatchTree, OnMatch, Predicate, Test};
use sail_proxy_decide::matcher::{FullRegex, StringMatch, StringMatcher};
use xds_api::envoy::extensions::matching::common_inputs::network::v3 as network;
use xds_api::envoy::extensions::matching::input_matchers;
use xds_api::xds::core::v3::TypedExtensionConfig;
use xds_api::xds::r#type::matcher::v3 as proto;

use super::{Cx, address, matchers, type_name};
use crate::{cel, pb};

/// How a leaf is read.
type Leaf<'l, A> = &'l dyn Fn(&mut Cx<'_>, &pb::Any) -> Option<A>;

/// Trees may nest so deep.
const DEPTH: usize = 32;

/// A tree with leaves of the caller's.
pub(crate) fn tree<A>(cx: &mut Cx<'_>, value: proto::Matcher, leaf: Leaf<'_, A>) -> Option<MatchTree<A>> {
    nested(cx, value, leaf, 0)
}

fn nested<A>(
    cx: &mut Cx<'_>,
    value: proto::Matcher,
    leaf: Leaf<'_, A>,
    depth: usize,
) -> Option<MatchTree<A>> {
    use proto::matcher::MatcherType;
    if depth > DEPTH {
        cx.error("", format_args!("matchers nest deeper than {DEPTH}"));
        return None;
    }
    let proto::Matcher { on_no_match, matcher_type } = value;
    let otherwise = on_no_match
        .and_then(|value| cx.within("on_no_match", |cx| on_match(cx, *value, leaf, depth)).map(Box::new));
    let branches = match matcher_type {
        None => Branches::None,
        Some(MatcherType::MatcherList(list)) => {
            let each = cx.each("matcher_list.matchers", list.matchers, |cx, value| {
                let predicate = cx.required("predicate", value.predicate, predicate);
                let branch =
                    cx.required("on_match", value.on_match, |cx, value| on_match(cx, value, leaf, depth));
                Some((predicate?, branch?))
            });
            Branches::List(each.into())
        }
        Some(MatcherType::MatcherTree(value)) => {
            cx.within("matcher_tree", |cx| by_value(cx, value, leaf, depth))?
        }
    };
    Some(MatchTree { branches, on_no_match: otherwise })
}

fn on_match<A>(
    cx: &mut Cx<'_>,
    value: proto::matcher::OnMatch,
    leaf: Leaf<'_, A>,
    depth: usize,
) -> Option<OnMatch<A>> {
    use proto::matcher::on_match::OnMatch as Kind;
    let proto::matcher::OnMatch { keep_matching, on_match } = value;
    cx.refuse("keep_matching", &keep_matching);
    match on_match {
        Some(Kind::Matcher(value)) => {
            let tree = cx.within("matcher", |cx| nested(cx, *value, leaf, depth + 1))?;
            Some(OnMatch::Tree(Box::new(tree)))
        }
        Some(Kind::Action(value)) => {
            let any = cx.required("action.typed_config", value.typed_config, |_, any| Some(any))?;
            cx.within("action.typed_config", |cx| leaf(cx, &any)).map(OnMatch::Action)
        }
        None => {
            cx.error("on_match", "it must be set");
            None
        }
    }
}

fn by_value<A>(
    cx: &mut Cx<'_>,
    value: proto::matcher::MatcherTree,
    leaf: Leaf<'_, A>,
    depth: usize,
) -> Option<Branches<A>> {
    use proto::matcher::matcher_tree::TreeType;
    let proto::matcher::MatcherTree { input, tree_type } = value;
    let input = cx.required("input", input, self::input)?;
    let map = |cx: &mut Cx<'_>, field: &str, map: proto::matcher::matcher_tree::MatchMap| {
        let mut entries: Vec<_> = map.map.into_iter().collect();
        // Longer keys first, for prefixes; in a fixed order, for everybody.
        entries.sort_by(|(left, _), (right, _)| right.len().cmp(&left.len()).then(left.cmp(right)));
        let each = entries.into_iter().filter_map(|(key, value)| {
            let path = format!("{field}.map[{key}]");
            Some((Box::from(key), cx.within(path, |cx| on_match(cx, value, leaf, depth))?))
        });
        each.collect::<Box<[_]>>()
    };
    match tree_type {
        Some(TreeType::ExactMatchMap(value)) => {
            Some(Branches::Exact(input, map(cx, "exact_match_map", value)))
        }
        Some(TreeType::PrefixMatchMap(value)) => {
            Some(Branches::Prefix(input, map(cx, "prefix_match_map", value)))
        }
        Some(TreeType::CustomMatch(value)) => cx.within("custom_match", |cx| {
            let any = cx.required("typed_config", value.typed_config, |_, any| Some(any))?;
            cx.within("typed_config", |cx| ranges(cx, &any, input, leaf, depth))
        }),
        None => {
            cx.error("tree_type", "it must be set");
            None
        }
    }
}

/// `xds.type.matcher.v3.IPMatcher`, which nobody generates.
#[derive(Clone, PartialEq, prost::Message)]
struct IpMatcher {
    #[prost(message, repeated, tag = "1")]
    range_matchers: Vec<IpRangeMatcher>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct IpRangeMatcher {
    #[prost(message, repeated, tag = "1")]
    ranges: Vec<pb::core::CidrRange>,
    #[prost(message, optional, tag = "2")]
    on_match: Option<proto::matcher::OnMatch>,
    #[prost(bool, tag = "3")]
    exclusive: bool,
}

fn ranges<A>(
    cx: &mut Cx<'_>,
    any: &pb::Any,
    input: Input,
    leaf: Leaf<'_, A>,
    depth: usize,
) -> Option<Branches<A>> {
    if type_name(any) != "xds.type.matcher.v3.IPMatcher" {
        cx.error("", format_args!("there is no matcher {:?}", type_name(any)));
        return None;
    }
    let value: IpMatcher = cx.ok("", prost::Message::decode(any.value.as_slice()))?;
    let mut all: Vec<(IpNet, usize)> = Vec::new();
    let mut branches = Vec::new();
    cx.each("range_matchers", value.range_matchers, |cx, value| {
        cx.refuse("exclusive", &value.exclusive);
        let branch = cx.required("on_match", value.on_match, |cx, value| on_match(cx, value, leaf, depth))?;
        let ranges = address::ranges(cx, "ranges", value.ranges);
        all.extend(ranges.iter().map(|range| (*range, branches.len())));
        branches.push(branch);
        Some(())
    });
    all.sort_by_key(|(range, _)| std::cmp::Reverse(range.prefix_len()));
    Some(Branches::Ranges(input, all.into(), branches.into()))
}

fn predicate(cx: &mut Cx<'_>, value: proto::matcher::matcher_list::Predicate) -> Option<Predicate> {
    predicate_at(cx, value, 0)
}

fn predicate_at(
    cx: &mut Cx<'_>,
    value: proto::matcher::matcher_list::Predicate,
    depth: usize,
) -> Option<Predicate> {
    use proto::matcher::matcher_list::predicate::MatchType;
    if depth > DEPTH {
        cx.error("", format_args!("predicates nest deeper than {DEPTH}"));
        return None;
    }
    let inner = |cx: &mut Cx<'_>, value| predicate_at(cx, value, depth + 1);
    match value.match_type {
        Some(MatchType::SinglePredicate(value)) => cx.within("single_predicate", |cx| single(cx, value)),
        Some(MatchType::AndMatcher(list)) => {
            Some(Predicate::And(cx.each("and_matcher.predicate", list.predicate, inner).into()))
        }
        Some(MatchType::OrMatcher(list)) => {
            Some(Predicate::Or(cx.each("or_matcher.predicate", list.predicate, inner).into()))
        }
        Some(MatchType::NotMatcher(value)) => {
            let one = cx.within("not_matcher", |cx| inner(cx, *value))?;
            Some(Predicate::Not(Box::new(one)))
        }
        None => {
            cx.error("match_type", "it must be set");
            None
        }
    }
}

fn single(
    cx: &mut Cx<'_>,
    value: proto::matcher::matcher_list::predicate::SinglePredicate,
) -> Option<Predicate> {
    use proto::matcher::matcher_list::predicate::single_predicate::Matcher;
    let input = cx.required("input", value.input, input);
    let test = match value.matcher {
        Some(Matcher::ValueMatch(value)) => {
            cx.within("value_match", |cx| string(cx, value)).map(Test::String)
        }
        Some(Matcher::CustomMatch(value)) => cx.within("custom_match", |cx| {
            let any = cx.required("typed_config", value.typed_config, |_, any| Some(any))?;
            cx.within("typed_config", |cx| custom(cx, &any))
        }),
        None => {
            cx.error("matcher", "it must be set");
            None
        }
    };
    Some(Predicate::Single(input?, test?))
}

/// `xds.type.matcher.v3.CelMatcher`, which nobody generates.
#[derive(Clone, PartialEq, prost::Message)]
struct CelMatcher {
    #[prost(message, optional, tag = "1")]
    expr_match: Option<xds_api::xds::r#type::v3::CelExpression>,
}

fn custom(cx: &mut Cx<'_>, any: &pb::Any) -> Option<Test> {
    match type_name(any) {
        "envoy.extensions.matching.input_matchers.ip.v3.Ip" => {
            let input_matchers::ip::v3::Ip { cidr_ranges, stat_prefix: _ } = cx.unpack(any)?;
            Some(Test::Ip(CidrSet::new(address::ranges(cx, "cidr_ranges", cidr_ranges).iter().copied())))
        }
        "envoy.extensions.matching.input_matchers.metadata.v3.Metadata" => {
            let input_matchers::metadata::v3::Metadata { value, invert } = cx.unpack(any)?;
            Some(Test::Value(cx.required("value", value, matchers::value)?, invert))
        }
        "xds.type.matcher.v3.CelMatcher" => {
            let value: CelMatcher = cx.ok("", prost::Message::decode(any.value.as_slice()))?;
            cx.required("expr_match", value.expr_match, cel::expression).map(Test::Cel)
        }
        other => {
            cx.error("", format_args!("there is no matcher {other:?}"));
            None
        }
    }
}

fn input(cx: &mut Cx<'_>, value: TypedExtensionConfig) -> Option<Input> {
    let any = cx.required("typed_config", value.typed_config, |_, any| Some(any))?;
    cx.within("typed_config", |cx| input_of(cx, &any))
}

fn input_of(cx: &mut Cx<'_>, any: &pb::Any) -> Option<Input> {
    let name = type_name(any);
    Some(match name {
        "envoy.type.matcher.v3.HttpRequestHeaderMatchInput" => {
            let value: pb::matcher::HttpRequestHeaderMatchInput = cx.unpack(any)?;
            let key = HeaderKey::parse(&value.header_name);
            Input::RequestHeader(cx.ok("header_name", key)?)
        }
        "envoy.type.matcher.v3.HttpRequestQueryParamMatchInput" => {
            let value: pb::matcher::HttpRequestQueryParamMatchInput = cx.unpack(any)?;
            Input::QueryParam(value.query_param.into())
        }
        "envoy.type.matcher.v3.HttpResponseHeaderMatchInput" => {
            let value: pb::matcher::HttpResponseHeaderMatchInput = cx.unpack(any)?;
            let key = HeaderKey::parse(&value.header_name);
            Input::ResponseHeader(cx.ok("header_name", key)?)
        }
        "envoy.type.matcher.v3.HttpResponseStatusCodeMatchInput" => Input::ResponseStatus,
        "envoy.type.matcher.v3.HttpResponseStatusCodeClassMatchInput" => Input::ResponseStatusClass,
        "envoy.type.matcher.v3.HttpResponseLocalReplyMatchInput" => Input::ResponseIsLocal,
        "xds.type.matcher.v3.HttpAttributesCelMatchInput" => Input::Attributes,
        _ => match name.strip_prefix("envoy.extensions.matching.common_inputs.").unwrap_or_default() {
            "network.v3.DestinationIPInput" => Input::DestinationIp,
            "network.v3.DestinationPortInput" => Input::DestinationPort,
            "network.v3.SourceIPInput" => Input::SourceIp,
            "network.v3.SourcePortInput" => Input::SourcePort,
            "network.v3.DirectSourceIPInput" => Input::DirectSourceIp,
            "network.v3.ServerNameInput" => Input::ServerName,
            "network.v3.FilterStateInput" => {
                let network::FilterStateInput { key, field } = cx.unpack(any)?;
                cx.refuse("field", &field);
                Input::FilterState(key.into())
            }
            "network.v3.DynamicMetadataInput" => {
                use network::dynamic_metadata_input::path_segment::Segment;
                let network::DynamicMetadataInput { filter, path } = cx.unpack(any)?;
                let path = path.into_iter().filter_map(|segment| match segment.segment? {
                    Segment::Key(key) => Some(Box::from(key)),
                });
                Input::Metadata(filter.into(), path.collect())
            }
            "ssl.v3.UriSanInput" => Input::UriSan,
            "ssl.v3.DnsSanInput" => Input::DnsSan,
            "ssl.v3.SubjectInput" => Input::Subject,
            _ => {
                cx.error("", format_args!("there is no input {name:?}"));
                return None;
            }
        },
    })
}

/// `xds.type.matcher.v3.StringMatcher`
fn string(cx: &mut Cx<'_>, value: proto::StringMatcher) -> Option<StringMatcher> {
    use proto::string_matcher::MatchPattern;
    let proto::StringMatcher { ignore_case, match_pattern } = value;
    let pattern = match match_pattern {
        Some(MatchPattern::Exact(text)) => StringMatch::Exact(text.into()),
        Some(MatchPattern::Prefix(text)) => StringMatch::Prefix(text.into()),
        Some(MatchPattern::Suffix(text)) => StringMatch::Suffix(text.into()),
        Some(MatchPattern::Contains(text)) => StringMatch::Contains(text.into()),
        Some(MatchPattern::SafeRegex(value)) => {
            StringMatch::Regex(cx.ok("safe_regex.regex", FullRegex::new(&value.regex))?)
        }
        Some(MatchPattern::Custom(value)) => {
            cx.error("custom", format_args!("the matcher {:?} is not supported", value.name));
            return None;
        }
        None => {
            cx.error("", "it matches nothing: no pattern is set");
            return None;
        }
    };
    super::matchers::cased(cx, pattern, ignore_case)
}
