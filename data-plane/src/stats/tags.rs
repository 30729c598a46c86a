//! How a statistic's name becomes a metric's name and labels, and which statistics are kept: the bootstrap's
//! `stats_config`.

use std::fmt::Write;
use std::ops::Range;

use regex::Regex;

use super::sample::Name;
use super::schema::Tag;

/// The namespace of statistics that wasm modules define.
const CUSTOM: &str = "wasmcustom.";

/// One entry of `stats_tags`.
#[derive(Clone, Debug)]
pub enum TagRule {
    /// The expression's first group is cut from the name; its second, else its first, is the label's value. It may look
    /// around, as those of Istio's bootstrap do: Envoy reads it as ECMAScript has it.
    Regex(String, fancy_regex::Regex),
    /// A label that every metric has.
    Fixed(String, String),
}

/// One string matcher of `stats_matcher`.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub enum TextMatch {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Contains(String),
    Regex(Regex),
}

impl TextMatch {
    /// Whether a name matches.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(text) => name == text,
            Self::Prefix(text) => name.starts_with(text),
            Self::Suffix(text) => name.ends_with(text),
            Self::Contains(text) => name.contains(text),
            Self::Regex(regex) => regex.is_match(name),
        }
    }
}

/// Which statistics exist.
#[derive(Clone, Debug, Default)]
pub enum Keep {
    /// All.
    #[default]
    All,
    /// None.
    Nothing,
    /// Those that match one of these.
    Only(Vec<TextMatch>),
    /// Those that match none of these.
    AllBut(Vec<TextMatch>),
}

/// The bootstrap's `stats_config`, built.
#[derive(Clone, Debug)]
pub struct Rules {
    /// `stats_tags`.
    pub tags: Vec<TagRule>,
    /// `use_all_default_tags`.
    pub defaults: bool,
    /// `stats_matcher`.
    pub keep: Keep,
    /// `histogram_bucket_settings`: bounds for names that match; the first that does holds.
    pub buckets: Vec<(TextMatch, Vec<f64>)>,
}

impl Default for Rules {
    fn default() -> Self {
        Self { tags: Vec::new(), defaults: true, keep: Keep::All, buckets: Vec::new() }
    }
}

/// A metric's name and its labels, rendered.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Metric {
    pub(super) name: String,
    pub(super) labels: String,
}

impl Rules {
    /// Whether a statistic of this full name is kept.
    pub fn keeps(&self, name: &str) -> bool {
        match &self.keep {
            Keep::All => true,
            Keep::Nothing => false,
            Keep::Only(matchers) => matchers.iter().any(|matcher| matcher.matches(name)),
            Keep::AllBut(matchers) => !matchers.iter().any(|matcher| matcher.matches(name)),
        }
    }

    /// The bounds of a histogram's buckets; `None`: Envoy's own.
    pub(super) fn bounds(&self, name: &str) -> Option<&[f64]> {
        self.buckets.iter().find(|(matcher, _)| matcher.matches(name)).map(|(_, bounds)| &**bounds)
    }

    /// `flat` is the name, rendered.
    pub(super) fn metric(&self, name: Name<'_>, flat: &str) -> Metric {
        if name.tag == Tag::Rendered {
            return Metric { name: name.stat.to_owned(), labels: name.object.to_owned() };
        }
        let mut metric = Metric::default();
        let mut cuts: Vec<Range<usize>> = Vec::new();
        for rule in &self.tags {
            match rule {
                TagRule::Fixed(label, value) => push_label(&mut metric.labels, label, value),
                TagRule::Regex(label, regex) => {
                    // One that tries for too long does not match.
                    let Ok(Some(found)) = regex.captures(flat) else { continue };
                    let Some(cut) = found.get(1) else { continue };
                    push_label(&mut metric.labels, label, found.get(2).unwrap_or(cut).as_str());
                    cuts.push(cut.start()..cut.end());
                }
            }
        }
        if self.defaults {
            default_tags(name, flat, &mut metric.labels, &mut cuts);
        }
        // What wasm modules count has the name that they gave it.
        let mut at = if flat.starts_with(CUSTOM) { CUSTOM.len() } else { 0 };
        if at == 0 {
            metric.name.push_str("envoy_");
        }
        cuts.sort_by_key(|cut| cut.start);
        for cut in cuts {
            if cut.start >= at {
                push_name(&mut metric.name, &flat[at..cut.start]);
            }
            at = at.max(cut.end);
        }
        push_name(&mut metric.name, &flat[at..]);
        metric
    }
}

