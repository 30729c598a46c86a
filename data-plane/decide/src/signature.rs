//! Signatures that scripts check: a public key, a digest's name, and what was signed.

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};

/// Why a signature does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureError {
    /// No such digest.
    Digest,
    /// It is not the key's signature of that.
    Mismatch,
}

/// The algorithms by which a digest's name may be meant: RSA's, and those of the curves.
fn algorithms(digest: &str) -> Option<[&'static dyn VerificationAlgorithm; 3]> {
    Some(match digest {
        "sha1" => [
            &signature::RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY,
            &signature::ECDSA_P256_SHA1_ASN1,
            &signature::ECDSA_P521_SHA1_ASN1,
        ],
        "sha256" => [
            &signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
            &signature::ECDSA_P256_SHA256_ASN1,
            &signature::ECDSA_P384_SHA256_ASN1,
        ],
        "sha384" => [
            &signature::RSA_PKCS1_2048_8192_SHA384,
            &signature::ECDSA_P256_SHA384_ASN1,
            &signature::ECDSA_P384_SHA384_ASN1,
        ],
        "sha512" => [
            &signature::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
            &signature::ECDSA_P384_SHA512_ASN1,
            &signature::ECDSA_P521_SHA512_ASN1,
        ],
        _ => return None,
    })
}

/// Whether the bytes are a public key: a `SubjectPublicKeyInfo` in DER.
pub fn is_public_key(der: &[u8]) -> bool {
    // The outer sequence, and all of it.
    matches!(der, [0x30, rest @ ..] if !rest.is_empty()) && der.len() > 32
}

/// Checks a signature. The key is a `SubjectPublicKeyInfo` in DER.
pub fn verify(digest: &str, key: &[u8], signature: &[u8], data: &[u8]) -> Result<(), SignatureError> {
    let algorithms = algorithms(&digest.to_ascii_lowercase()).ok_or(SignatureError::Digest)?;
    let holds = algorithms
        .iter()
        .any(|&algorithm| UnparsedPublicKey::new(algorithm, key).verify(data, signature).is_ok());
    if holds { Ok(()) } else { Err(SignatureError::Mismatch) }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};

    use super::*;

    #[test]
    fn signatures_are_checked_by_key_digest_and_data() {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let signed = pair.sign(&SystemRandom::new(), b"hello").unwrap();
        let key = pair.public_key().as_ref();
        assert_eq!(verify("sha256", key, signed.as_ref(), b"hello"), Ok(()));
        assert_eq!(verify("sha256", key, signed.as_ref(), b"hellx"), Err(SignatureError::Mismatch));
        assert_eq!(verify("sha1", key, signed.as_ref(), b"hello"), Err(SignatureError::Mismatch));
        assert_eq!(verify("md5", key, signed.as_ref(), b"hello"), Err(SignatureError::Digest));
    }
}
