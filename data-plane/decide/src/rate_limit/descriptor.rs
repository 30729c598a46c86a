//! Descriptors: what of a request is counted together, as routes say it.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde_json::Value;

use crate::address::AddressMatch;
use crate::format::{Attributes, Format, Missing};
use crate::head::{HeaderKey, RequestHead};
use crate::matcher::{HeaderMatcher, QueryMatcher, lookup, query_value};

/// `envoy.config.route.v3.RateLimit`
#[derive(Debug)]
pub struct RateLimit {
    /// Which filters heed it: those with the same stage.
    pub stage: u32,
    /// The runtime key `ratelimit.<key>.http_filter_enabled` may switch it off; empty for none.
    pub disable_key: Arc<str>,
    /// What its descriptor is made of.
    pub actions: Box<[Action]>,
    /// A limit that the service is told in place of its own.
    pub limit: Option<Override>,
    /// How much a request counts.
    pub hits: Option<Hits>,
    /// Whether the client is told of the limit; `None`: as the filter says.
    pub told: Option<bool>,
}

/// The limits of a route.
#[derive(Debug, Default)]
pub struct RouteLimits {
    /// Its own.
    pub limits: Box<[RateLimit]>,
    /// Whether its virtual host's hold besides.
    pub include_virtual_host: bool,
}

/// A limit that goes along with a descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Override {
    /// Given.
    Fixed(Limit),
    /// In dynamic metadata: `requests_per_unit` and `unit`.
    Metadata(Arc<str>, Box<[Box<str>]>),
}

/// So many requests a unit of time, as Envoy numbers units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// How many.
    pub requests_per_unit: u32,
    /// Of which unit.
    pub unit: i32,
}

/// How much a request counts.
#[derive(Clone, Debug, PartialEq)]
pub enum Hits {
    /// So much.
    Number(u64),
    /// What this gives.
    Format(Format),
}

/// What a descriptor is made of.
#[derive(Debug)]
pub enum Action {
    /// The cluster that the proxy belongs to.
    SourceCluster,
    /// The route's cluster.
    DestinationCluster,
    /// A header.
    RequestHeader {
        /// Which.
        name: HeaderKey,
        /// Under which key.
        key: Box<str>,
        /// Whether the descriptor does without it; else there is no descriptor.
        skip_if_absent: bool,
    },
    /// A parameter of the query.
    QueryParameter {
        /// Which.
        name: Box<str>,
        /// Under which key.
        key: Box<str>,
        /// Whether the descriptor does without it.
        skip_if_absent: bool,
    },
    /// The client's address.
    RemoteAddress,
    /// The client's network.
    MaskedRemoteAddress {
        /// Bits of an IPv4 address.
        v4: u8,
        /// Bits of an IPv6 address.
        v6: u8,
    },
    /// A fixed or composed value.
    GenericKey {
        /// Under which key.
        key: Box<str>,
        /// The value.
        value: Text,
    },
    /// A value for clients with such an address.
    RemoteAddressMatch {
        /// Under which key.
        key: Box<str>,
        /// The value.
        value: Text,
        /// Which.
        addresses: AddressMatch,
    },
    /// A value for requests with such headers.
    HeaderMatch {
        /// Under which key.
        key: Box<str>,
        /// The value.
        value: Text,
        /// Whether they must match, or must not.
        expect: bool,
        /// All of them.
        headers: Box<[HeaderMatcher]>,
    },
    /// A value for requests with such parameters.
    QueryMatch {
        /// Under which key.
        key: Box<str>,
        /// The value.
        value: Text,
        /// Whether they must match, or must not.
        expect: bool,
        /// All of them.
        parameters: Box<[QueryMatcher]>,
    },
    /// Metadata.
    Metadata {
        /// Under which key.
        key: Box<str>,
        /// Whose.
        source: Source,
        /// The namespace.
        namespace: Arc<str>,
        /// Where in it.
        path: Box<[Box<str>]>,
        /// What stands in for what is not there.
        default: Box<str>,
        /// Whether the descriptor does without it.
        skip_if_absent: bool,
    },
}

/// A value with what stands in for an empty one.
#[derive(Clone, Debug, PartialEq)]
pub struct Text {
    /// The value.
    pub format: Format,
    /// What stands in.
    pub default: Box<str>,
}

/// Whose metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The stream's.
    Dynamic,
    /// The route's.
    Route,
}

/// What is counted together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// Keys and values.
    pub entries: Vec<(String, String)>,
    /// A limit that goes along.
    pub limit: Option<Limit>,
    /// How much it counts.
    pub hits: Option<u64>,
    /// Whether the client is told of the limit; `None`: as the filter says.
    pub told: Option<bool>,
}

