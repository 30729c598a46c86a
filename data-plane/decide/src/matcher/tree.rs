//! `xds.type.matcher.v3.Matcher`: a tree of conditions with an action at each leaf.

use std::borrow::Cow;
use std::net::IpAddr;

use serde_json::Value;

use super::{StringMatcher, ValueMatcher};
use crate::address::CidrSet;
use crate::cel::Program;
use crate::head::HeaderKey;

/// A tree, whose leaves are actions of a type of the user's.
#[derive(Debug)]
pub struct MatchTree<A> {
    /// How it branches.
    pub branches: Branches<A>,
    /// What holds if no branch is taken.
    pub on_no_match: Option<Box<OnMatch<A>>>,
}

/// How a tree branches.
#[derive(Debug)]
pub enum Branches<A> {
    /// There is none.
    None,
    /// Conditions, one after the other.
    List(Box<[(Predicate, OnMatch<A>)]>),
    /// By a value.
    Exact(Input, Box<[(Box<str>, OnMatch<A>)]>),
    /// By what a value begins with; longer ones come first.
    Prefix(Input, Box<[(Box<str>, OnMatch<A>)]>),
    /// By an address; narrower ranges come first.
    Ranges(Input, Box<[(ipnet::IpNet, usize)]>, Box<[OnMatch<A>]>),
}

/// What a branch leads to.
#[derive(Debug)]
pub enum OnMatch<A> {
    /// An action.
    Action(A),
    /// Another tree; if it leads nowhere, the search goes on.
    Tree(Box<MatchTree<A>>),
}

/// A condition.
#[derive(Debug)]
pub enum Predicate {
    /// A value is like this.
    Single(Input, Test),
    /// All of these hold.
    And(Box<[Predicate]>),
    /// One of these holds.
    Or(Box<[Predicate]>),
    /// This does not hold.
    Not(Box<Predicate>),
}

impl Predicate {
    fn reads_response(&self) -> bool {
        match self {
            Self::Single(input, _) => input.is_of_response(),
            Self::And(all) | Self::Or(all) => all.iter().any(Self::reads_response),
            Self::Not(inner) => inner.reads_response(),
        }
    }
}

impl Input {
    fn is_of_response(&self) -> bool {
        matches!(
            self,
            Self::ResponseHeader(_)
                | Self::ResponseStatus
                | Self::ResponseStatusClass
                | Self::ResponseIsLocal
        )
    }
}

/// What a value must be like.
#[derive(Debug)]
pub enum Test {
    /// A string match.
    String(StringMatcher),
    /// An address in these ranges.
    Ip(CidrSet),
    /// A match on structured data; the flag turns the result round.
    Value(ValueMatcher, bool),
    /// An expression over all attributes.
    Cel(Program),
}

/// What is looked at.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A request header.
    RequestHeader(HeaderKey),
    /// A query parameter.
    QueryParam(Box<str>),
    /// The address that was connected to.
    DestinationIp,
    /// Its port.
    DestinationPort,
    /// The client's address.
    SourceIp,
    /// The client's port.
    SourcePort,
    /// The address of the socket's peer.
    DirectSourceIp,
    /// The SNI.
    ServerName,
    /// URI names in the client's certificate.
    UriSan,
    /// DNS names in the client's certificate.
    DnsSan,
    /// The subject of the client's certificate.
    Subject,
    /// Dynamic metadata: namespace and path.
    Metadata(Box<str>, Box<[Box<str>]>),
    /// A filter state object.
    FilterState(Box<str>),
    /// The response's status.
    ResponseStatus,
    /// Its class: `4xx`.
    ResponseStatusClass,
    /// `true` if it is the proxy's own, `false` if the upstream's.
    ResponseIsLocal,
    /// A response header.
    ResponseHeader(HeaderKey),
    /// All attributes, for expressions.
    Attributes,
}

/// A stream or connection, as trees see it.
pub trait Data {
    /// An input's value as text.
    fn text(&self, input: &Input) -> Option<Cow<'_, str>>;

    /// An input's value as structured data.
    fn value(&self, input: &Input) -> Option<Cow<'_, Value>>;

    /// Whether an expression holds.
    fn holds(&self, program: &Program) -> bool;
}

impl<A> MatchTree<A> {
    /// Whether something in it depends on the response.
    pub fn reads_response(&self) -> bool {
        let leads = |on_match: &OnMatch<A>| matches!(on_match, OnMatch::Tree(tree) if tree.reads_response());
        let by = |input: &Input, all: &[(Box<str>, OnMatch<A>)]| {
            input.is_of_response() || all.iter().any(|(_, on_match)| leads(on_match))
        };
        let here = match &self.branches {
            Branches::None => false,
            Branches::List(list) => {
                list.iter().any(|(when, on_match)| when.reads_response() || leads(on_match))
            }
            Branches::Exact(input, all) | Branches::Prefix(input, all) => by(input, all),
            Branches::Ranges(input, _, all) => input.is_of_response() || all.iter().any(leads),
        };
        here || self.on_no_match.as_deref().is_some_and(leads)
    }

