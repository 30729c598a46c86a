//! Certificates that a test makes, and clients that show them.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "every test file uses its part")]

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// A root, and what it signs.
pub struct Authority {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM.
pub struct Signed {
    pub cert: String,
    pub key: String,
}

/// A TLS connection.
pub type Tls = StreamOwned<ClientConnection, TcpStream>;

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// An authority that this one vouches for.
    pub fn below(&self) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "below");
        let key = KeyPair::generate().unwrap();
        let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate with a serial number and names: with `://` they are URIs.
    pub fn sign(&self, serial: u64, names: &[&str]) -> Signed {
        self.sign_with(serial, names, Vec::new())
    }

    /// The same with extensions.
    pub fn sign_with(&self, serial: u64, names: &[&str], extensions: Vec<CustomExtension>) -> Signed {
        let (uris, names): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| name.contains("://"));
        let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        let mut params = CertificateParams::new(names).unwrap();
        for uri in uris {
            params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        }
        params.serial_number = Some(SerialNumber::from(serial));
        params.custom_extensions = extensions;
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        Signed { cert, key: key.serialize_pem() }
    }

    /// A list that revokes one serial number.
    pub fn revoke(&self, serial: u64) -> String {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(4000, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    /// Connects as a client that trusts this root; an error is what the handshake, or the first read after it, said.
    pub fn connect(&self, to: SocketAddr, name: &str, own: Option<&Signed>) -> std::io::Result<Tls> {
        let mut config = self.client(own);
        config.resumption = rustls::client::Resumption::disabled();
        handshake(Arc::new(config), to, name)
    }

    /// A client that trusts this root.
    pub fn client(&self, own: Option<&Signed>) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots());
        match own {
            Some(own) => {
                let certs: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(own.cert.as_bytes()).collect();
                let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(certs.unwrap(), key).unwrap()
            }
            None => builder.with_no_client_auth(),
        }
    }

    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        roots
    }
}

pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Does the client's side of a handshake.
pub fn handshake(config: Arc<ClientConfig>, to: SocketAddr, name: &str) -> std::io::Result<Tls> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let client = ClientConnection::new(config, name).unwrap();
    let stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut tls = StreamOwned::new(client, stream);
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock)?;
    }
    Ok(tls)
}

impl Signed {
    /// Writes both files, each whole at once.
    pub fn write(&self, dir: &Path) -> (PathBuf, PathBuf) {
        (replace(dir, "tls.crt", &self.cert), replace(dir, "tls.key", &self.key))
    }
}

/// Writes a file as those do who must not be seen half done.
pub fn replace(dir: &Path, name: &str, text: &str) -> PathBuf {
    let (path, temporary) = (dir.join(name), dir.join(format!(".{name}")));
    std::fs::write(&temporary, text).unwrap();
    std::fs::rename(&temporary, &path).unwrap();
    path
}

/// The serial number of the certificate that the server showed.
pub fn serial(tls: &Tls) -> String {
    let leaf = tls.conn.peer_certificates().unwrap().first().unwrap();
    identity::CertInfo::from_der(leaf).unwrap().serial
}
