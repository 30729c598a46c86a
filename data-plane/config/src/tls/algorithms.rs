//! Cipher suites, curves and signatures by the names that configuration gives them. What rustls does not speak is refused, or left
//! out where something else of the list remains.

use crate::convert::Cx;

/// A cipher suite of TLS 1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Cipher {
    EcdheEcdsaAes128Gcm,
    EcdheEcdsaAes256Gcm,
    EcdheEcdsaChaCha20,
    EcdheRsaAes128Gcm,
    EcdheRsaAes256Gcm,
    EcdheRsaChaCha20,
}

/// A group for key exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Curve {
    X25519,
    P256,
    P384,
    X25519MlKem768,
}

/// What a handshake is signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Signature {
    EcdsaP256Sha256,
    EcdsaP384Sha384,
    EcdsaP521Sha512,
    Ed25519,
    RsaPssSha256,
    RsaPssSha384,
    RsaPssSha512,
    RsaPkcs1Sha256,
    RsaPkcs1Sha384,
    RsaPkcs1Sha512,
}

const CIPHERS: &[(&str, Cipher)] = &[
    ("ECDHE-ECDSA-AES128-GCM-SHA256", Cipher::EcdheEcdsaAes128Gcm),
    ("ECDHE-ECDSA-AES256-GCM-SHA384", Cipher::EcdheEcdsaAes256Gcm),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", Cipher::EcdheEcdsaChaCha20),
    ("ECDHE-RSA-AES128-GCM-SHA256", Cipher::EcdheRsaAes128Gcm),
    ("ECDHE-RSA-AES256-GCM-SHA384", Cipher::EcdheRsaAes256Gcm),
    ("ECDHE-RSA-CHACHA20-POLY1305", Cipher::EcdheRsaChaCha20),
];

/// Suites that Envoy takes and that are not spoken here: no forward secrecy, or CBC.
const OLD_CIPHERS: &[&str] = &[
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA",
    "AES256-SHA",
    "AES128-SHA256",
    "AES256-SHA256",
    "DES-CBC3-SHA",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-ECDSA-AES128-SHA256",
    "ECDHE-ECDSA-AES256-SHA384",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-RSA-AES256-SHA",
    "ECDHE-RSA-AES128-SHA256",
    "ECDHE-RSA-AES256-SHA384",
    "ECDHE-PSK-CHACHA20-POLY1305",
    "ECDHE-PSK-AES128-CBC-SHA",
    "ECDHE-PSK-AES256-CBC-SHA",
    "PSK-AES128-CBC-SHA",
    "PSK-AES256-CBC-SHA",
];

const CURVES: &[(&str, Curve)] = &[
    ("X25519", Curve::X25519),
    ("P-256", Curve::P256),
    ("prime256v1", Curve::P256),
    ("P-384", Curve::P384),
    ("secp384r1", Curve::P384),
    ("X25519MLKEM768", Curve::X25519MlKem768),
];

const OTHER_CURVES: &[&str] =
    &["P-224", "secp224r1", "P-521", "secp521r1", "X25519Kyber768Draft00", "P256Kyber768Draft00"];

const SIGNATURES: &[(&str, Signature)] = &[
    ("ecdsa_secp256r1_sha256", Signature::EcdsaP256Sha256),
    ("ecdsa_secp384r1_sha384", Signature::EcdsaP384Sha384),
    ("ecdsa_secp521r1_sha512", Signature::EcdsaP521Sha512),
    ("ed25519", Signature::Ed25519),
    ("rsa_pss_rsae_sha256", Signature::RsaPssSha256),
    ("rsa_pss_rsae_sha384", Signature::RsaPssSha384),
    ("rsa_pss_rsae_sha512", Signature::RsaPssSha512),
    ("rsa_pkcs1_sha256", Signature::RsaPkcs1Sha256),
    ("rsa_pkcs1_sha384", Signature::RsaPkcs1Sha384),
    ("rsa_pkcs1_sha512", Signature::RsaPkcs1Sha512),
];

/// SHA-1, which nobody should sign with any more.
const OLD_SIGNATURES: &[&str] = &["rsa_pkcs1_sha1", "ecdsa_sha1"];

/// `signature_algorithms`
pub(super) fn signatures(cx: &mut Cx<'_>, names: &[String]) -> Box<[Signature]> {
    let split = names.iter().flat_map(|names| names.split(':'));
    list(cx, "signature_algorithms", split, SIGNATURES, OLD_SIGNATURES)
}