    /// The action for a stream.
    pub fn find(&self, data: &dyn Data) -> Option<&A> {
        let found = match &self.branches {
            Branches::None => None,
            Branches::List(list) => {
                let mut taken = list.iter().filter(|(predicate, _)| predicate.holds(data));
                taken.find_map(|(_, branch)| branch.find(data))
            }
            Branches::Exact(input, map) => data.text(input).and_then(|value| {
                let (_, branch) = map.iter().find(|(key, _)| **key == *value)?;
                branch.find(data)
            }),
            Branches::Prefix(input, map) => data.text(input).and_then(|value| {
                let mut taken = map.iter().filter(|(prefix, _)| value.starts_with(&**prefix));
                taken.find_map(|(_, branch)| branch.find(data))
            }),
            Branches::Ranges(input, ranges, branches) => address(data, input).and_then(|ip| {
                let mut taken = ranges.iter().filter(|(range, _)| range.contains(&ip));
                taken.find_map(|(_, branch)| branches.get(*branch)?.find(data))
            }),
        };
        found.or_else(|| self.on_no_match.as_ref()?.find(data))
    }
}

impl<A> OnMatch<A> {
    fn find(&self, data: &dyn Data) -> Option<&A> {
        match self {
            Self::Action(action) => Some(action),
            Self::Tree(tree) => tree.find(data),
        }
    }
}

impl Predicate {
    fn holds(&self, data: &dyn Data) -> bool {
        match self {
            Self::Single(input, test) => test.holds(input, data),
            Self::And(all) => all.iter().all(|one| one.holds(data)),
            Self::Or(any) => any.iter().any(|one| one.holds(data)),
            Self::Not(one) => !one.holds(data),
        }
    }
}

impl Test {
    /// A value that is not there is like nothing.
    fn holds(&self, input: &Input, data: &dyn Data) -> bool {
        match self {
            Self::String(matcher) => data.text(input).is_some_and(|text| matcher.is_match(text.as_bytes())),
            Self::Ip(ranges) => address(data, input).is_some_and(|ip| ranges.contains(ip)),
            Self::Value(matcher, invert) => matcher.is_match(data.value(input).as_deref()) != *invert,
            Self::Cel(program) => data.holds(program),
        }
    }
}

fn address(data: &dyn Data, input: &Input) -> Option<IpAddr> {
    let ip: IpAddr = data.text(input)?.parse().ok()?;
    Some(ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matcher::StringMatch;

    /// Says of itself what stands in these pairs.
    struct Pairs(&'static [(Input, &'static str)]);

    impl Data for Pairs {
        fn text(&self, input: &Input) -> Option<Cow<'_, str>> {
            self.0.iter().find(|(known, _)| known == input).map(|(_, text)| Cow::Borrowed(*text))
        }
        fn value(&self, _: &Input) -> Option<Cow<'_, Value>> {
            None
        }
        fn holds(&self, _: &Program) -> bool {
            false
        }
    }

    fn leaf(name: &'static str) -> OnMatch<&'static str> {
        OnMatch::Action(name)
    }

    fn prefix(input: Input, with: &str) -> Predicate {
        Predicate::Single(input, Test::String(StringMatcher::new(StringMatch::Prefix(with.into()), false)))
    }

    #[test]
    fn the_first_branch_that_leads_somewhere_is_taken() {
        let nowhere = MatchTree { branches: Branches::None, on_no_match: None };
        let tree = MatchTree {
            branches: Branches::List(Box::new([
                (prefix(Input::ServerName, "a"), OnMatch::Tree(Box::new(nowhere))),
                (
                    Predicate::And(Box::new([
                        prefix(Input::ServerName, "a"),
                        Predicate::Not(Box::new(prefix(Input::Subject, "x"))),
                    ])),
                    leaf("second"),
                ),
            ])),
            on_no_match: Some(Box::new(leaf("none"))),
        };
        assert_eq!(tree.find(&Pairs(&[(Input::ServerName, "ab")])), Some(&"second"));
        assert_eq!(tree.find(&Pairs(&[(Input::ServerName, "ab"), (Input::Subject, "x")])), Some(&"none"));
        assert_eq!(tree.find(&Pairs(&[])), Some(&"none"));
    }

    #[test]
    fn maps_and_ranges_go_by_the_narrowest() {
        let tree = |branches| MatchTree { branches, on_no_match: None };
        let exact = tree(Branches::Exact(Input::ServerName, Box::new([("a".into(), leaf("a"))])));
        assert_eq!(exact.find(&Pairs(&[(Input::ServerName, "a")])), Some(&"a"));
        assert_eq!(exact.find(&Pairs(&[(Input::ServerName, "ab")])), None);
        let map = Box::new([("ab".into(), leaf("long")), ("a".into(), leaf("short"))]);
        let prefixes = tree(Branches::Prefix(Input::ServerName, map));
        assert_eq!(prefixes.find(&Pairs(&[(Input::ServerName, "abc")])), Some(&"long"));
        assert_eq!(prefixes.find(&Pairs(&[(Input::ServerName, "ac")])), Some(&"short"));
        let ranges = Box::new([("10.1.0.0/16".parse().unwrap(), 0), ("10.0.0.0/8".parse().unwrap(), 1)]);
        let ranges = tree(Branches::Ranges(Input::SourceIp, ranges, Box::new([leaf("near"), leaf("far")])));
        assert_eq!(ranges.find(&Pairs(&[(Input::SourceIp, "10.1.2.3")])), Some(&"near"));
        assert_eq!(ranges.find(&Pairs(&[(Input::SourceIp, "10.2.2.3")])), Some(&"far"));
        assert_eq!(ranges.find(&Pairs(&[(Input::SourceIp, "11.2.2.3")])), None);
    }
}
