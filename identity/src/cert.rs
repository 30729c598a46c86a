//! Certificates: what they say, and chains of them.

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::error::{Error, Result};
use crate::name;
use crate::pem;
use crate::san::{San, SanKind};
use crate::spiffe::SpiffeId;

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertInfo {
    /// The subject as RFC 2253 writes it, `CN=...,O=...`; often empty.
    pub subject: String,
    /// Who signed.
    pub issuer: String,
    /// The serial number in lower-case hexadecimal digits, without leading zeros.
    pub serial: String,
    /// Valid from.
    pub not_before: Timestamp,
    /// Valid until.
    pub not_after: Timestamp,
    /// Its names.
    pub sans: Vec<San>,
    /// Whether it may sign others.
    pub is_ca: bool,
    /// SHA-256 of the certificate in lower-case hexadecimal digits.
    pub fingerprint: String,
    /// SubjectPublicKeyInfo.
    pub public_key: Vec<u8>,
}

impl CertInfo {
    /// Reads a certificate.
    pub fn from_der(der: &[u8]) -> Result<Self> {
        Self::at(0, der)
    }

    fn at(position: usize, der: &[u8]) -> Result<Self> {
        let refuse = |reason: String| Error::Certificate { position, reason };
        let (rest, cert) = X509Certificate::from_der(der).map_err(|error| refuse(error.to_string()))?;
        if !rest.is_empty() {
            return Err(refuse(format!("{} bytes follow it", rest.len())));
        }
        let time = |seconds: i64| {
            Timestamp::from_second(seconds).map_err(|_| refuse("its validity is out of range".to_owned()))
        };
        let names = cert.subject_alternative_name().map_err(|error| refuse(error.to_string()))?;
        let sans = names.map_or_else(Vec::new, |extension| {
            extension.value.general_names.iter().filter_map(San::from_general).collect()
        });
        let serial = hex::encode(cert.raw_serial());
        Ok(Self {
            subject: name::text(cert.subject()),
            issuer: name::text(cert.issuer()),
            serial: serial.trim_start_matches('0').to_owned(),
            not_before: time(cert.validity().not_before.timestamp())?,
            not_after: time(cert.validity().not_after.timestamp())?,
            sans,
            is_ca: cert.is_ca(),
            fingerprint: hex::encode(Sha256::digest(der)),
            public_key: cert.public_key().raw.to_vec(),
        })
    }

    /// The URI names.
    pub fn uris(&self) -> impl Iterator<Item = &str> {
        self.names(SanKind::Uri)
    }

    /// The DNS names.
    pub fn dns_names(&self) -> impl Iterator<Item = &str> {
        self.names(SanKind::Dns)
    }

    /// The first URI name that is a SPIFFE id of the mesh's shape.
    pub fn spiffe_id(&self) -> Option<SpiffeId> {
        self.uris().find_map(|uri| uri.parse().ok())
    }

    /// Whether the time lies within the validity.
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    fn names(&self, kind: SanKind) -> impl Iterator<Item = &str> {
        self.sans.iter().filter(move |san| san.kind == kind).map(|san| san.value.as_str())
    }
}

/// At least one certificate, the leaf first; every one of them was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateChain {
    certs: Vec<CertificateDer<'static>>,
    leaf: CertInfo,
}

impl CertificateChain {
    /// Checks that every certificate can be read.
    pub fn new(certs: Vec<CertificateDer<'static>>) -> Result<Self> {
        let leaf = CertInfo::from_der(certs.first().ok_or(Error::Empty("the certificate chain"))?)?;
        for (position, cert) in certs.iter().enumerate().skip(1) {
            CertInfo::at(position, cert)?;
        }
        Ok(Self { certs, leaf })
    }

    /// Reads the CERTIFICATE blocks of a text.
    pub fn from_pem(text: &str) -> Result<Self> {
        Self::new(pem::certificates(text, "the certificate chain")?)
    }

    /// All of them as PEM.
    pub fn to_pem(&self) -> String {
        self.certs.iter().map(|cert| pem::encode("CERTIFICATE", cert)).collect()
    }

    /// All of them, the leaf first.
    pub fn certs(&self) -> &[CertificateDer<'static>] {
        &self.certs
    }

    /// What the leaf says.
    pub fn leaf(&self) -> &CertInfo {
        &self.leaf
    }

    /// The chain without certificates that are also roots of the bundle, as it is sent to peers.
    pub fn without_roots(&self, roots: &[CertificateDer<'static>]) -> Self {
        let mut certs = vec![self.certs[0].clone()];
        certs.extend(self.certs[1..].iter().filter(|cert| !roots.contains(cert)).cloned());
        Self { certs, leaf: self.leaf.clone() }
    }
}
