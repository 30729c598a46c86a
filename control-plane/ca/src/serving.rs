//! The control plane's own certificate: its names, and its renewal.

use std::sync::Arc;
use std::time::Duration;

use identity::tls::Watched;
use identity::{KeyAlgorithm, KeyPair, San, Svid};
use jiff::Timestamp;

use crate::error::Result;
use crate::store::Ca;

/// How long one certificate lives.
const LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

/// The names under which agents know the control plane of a namespace.
pub fn istiod_names(namespace: &str, domain: &str, revision: &str) -> Vec<San> {
    let service = if revision.is_empty() || revision == "default" {
        "istiod".to_owned()
    } else {
        format!("istiod-{revision}")
    };
    let mut services = vec![service];
    // Old names that agents and remote clusters still dial.
    services.extend(["istiod", "istiod-remote", "istio-pilot"].map(str::to_owned));
    services.dedup();
    let mut names: Vec<San> = Vec::new();
    for service in services {
        names.push(San::dns(format!("{service}.{namespace}.svc")));
        names.push(San::dns(format!("{service}.{namespace}.svc.{domain}")));
    }
    names
}

/// The certificate that the control plane's ports show. Clones of [`Serving::svid`] follow its renewal.
#[derive(Debug)]
pub struct Serving {
    names: Vec<San>,
    svid: Watched<Svid>,
}

impl Serving {
    /// Issues the first certificate.
    pub fn new(ca: &Ca, names: Vec<San>, now: Timestamp) -> Result<Self> {
        let serving = Self { names, svid: Watched::empty() };
        serving.renew(ca, now)?;
        Ok(serving)
    }

    /// What the ports show.
    pub fn svid(&self) -> Watched<Svid> {
        self.svid.clone()
    }

    /// Renews the certificate at half of its life, and whenever the authority is another one. Returns whether it did.
    pub fn refresh(&self, ca: &Ca, now: Timestamp) -> Result<bool> {
        let due = self.svid.get().is_none_or(|svid| {
            let leaf = svid.leaf();
            let half = leaf.not_after.duration_since(leaf.not_before) / 2;
            leaf.not_after.duration_since(now) < half || leaf.issuer != ca.authority().info().subject
        });
        if due {
            self.renew(ca, now)?;
        }
        Ok(due)
    }

    /// Renews the certificate now.
    pub fn renew(&self, ca: &Ca, now: Timestamp) -> Result<()> {
        let key = KeyPair::generate(KeyAlgorithm::EcdsaP256)?;
        let chain = ca.authority().issue_own(&key, &self.names, LIFE, now)?;
        self.svid.set(Arc::new(Svid::new(chain, Arc::new(key))?));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_find_the_name_that_they_dial() {
        let names = istiod_names("istio-system", "cluster.local", "");
        assert!(names.contains(&San::dns("istiod.istio-system.svc")));
        assert!(names.contains(&San::dns("istiod.istio-system.svc.cluster.local")));
        assert!(istiod_names("x", "d", "canary").contains(&San::dns("istiod-canary.x.svc")));
    }
}
