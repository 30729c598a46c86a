//! String, header, query and metadata matchers.

use std::sync::Arc;

use sail_proxy_decide::head::HeaderKey;
use sail_proxy_decide::matcher::{
    FullRegex, HeaderMatch, HeaderMatcher, MetadataMatcher, QueryMatcher, RegexRewrite, StringMatch,
    StringMatcher, ValueMatcher,
};

use super::Cx;
use crate::pb;

/// `RegexMatcher`
pub(crate) fn regex(cx: &mut Cx<'_>, value: pb::matcher::RegexMatcher) -> Option<FullRegex> {
    let pb::matcher::RegexMatcher { regex, engine_type: _ } = value;
    cx.ok("regex", FullRegex::new(&regex))
}

/// `RegexMatchAndSubstitute`
pub(crate) fn rewrite(cx: &mut Cx<'_>, value: pb::matcher::RegexMatchAndSubstitute) -> Option<RegexRewrite> {
    let pb::matcher::RegexMatchAndSubstitute { pattern, substitution } = value;
    let pattern = cx.required("pattern", pattern, |_, pattern| Some(pattern.regex))?;
    if substitution.contains(['\n', '\r', '\0']) {
        cx.error("substitution", "it must not have line breaks");
        return None;
    }
    cx.ok("", RegexRewrite::new(&pattern, &substitution))
}

/// `StringMatcher`
pub(crate) fn string(cx: &mut Cx<'_>, value: pb::matcher::StringMatcher) -> Option<StringMatcher> {
    use pb::matcher::string_matcher::MatchPattern;
    let pb::matcher::StringMatcher { ignore_case, match_pattern } = value;
    let pattern = match match_pattern {
        Some(MatchPattern::Exact(text)) => StringMatch::Exact(text.into()),
        Some(MatchPattern::Prefix(text)) => StringMatch::Prefix(text.into()),
        Some(MatchPattern::Suffix(text)) => StringMatch::Suffix(text.into()),
        Some(MatchPattern::Contains(text)) => StringMatch::Contains(text.into()),
        Some(MatchPattern::SafeRegex(value)) => {
            StringMatch::Regex(cx.within("safe_regex", |cx| regex(cx, value))?)
        }
        Some(MatchPattern::Custom(value)) => {
            cx.error("custom", format_args!("the matcher {} is not supported", value.name));
            return None;
        }
        None => {
            cx.error("", "it matches nothing: no pattern is set");
            return None;
        }
    };
    cased(cx, pattern, ignore_case)
}

/// A pattern and whether its case counts, which a regular expression says itself: `(?i)`.
pub(super) fn cased(cx: &mut Cx<'_>, pattern: StringMatch, ignore_case: bool) -> Option<StringMatcher> {
    if ignore_case && matches!(pattern, StringMatch::Regex(_)) {
        cx.error("ignore_case", "it has no effect on safe_regex: write (?i) there");
        return None;
    }
    Some(StringMatcher::new(pattern, ignore_case))
}

/// `HeaderMatcher`
pub(crate) fn header(cx: &mut Cx<'_>, value: pb::route::HeaderMatcher) -> Option<HeaderMatcher> {
    use pb::route::header_matcher::HeaderMatchSpecifier as Kind;
    let pb::route::HeaderMatcher {
        name,
        invert_match,
        treat_missing_header_as_empty,
        header_match_specifier,
    } = value;
    let key =
        cx.ok("name", HeaderKey::parse(&name).map_err(|_| format!("{name:?} is not a header's name")))?;
    let plain = |pattern| HeaderMatch::String(StringMatcher::new(pattern, false));
    let rule = match header_match_specifier {
        None => HeaderMatch::Present(true),
        Some(Kind::PresentMatch(present)) => HeaderMatch::Present(present),
        Some(Kind::StringMatch(value)) => {
            HeaderMatch::String(cx.within("string_match", |cx| string(cx, value))?)
        }
        Some(Kind::RangeMatch(range)) => HeaderMatch::Range(range.start..range.end),
        Some(Kind::ExactMatch(text)) => plain(StringMatch::Exact(text.into())),
        Some(Kind::PrefixMatch(text)) => plain(StringMatch::Prefix(text.into())),
        Some(Kind::SuffixMatch(text)) => plain(StringMatch::Suffix(text.into())),
        Some(Kind::ContainsMatch(text)) => plain(StringMatch::Contains(text.into())),
        Some(Kind::SafeRegexMatch(value)) => {
            plain(StringMatch::Regex(cx.within("safe_regex_match", |cx| regex(cx, value))?))
        }
    };
    Some(HeaderMatcher {
        name: key,
        rule,
        invert: invert_match,
        treat_missing_as_empty: treat_missing_header_as_empty,
    })
}