/// A request as descriptors are made of it.
pub struct Subject<'a> {
    /// Its head.
    pub head: RequestHead<'a>,
    /// The proxy's own cluster.
    pub source_cluster: &'a str,
    /// The route's cluster.
    pub destination_cluster: &'a str,
    /// The client.
    pub remote: IpAddr,
    /// Metadata of a namespace.
    pub metadata: &'a dyn Fn(Source, &str) -> Option<Value>,
    /// What formats read.
    pub attributes: &'a dyn Attributes,
}

impl RateLimit {
    /// The request's descriptor; `None` if something of it is missing.
    pub fn descriptor(&self, subject: &Subject<'_>) -> Option<Descriptor> {
        let mut descriptor = Descriptor { told: self.told, ..Descriptor::default() };
        for action in &self.actions {
            match action.entry(subject) {
                Entry::Value(key, value) => descriptor.entries.push((key.to_owned(), value)),
                Entry::Skipped => {}
                Entry::Missing => return None,
            }
        }
        descriptor.limit = match &self.limit {
            None => None,
            Some(Override::Fixed(limit)) => Some(*limit),
            Some(Override::Metadata(namespace, path)) => {
                (subject.metadata)(Source::Dynamic, namespace).and_then(|value| limit(lookup(&value, path)?))
            }
        };
        descriptor.hits = match &self.hits {
            None => None,
            Some(Hits::Number(number)) => Some(*number),
            Some(Hits::Format(format)) => {
                let mut text = String::new();
                format.write(subject.attributes, Missing::Empty, &mut text);
                text.parse().ok()
            }
        };
        (!descriptor.entries.is_empty()).then_some(descriptor)
    }
}

fn limit(value: &Value) -> Option<Limit> {
    let requests_per_unit = u32::try_from(value.get("requests_per_unit")?.as_u64()?).ok()?;
    let units = ["UNKNOWN", "SECOND", "MINUTE", "HOUR", "DAY", "MONTH", "YEAR"];
    let unit = value.get("unit")?.as_str()?;
    let unit = i32::try_from(units.iter().position(|name| *name == unit)?).ok()?;
    Some(Limit { requests_per_unit, unit })
}

enum Entry<'a> {
    Value(&'a str, String),
    Skipped,
    Missing,
}

impl Action {
    fn entry(&self, subject: &Subject<'_>) -> Entry<'_> {
        let found = |key, value: Option<String>, skip: bool| match value {
            Some(value) => Entry::Value(key, value),
            None if skip => Entry::Skipped,
            None => Entry::Missing,
        };
        match self {
            Self::SourceCluster => Entry::Value("source_cluster", subject.source_cluster.to_owned()),
            Self::DestinationCluster => {
                Entry::Value("destination_cluster", subject.destination_cluster.to_owned())
            }
            Self::RequestHeader { name, key, skip_if_absent } => {
                let value = subject.head.get(name).map(|value| String::from_utf8_lossy(&value).into_owned());
                found(key, value, *skip_if_absent)
            }
            Self::QueryParameter { name, key, skip_if_absent } => {
                let value = query_value(subject.head.query(), name).map(std::borrow::Cow::into_owned);
                found(key, value, *skip_if_absent)
            }
            Self::RemoteAddress => Entry::Value("remote_address", subject.remote.to_string()),
            Self::MaskedRemoteAddress { v4, v6 } => {
                let bits = if subject.remote.is_ipv4() { *v4 } else { *v6 };
                let network = IpNet::new(subject.remote, bits).map(|network| network.trunc().to_string());
                found("masked_remote_address", network.ok(), false)
            }
            Self::RemoteAddressMatch { key, value, addresses } => {
                let matches = addresses.is_match(subject.remote);
                found(key, matches.then(|| value.text(subject)).flatten(), false)
            }
            Self::GenericKey { key, value } => found(key, value.text(subject), false),
            Self::HeaderMatch { key, value, expect, headers } => {
                let matches = headers.iter().all(|header| header.is_match(&subject.head));
                found(key, (matches == *expect).then(|| value.text(subject)).flatten(), false)
            }
            Self::QueryMatch { key, value, expect, parameters } => {
                let query = subject.head.query();
                let matches = parameters.iter().all(|parameter| parameter.is_match(query));
                found(key, (matches == *expect).then(|| value.text(subject)).flatten(), false)
            }
            Self::Metadata { key, source, namespace, path, default, skip_if_absent } => {
                let value = (subject.metadata)(*source, namespace);
                let text = value.as_ref().and_then(|value| lookup(value, path)).and_then(Value::as_str);
                let text = text.filter(|text| !text.is_empty()).unwrap_or(default);
                found(key, (!text.is_empty()).then(|| text.to_owned()), *skip_if_absent)
            }
        }
    }
}

impl Text {
    fn text(&self, subject: &Subject<'_>) -> Option<String> {
        let mut text = String::new();
        self.format.write(subject.attributes, Missing::Empty, &mut text);
        if text.is_empty() {
            text.push_str(&self.default);
        }
        (!text.is_empty()).then_some(text)
    }
}

/// The limits that hold for a request: the route's, and the virtual host's where it says so or has none.
pub fn of_route<'a>(
    route: Option<&'a RouteLimits>,
    virtual_host: &'a [RateLimit],
    of_virtual_host: VirtualHostLimits,
) -> impl Iterator<Item = &'a RateLimit> {
    let own: &[RateLimit] = route.map_or(&[], |route| &route.limits);
    let included = route.is_some_and(|route| route.include_virtual_host);
    let host = match of_virtual_host {
        VirtualHostLimits::Include => virtual_host,
        VirtualHostLimits::Override if included || own.is_empty() => virtual_host,
        VirtualHostLimits::Override | VirtualHostLimits::Ignore => &[],
    };
    own.iter().chain(host)
}

