//! An SVID: a certificate chain with the key of its leaf, and when to renew it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rand::Rng;
use rustls::sign::CertifiedKey;

use crate::cert::{CertInfo, CertificateChain};
use crate::error::{Error, Result};
use crate::key::KeyPair;
use crate::spiffe::SpiffeId;

/// A chain and the key of its leaf, which belong together.
#[derive(Clone)]
pub struct Svid {
    chain: CertificateChain,
    key: Arc<KeyPair>,
    certified: Arc<CertifiedKey>,
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid").field("leaf", self.chain.leaf()).finish_non_exhaustive()
    }
}

impl Svid {
    /// Checks that the key is the leaf's.
    pub fn new(chain: CertificateChain, key: Arc<KeyPair>) -> Result<Self> {
        if chain.leaf().public_key != key.public_key_der() {
            return Err(Error::KeyMismatch { subject: describe(chain.leaf()) });
        }
        let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key.to_der())?;
        let certified = Arc::new(CertifiedKey::new(chain.certs().to_vec(), signer));
        Ok(Self { chain, key, certified })
    }

    /// Reads a chain and a key.
    pub fn from_pem(chain: &str, key: &str) -> Result<Self> {
        Self::new(CertificateChain::from_pem(chain)?, Arc::new(KeyPair::from_pem(key)?))
    }

    /// The certificates.
    pub fn chain(&self) -> &CertificateChain {
        &self.chain
    }

    /// The key of the leaf.
    pub fn key(&self) -> &KeyPair {
        &self.key
    }

    /// What the leaf says.
    pub fn leaf(&self) -> &CertInfo {
        self.chain.leaf()
    }

    /// Whose certificate it is; `None` where the leaf bears no id of the mesh's shape.
    pub fn spiffe_id(&self) -> Option<SpiffeId> {
        self.leaf().spiffe_id()
    }

    /// Chain and signing key for rustls.
    pub fn certified_key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }
}

/// When to renew a certificate that has just been issued: after this share of the time that it has left, give or take a
/// random share. What lies before its issue does not count: authorities backdate for clocks that are late.
#[derive(Clone, Copy, Debug)]
pub struct Renewal {
    /// The share of the time that remains when renewal is due.
    pub grace_ratio: f64,
    /// How far the share may be off, so that a fleet does not renew at once.
    pub jitter: f64,
}

impl Default for Renewal {
    fn default() -> Self {
        Self { grace_ratio: 0.5, jitter: 0.01 }
    }
}

impl Renewal {
    /// How long to wait from now, the time of issue, on; zero for a certificate that has expired.
    pub fn delay(&self, leaf: &CertInfo, now: Timestamp, rng: &mut impl Rng) -> Duration {
        let left = leaf.not_after.duration_since(now).as_secs_f64();
        let jitter = if self.jitter > 0.0 { rng.random_range(-self.jitter..=self.jitter) } else { 0.0 };
        let waited = 1.0 - (self.grace_ratio + jitter).clamp(0.0, 1.0);
        Duration::try_from_secs_f64(left * waited).unwrap_or(Duration::ZERO)
    }
}

fn describe(leaf: &CertInfo) -> String {
    leaf.sans.first().map_or_else(|| leaf.subject.clone(), ToString::to_string)
}
