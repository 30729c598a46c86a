//! Subject alternative names and the matchers that a peer's names must pass.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use x509_parser::extensions::GeneralName;

use crate::error::{Error, Result};

/// Which kind of name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SanKind {
    /// A URI, as SPIFFE ids are.
    Uri,
    /// A DNS name, perhaps with a leading `*.`.
    Dns,
    /// A mail address.
    Email,
    /// An IP address in its text form.
    Ip,
    /// A name of a type of its own, such as Microsoft's user principal names: its value's text.
    Other,
}

/// One name of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct San {
    /// Which kind of name.
    pub kind: SanKind,
    /// As text.
    pub value: String,
}

impl San {
    /// A URI name.
    pub fn uri(value: impl Into<String>) -> Self {
        Self { kind: SanKind::Uri, value: value.into() }
    }

    /// A DNS name.
    pub fn dns(value: impl Into<String>) -> Self {
        Self { kind: SanKind::Dns, value: value.into() }
    }

    /// An address.
    pub fn ip(value: IpAddr) -> Self {
        Self { kind: SanKind::Ip, value: value.to_string() }
    }

    /// `None` for the kinds of names that nothing here matches on.
    pub(crate) fn from_general(name: &GeneralName<'_>) -> Option<Self> {
        match name {
            GeneralName::URI(value) => Some(Self::uri(*value)),
            GeneralName::DNSName(value) => Some(Self::dns(*value)),
            GeneralName::RFC822Name(value) => Some(Self { kind: SanKind::Email, value: (*value).to_owned() }),
            GeneralName::IPAddress(bytes) => match bytes.len() {
                4 => <[u8; 4]>::try_from(*bytes).ok().map(|b| Self::ip(IpAddr::V4(Ipv4Addr::from(b)))),
                16 => <[u8; 16]>::try_from(*bytes).ok().map(|b| Self::ip(IpAddr::V6(Ipv6Addr::from(b)))),
                _ => None,
            },
            GeneralName::OtherName(_, value) => {
                other_name(value).map(|value| Self { kind: SanKind::Other, value })
            }
            _ => None,
        }
    }

    pub(crate) fn to_rcgen(&self) -> Result<rcgen::SanType> {
        let bad = |_| Error::Csr(format!("{:?} is no {:?} name", self.value, self.kind));
        let text = || self.value.as_str().try_into().map_err(bad);
        Ok(match self.kind {
            SanKind::Uri => rcgen::SanType::URI(text()?),
            SanKind::Dns => rcgen::SanType::DnsName(text()?),
            SanKind::Email => rcgen::SanType::Rfc822Name(text()?),
            SanKind::Ip => {
                let no_address = |_| Error::Csr(format!("{:?} is no address", self.value));
                rcgen::SanType::IpAddress(self.value.parse().map_err(no_address)?)
            }
            SanKind::Other => {
                return Err(Error::Csr(format!("{:?}: no request is made for such a name", self.value)));
            }
        })
    }
}

impl fmt::Display for San {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            SanKind::Uri => "URI",
            SanKind::Dns => "DNS",
            SanKind::Email => "email",
            SanKind::Ip => "IP",
            SanKind::Other => "othername",
        };
        write!(f, "{kind}:{}", self.value)
    }
}

/// The text of an other name's value: `[0] EXPLICIT` round a string, a number or a boolean.
fn other_name(value: &[u8]) -> Option<String> {
    use x509_parser::der_parser::asn1_rs::FromDer;
    use x509_parser::der_parser::ber::BerObjectContent as Content;
    use x509_parser::der_parser::der::{Header, parse_der};
    let inner = match Header::from_der(value) {
        Ok((inside, header)) if header.is_contextspecific() => inside,
        _ => value,
    };
    let (_, object) = parse_der(inner).ok()?;
    Some(match &object.content {
        Content::Boolean(true) => "TRUE".to_owned(),
        Content::Boolean(false) => "FALSE".to_owned(),
        Content::Integer(_) | Content::Enum(_) => object.as_u64().ok()?.to_string(),
        Content::BmpString(_) => return None,
        _ => String::from_utf8(object.as_slice().ok()?.to_vec()).ok()?,
    })
}

/// Envoy's string matcher, as data.
#[derive(Clone, Debug)]
pub enum StringPattern {
    /// The whole value.
    Exact(String),
    /// The beginning.
    Prefix(String),
    /// The end.
    Suffix(String),
    /// Any part.
    Contains(String),
    /// The whole value, by a regular expression.
    Regex(Arc<regex::Regex>),
    /// One of the others without regard to ASCII case; the text in it must be in lower case.
    IgnoreCase(Box<StringPattern>),
}

