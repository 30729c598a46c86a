//! The cryptography of a context: what configuration names of what rustls has; all of it where nothing is named.

use std::sync::Arc;

use rustls::CipherSuite;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use sail_proxy_config::tls::{Cipher, CommonTls, Curve};

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
    Arc::new(provider)
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
