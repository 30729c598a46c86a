//! Header operations: what routes, virtual hosts, route tables and weighted clusters add, set and remove.
//!
//! Pseudo-headers and `host` cannot be written this way: routes have rewrites for them.

use http::header::{Entry, HeaderMap, HeaderName, HeaderValue};
use std::borrow::Cow;

use smallvec::SmallVec;

use crate::format::{Attributes, Format, Missing};
use crate::head::{is_kept_as_one, joined};
use crate::matcher::StringMatcher;

/// `HeaderValueOption.HeaderAppendAction`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AppendAction {
    /// Another value beside those that are there.
    #[default]
    AppendIfExistsOrAdd,
    /// Only if the header is absent.
    AddIfAbsent,
    /// In place of those that are there, if any.
    OverwriteIfExistsOrAdd,
    /// Only in place of one that is there.
    OverwriteIfExists,
}

/// A header to add.
#[derive(Clone, Debug, PartialEq)]
pub struct HeaderAdd {
    /// Its name.
    pub name: HeaderName,
    /// Its value.
    pub value: AddValue,
    /// What happens to values that are there.
    pub action: AppendAction,
    /// Whether an empty value is added all the same.
    pub keep_empty_value: bool,
}

/// What a header operation writes.
#[derive(Clone, Debug, PartialEq)]
pub enum AddValue {
    /// The same for every request.
    Literal(HeaderValue),
    /// Evaluated for each.
    Format(Format),
}

/// The operations of one level: removals first, then additions, as Envoy does it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeaderOps {
    /// What is added or set, in order.
    pub add: Box<[HeaderAdd]>,
    /// What is removed.
    pub remove: Box<[HeaderName]>,
}

impl HeaderOps {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.add.is_empty() && self.remove.is_empty()
    }

    /// Carries out the operations; operators read what `attributes` has, whatever the operations do.
    pub fn apply<A: Attributes + ?Sized>(&self, headers: &mut HeaderMap, attributes: &A) {
        self.remove(headers);
        self.additions(headers, attributes).write(headers);
    }

    /// The first step: what is to go.
    pub fn remove(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
    }

    /// The second step: what is to be written into these headers. Neither actions nor operators see what the others of
    /// the same level write, as in Envoy. Values that are no header values (a line break came in by an operator) are
    /// left out.
    pub fn additions<A: Attributes + ?Sized>(&self, headers: &HeaderMap, attributes: &A) -> Additions<'_> {
        let mut additions = Additions::default();
        for add in &self.add {
            let there = || headers.contains_key(&add.name);
            let list = match add.action {
                AppendAction::AppendIfExistsOrAdd => &mut additions.append,
                AppendAction::AddIfAbsent if !there() => &mut additions.append,
                AppendAction::OverwriteIfExistsOrAdd => &mut additions.overwrite,
                AppendAction::OverwriteIfExists if there() => &mut additions.overwrite,
                AppendAction::AddIfAbsent | AppendAction::OverwriteIfExists => continue,
            };
            if let Some(value) = add.value(attributes) {
                list.push((&add.name, value));
            }
        }
        additions
    }
}

/// What one level's operations write.
#[derive(Debug, Default)]
pub struct Additions<'a> {
    overwrite: SmallVec<[(&'a HeaderName, HeaderValue); 2]>,
    append: SmallVec<[(&'a HeaderName, HeaderValue); 2]>,
}

impl Additions<'_> {
    /// The last step.
    pub fn write(self, headers: &mut HeaderMap) {
        for (name, value) in self.overwrite {
            headers.insert(name, value);
        }
        for (name, value) in self.append {
            append(headers, name, value);
        }
    }
}

impl HeaderAdd {
    /// The value for this request; `None` if nothing is to be written.
    pub fn value<A: Attributes + ?Sized>(&self, attributes: &A) -> Option<HeaderValue> {
        let value = match &self.value {
            AddValue::Literal(value) => value.clone(),
            AddValue::Format(format) => {
                let mut text = String::new();
                format.write(attributes, Missing::Empty, &mut text);
                HeaderValue::try_from(text).ok()?
            }
        };
        (self.keep_empty_value || !value.is_empty()).then_some(value)
    }
}

fn append(headers: &mut HeaderMap, name: &HeaderName, value: HeaderValue) {
    let before = joined(headers, name).filter(|_| is_kept_as_one(name));
    let whole = before
        .and_then(|before| HeaderValue::from_bytes(&[&before, &b","[..], value.as_bytes()].concat()).ok());
    match whole {
        Some(whole) => drop(headers.insert(name, whole)),
        None => drop(headers.append(name, value)),
    }
}

/// The header mutation filter's operations, in the order in which they were written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mutations {
    /// On requests.
    pub request: Box<[Mutation]>,
    /// On responses.
    pub response: Box<[Mutation]>,
    /// On the trailers of requests.
    pub request_trailers: Box<[Mutation]>,
    /// On the trailers of responses.
    pub response_trailers: Box<[Mutation]>,
    /// On query parameters.
    pub query: Box<[QueryMutation]>,
    /// Of several levels that configure routes, whether the most specific one comes last, so that it wins.
    pub most_specific_wins: bool,
}

/// An operation on a query parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum QueryMutation {
    /// Removes it.
    Remove(Box<str>),
    /// Adds or sets it.
    Add(Box<str>, Format, AppendAction),
}

