//! Certificate requests: building and reading them.

use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer as _;

use crate::error::{Error, Result};
use crate::key::KeyPair;
use crate::pem;
use crate::san::San;
use crate::spiffe::SpiffeId;

/// What a request asks for.
#[derive(Clone, Debug, Default)]
pub struct CsrRequest {
    /// The names that the certificate should bear. A CA of the mesh takes the identity from the caller's credentials.
    pub sans: Vec<San>,
    /// The organization of the subject, if any.
    pub organization: Option<String>,
}

impl CsrRequest {
    /// For a workload.
    pub fn for_workload(id: &SpiffeId) -> Self {
        Self { sans: vec![San::uri(id.to_string())], organization: None }
    }

    /// Signs the request with the key that it asks a certificate for; PEM.
    pub fn to_pem(&self, key: &KeyPair) -> Result<String> {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(organization) = &self.organization {
            params.distinguished_name.push(rcgen::DnType::OrganizationName, organization.as_str());
        }
        params.subject_alt_names = self.sans.iter().map(San::to_rcgen).collect::<Result<_>>()?;
        let request =
            params.serialize_request(key.as_rcgen()).map_err(|error| Error::Csr(error.to_string()))?;
        Ok(pem::encode("CERTIFICATE REQUEST", request.der()))
    }
}

/// A request that was read, and whose signature shows that the sender holds the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Csr {
    /// SubjectPublicKeyInfo of the key.
    pub public_key: Vec<u8>,
    /// The names that it asks for.
    pub sans: Vec<San>,
    /// The subject that it asks for.
    pub subject: String,
}

impl Csr {
    /// Reads a PEM request and checks its signature.
    pub fn from_pem(text: &str) -> Result<Self> {
        let der = CertificateSigningRequestDer::from_pem_slice(text.as_bytes())
            .map_err(|error| Error::Pem { what: "a certificate request", reason: error.to_string() })?;
        Self::from_der(&der)
    }

    /// Reads a DER request and checks its signature.
    pub fn from_der(der: &[u8]) -> Result<Self> {
        let (rest, request) =
            X509CertificationRequest::from_der(der).map_err(|error| Error::Csr(error.to_string()))?;
        if !rest.is_empty() {
            return Err(Error::Csr(format!("{} bytes follow it", rest.len())));
        }
        request
            .verify_signature()
            .map_err(|error| Error::Csr(format!("its signature is not by its own key: {error}")))?;
        let mut sans = Vec::new();
        for extension in request.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                sans.extend(names.general_names.iter().filter_map(San::from_general));
            }
        }
        let info = &request.certification_request_info;
        Ok(Self { public_key: info.subject_pki.raw.to_vec(), sans, subject: info.subject.to_string() })
    }

    /// The key in the form that rcgen signs for.
    pub fn to_rcgen_public_key(&self) -> Result<rcgen::SubjectPublicKeyInfo> {
        rcgen::SubjectPublicKeyInfo::from_der(&self.public_key).map_err(|error| Error::Csr(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyAlgorithm;

    #[test]
    fn reads_what_it_writes() {
        for algorithm in [KeyAlgorithm::EcdsaP256, KeyAlgorithm::EcdsaP384, KeyAlgorithm::Rsa2048] {
            let key = KeyPair::generate(algorithm).unwrap();
            let id: SpiffeId = "spiffe://cluster.local/ns/a/sa/b".parse().unwrap();
            let csr = Csr::from_pem(&CsrRequest::for_workload(&id).to_pem(&key).unwrap()).unwrap();
            assert_eq!(csr.public_key, key.public_key_der());
            assert_eq!(csr.sans, [San::uri(id.to_string())]);
            csr.to_rcgen_public_key().unwrap();
        }
    }

    #[test]
    fn a_changed_request_is_refused() {
        let key = KeyPair::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let request = CsrRequest { sans: vec![San::uri("spiffe://td/ns/a/sa/b")], organization: None };
        let text = request.to_pem(&key).unwrap();
        let mut der = CertificateSigningRequestDer::from_pem_slice(text.as_bytes()).unwrap().to_vec();
        let at = der.windows(5).position(|w| w == b"/sa/b").unwrap() + 4;
        der[at] = b'c';
        assert!(Csr::from_der(&der).unwrap_err().to_string().contains("signature"));
        assert!(Csr::from_pem("-----BEGIN CERTIFICATE REQUEST-----\n").is_err());
    }
}
