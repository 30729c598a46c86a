//! Key pairs: made here, kept in memory, never shown in a debug output.

use std::fmt;
use std::str::FromStr;

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

use crate::error::{Error, Result};
use crate::pem;

/// Which key to make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyAlgorithm {
    /// ECDSA on P-256 with SHA-256.
    #[default]
    EcdsaP256,
    /// ECDSA on P-384 with SHA-384.
    EcdsaP384,
    /// RSA with 2048 bits.
    Rsa2048,
    /// RSA with 3072 bits.
    Rsa3072,
    /// RSA with 4096 bits.
    Rsa4096,
}

impl FromStr for KeyAlgorithm {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name.to_ascii_uppercase().replace('-', "").as_str() {
            "ECDSA" | "P256" | "ECDSAP256" => Ok(Self::EcdsaP256),
            "P384" | "ECDSAP384" => Ok(Self::EcdsaP384),
            "RSA" | "RSA2048" => Ok(Self::Rsa2048),
            "RSA3072" => Ok(Self::Rsa3072),
            "RSA4096" => Ok(Self::Rsa4096),
            _ => Err(Error::KeyAlgorithm(name.to_owned())),
        }
    }
}

/// A private key with its public half.
pub struct KeyPair(rcgen::KeyPair);

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPair(..)")
    }
}

impl KeyPair {
    /// Makes a new key pair.
    pub fn generate(algorithm: KeyAlgorithm) -> Result<Self> {
        let rsa = |size| rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size);
        match algorithm {
            KeyAlgorithm::EcdsaP256 => rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            KeyAlgorithm::EcdsaP384 => rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
            KeyAlgorithm::Rsa2048 => rsa(rcgen::RsaKeySize::_2048),
            KeyAlgorithm::Rsa3072 => rsa(rcgen::RsaKeySize::_3072),
            KeyAlgorithm::Rsa4096 => rsa(rcgen::RsaKeySize::_4096),
        }
        .map(Self)
        .map_err(|error| Error::Key(error.to_string()))
    }

    /// Reads the first private key of a PEM text: PKCS #8, SEC 1 or PKCS #1.
    pub fn from_pem(text: &str) -> Result<Self> {
        let der = PrivateKeyDer::from_pem_slice(text.as_bytes())
            .map_err(|error| Error::Pem { what: "a private key", reason: error.to_string() })?;
        Self::from_der(&der)
    }

    /// Reads a private key.
    pub fn from_der(der: &PrivateKeyDer<'_>) -> Result<Self> {
        rcgen::KeyPair::try_from(der).map(Self).map_err(|error| Error::Key(error.to_string()))
    }

    /// The private key as PEM, for SDS and for the CA's own store.
    pub fn to_pem(&self) -> String {
        match self.to_der() {
            PrivateKeyDer::Pkcs1(der) => pem::encode("RSA PRIVATE KEY", der.secret_pkcs1_der()),
            PrivateKeyDer::Sec1(der) => pem::encode("EC PRIVATE KEY", der.secret_sec1_der()),
            other => pem::encode("PRIVATE KEY", other.secret_der()),
        }
    }

    /// The private key for rustls.
    pub fn to_der(&self) -> PrivateKeyDer<'static> {
        let bytes = self.0.serialized_der().to_vec();
        // The key keeps the encoding in which it was read; rustls tells the three apart by their first bytes.
        PrivateKeyDer::try_from(bytes).unwrap_or_else(|_| PrivateKeyDer::Pkcs8(self.0.serialize_der().into()))
    }

    /// The public half as SubjectPublicKeyInfo.
    pub fn public_key_der(&self) -> Vec<u8> {
        use rcgen::PublicKeyData as _;
        self.0.subject_public_key_info()
    }

    /// For signing certificates with rcgen.
    pub fn as_rcgen(&self) -> &rcgen::KeyPair {
        &self.0
    }

    /// For owners of an `rcgen::Issuer`.
    pub fn into_rcgen(self) -> rcgen::KeyPair {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_algorithm_survives_pem() {
        for algorithm in [KeyAlgorithm::EcdsaP256, KeyAlgorithm::EcdsaP384, KeyAlgorithm::Rsa2048] {
            let key = KeyPair::generate(algorithm).unwrap();
            let again = KeyPair::from_pem(&key.to_pem()).unwrap();
            assert_eq!(again.public_key_der(), key.public_key_der(), "{algorithm:?}");
        }
    }

    #[test]
    fn a_debug_output_shows_no_key() {
        let key = KeyPair::generate(KeyAlgorithm::EcdsaP256).unwrap();
        assert_eq!(format!("{key:?}"), "KeyPair(..)");
    }

    #[test]
    fn says_what_is_wrong() {
        assert!(KeyPair::from_pem("no pem").unwrap_err().to_string().contains("private key"));
        assert!("DSA".parse::<KeyAlgorithm>().is_err());
    }
}
