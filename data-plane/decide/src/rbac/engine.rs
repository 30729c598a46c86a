//! The decision itself.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;

use super::attributes::Known;
use super::{Engine, Invert, Permission, Policy, Principal, RuleAction, Rules, SanKind};
use crate::cel;
use crate::head::{HeaderKey, RequestHead};

/// What rules look at. For TCP there is no head.
pub trait Input {
    /// The request; `None` for TCP.
    fn head(&self) -> Option<RequestHead<'_>>;
    /// The address that was connected to.
    fn destination(&self) -> Option<(IpAddr, u16)>;
    /// The connection's peer after PROXY protocol.
    fn source_ip(&self) -> Option<IpAddr>;
    /// The connection's peer before PROXY protocol.
    fn direct_remote_ip(&self) -> Option<IpAddr>;
    /// The client after `x-forwarded-for`; the peer for TCP.
    fn remote_ip(&self) -> Option<IpAddr>;
    /// The SNI; empty for none.
    fn requested_server_name(&self) -> &str;
    /// The verified peer; `None` without TLS or without a client certificate.
    fn peer(&self) -> Option<Peer<'_>>;
    /// Whether the connection is TLS.
    fn is_tls(&self) -> bool;
    /// Dynamic metadata of a namespace.
    fn dynamic_metadata(&self, _namespace: &str) -> Option<Cow<'_, Value>> {
        None
    }
    /// The route's metadata of a namespace.
    fn route_metadata(&self, _namespace: &str) -> Option<&Value> {
        None
    }
    /// A filter state object as its string.
    fn filter_state(&self, _key: &str) -> Option<Cow<'_, str>> {
        None
    }
    /// An attribute for conditions that does not follow from the above.
    fn attribute(&self, _attribute: cel::Attribute) -> Option<cel::Value<'_>> {
        None
    }
}

/// Names in a peer's certificate.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// URI SANs.
    pub uri_sans: &'a [String],
    /// DNS SANs.
    pub dns_sans: &'a [String],
    /// The subject.
    pub subject: &'a str,
}

/// The outcome of a set of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it passes.
    pub allowed: bool,
    /// The policy that matched.
    pub policy: Option<Arc<str>>,
    /// For rules that only log: whether this is to be logged.
    pub log: Option<bool>,
}

impl Verdict {
    fn of(action: RuleAction, policy: Option<Arc<str>>) -> Self {
        let allowed = match action {
            RuleAction::Allow => policy.is_some(),
            RuleAction::Deny => policy.is_none(),
            RuleAction::Log => true,
        };
        Self { allowed, log: (action == RuleAction::Log).then_some(policy.is_some()), policy }
    }
}

impl Engine {
    /// Decides.
    pub fn decide<I: Input>(&self, input: &I) -> Verdict {
        match self {
            Self::Policies(rules) => rules.decide(input),
            Self::Matcher(tree) => match tree.find(&Known(input)) {
                Some(found) => Verdict::of(found.action, Some(found.name.clone())),
                None => Verdict { allowed: false, policy: None, log: None },
            },
        }
    }
}

impl Rules {
    /// Decides.
    pub fn decide<I: Input>(&self, input: &I) -> Verdict {
        let found = self.policies.iter().find(|policy| policy.is_match(input));
        Verdict::of(self.action, found.map(|policy| Arc::clone(&policy.name)))
    }
}

impl Policy {
    /// Whether it matches.
    pub fn is_match<I: Input>(&self, input: &I) -> bool {
        self.permissions.iter().any(|permission| permission.is_match(input))
            && self.principals.iter().any(|principal| principal.is_match(input))
            && self.condition.as_ref().is_none_or(|condition| condition.holds(&Known(input)))
    }
}

