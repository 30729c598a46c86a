//! The cryptography of a context: what configuration names of what rustls has; all of it where nothing is named.

use std::sync::Arc;

use parking_lot::Mutex;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::pki_types::SignatureVerificationAlgorithm;
use rustls::{CipherSuite, SignatureScheme};
use sail_proxy_config::tls::{Cipher, CommonTls, Curve, Signature};

/// The provider of a context.
pub(super) fn provider(common: &CommonTls) -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    if !common.cipher_suites.is_empty() {
        // The list is about TLS 1.2; TLS 1.3's suites are always offered.
        let all = std::mem::take(&mut provider.cipher_suites);
        let named = common.cipher_suites.iter().map(|cipher| suite(*cipher));
        let named = named.filter_map(|wanted| all.iter().find(|have| have.suite() == wanted).copied());
        provider.cipher_suites =
            all.iter().filter(|have| have.tls13().is_some()).copied().chain(named).collect();
    }
    if !common.ecdh_curves.is_empty() {
        provider.kx_groups = common.ecdh_curves.iter().map(|curve| group(*curve)).collect();
    }
    if !common.signature_algorithms.is_empty() {
        let wanted = common.signature_algorithms.iter().map(|one| scheme(*one)).collect();
        provider.signature_verification_algorithms.mapping = only(wanted);
    }
    Arc::new(provider)
}

type Verifiers = &'static [(SignatureScheme, &'static [&'static dyn SignatureVerificationAlgorithm])];

/// How such signatures, and no others, are verified. rustls wants lists that live for ever: each that is ever named is
/// made once.
fn only(wanted: Vec<SignatureScheme>) -> Verifiers {
    static MADE: Mutex<Vec<(Vec<SignatureScheme>, Verifiers)>> = Mutex::new(Vec::new());
    let mut made = MADE.lock();
    if let Some((_, known)) = made.iter().find(|(list, _)| *list == wanted) {
        return known;
    }
    let all = aws_lc_rs::default_provider().signature_verification_algorithms.mapping;
    let found: Vec<_> =
        wanted.iter().filter_map(|one| all.iter().find(|(scheme, _)| scheme == one).copied()).collect();
    let list: Verifiers = Box::leak(found.into_boxed_slice());
    made.push((wanted, list));
    list
}

fn scheme(signature: Signature) -> SignatureScheme {
    match signature {
        Signature::EcdsaP256Sha256 => SignatureScheme::ECDSA_NISTP256_SHA256,
        Signature::EcdsaP384Sha384 => SignatureScheme::ECDSA_NISTP384_SHA384,
        Signature::EcdsaP521Sha512 => SignatureScheme::ECDSA_NISTP521_SHA512,
        Signature::Ed25519 => SignatureScheme::ED25519,
        Signature::RsaPssSha256 => SignatureScheme::RSA_PSS_SHA256,
        Signature::RsaPssSha384 => SignatureScheme::RSA_PSS_SHA384,
        Signature::RsaPssSha512 => SignatureScheme::RSA_PSS_SHA512,
        Signature::RsaPkcs1Sha256 => SignatureScheme::RSA_PKCS1_SHA256,
        Signature::RsaPkcs1Sha384 => SignatureScheme::RSA_PKCS1_SHA384,
        Signature::RsaPkcs1Sha512 => SignatureScheme::RSA_PKCS1_SHA512,
    }
}

fn suite(cipher: Cipher) -> CipherSuite {
    match cipher {
        Cipher::EcdheEcdsaAes128Gcm => CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        Cipher::EcdheEcdsaAes256Gcm => CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        Cipher::EcdheEcdsaChaCha20 => CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        Cipher::EcdheRsaAes128Gcm => CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        Cipher::EcdheRsaAes256Gcm => CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        Cipher::EcdheRsaChaCha20 => CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    }
}

fn group(curve: Curve) -> &'static dyn SupportedKxGroup {
    match curve {
        Curve::X25519 => aws_lc_rs::kx_group::X25519,
        Curve::P256 => aws_lc_rs::kx_group::SECP256R1,
        Curve::P384 => aws_lc_rs::kx_group::SECP384R1,
        Curve::X25519MlKem768 => aws_lc_rs::kx_group::X25519MLKEM768,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_is_verified_and_each_list_is_made_once() {
        let wanted = vec![SignatureScheme::RSA_PSS_SHA256, SignatureScheme::ECDSA_NISTP256_SHA256];
        let list = only(wanted.clone());
        assert_eq!(list.iter().map(|(scheme, _)| *scheme).collect::<Vec<_>>(), wanted);
        assert!(std::ptr::eq(list, only(wanted)));
    }
}
