//! The one error of this crate.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Shorthand for this crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong at the authority.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory.
    #[error("cannot {what} {path}")]
    File {
        /// What was being done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A file of the authority's own that does not read as what it should be.
    #[error("{path} cannot be used: {reason}")]
    Material {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A certificate request that is none.
    #[error("the certificate request was refused")]
    Request(#[source] identity::Error),
    /// A longer life than the authority grants.
    #[error("a certificate life of {asked:?} was asked for, and {max:?} is the longest that is granted")]
    TooLong {
        /// Asked.
        asked: Duration,
        /// Granted at most.
        max: Duration,
    },
    /// A life below zero.
    #[error("a certificate life of {0} seconds makes no sense")]
    Negative(i64),
    /// Signing.
    #[error("the certificate could not be signed: {0}")]
    Sign(String),
    /// The authority's own certificate has run out.
    #[error("the authority's own certificate ended at {0}: replace it")]
    Expired(jiff::Timestamp),
    /// Keys, certificates, identities.
    #[error(transparent)]
    Identity(#[from] identity::Error),
}