impl Permission {
    /// Whether it matches.
    pub fn is_match<I: Input + ?Sized>(&self, input: &I) -> bool {
        match self {
            Self::And(all) => all.iter().all(|permission| permission.is_match(input)),
            Self::Or(any) => any.iter().any(|permission| permission.is_match(input)),
            Self::Any => true,
            Self::Not(permission) => !permission.is_match(input),
            Self::Header(matcher) => header(input, matcher),
            Self::UrlPath(matcher) => path(input).is_some_and(|path| matcher.is_match(path.as_bytes())),
            Self::UriTemplate(template) => path(input).is_some_and(|path| template.is_match(path)),
            Self::DestinationIp(ranges) => input.destination().is_some_and(|(ip, _)| ranges.contains(ip)),
            Self::DestinationPort(range) => {
                input.destination().is_some_and(|(_, port)| range.contains(&u32::from(port)))
            }
            Self::Metadata(matcher) => matcher.is_match(input.dynamic_metadata(&matcher.filter).as_deref()),
            Self::RouteMetadata(matcher) => matcher.is_match(input.route_metadata(&matcher.filter)),
            Self::RequestedServerName(matcher) => matcher.is_match(input.requested_server_name().as_bytes()),
        }
    }
}

impl Principal {
    /// Whether it matches.
    pub fn is_match<I: Input + ?Sized>(&self, input: &I) -> bool {
        match self {
            Self::And(all) => all.iter().all(|principal| principal.is_match(input)),
            Self::Or(any) => any.iter().any(|principal| principal.is_match(input)),
            Self::Any => true,
            Self::Not(principal) => !principal.is_match(input),
            Self::Authenticated(None) => input.is_tls(),
            Self::Authenticated(Some(matcher)) => input.peer().is_some_and(|peer| {
                let matches = |name: &String| matcher.is_match(name.as_bytes());
                // As in Envoy: any URI SAN, else any DNS SAN, else the subject.
                peer.uri_sans.iter().any(matches)
                    || peer.dns_sans.iter().any(matches)
                    || matcher.is_match(peer.subject.as_bytes())
            }),
            Self::Certificate(None) => input.peer().is_some(),
            Self::Certificate(Some(matcher)) => input.peer().is_some_and(|peer| {
                let names = match matcher.kind {
                    SanKind::Uri => peer.uri_sans,
                    SanKind::Dns => peer.dns_sans,
                };
                names.iter().any(|name| matcher.name.is_match(name.as_bytes()))
            }),
            Self::SourceIp(ranges) => input.source_ip().is_some_and(|ip| ranges.contains(ip)),
            Self::DirectRemoteIp(ranges) => input.direct_remote_ip().is_some_and(|ip| ranges.contains(ip)),
            Self::RemoteIp(ranges) => input.remote_ip().is_some_and(|ip| ranges.contains(ip)),
            Self::Header(matcher) => header(input, matcher),
            Self::UrlPath(matcher) => path(input).is_some_and(|path| matcher.is_match(path.as_bytes())),
            Self::Metadata(matcher) => matcher.is_match(input.dynamic_metadata(&matcher.filter).as_deref()),
            Self::RouteMetadata(matcher) => matcher.is_match(input.route_metadata(&matcher.filter)),
            Self::FilterState(key, matcher) => {
                input.filter_state(key).is_some_and(|value| matcher.is_match(value.as_bytes()))
            }
            Self::FilterStateAddress(key, ranges, invert) => {
                let found = input.filter_state(key).and_then(|value| address(&value));
                found.is_some_and(|ip| ranges.contains(ip) != (*invert == Invert::Yes))
            }
        }
    }
}

fn address(text: &str) -> Option<IpAddr> {
    text.parse::<std::net::SocketAddr>().map(|address| address.ip()).or_else(|_| text.parse()).ok()
}

/// Without a request no header is there: value matches fail, absence matches hold, as in Envoy.
fn header<I: Input + ?Sized>(input: &I, matcher: &crate::matcher::HeaderMatcher) -> bool {
    match input.head() {
        Some(head) => matcher.is_match(&head),
        None => matcher.is_match_value(None),
    }
}