impl StringPattern {
    /// A regular expression that the whole value must match.
    pub fn regex(pattern: &str) -> Result<Self> {
        regex::Regex::new(&format!("^(?:{pattern})$"))
            .map(|regex| Self::Regex(Arc::new(regex)))
            .map_err(|error| Error::Pattern(Arc::new(error)))
    }

    /// Whether the value passes.
    pub fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(text) => value == text,
            Self::Prefix(text) => value.starts_with(text),
            Self::Suffix(text) => value.ends_with(text),
            Self::Contains(text) => value.contains(text),
            Self::Regex(regex) => regex.is_match(value),
            Self::IgnoreCase(inner) => inner.matches(&value.to_ascii_lowercase()),
        }
    }
}

impl fmt::Display for StringPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => f.write_str(text),
            Self::Prefix(text) => write!(f, "{text}*"),
            Self::Suffix(text) => write!(f, "*{text}"),
            Self::Contains(text) => write!(f, "*{text}*"),
            Self::Regex(regex) => write!(f, "~{regex}"),
            Self::IgnoreCase(inner) => write!(f, "{inner} (any case)"),
        }
    }
}

/// One name that a peer may have.
#[derive(Clone, Debug)]
pub struct SanMatcher {
    /// Which kind of name it applies to; `None` to all kinds (Envoy's deprecated untyped matcher).
    pub kind: Option<SanKind>,
    /// What the name must look like.
    pub pattern: StringPattern,
}

impl SanMatcher {
    /// A URI, exactly.
    pub fn uri(value: impl Into<String>) -> Self {
        Self { kind: Some(SanKind::Uri), pattern: StringPattern::Exact(value.into()) }
    }

    /// A DNS name, exactly; a wildcard name of the certificate covers one label, as in TLS.
    pub fn dns(value: impl Into<String>) -> Self {
        Self { kind: Some(SanKind::Dns), pattern: StringPattern::Exact(value.into()) }
    }

    /// Whether a certificate's name passes.
    pub fn matches(&self, san: &San) -> bool {
        if self.kind.is_some_and(|kind| kind != san.kind) {
            return false;
        }
        match &self.pattern {
            StringPattern::Exact(text) if san.kind == SanKind::Dns => dns_matches(text, &san.value),
            pattern => pattern.matches(&san.value),
        }
    }

    /// Whether one of a certificate's names passes one of the matchers; an empty list lets everybody pass.
    pub fn any(matchers: &[Self], sans: &[San]) -> bool {
        matchers.is_empty() || sans.iter().any(|san| matchers.iter().any(|matcher| matcher.matches(san)))
    }
}

impl fmt::Display for SanMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pattern.fmt(f)
    }
}

/// `presented` may be `*.rest`, which covers one label.
fn dns_matches(wanted: &str, presented: &str) -> bool {
    if wanted.eq_ignore_ascii_case(presented) {
        return true;
    }
    let (Some(rest), Some((label, tail))) = (presented.strip_prefix("*."), wanted.split_once('.')) else {
        return false;
    };
    !label.is_empty() && tail.eq_ignore_ascii_case(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(matcher: &SanMatcher, san: San, expect: bool) {
        assert_eq!(matcher.matches(&san), expect, "{matcher} against {san}");
    }

    #[test]
    fn patterns() {
        let uri = |pattern| SanMatcher { kind: Some(SanKind::Uri), pattern };
        check(&SanMatcher::uri("spiffe://a/b"), San::uri("spiffe://a/b"), true);
        check(&SanMatcher::uri("spiffe://a/b"), San::uri("spiffe://a/bc"), false);
        check(&SanMatcher::uri("a.b"), San::dns("a.b"), false);
        check(&uri(StringPattern::Prefix("spiffe://a/".into())), San::uri("spiffe://a/ns/x"), true);
        check(&uri(StringPattern::regex("spiffe://a/ns/[^/]+").unwrap()), San::uri("spiffe://a/ns/x"), true);
        check(&uri(StringPattern::regex("spiffe://a").unwrap()), San::uri("spiffe://a/ns/x"), false);
        let any_case = StringPattern::IgnoreCase(Box::new(StringPattern::Exact("a.b".into())));
        check(&uri(any_case), San::uri("A.B"), true);
    }

    #[test]
    fn a_wildcard_name_covers_one_label() {
        check(&SanMatcher::dns("a.example.com"), San::dns("*.example.com"), true);
        check(&SanMatcher::dns("A.example.com"), San::dns("a.example.com"), true);
        check(&SanMatcher::dns("a.b.example.com"), San::dns("*.example.com"), false);
        check(&SanMatcher::dns("example.com"), San::dns("*.example.com"), false);
    }

    #[test]
    fn no_matcher_lets_everybody_pass() {
        assert!(SanMatcher::any(&[], &[]));
        assert!(!SanMatcher::any(&[SanMatcher::uri("x")], &[]));
    }
}