/// A list of `HeaderMatcher`s.
pub(crate) fn headers(
    cx: &mut Cx<'_>,
    field: &str,
    values: Vec<pb::route::HeaderMatcher>,
) -> Box<[HeaderMatcher]> {
    cx.each(field, values, header).into()
}

/// `QueryParameterMatcher`
pub(crate) fn query(cx: &mut Cx<'_>, value: pb::route::QueryParameterMatcher) -> Option<QueryMatcher> {
    use pb::route::query_parameter_matcher::QueryParameterMatchSpecifier as Kind;
    let pb::route::QueryParameterMatcher { name, query_parameter_match_specifier } = value;
    let (value, present) = match query_parameter_match_specifier {
        None => (None, true),
        Some(Kind::PresentMatch(present)) => (None, present),
        Some(Kind::StringMatch(value)) => (Some(cx.within("string_match", |cx| string(cx, value))?), true),
    };
    Some(QueryMatcher { name: name.into(), value, present })
}

/// `MetadataMatcher`
pub(crate) fn metadata(cx: &mut Cx<'_>, value: pb::matcher::MetadataMatcher) -> Option<MetadataMatcher> {
    use pb::matcher::metadata_matcher::path_segment::Segment;
    let pb::matcher::MetadataMatcher { filter, path, value, invert } = value;
    let path = cx.each("path", path, |cx, segment| match segment.segment {
        Some(Segment::Key(key)) => Some(key.into()),
        None => {
            cx.error("key", "it must be set");
            None
        }
    });
    let value = cx.required("value", value, self::value)?;
    Some(MetadataMatcher { filter: Arc::from(filter), path: path.into(), value, invert })
}

/// `ValueMatcher`
pub(crate) fn value(cx: &mut Cx<'_>, value: pb::matcher::ValueMatcher) -> Option<ValueMatcher> {
    use pb::matcher::double_matcher::MatchPattern as Double;
    use pb::matcher::list_matcher::MatchPattern as List;
    use pb::matcher::value_matcher::MatchPattern;
    Some(match value.match_pattern {
        Some(MatchPattern::NullMatch(_)) => ValueMatcher::Null,
        Some(MatchPattern::DoubleMatch(double)) => match double.match_pattern {
            Some(Double::Exact(number)) => ValueMatcher::Number(number),
            Some(Double::Range(range)) => ValueMatcher::Range(range.start..range.end),
            None => {
                cx.error("double_match", "it must be set");
                return None;
            }
        },
        Some(MatchPattern::StringMatch(value)) => {
            ValueMatcher::String(cx.within("string_match", |cx| string(cx, value))?)
        }
        Some(MatchPattern::BoolMatch(value)) => ValueMatcher::Bool(value),
        Some(MatchPattern::PresentMatch(value)) => ValueMatcher::Present(value),
        Some(MatchPattern::ListMatch(list)) => match list.match_pattern {
            Some(List::OneOf(item)) => {
                ValueMatcher::ListAny(Box::new(cx.within("list_match.one_of", |cx| self::value(cx, *item))?))
            }
            None => {
                cx.error("list_match", "it must be set");
                return None;
            }
        },
        Some(MatchPattern::OrMatch(any)) => {
            ValueMatcher::Any(cx.each("or_match.value_matchers", any.value_matchers, self::value).into())
        }
        None => {
            cx.error("", "it matches nothing: no pattern is set");
            return None;
        }
    })
}
