//! The bootstrap's `stats_config`, built into the rules that the renderings follow.

use regex::Regex;
use xds_api::envoy::config::metrics::v3::{
    StatsConfig, stats_matcher::StatsMatcher, tag_specifier::TagValue,
};
use xds_api::envoy::r#type::matcher::v3::{ListStringMatcher, StringMatcher, string_matcher::MatchPattern};

use crate::stats::{Keep, Rules, TagRule, TextMatch};

/// What is wrong, after the field's path.
type Failure = String;

/// A regex may need a lot of memory; those of a bootstrap are many and simple.
const SIZE: usize = 1 << 20;

/// Builds the rules.
pub fn rules(config: Option<&StatsConfig>) -> Result<Rules, Failure> {
    let Some(config) = config else { return Ok(Rules::default()) };
    let mut rules =
        Rules { defaults: config.use_all_default_tags.is_none_or(|on| on.value), ..Rules::default() };
    for (place, tag) in config.stats_tags.iter().enumerate() {
        let name = tag.tag_name.clone();
        match &tag.tag_value {
            Some(TagValue::FixedValue(value)) => rules.tags.push(TagRule::Fixed(name, value.clone())),
            Some(TagValue::Regex(regex)) if !regex.is_empty() => {
                let regex = fancy_regex::RegexBuilder::new(regex).delegate_size_limit(SIZE).build();
                let regex = regex.map_err(|e| format!("stats_config.stats_tags[{place}].regex: {e}"))?;
                rules.tags.push(TagRule::Regex(name, regex));
            }
            // Without a value, it names one of Envoy's own tags.
            Some(TagValue::Regex(_)) | None => rules.defaults = true,
        }
    }
    for (place, setting) in config.histogram_bucket_settings.iter().enumerate() {
        let field = format!("stats_config.histogram_bucket_settings[{place}]");
        let Some(pattern) = &setting.r#match else { return Err(format!("{field}.match: required")) };
        let matcher = matcher(pattern).map_err(|e| format!("{field}.match.{e}"))?;
        if setting.buckets.is_empty() || !setting.buckets.is_sorted_by(|low, high| low < high) {
            return Err(format!("{field}.buckets: they must be there, each above the one before"));
        }
        rules.buckets.push((matcher, setting.buckets.clone()));
    }
    rules.keep = match config.stats_matcher.as_ref().and_then(|matcher| matcher.stats_matcher.as_ref()) {
        None | Some(StatsMatcher::RejectAll(false)) => Keep::All,
        Some(StatsMatcher::RejectAll(true)) => Keep::Nothing,
        Some(StatsMatcher::InclusionList(list)) => Keep::Only(matchers(list, "inclusion_list")?),
        Some(StatsMatcher::ExclusionList(list)) => Keep::AllBut(matchers(list, "exclusion_list")?),
    };
    Ok(rules)
}

fn matchers(list: &ListStringMatcher, field: &str) -> Result<Vec<TextMatch>, Failure> {
    list.patterns
        .iter()
        .enumerate()
        .map(|(place, pattern)| {
            matcher(pattern).map_err(|e| format!("stats_config.stats_matcher.{field}.patterns[{place}].{e}"))
        })
        .collect()
}

fn matcher(pattern: &StringMatcher) -> Result<TextMatch, Failure> {
    if pattern.ignore_case {
        return Err("ignore_case: not supported for statistics".to_owned());
    }
    match &pattern.match_pattern {
        Some(MatchPattern::Exact(text)) => Ok(TextMatch::Exact(text.clone())),
        Some(MatchPattern::Prefix(text)) => Ok(TextMatch::Prefix(text.clone())),
        Some(MatchPattern::Suffix(text)) => Ok(TextMatch::Suffix(text.clone())),
        Some(MatchPattern::Contains(text)) => Ok(TextMatch::Contains(text.clone())),
        Some(MatchPattern::SafeRegex(regex)) => {
            // Envoy matches the whole name.
            let regex =
                compile(&format!("^(?:{})$", regex.regex)).map_err(|e| format!("safe_regex.regex: {e}"))?;
            Ok(TextMatch::Regex(regex))
        }
        Some(MatchPattern::Custom(_)) => Err("custom: not supported for statistics".to_owned()),
        None => Err("match_pattern: required".to_owned()),
    }
}

fn compile(regex: &str) -> Result<Regex, Failure> {
    regex::RegexBuilder::new(regex).size_limit(SIZE).build().map_err(|error| error.to_string())
}
