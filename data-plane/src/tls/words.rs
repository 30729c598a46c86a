//! Failed handshakes in the words of BoringSSL, which those who run Envoy know by heart.

use rustls::{AlertDescription, Error};

/// Where BoringSSL's numbers for errors of the TLS protocol begin.
const SSL: u32 = 16 << 24;

/// What of BoringSSL's reasons follows alerts: 1000 and the alert's number.
const ALERTS: u32 = 1000;

/// Why a handshake failed, as `%UPSTREAM_TRANSPORT_FAILURE_REASON%` says it.
pub(crate) fn failure(error: &std::io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(error) => of_tls(error),
        None => format!("TLS_error: {error}"),
    }
}

fn of_tls(error: &Error) -> String {
    let (reason, name, detail) = match error {
        Error::InvalidCertificate(certificate) => {
            (125, "CERTIFICATE_VERIFY_FAILED", format!(":verify cert failed: {}", why(certificate)))
        }
        Error::InvalidMessage(_) => (247, "WRONG_VERSION_NUMBER", String::new()),
        Error::NoApplicationProtocol => (307, "NO_APPLICATION_PROTOCOL", String::new()),
        Error::NoCertificatesPresented => (192, "PEER_DID_NOT_RETURN_A_CERTIFICATE", String::new()),
        Error::AlertReceived(alert) => match alert_name(*alert) {
            Some(name) => (ALERTS + u32::from(u8::from(*alert)), name, String::new()),
            None => return format!("TLS_error: {error}"),
        },
        error => return format!("TLS_error: {error}"),
    };
    format!("TLS_error:|{}:SSL routines:OPENSSL_internal:{name}{detail}:TLS_error_end", SSL + reason)
}

/// What is wrong with a certificate.
fn why(error: &rustls::CertificateError) -> String {
    use rustls::CertificateError as Wrong;
    let words = match error {
        // Our own words come without the names of their types.
        Wrong::Other(other) => return other.0.to_string(),
        Wrong::Expired | Wrong::ExpiredContext { .. } => "certificate has expired",
        Wrong::NotValidYet | Wrong::NotValidYetContext { .. } => "certificate is not yet valid",
        Wrong::Revoked => "certificate revoked",
        Wrong::UnknownIssuer => "unable to get local issuer certificate",
        error => return error.to_string(),
    };
    format!("X509_verify_cert: certificate verification error at depth 0: {words}")
}

fn alert_name(alert: AlertDescription) -> Option<&'static str> {
    Some(match alert {
        AlertDescription::HandshakeFailure => "SSLV3_ALERT_HANDSHAKE_FAILURE",
        AlertDescription::BadCertificate => "SSLV3_ALERT_BAD_CERTIFICATE",
        AlertDescription::UnsupportedCertificate => "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        AlertDescription::CertificateRevoked => "SSLV3_ALERT_CERTIFICATE_REVOKED",
        AlertDescription::CertificateExpired => "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        AlertDescription::CertificateUnknown => "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        AlertDescription::UnknownCA => "TLSV1_ALERT_UNKNOWN_CA",
        AlertDescription::AccessDenied => "TLSV1_ALERT_ACCESS_DENIED",
        AlertDescription::DecodeError => "TLSV1_ALERT_DECODE_ERROR",
        AlertDescription::DecryptError => "TLSV1_ALERT_DECRYPT_ERROR",
        AlertDescription::ProtocolVersion => "TLSV1_ALERT_PROTOCOL_VERSION",
        AlertDescription::InternalError => "TLSV1_ALERT_INTERNAL_ERROR",
        AlertDescription::UnrecognisedName => "TLSV1_UNRECOGNIZED_NAME",
        AlertDescription::CertificateRequired => "TLSV1_CERTIFICATE_REQUIRED",
        AlertDescription::NoApplicationProtocol => "TLSV1_ALERT_NO_APPLICATION_PROTOCOL",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_bear_boringssls_numbers() {
        let check = |error: Error, expect: &str| {
            assert_eq!(failure(&std::io::Error::other(error)), expect);
        };
        check(
            Error::InvalidCertificate(rustls::CertificateError::Expired),
            "TLS_error:|268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify cert failed: \
             X509_verify_cert: certificate verification error at depth 0: certificate has expired:TLS_error_end",
        );
        check(
            Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType),
            "TLS_error:|268435703:SSL routines:OPENSSL_internal:WRONG_VERSION_NUMBER:TLS_error_end",
        );
        check(
            Error::AlertReceived(AlertDescription::UnknownCA),
            "TLS_error:|268436504:SSL routines:OPENSSL_internal:TLSV1_ALERT_UNKNOWN_CA:TLS_error_end",
        );
    }
}