fn default_tags(name: Name<'_>, flat: &str, labels: &mut String, cuts: &mut Vec<Range<usize>>) {
    if let Some(digits) = flat.rfind("_rq_").map(|at| &flat[at + 4..]) {
        let start = flat.len() - digits.len();
        match digits.as_bytes() {
            [b'1'..=b'5', b'x', b'x'] => {
                push_label(labels, "envoy.response_code_class", &digits[..1]);
                cuts.push(start..start + 1);
            }
            [b'1'..=b'5', b'0'..=b'9', b'0'..=b'9'] => {
                push_label(labels, "envoy.response_code", digits);
                cuts.push(start - 1..flat.len());
            }
            _ => {}
        }
    }
    part_tags(name, flat, labels, cuts);
    match name.tag {
        Tag::VirtualHost => virtual_host_tags(name, labels, cuts),
        Tag::RouteTable => below_manager_tags(name, ".rds.", "envoy.rds_route_config", labels, cuts),
        Tag::Scopes => below_manager_tags(name, ".scoped_rds.", "envoy.scoped_rds_config", labels, cuts),
        Tag::Endpoint => endpoint_tags(name, labels, cuts),
        _ => {}
    }
    for (label, value) in name.labels {
        push_label(labels, label, value);
    }
    if let Some(prefix) = ext_authz_prefix(name.stat) {
        push_label(labels, "envoy.ext_authz_prefix", prefix);
        let start = flat.len() - name.stat.len() + EXT_AUTHZ.len();
        cuts.push(start..start + prefix.len() + 1);
    }
    if let Tag::Label(label) = name.tag
        && !name.object.is_empty()
    {
        push_label(labels, label, name.object);
        let start = if name.root.is_empty() { 0 } else { name.root.len() + 1 };
        cuts.push(start..(start + name.object.len() + 1).min(flat.len()));
    }
}

/// Labels that stand in a statistic's own name, or at the beginning of the object's.
fn part_tags(name: Name<'_>, flat: &str, labels: &mut String, cuts: &mut Vec<Range<usize>>) {
    let stat = flat.len() - name.stat.len();
    if let Some((worker, _)) = name.stat.strip_prefix("worker_").and_then(|rest| rest.split_once('.')) {
        push_label(labels, "envoy.worker_id", worker);
        let start = stat + "worker".len();
        cuts.push(start..start + 1 + worker.len());
    }
    let tls = |kind: &str| match (kind, name.root) {
        // Envoy's own spelling.
        ("ciphers", "cluster") => Some("cipher_suite"),
        ("ciphers", _) => Some("envoy.ssl_cipher"),
        ("curves", _) => Some("envoy.ssl_curve"),
        ("versions", _) => Some("envoy.ssl_version"),
        _ => None,
    };
    if let Some((kind, value)) = name.stat.strip_prefix("ssl.").and_then(|rest| rest.split_once('.'))
        && let Some(label) = tls(kind)
    {
        push_label(labels, label, value);
        cuts.push(flat.len() - value.len() - 1..flat.len());
    }
    if let Tag::First(label) = name.tag {
        let first = name.object.split('.').next().unwrap_or_default();
        push_label(labels, label, first);
        let start = name.root.len() + 1;
        cuts.push(start..start + first.len() + 1);
    }
}

/// `vhost.HOST.vcluster.NAME.` and `vhost.HOST.route.NAME.`
fn virtual_host_tags(name: Name<'_>, labels: &mut String, cuts: &mut Vec<Range<usize>>) {
    let start = name.root.len() + 1;
    for (word, label) in [(".vcluster.", "envoy.virtual_cluster"), (".route.", "envoy.route")] {
        let Some(at) = name.object.find(word) else { continue };
        let inner = at + word.len();
        push_label(labels, "envoy.virtual_host", &name.object[..at]);
        push_label(labels, label, &name.object[inner..]);
        cuts.push(start..start + at + 1);
        cuts.push(start + inner..start + name.object.len() + 1);
        return;
    }
}

/// `cluster.NAME.endpoint.HOST.`
fn endpoint_tags(name: Name<'_>, labels: &mut String, cuts: &mut Vec<Range<usize>>) {
    let Some((cluster, host)) = name.object.rsplit_once(".endpoint.") else { return };
    push_label(labels, "envoy.cluster_name", cluster);
    let start = name.root.len() + 1;
    cuts.push(start..start + cluster.len() + 1);
    let end = start + name.object.len() + 1;
    cuts.push(end - host.len() - 1..end);
}

/// `http.PREFIX.rds.NAME.`
fn below_manager_tags(
    name: Name<'_>,
    between: &str,
    label: &str,
    labels: &mut String,
    cuts: &mut Vec<Range<usize>>,
) {
    let Some((prefix, table)) = name.object.split_once(between) else { return };
    push_label(labels, label, table);
    push_label(labels, "envoy.http_conn_manager_prefix", prefix);
    let start = name.root.len() + 1;
    cuts.push(start..start + prefix.len() + 1);
    let end = start + name.object.len() + 1;
    cuts.push(end - table.len() - 1..end);
}

const EXT_AUTHZ: &str = "ext_authz.";

/// `stat_prefix` of the filter, which Envoy makes a label of for this filter alone.
fn ext_authz_prefix(stat: &str) -> Option<&str> {
    Some(stat.strip_prefix(EXT_AUTHZ)?.rsplit_once('.')?.0)
}

fn push_name(to: &mut String, part: &str) {
    to.extend(part.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }));
}

/// Appends a label in Prometheus' form.
pub(crate) fn push_label(labels: &mut String, name: &str, value: &str) {
    if !labels.is_empty() {
        labels.push(',');
    }
    push_name(labels, name);
    labels.push_str("=\"");
    for c in value.chars() {
        match c {
            '\\' => labels.push_str("\\\\"),
            '"' => labels.push_str("\\\""),
            '\n' => labels.push_str("\\n"),
            c => {
                // Writing to a string does not fail.
                let _ = labels.write_char(c);
            }
        }
    }
    labels.push('"');
}