impl QueryMutation {
    /// Carries it out on a path; `None` if nothing changes. Parameters come out in the order of their names, each with a
    /// `=`, also those that stay.
    pub fn apply<A: Attributes + ?Sized>(&self, path: &str, attributes: &A) -> Option<String> {
        let (before, query) = path.split_once('?').unwrap_or((path, ""));
        let query = query.strip_suffix('&').unwrap_or(query);
        let pairs = query.split('&').filter(|_| !query.is_empty());
        let mut pairs: Vec<String> =
            pairs.map(|pair| if pair.contains('=') { pair.to_owned() } else { format!("{pair}=") }).collect();
        match self {
            Self::Remove(key) => pairs.retain(|pair| name_of(pair) != **key),
            Self::Add(key, value, action) => {
                let there = pairs.iter().any(|pair| name_of(pair) == **key);
                let add = match (action, there) {
                    (AppendAction::AddIfAbsent, true) | (AppendAction::OverwriteIfExists, false) => false,
                    (AppendAction::OverwriteIfExistsOrAdd | AppendAction::OverwriteIfExists, true) => {
                        pairs.retain(|pair| name_of(pair) != **key);
                        true
                    }
                    _ => true,
                };
                if add {
                    let mut text = String::new();
                    value.write(attributes, Missing::Empty, &mut text);
                    pairs.push(format!("{}={}", encoded(key), encoded(&text)));
                }
            }
        }
        // Those of one name stay in their order.
        pairs.sort_by(|a, b| name_of(a).cmp(&name_of(b)));
        let changed = match pairs.is_empty() {
            true => before.to_owned(),
            false => format!("{before}?{}", pairs.join("&")),
        };
        (changed != path).then_some(changed)
    }
}

fn name_of(pair: &str) -> Cow<'_, str> {
    let name = pair.split('=').next().unwrap_or_default();
    percent_encoding::percent_decode_str(name).decode_utf8_lossy()
}

fn encoded(text: &str) -> String {
    let encoded = percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC);
    encoded.to_string().replace("%2D", "-").replace("%5F", "_").replace("%2E", ".")
}

/// One of them.
#[derive(Clone, Debug, PartialEq)]
pub enum Mutation {
    /// Removes a header.
    Remove(HeaderName),
    /// Removes the headers whose name matches.
    RemoveMatching(StringMatcher),
    /// Adds or sets one.
    Add(HeaderAdd),
}

impl Mutation {
    /// Carries it out.
    pub fn apply<A: Attributes + ?Sized>(&self, headers: &mut HeaderMap, attributes: &A) {
        match self {
            Self::Remove(name) => {
                headers.remove(name);
            }
            Self::RemoveMatching(matcher) => {
                let names: Vec<_> = headers
                    .keys()
                    .filter(|name| matcher.is_match(name.as_str().as_bytes()))
                    .cloned()
                    .collect();
                for name in names {
                    headers.remove(name);
                }
            }
            Self::Add(add) => {
                if let Some(value) = add.value(attributes) {
                    put(headers, &add.name, value, add.action);
                }
            }
        }
    }
}

