//! The one error of this crate.

use std::sync::Arc;

/// Shorthand for this crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can be wrong with an identity, a key, a request or a certificate.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Not `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
    #[error("SPIFFE id {id:?}: {reason}")]
    SpiffeId {
        /// As given, shortened where it is long.
        id: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Not a trust domain.
    #[error("trust domain {name:?}: {reason}")]
    TrustDomain {
        /// As given, shortened where it is long.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A name of a key algorithm that is not known.
    #[error("key algorithm {0:?} is none of RSA, RSA2048, RSA3072, RSA4096, ECDSA, P256, P384")]
    KeyAlgorithm(String),
    /// A PEM text lacks what was looked for, or is damaged.
    #[error("PEM of {what}: {reason}")]
    Pem {
        /// What was to be read.
        what: &'static str,
        /// Why that failed.
        reason: String,
    },
    /// A key could not be made or read.
    #[error("private key: {0}")]
    Key(String),
    /// A certificate request could not be made or read.
    #[error("certificate request: {0}")]
    Csr(String),
    /// A certificate is not one.
    #[error("certificate {position} of the chain: {reason}")]
    Certificate {
        /// 0 is the leaf.
        position: usize,
        /// Why it was refused.
        reason: String,
    },
    /// A chain or bundle without certificates.
    #[error("{0} holds no certificate")]
    Empty(&'static str),
    /// Key and leaf certificate do not belong together.
    #[error("the private key does not belong to the certificate {subject}")]
    KeyMismatch {
        /// Which certificate.
        subject: String,
    },
    /// rustls refused a key, a root or a setting.
    #[error("TLS set-up: {0}")]
    Tls(Arc<rustls::Error>),
    /// A pattern for names is not one.
    #[error("name pattern: {0}")]
    Pattern(Arc<regex::Error>),
}

impl From<rustls::Error> for Error {
    fn from(error: rustls::Error) -> Self {
        Self::Tls(Arc::new(error))
    }
}

/// At most 80 characters of what somebody sent, for a message.
pub(crate) fn shorten(text: &str) -> String {
    match text.char_indices().nth(80) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}