/// `cipher_suites`; `[A|B]` are of equal worth, which is read as an order.
pub(super) fn ciphers(cx: &mut Cx<'_>, names: &[String]) -> Box<[Cipher]> {
    let split = names.iter().flat_map(|names| names.split([',', ':']));
    let split = split.flat_map(|group| group.trim().trim_matches(['[', ']']).split('|')).map(str::trim);
    let names: Vec<String> = split.filter(|name| !name.is_empty()).map(short_name).collect();
    list(cx, "cipher_suites", names.iter().map(String::as_str), CIPHERS, OLD_CIPHERS)
}

/// A suite may bear its standard's name, too: `TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256`.
fn short_name(name: &str) -> String {
    let Some((exchange, cipher)) = name.strip_prefix("TLS_").and_then(|name| name.split_once("_WITH_"))
    else {
        return name.to_owned();
    };
    let exchange = if exchange == "RSA" { String::new() } else { format!("{exchange}-") };
    let cipher = match cipher {
        "3DES_EDE_CBC_SHA" => "DES_CBC3_SHA".to_owned(),
        "CHACHA20_POLY1305_SHA256" => "CHACHA20_POLY1305".to_owned(),
        other => other.replace("AES_128", "AES128").replace("AES_256", "AES256").replace("_CBC_", "_"),
    };
    format!("{exchange}{cipher}").replace('_', "-")
}

/// `ecdh_curves`
pub(super) fn curves(cx: &mut Cx<'_>, names: &[String]) -> Box<[Curve]> {
    list(cx, "ecdh_curves", names.iter().map(String::as_str), CURVES, OTHER_CURVES)
}

fn list<'a, T: Copy + PartialEq>(
    cx: &mut Cx<'_>,
    field: &str,
    names: impl Iterator<Item = &'a str>,
    spoken: &[(&str, T)],
    others: &[&str],
) -> Box<[T]> {
    let mut found = Vec::new();
    let mut left_out = Vec::new();
    for name in names {
        match spoken.iter().find(|(known, _)| *known == name) {
            Some((_, value)) if found.contains(value) => {}
            Some((_, value)) => found.push(*value),
            None if others.contains(&name) => left_out.push(name),
            None => cx.error(field, format_args!("{name:?} is not known")),
        }
    }
    match (found.is_empty(), left_out.is_empty()) {
        (_, true) => {}
        (true, false) => cx.error(field, format_args!("none of {left_out:?} is spoken here")),
        (false, false) => cx.warn(field, format_args!("{left_out:?} are left out: they are not spoken here")),
    }
    found.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::NoSources;

    /// As every Contour names them.
    #[test]
    fn signatures_are_named_and_old_ones_left_out() {
        let mut cx = Cx::new(&NoSources);
        let names = ["ecdsa_secp256r1_sha256", "rsa_pss_rsae_sha256:rsa_pkcs1_sha512", "rsa_pkcs1_sha1"];
        let found = signatures(&mut cx, &names.map(str::to_owned));
        assert_eq!(*found, [Signature::EcdsaP256Sha256, Signature::RsaPssSha256, Signature::RsaPkcs1Sha512]);
        assert!(cx.into_findings().iter().all(|finding| finding.severity == crate::Severity::Warning));
        let mut cx = Cx::new(&NoSources);
        signatures(&mut cx, &["rot13".to_owned()]);
        assert!(cx.into_findings().iter().any(|finding| finding.severity == crate::Severity::Error));
    }

    #[test]
    fn what_is_not_spoken_is_left_out_or_refused() {
        let check = |names: &[&str], expect: &[Cipher], refused: bool| {
            let mut cx = Cx::new(&NoSources);
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(&*ciphers(&mut cx, &names), expect);
            let errors = cx.into_findings().iter().any(|finding| finding.severity == crate::Severity::Error);
            assert_eq!(errors, refused, "{names:?}");
        };
        check(&["ECDHE-RSA-AES256-GCM-SHA384", "AES128-SHA"], &[Cipher::EcdheRsaAes256Gcm], false);
        check(&["AES128-SHA"], &[], true);
        check(&["ROT13"], &[], true);
        check(
            &[
                "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
                "TLS_RSA_WITH_AES_128_CBC_SHA",
                "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
            ],
            &[Cipher::EcdheRsaAes256Gcm],
            false,
        );
        check(&["TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"], &[Cipher::EcdheEcdsaChaCha20], false);
        check(
            &["[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305]"],
            &[Cipher::EcdheEcdsaAes128Gcm, Cipher::EcdheEcdsaChaCha20],
            false,
        );
    }
}