/// Writes one value by its action.
pub fn put(headers: &mut HeaderMap, name: &HeaderName, value: HeaderValue, action: AppendAction) {
    match (action, headers.entry(name)) {
        (AppendAction::AppendIfExistsOrAdd, Entry::Occupied(mut entry)) => entry.append(value),
        (
            AppendAction::OverwriteIfExistsOrAdd | AppendAction::OverwriteIfExists,
            Entry::Occupied(mut entry),
        ) => {
            entry.insert(value);
        }
        (AppendAction::AddIfAbsent, Entry::Occupied(_))
        | (AppendAction::OverwriteIfExists, Entry::Vacant(_)) => {}
        (_, Entry::Vacant(entry)) => {
            entry.insert(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Operator;

    struct Nothing;

    impl Attributes for Nothing {
        fn text(&self, _: &Operator) -> Option<Cow<'_, str>> {
            None
        }
    }

    #[test]
    fn actions_decide_what_stays() {
        let check = |action, before: &[&str], after: &[&str]| {
            let name = HeaderName::from_static("x");
            let mut headers = HeaderMap::new();
            for value in before {
                headers.append(&name, HeaderValue::from_str(value).unwrap());
            }
            let add = HeaderAdd {
                name: name.clone(),
                value: AddValue::Literal(HeaderValue::from_static("new")),
                action,
                keep_empty_value: false,
            };
            HeaderOps { add: [add].into(), remove: Box::default() }.apply(&mut headers, &Nothing);
            let found: Vec<_> = headers.get_all(&name).iter().map(|value| value.to_str().unwrap()).collect();
            assert_eq!(found, after, "{action:?}");
        };
        check(AppendAction::AppendIfExistsOrAdd, &["a"], &["a", "new"]);
        check(AppendAction::AppendIfExistsOrAdd, &[], &["new"]);
        check(AppendAction::AddIfAbsent, &["a"], &["a"]);
        check(AppendAction::AddIfAbsent, &[], &["new"]);
        check(AppendAction::OverwriteIfExistsOrAdd, &["a", "b"], &["new"]);
        check(AppendAction::OverwriteIfExistsOrAdd, &[], &["new"]);
        check(AppendAction::OverwriteIfExists, &["a"], &["new"]);
        check(AppendAction::OverwriteIfExists, &[], &[]);
    }

    /// What Envoy 1.40 does.
    #[test]
    fn operations_of_a_level_do_not_see_each_other() {
        let add = |name, value, action| HeaderAdd {
            name: HeaderName::from_static(name),
            value: AddValue::Literal(HeaderValue::from_static(value)),
            action,
            keep_empty_value: false,
        };
        let ops = HeaderOps {
            add: [
                add("x", "added", AppendAction::AppendIfExistsOrAdd),
                add("x", "set", AppendAction::OverwriteIfExistsOrAdd),
                add("x", "absent", AppendAction::AddIfAbsent),
                add("x", "there", AppendAction::OverwriteIfExists),
                add("gone", "absent", AppendAction::AddIfAbsent),
            ]
            .into(),
            remove: [HeaderName::from_static("gone")].into(),
        };
        let mut headers = HeaderMap::new();
        headers.insert("gone", HeaderValue::from_static("old"));
        ops.apply(&mut headers, &Nothing);
        let mut found: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        found.sort_by_key(|(name, _)| *name);
        let expected: [(&str, &[u8]); 4] =
            [("gone", b"absent"), ("x", b"set"), ("x", b"added"), ("x", b"absent")];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_envoy_keeps_as_one_line_stays_one() {
        let mut headers = HeaderMap::new();
        for name in ["content-type", "x"].map(HeaderName::from_static) {
            headers.insert(&name, HeaderValue::from_static("a"));
            append(&mut headers, &name, HeaderValue::from_static("b"));
        }
        let lines = |name| headers.get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(lines("content-type"), ["a,b"]);
        assert_eq!(lines("x"), ["a", "b"]);
    }

    #[test]
    fn query_parameters_change() {
        let add = |action| QueryMutation::Add("k".into(), Format::literal("v w"), action);
        let check = |mutation: &QueryMutation, path: &str, expected: Option<&str>| {
            assert_eq!(mutation.apply(path, &Nothing).as_deref(), expected, "{mutation:?} {path}");
        };
        check(&QueryMutation::Remove("k".into()), "/a?k=1&b&k=2", Some("/a?b="));
        check(&QueryMutation::Remove("k".into()), "/a?z=1&b&%61=c", Some("/a?%61=c&b=&z=1"));
        check(&QueryMutation::Remove("k".into()), "/a?", Some("/a"));
        check(&QueryMutation::Remove("k".into()), "/a?k=1", Some("/a"));
        check(&QueryMutation::Remove("k".into()), "/a", None);
        check(&add(AppendAction::AppendIfExistsOrAdd), "/a?k=1", Some("/a?k=1&k=v%20w"));
        check(&add(AppendAction::AddIfAbsent), "/a?k=1", None);
        check(&add(AppendAction::OverwriteIfExistsOrAdd), "/a?k=1&b", Some("/a?b=&k=v%20w"));
        check(&add(AppendAction::AddIfAbsent), "/a?x&k", Some("/a?k=&x="));
        check(&add(AppendAction::OverwriteIfExists), "/a", None);
    }
}
