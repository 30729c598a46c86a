//! Secrets: certificates, keys, trust roots.

mod convert;
mod ocsp;
mod reread;

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::sign::CertifiedKey;

use crate::tls::SanMatcher;

pub(crate) use convert::{certificate, secret, ticket_keys, validation};
pub use ocsp::Staple;
pub use reread::{FileBacked, FileSource, Refreshed};
pub(crate) use reread::{Rereads, Source};

/// `Secret`
#[derive(Clone, Debug)]
pub enum Secret {
    /// A certificate and its key.
    Certificate(Arc<Certificate>),
    /// How peers are checked.
    Validation(Arc<ValidationContext>),
    /// Keys of session tickets.
    SessionTicketKeys(Arc<TicketKeys>),
    /// Anything else.
    Generic(Arc<Opaque>),
}

/// `TlsSessionTicketKeys`
#[derive(Debug)]
pub struct TicketKeys {
    /// Keys of 80 bytes: the first encrypts, all decrypt.
    pub keys: Box<[Opaque]>,
    /// A hash of them all.
    pub version: u64,
}

/// Bytes that are not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Opaque(pub Vec<u8>);

impl fmt::Debug for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} bytes]", self.0.len())
    }
}

/// `TlsCertificate`
#[derive(Clone)]
pub struct Certificate {
    /// The chain, leaf first, with the leaf's key, which belong together, and a stapled OCSP response.
    pub certified: Arc<CertifiedKey>,
    /// What is known of that response.
    pub staple: Option<Staple>,
    /// Whether the certificate asks clients to insist on a response.
    pub must_staple: bool,
    /// Where it was read from, if that was files: a change of one asks for a new read.
    pub files: Option<FileSource>,
    /// A hash of it all: equal ones need not be set up again.
    pub version: u64,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("chain", &self.certified.cert.len())
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// `CertificateValidationContext`
#[derive(Clone, Default)]
pub struct ValidationContext {
    /// Trusted roots; empty: none given.
    pub trusted_ca: Vec<CertificateDer<'static>>,
    /// Whether the system's roots are trusted.
    pub system_roots: bool,
    /// SHA-256 of the peer's public key, one of which it must be; any if empty.
    pub verify_certificate_spki: Vec<Vec<u8>>,
    /// SHA-256 of the peer's certificate, one of which it must be; any if empty.
    pub verify_certificate_hash: Vec<Vec<u8>>,
    /// Names, one of which the peer must have; any if empty.
    pub match_subject_alt_names: Vec<SanMatcher>,
    /// Revoked certificates.
    pub crl: Vec<CertificateRevocationListDer<'static>>,
    /// Whether only the leaf is looked up there.
    pub only_verify_leaf_cert_crl: bool,
    /// Whether an expired certificate passes.
    pub allow_expired_certificate: bool,
    /// How many certificates may stand above the leaf, the root included; any number by default.
    pub max_verify_depth: Option<u32>,
    /// Whether peers that fail the checks are served nevertheless, and are known to have failed.
    pub accept_untrusted: bool,
    /// Roots by trust domain, in place of the above: the SPIFFE validator.
    pub spiffe: Option<Vec<(Box<str>, Vec<CertificateDer<'static>>)>>,
    /// Where it was read from, if that was files.
    pub files: Option<FileSource>,
    /// A hash of it all.
    pub version: u64,
}

impl ValidationContext {
    /// Whether it says whom to trust.
    pub fn has_roots(&self) -> bool {
        !self.trusted_ca.is_empty() || self.system_roots || self.spiffe.is_some()
    }
}

impl fmt::Debug for ValidationContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValidationContext")
            .field("trusted_ca", &self.trusted_ca.len())
            .field("match_subject_alt_names", &self.match_subject_alt_names)
            .finish_non_exhaustive()
    }
}
