//! `x-forwarded-client-cert`: who the callers along the way were, by their certificates.

use std::fmt::Write;

use http::{HeaderMap, HeaderName, HeaderValue};
use rustls::pki_types::CertificateDer;

use crate::stream_info::TlsInfo;

/// The header.
pub(crate) const XFCC: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// What happens to the header that came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    #[default]
    Sanitize,
    ForwardOnly,
    AppendForward,
    SanitizeSet,
    AlwaysForwardOnly,
}

/// Which details of the certificate are told, besides its hash.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Details {
    pub(crate) subject: bool,
    pub(crate) cert: bool,
    pub(crate) chain: bool,
    pub(crate) dns: bool,
    pub(crate) uri: bool,
}

/// Applies the mode to a request of this connection. `chain` is the peer's certificates, leaf first.
pub(crate) fn apply(
    headers: &mut HeaderMap,
    mode: Mode,
    details: Details,
    tls: Option<&TlsInfo>,
    chain: &[CertificateDer<'_>],
) {
    if mode == Mode::AlwaysForwardOnly {
        return;
    }
    let Some(tls) = tls.filter(|tls| tls.peer_certificate_presented && mode != Mode::Sanitize) else {
        headers.remove(XFCC);
        return;
    };
    if mode == Mode::ForwardOnly {
        return;
    }
    let mut text = String::with_capacity(256);
    if mode == Mode::AppendForward {
        for value in headers.get_all(XFCC) {
            text.push_str(&String::from_utf8_lossy(value.as_bytes()));
            text.push(',');
        }
    }
    element(&mut text, details, tls, chain);
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(XFCC, value);
    }
}

fn element(text: &mut String, details: Details, tls: &TlsInfo, chain: &[CertificateDer<'_>]) {
    for (index, by) in tls.local_uri_sans.iter().enumerate() {
        let _ = write!(text, "{}By={by}", if index > 0 { ";" } else { "" });
    }
    if let Some(hash) = &tls.peer_fingerprint {
        let _ = write!(text, "{}Hash={hash}", if tls.local_uri_sans.is_empty() { "" } else { ";" });
    }
    if details.cert
        && let Some(leaf) = chain.first()
    {
        let _ = write!(text, ";Cert=\"{}\"", pem(std::slice::from_ref(leaf)));
    }
    if details.chain && !chain.is_empty() {
        let _ = write!(text, ";Chain=\"{}\"", pem(chain));
    }
    if details.subject {
        let subject = tls.peer_subject.as_deref().unwrap_or_default().replace('"', "\\\"");
        let _ = write!(text, ";Subject=\"{subject}\"");
    }
    if details.uri {
        if tls.peer_uri_sans.is_empty() {
            text.push_str(";URI=");
        }
        for uri in &tls.peer_uri_sans {
            let _ = write!(text, ";URI={uri}");
        }
    }
    if details.dns {
        for name in &tls.peer_dns_sans {
            let _ = write!(text, ";DNS={name}");
        }
    }
}

/// PEM, escaped as in a URL.
pub(crate) fn pem(chain: &[CertificateDer<'_>]) -> String {
    use base64::Engine;
    let mut out = String::new();
    for cert in chain {
        out.push_str("-----BEGIN%20CERTIFICATE-----%0A");
        let text = base64::engine::general_purpose::STANDARD.encode(cert);
        for line in text.as_bytes().chunks(64) {
            for byte in line {
                match byte {
                    b'+' => out.push_str("%2B"),
                    b'/' => out.push_str("%2F"),
                    b'=' => out.push_str("%3D"),
                    byte => out.push(char::from(*byte)),
                }
            }
            out.push_str("%0A");
        }
        out.push_str("-----END%20CERTIFICATE-----%0A");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls() -> TlsInfo {
        TlsInfo {
            peer_certificate_presented: true,
            peer_uri_sans: vec!["spiffe://td/ns/a/sa/b".into()],
            peer_fingerprint: Some("ab12".into()),
            peer_subject: Some("".into()),
            local_uri_sans: ["spiffe://td/ns/x/sa/y".into()].into(),
            ..TlsInfo::default()
        }
    }

    fn check(mode: Mode, tls: Option<&TlsInfo>, expect: Option<&str>) {
        let mut headers = HeaderMap::new();
        headers.insert(XFCC, HeaderValue::from_static("By=before"));
        apply(&mut headers, mode, Details { subject: true, uri: true, ..Details::default() }, tls, &[]);
        assert_eq!(headers.get(XFCC).map(|value| value.to_str().unwrap()), expect, "{mode:?}");
    }

    #[test]
    fn modes() {
        const OURS: &str = "By=spiffe://td/ns/x/sa/y;Hash=ab12;Subject=\"\";URI=spiffe://td/ns/a/sa/b";
        check(Mode::Sanitize, Some(&tls()), None);
        check(Mode::ForwardOnly, Some(&tls()), Some("By=before"));
        check(Mode::AppendForward, Some(&tls()), Some(&format!("By=before,{OURS}")));
        check(Mode::SanitizeSet, Some(&tls()), Some(OURS));
        check(Mode::AppendForward, None, None);
        check(Mode::AlwaysForwardOnly, None, Some("By=before"));
    }
}
