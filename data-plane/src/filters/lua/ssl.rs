//! A downstream connection's TLS as scripts see it.

use std::sync::Arc;

use identity::{CertInfo, SanKind};
use mlua::{UserData, UserDataMethods};
use rustls::pki_types::CertificateDer;
use x509_parser::oid_registry::{OID_X509_COMMON_NAME, OID_X509_ORGANIZATION_NAME, Oid};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::http::xfcc;
use crate::stream_info::TlsInfo;

/// See the module's documentation.
pub(super) struct Ssl(pub(super) Arc<TlsInfo>);

/// `parsedSubjectPeerCertificate()`
struct Name {
    common_name: String,
    organizations: Vec<String>,
}

impl Ssl {
    fn leaf(&self) -> Option<&CertificateDer<'static>> {
        self.0.peer_chain.first()
    }

    fn peer(&self) -> Option<CertInfo> {
        CertInfo::from_der(self.leaf()?).ok()
    }

    fn subject(&self) -> Option<Name> {
        let (_, certificate) = X509Certificate::from_der(self.leaf()?).ok()?;
        let all = |oid: &Oid<'static>| -> Vec<String> {
            let found = certificate.subject().iter_by_oid(oid);
            found.filter_map(|value| value.as_str().ok()).map(str::to_owned).collect()
        };
        let common_name = all(&OID_X509_COMMON_NAME).into_iter().next().unwrap_or_default();
        Some(Name { common_name, organizations: all(&OID_X509_ORGANIZATION_NAME) })
    }
}

fn text(value: Option<&str>) -> String {
    value.unwrap_or_default().to_owned()
}

fn list(names: &[Box<str>]) -> Vec<String> {
    names.iter().map(|name| name.to_string()).collect()
}

fn dns_names(certificate: Option<&CertificateDer<'_>>) -> Vec<String> {
    let info = certificate.and_then(|certificate| CertInfo::from_der(certificate).ok());
    let sans = info.map(|info| info.sans).unwrap_or_default();
    sans.into_iter().filter(|san| san.kind == SanKind::Dns).map(|san| san.value).collect()
}

/// The extensions that a certificate has, by number.
fn oids(certificate: Option<&CertificateDer<'_>>) -> Vec<String> {
    let parsed = certificate.and_then(|der| X509Certificate::from_der(der).ok());
    parsed.map_or_else(Vec::new, |(_, certificate)| {
        certificate.extensions().iter().map(|extension| extension.oid.to_id_string()).collect()
    })
}

/// TLS's number of a cipher suite, by OpenSSL's name.
fn cipher_number(name: &str) -> u16 {
    match name {
        "TLS_AES_128_GCM_SHA256" => 0x1301,
        "TLS_AES_256_GCM_SHA384" => 0x1302,
        "TLS_CHACHA20_POLY1305_SHA256" => 0x1303,
        "ECDHE-ECDSA-AES128-GCM-SHA256" => 0xc02b,
        "ECDHE-ECDSA-AES256-GCM-SHA384" => 0xc02c,
        "ECDHE-RSA-AES128-GCM-SHA256" => 0xc02f,
        "ECDHE-RSA-AES256-GCM-SHA384" => 0xc030,
        "ECDHE-RSA-CHACHA20-POLY1305" => 0xcca8,
        "ECDHE-ECDSA-CHACHA20-POLY1305" => 0xcca9,
        _ => 0xffff,
    }
}

impl UserData for Ssl {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("peerCertificatePresented", |_, this, ()| Ok(this.0.peer_certificate_presented));
        // One that does not verify ends the handshake.
        methods.add_method("peerCertificateValidated", |_, this, ()| Ok(this.0.peer_certificate_presented));
        methods.add_method("uriSanLocalCertificate", |_, this, ()| Ok(list(&this.0.local_uri_sans)));
        methods.add_method("sha256PeerCertificateDigest", |_, this, ()| {
            Ok(text(this.0.peer_fingerprint.as_deref()))
        });
        methods
            .add_method("serialNumberPeerCertificate", |_, this, ()| Ok(text(this.0.peer_serial.as_deref())));
        methods.add_method("issuerPeerCertificate", |_, this, ()| Ok(text(this.0.peer_issuer.as_deref())));
        methods.add_method("subjectPeerCertificate", |_, this, ()| Ok(text(this.0.peer_subject.as_deref())));
        methods.add_method("parsedSubjectPeerCertificate", |_, this, ()| Ok(this.subject()));
        methods.add_method("uriSanPeerCertificate", |_, this, ()| Ok(list(&this.0.peer_uri_sans)));
        methods
            .add_method("subjectLocalCertificate", |_, this, ()| Ok(text(this.0.local_subject.as_deref())));
        methods.add_method("urlEncodedPemEncodedPeerCertificate", |_, this, ()| {
            Ok(xfcc::pem(this.0.peer_chain.get(..1).unwrap_or_default()))
        });
        methods.add_method("urlEncodedPemEncodedPeerCertificateChain", |_, this, ()| {
            Ok(xfcc::pem(&this.0.peer_chain))
        });
        methods.add_method("dnsSansPeerCertificate", |_, this, ()| Ok(list(&this.0.peer_dns_sans)));
        methods.add_method("dnsSansLocalCertificate", |_, this, ()| {
            Ok(dns_names(this.0.local_certificate.as_deref()))
        });
        methods.add_method("oidsPeerCertificate", |_, this, ()| Ok(oids(this.leaf())));
        methods
            .add_method("oidsLocalCertificate", |_, this, ()| Ok(oids(this.0.local_certificate.as_deref())));
        methods.add_method("validFromPeerCertificate", |_, this, ()| {
            Ok(this.peer().map(|peer| peer.not_before.as_second()))
        });
        methods.add_method("expirationPeerCertificate", |_, this, ()| {
            Ok(this.peer().map(|peer| peer.not_after.as_second()))
        });
        // TLS 1.3 has none, and what is resumed in 1.2 goes by tickets.
        methods.add_method("sessionId", |_, _, ()| Ok(""));
        methods
            .add_method("ciphersuiteId", |_, this, ()| Ok(format!("0x{:04x}", cipher_number(this.0.cipher))));
        methods.add_method("ciphersuiteString", |_, this, ()| Ok(this.0.cipher));
        methods.add_method("tlsVersion", |_, this, ()| Ok(this.0.version));
    }
}

impl UserData for Name {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("commonName", |_, this, ()| Ok(this.common_name.clone()));
        methods.add_method("organizationName", |_, this, ()| Ok(this.organizations.clone()));
    }
}
