//! OCSP responses: how long one holds, and for which certificate it is. Its signature is the client's to check.

use x509_parser::asn1_rs::{Any, Class, Tag};
use x509_parser::prelude::{ASN1Time, FromDer as _, X509Certificate};

/// A response that is sent with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Staple {
    /// When it stops to hold, in seconds since 1970; `None`: never.
    pub next_update: Option<i64>,
}

impl Staple {
    /// Whether it still holds.
    pub fn holds_at(&self, seconds: i64) -> bool {
        self.next_update.is_none_or(|until| seconds < until)
    }
}

/// The TLS feature extension, and `status_request` within it.
const TLS_FEATURE: &str = "1.3.6.1.5.5.7.1.24";
const STATUS_REQUEST: u8 = 5;

/// Whether a certificate says that it is only good with a staple.
pub(super) fn must_staple(leaf: &[u8]) -> bool {
    let Ok((_, cert)) = X509Certificate::from_der(leaf) else { return false };
    cert.extensions().iter().filter(|extension| extension.oid.to_id_string() == TLS_FEATURE).any(
        |extension| {
            let Ok((_, features)) = Any::from_der(extension.value) else { return false };
            let mut left = features.data;
            std::iter::from_fn(|| next(&mut left)).any(|feature| feature.data == [STATUS_REQUEST])
        },
    )
}

/// Reads a response for this certificate.
pub(super) fn staple(response: &[u8], leaf: &[u8]) -> Result<Staple, &'static str> {
    const BROKEN: &str = "it is no OCSP response in DER";
    let (_, cert) = X509Certificate::from_der(leaf).map_err(|_| "the certificate cannot be read")?;
    let mut outer = inside(response).ok_or(BROKEN)?;
    let status = next(&mut outer).ok_or(BROKEN)?;
    if status.tag() != Tag::Enumerated {
        return Err(BROKEN);
    }
    if status.data != [0] {
        return Err("it says that the responder failed");
    }
    let single = single(outer).ok_or(BROKEN)??;
    let mut fields = single;
    let id = next(&mut fields).ok_or(BROKEN)?;
    let mut id = id.data;
    let serial = std::iter::from_fn(|| next(&mut id)).last().ok_or(BROKEN)?;
    if unsigned(serial.data) != unsigned(cert.raw_serial()) {
        return Err("it is for another certificate");
    }
    // Its status, and since when it is so.
    next(&mut fields).ok_or(BROKEN)?;
    next(&mut fields).ok_or(BROKEN)?;
    let until =
        next(&mut fields).filter(|field| field.class() == Class::ContextSpecific && field.tag().0 == 0);
    let next_update = match until {
        Some(field) => Some(ASN1Time::from_der(field.data).map_err(|_| BROKEN)?.1.timestamp()),
        None => None,
    };
    Ok(Staple { next_update })
}

/// The one answer that a response holds, given what follows its status.
fn single(mut rest: &[u8]) -> Option<Result<&[u8], &'static str>> {
    let bytes = next(&mut rest)?;
    let mut typed = inside(bytes.data)?;
    next(&mut typed)?;
    let mut basic = inside(next(&mut typed)?.data)?;
    let mut data = next(&mut basic)?.data;
    let mut field = next(&mut data)?;
    if field.class() == Class::ContextSpecific && field.tag().0 == 0 {
        // The version, which is rarely said; who answers is next.
        field = next(&mut data)?;
    }
    if field.class() != Class::ContextSpecific {
        return None;
    }
    next(&mut data)?;
    let mut all = next(&mut data)?.data;
    let only = next(&mut all)?;
    Some(if all.is_empty() { Ok(only.data) } else { Err("it is for more than one certificate") })
}

fn inside(der: &[u8]) -> Option<&[u8]> {
    Any::from_der(der).ok().map(|(_, any)| any.data)
}

fn next<'a>(left: &mut &'a [u8]) -> Option<Any<'a>> {
    let (rest, any) = Any::from_der(left).ok()?;
    *left = rest;
    Some(any)
}

/// A number without the zeros before it.
fn unsigned(mut bytes: &[u8]) -> &[u8] {
    while let [0, rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}
