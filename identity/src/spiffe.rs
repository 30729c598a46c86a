//! SPIFFE ids of the mesh's shape, `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`, and trust domains.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result, shorten};

const MAX_ID: usize = 2048;
const MAX_TRUST_DOMAIN: usize = 255;
const MAX_SEGMENT: usize = 253;

/// The name before the first slash: who signs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(String);

impl TrustDomain {
    /// Checks a trust domain. `@`, as cloud accounts have it, becomes `.`.
    pub fn new(name: &str) -> Result<Self> {
        let refuse = |reason| Error::TrustDomain { name: shorten(name), reason };
        if name.is_empty() {
            return Err(refuse("is empty"));
        }
        if name.len() > MAX_TRUST_DOMAIN {
            return Err(refuse("is longer than 255 bytes"));
        }
        let name = name.replace('@', ".");
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        if !name.bytes().all(allowed) {
            return Err(refuse("may hold letters, digits, '.', '-' and '_' only"));
        }
        Ok(Self(name))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TrustDomain {
    fn default() -> Self {
        Self("cluster.local".to_owned())
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::new(name)
    }
}

/// Who a workload is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    namespace: String,
    service_account: String,
}

impl SpiffeId {
    /// Builds an id from its parts.
    pub fn new(trust_domain: TrustDomain, namespace: &str, service_account: &str) -> Result<Self> {
        let shown = || format!("spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}");
        for segment in [namespace, service_account] {
            if let Err(reason) = check_segment(segment) {
                return Err(Error::SpiffeId { id: shorten(&shown()), reason });
            }
        }
        let (namespace, service_account) = (namespace.to_owned(), service_account.to_owned());
        Ok(Self { trust_domain, namespace, service_account })
    }

    /// Who signs for this identity.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The service account.
    pub fn service_account(&self) -> &str {
        &self.service_account
    }

    /// The id without its scheme, as Istio's principals are written.
    pub fn principal(&self) -> String {
        format!("{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl FromStr for SpiffeId {
    type Err = Error;

    fn from_str(id: &str) -> Result<Self> {
        let refuse = |reason| Error::SpiffeId { id: shorten(id), reason };
        if id.len() > MAX_ID {
            return Err(refuse("is longer than 2048 bytes"));
        }
        let rest = id.strip_prefix("spiffe://").ok_or_else(|| refuse("does not begin with spiffe://"))?;
        let mut parts = rest.split('/');
        let mut next = || parts.next();
        let (Some(domain), Some("ns"), Some(namespace), Some("sa"), Some(account), None) =
            (next(), next(), next(), next(), next(), next())
        else {
            return Err(refuse(
                "is not of the form spiffe://<trust domain>/ns/<namespace>/sa/<service account>",
            ));
        };
        if domain.contains('@') {
            return Err(refuse("has '@' in its trust domain"));
        }
        Self::new(TrustDomain::new(domain)?, namespace, account)
    }
}

fn check_segment(segment: &str) -> std::result::Result<(), &'static str> {
    if segment.is_empty() {
        return Err("has an empty namespace or service account");
    }
    if segment.len() > MAX_SEGMENT {
        return Err("has a namespace or service account longer than 253 bytes");
    }
    if matches!(segment, "." | "..") {
        return Err("has a relative path segment");
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if !segment.bytes().all(allowed) {
        return Err("may hold letters, digits, '.', '-' and '_' only in its namespace and service account");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let text = "spiffe://cluster.local/ns/default/sa/bookinfo-reviews";
        let id: SpiffeId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(id.principal(), "cluster.local/ns/default/sa/bookinfo-reviews");
        assert_eq!((id.namespace(), id.service_account()), ("default", "bookinfo-reviews"));
    }

    #[test]
    fn refuses_other_shapes() {
        let long = format!("spiffe://td/ns/{}/sa/x", "n".repeat(254));
        let longer = format!("spiffe://td/ns/n/sa/{}", "x".repeat(3000));
        for bad in [
            "",
            "https://td/ns/a/sa/b",
            "spiffe://td/ns/a/sa/b/c",
            "spiffe://td/ns/a/sa/",
            "spiffe://td/ns//sa/b",
            "spiffe:///ns/a/sa/b",
            "spiffe://td/sa/b/ns/a",
            "spiffe://td/ns/../sa/b",
            "spiffe://td/ns/a%2Fb/sa/b",
            "spiffe://t d/ns/a/sa/b",
            "spiffe://a@b/ns/a/sa/b",
            &long,
            &longer,
        ] {
            assert!(bad.parse::<SpiffeId>().is_err(), "{bad} was taken");
        }
    }

    #[test]
    fn an_at_sign_in_a_configured_trust_domain_becomes_a_dot() {
        assert_eq!(TrustDomain::new("acct@project").unwrap().as_str(), "acct.project");
        assert!(TrustDomain::new("").is_err());
        assert!(TrustDomain::new("a/b").is_err());
    }
}