fn path<I: Input + ?Sized>(input: &I) -> Option<&str> {
    input.head().filter(|head| head.get(&HeaderKey::Path).is_some()).map(|head| head.path_only())
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::matcher::{StringMatch, StringMatcher};

    struct Request {
        headers: HeaderMap,
        sans: Vec<String>,
        path: &'static str,
        method: &'static str,
    }

    impl Input for Request {
        fn head(&self) -> Option<RequestHead<'_>> {
            let headers = &self.headers;
            Some(RequestHead {
                method: self.method,
                scheme: "http",
                authority: "a",
                path: self.path,
                protocol: None,
                headers,
            })
        }
        fn destination(&self) -> Option<(IpAddr, u16)> {
            Some(([10, 0, 0, 1].into(), 8080))
        }
        fn source_ip(&self) -> Option<IpAddr> {
            Some([10, 0, 0, 2].into())
        }
        fn direct_remote_ip(&self) -> Option<IpAddr> {
            Some([10, 0, 0, 2].into())
        }
        fn remote_ip(&self) -> Option<IpAddr> {
            Some([192, 168, 0, 1].into())
        }
        fn requested_server_name(&self) -> &str {
            ""
        }
        fn peer(&self) -> Option<Peer<'_>> {
            (!self.sans.is_empty()).then_some(Peer { uri_sans: &self.sans, dns_sans: &[], subject: "" })
        }
        fn is_tls(&self) -> bool {
            !self.sans.is_empty()
        }
    }

    fn rules(action: RuleAction) -> Rules {
        let from = |name: &str| Principal::Authenticated(Some(StringMatcher::exact(name)));
        let method = crate::matcher::HeaderMatcher {
            name: HeaderKey::Method,
            rule: crate::matcher::HeaderMatch::String(StringMatcher::exact("GET")),
            invert: false,
            treat_missing_as_empty: false,
        };
        let path = Permission::UrlPath(StringMatcher::new(StringMatch::Prefix("/info".into()), false));
        Rules {
            action,
            policies: Box::new([Policy {
                name: "p".into(),
                permissions: Box::new([Permission::And(Box::new([
                    Permission::Header(method),
                    path,
                    Permission::DestinationPort(8080..8081),
                ]))]),
                principals: Box::new([
                    from("spiffe://td/ns/a/sa/x"),
                    Principal::Not(Box::new(Principal::Any)),
                ]),
                condition: None,
            }]),
        }
    }

    #[test]
    fn allow_deny_log() {
        let request = |san: &str, path, method| Request {
            headers: HeaderMap::new(),
            sans: if san.is_empty() { vec![] } else { vec![san.into()] },
            path,
            method,
        };
        let good = request("spiffe://td/ns/a/sa/x", "/info?x=1", "GET");
        let bad = [
            request("spiffe://td/ns/a/sa/y", "/info", "GET"),
            request("", "/info", "GET"),
            request("spiffe://td/ns/a/sa/x", "/inf", "GET"),
            request("spiffe://td/ns/a/sa/x", "/info", "POST"),
        ];
        let verdict = rules(RuleAction::Allow).decide(&good);
        assert!(verdict.allowed && verdict.policy.as_deref() == Some("p"));
        assert!(!rules(RuleAction::Deny).decide(&good).allowed);
        for request in &bad {
            assert!(!rules(RuleAction::Allow).decide(request).allowed);
            assert!(rules(RuleAction::Deny).decide(request).allowed);
            assert!(rules(RuleAction::Log).decide(request).allowed);
        }
    }

    #[test]
    fn conditions_and_trees_decide() {
        use crate::matcher::tree::{Branches, Input as TreeInput, MatchTree, OnMatch};
        use crate::rbac::NamedAction;

        let request = |path| Request {
            headers: HeaderMap::new(),
            sans: vec!["spiffe://x".into()],
            path,
            method: "GET",
        };
        let mut rules = rules(RuleAction::Deny);
        let text = "request.url_path.startsWith('/a') && connection.mtls && destination.port == 8080";
        rules.policies = Box::new([Policy {
            name: "c".into(),
            permissions: Box::new([Permission::Any]),
            principals: Box::new([Principal::Certificate(None)]),
            condition: Some(cel::Program::compile(text).unwrap()),
        }]);
        assert!(!rules.decide(&request("/a?b")).allowed);
        assert!(rules.decide(&request("/b?/a")).allowed);

        let action = |action| OnMatch::Action(NamedAction { name: "n".into(), action });
        let map =
            Box::new([("/a".into(), action(RuleAction::Allow)), ("/".into(), action(RuleAction::Deny))]);
        let branches = Branches::Prefix(TreeInput::RequestHeader(HeaderKey::Path), map);
        let engine = Engine::Matcher(MatchTree { branches, on_no_match: None });
        let verdict = |path| engine.decide(&request(path));
        assert_eq!(verdict("/abc"), Verdict { allowed: true, policy: Some("n".into()), log: None });
        assert!(!verdict("/b").allowed && verdict("/b").policy.is_some());
        assert!(!verdict("*").allowed && verdict("*").policy.is_none());
    }
}
