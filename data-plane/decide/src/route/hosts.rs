//! Which virtual host has an authority: exact names first, then suffix wildcards (`*.example.com`) longest first, then
//! prefix wildcards (`example.*`) longest first, then `*`.

use std::borrow::Cow;

use hashbrown::HashMap;

/// Domains of a route table, ready for look-up. A virtual host is named by its index in the table.
#[derive(Debug, Default)]
pub struct HostIndex {
    exact: HashMap<Box<str>, u32>,
    /// Keyed by what follows the `*`.
    suffix: Wildcards,
    /// Keyed by what stands before the `*`.
    prefix: Wildcards,
    any: Option<u32>,
}

#[derive(Debug, Default)]
struct Wildcards {
    entries: HashMap<Box<str>, u32>,
    /// Longest first.
    lengths: Vec<usize>,
}

/// A domain that cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDomain {
    /// Two virtual hosts (or one, twice) have it.
    #[error("domain {0:?} is there twice")]
    Duplicate(String),
}

impl HostIndex {
    /// Adds a domain of the virtual host with this index. A `*` that stands neither at its begin nor at its end is a
    /// character as any other: no request has it.
    pub fn insert(&mut self, domain: &str, host: usize) -> Result<(), InvalidDomain> {
        let lower = domain.to_ascii_lowercase();
        let host = u32::try_from(host).unwrap_or(u32::MAX);
        let free = if lower == "*" {
            self.any.replace(host).is_none()
        } else if let Some(suffix) = lower.strip_prefix('*') {
            self.suffix.insert(suffix, host)
        } else if let Some(prefix) = lower.strip_suffix('*') {
            self.prefix.insert(prefix, host)
        } else {
            self.exact.insert(lower.into(), host).is_none()
        };
        if free { Ok(()) } else { Err(InvalidDomain::Duplicate(domain.into())) }
    }

    /// The virtual host of `*`, if there is no other domain.
    pub fn only(&self) -> Option<usize> {
        let alone = self.exact.is_empty() && self.suffix.entries.is_empty() && self.prefix.entries.is_empty();
        self.any.filter(|_| alone).and_then(|host| usize::try_from(host).ok())
    }

    /// The virtual host for an authority.
    pub fn find(&self, authority: &str, ignore_port: bool) -> Option<usize> {
        let name = if ignore_port { without_port(authority) } else { authority };
        let name: Cow<'_, str> = if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            name.to_ascii_lowercase().into()
        } else {
            name.into()
        };
        let found = self
            .exact
            .get(&*name)
            .copied()
            .or_else(|| self.suffix.find(|length| name.get(name.len().checked_sub(length)?..), name.len()))
            .or_else(|| self.prefix.find(|length| name.get(..length), name.len()))
            .or(self.any)?;
        usize::try_from(found).ok()
    }
}

impl Wildcards {
    fn insert(&mut self, text: &str, host: u32) -> bool {
        if let Err(at) = self.lengths.binary_search_by(|length| text.len().cmp(length)) {
            self.lengths.insert(at, text.len());
        }
        self.entries.insert(text.into(), host).is_none()
    }

    /// `part` cuts the piece of a length from the name; the wildcard stands for at least one character.
    fn find<'a>(&self, part: impl Fn(usize) -> Option<&'a str>, name: usize) -> Option<u32> {
        let shorter = self.lengths.iter().filter(|length| **length < name);
        shorter.filter_map(|length| self.entries.get(part(*length)?)).next().copied()
    }
}

/// A host without its `:port`.
pub fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port))
            if port.bytes().all(|byte| byte.is_ascii_digit())
                && (!host.contains(':') || host.ends_with(']')) =>
        {
            host
        }
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_of_domains() {
        let domains = [
            "*",
            "www.foo.com",
            "*.foo.com",
            "*-bar.foo.com",
            "foo.*",
            "foo-*",
            "[::1]:80",
            "www.foo.com:8080",
        ];
        let mut index = HostIndex::default();
        for (host, domain) in domains.iter().enumerate() {
            index.insert(domain, host).unwrap();
        }
        let check = |authority, expected: &str| {
            let found = index.find(authority, false).map(|host| domains[host]);
            assert_eq!(found, Some(expected), "{authority}");
        };
        check("WWW.foo.com", "www.foo.com");
        check("www.foo.com:8080", "www.foo.com:8080");
        check("a.foo.com", "*.foo.com");
        check("x-bar.foo.com", "*-bar.foo.com");
        check("-bar.foo.com", "*.foo.com");
        check("foo.org", "foo.*");
        check("foo-1", "foo-*");
        check("else", "*");
        check("[::1]:80", "[::1]:80");
        assert_eq!(index.find("www.foo.com:123", true), Some(1));
        assert_eq!(without_port("[::1]:80"), "[::1]");
        assert_eq!(without_port("::1"), "::1");
        assert_eq!(index.insert("*.FOO.com", 9), Err(InvalidDomain::Duplicate("*.FOO.com".into())));
        index.insert("", 7).unwrap();
        assert_eq!(index.find("", false), Some(7), "as Envoy has it");
        index.insert("a.*.b", 9).unwrap();
        assert_eq!(index.find("a.x.b", true), Some(0), "the star within is none");
        assert_eq!(index.find("a.*.b", true), Some(9));
    }
}