/// `VhRateLimitsOptions`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VirtualHostLimits {
    /// They hold where the route has none.
    #[default]
    Override,
    /// They hold besides.
    Include,
    /// They do not hold.
    Ignore,
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    struct Nothing;

    impl Attributes for Nothing {
        fn text(&self, _: &crate::format::Operator) -> Option<std::borrow::Cow<'_, str>> {
            None
        }
    }

    fn text(value: &str) -> Text {
        Text { format: Format::parse(value).unwrap(), default: "".into() }
    }

    fn check(actions: Vec<Action>, expect: Option<&[(&str, &str)]>) {
        let mut headers = HeaderMap::new();
        headers.insert("x-user", "jason".parse().unwrap());
        let head = RequestHead {
            method: "GET",
            scheme: "http",
            authority: "a.com",
            path: "/p?tier=gold",
            protocol: None,
            headers: &headers,
        };
        let subject = Subject {
            head,
            source_cluster: "me",
            destination_cluster: "them",
            remote: "10.1.2.3".parse().unwrap(),
            metadata: &|_, namespace| (namespace == "n").then(|| serde_json::json!({ "a": { "b": "c" } })),
            attributes: &Nothing,
        };
        let limit = RateLimit {
            stage: 0,
            disable_key: "".into(),
            actions: actions.into(),
            limit: None,
            hits: None,
            told: None,
        };
        let found = limit.descriptor(&subject).map(|descriptor| descriptor.entries);
        let expect = expect.map(|entries| {
            entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<Vec<_>>()
        });
        assert_eq!(found, expect);
    }

    #[test]
    fn every_action_has_its_entry() {
        let header = |name: &str, skip_if_absent| Action::RequestHeader {
            name: HeaderKey::parse(name).unwrap(),
            key: "user".into(),
            skip_if_absent,
        };
        check(
            vec![Action::SourceCluster, Action::DestinationCluster],
            Some(&[("source_cluster", "me"), ("destination_cluster", "them")]),
        );
        check(vec![header("x-user", false)], Some(&[("user", "jason")]));
        check(vec![Action::RemoteAddress, header("x-none", false)], None);
        check(vec![Action::RemoteAddress, header("x-none", true)], Some(&[("remote_address", "10.1.2.3")]));
        check(
            vec![Action::MaskedRemoteAddress { v4: 16, v6: 64 }],
            Some(&[("masked_remote_address", "10.1.0.0/16")]),
        );
        check(
            vec![
                Action::GenericKey { key: "generic_key".into(), value: text("x") },
                Action::QueryParameter { name: "tier".into(), key: "t".into(), skip_if_absent: false },
            ],
            Some(&[("generic_key", "x"), ("t", "gold")]),
        );
        check(
            vec![Action::Metadata {
                key: "m".into(),
                source: Source::Dynamic,
                namespace: "n".into(),
                path: ["a".into(), "b".into()].into(),
                default: "".into(),
                skip_if_absent: false,
            }],
            Some(&[("m", "c")]),
        );
        check(
            vec![Action::HeaderMatch {
                key: "header_match".into(),
                value: text("yes"),
                expect: false,
                headers: Box::default(),
            }],
            None,
        );
    }
}
