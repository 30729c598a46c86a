//! TLS contexts and transport sockets from their `Any`s.

use std::sync::Arc;
use std::time::Duration;

use super::{
    CertificateSource, Cipher, CommonTls, Curve, DownstreamSocket, DownstreamTls, OcspStaplePolicy,
    Signature, TcpStats, Tickets, TlsVersion, UpstreamSocket, UpstreamTls, Validation, algorithms,
    upstream_proxy,
};
use crate::convert::{Cx, arc, type_name, values};
use crate::pb;
use crate::secret;

const RAW: &str = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";
const DOWNSTREAM_TLS: &str = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
const UPSTREAM_TLS: &str = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
const PROXY_PROTOCOL: &str =
    "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport";
const TCP_STATS: &str = "envoy.extensions.transport_sockets.tcp_stats.v3.Config";
const INTERNAL: &str = "envoy.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport";

/// Types of transport sockets that listeners have.
pub const KNOWN_DOWNSTREAM: &[&str] = &[DOWNSTREAM_TLS, RAW, TCP_STATS];

/// Types of transport sockets that clusters have.
pub const KNOWN_UPSTREAM: &[&str] = &[INTERNAL, PROXY_PROTOCOL, RAW, TCP_STATS, UPSTREAM_TLS];

fn config(cx: &mut Cx<'_>, value: pb::core::TransportSocket) -> Option<pb::Any> {
    use pb::core::transport_socket::ConfigType;
    let pb::core::TransportSocket { name, config_type } = value;
    match config_type {
        Some(ConfigType::TypedConfig(any)) => Some(any),
        None if name == "envoy.transport_sockets.raw_buffer" => {
            Some(pb::Any { type_url: format!("type.googleapis.com/{RAW}"), value: Vec::new() })
        }
        None => {
            cx.error("typed_config", format_args!("the transport socket {name:?} has no configuration"));
            None
        }
    }
}

/// A listener's transport socket.
pub(crate) fn downstream_socket(
    cx: &mut Cx<'_>,
    value: pb::core::TransportSocket,
) -> Option<DownstreamSocket> {
    let any = config(cx, value)?;
    cx.within("typed_config", |cx| match type_name(&any) {
        RAW => Some(DownstreamSocket::Raw),
        DOWNSTREAM_TLS => {
            let value = cx.unpack(&any)?;
            downstream(cx, value).map(|tls| DownstreamSocket::Tls(Arc::new(tls)))
        }
        TCP_STATS => {
            let value = cx.unpack(&any)?;
            let (inner, stats) = tcp_stats(cx, value, downstream_socket)?;
            Some(DownstreamSocket::TcpStats(Box::new(inner), stats))
        }
        other => {
            cx.error("", format_args!("there is no downstream transport socket {other:?}"));
            None
        }
    })
}

/// A cluster's transport socket.
pub(crate) fn upstream_socket(cx: &mut Cx<'_>, value: pb::core::TransportSocket) -> Option<UpstreamSocket> {
    use xds_api::envoy::extensions::transport_sockets as sockets;
    let any = config(cx, value)?;
    cx.within("typed_config", |cx| match type_name(&any) {
        RAW => Some(UpstreamSocket::Raw),
        UPSTREAM_TLS => {
            let value = cx.unpack(&any)?;
            upstream(cx, value).map(|tls| UpstreamSocket::Tls(Arc::new(tls)))
        }
        PROXY_PROTOCOL => {
            let value = cx.unpack(&any)?;
            upstream_proxy::convert(cx, value).map(|outer| UpstreamSocket::ProxyProtocol(Arc::new(outer)))
        }
        INTERNAL => {
            let sockets::internal_upstream::v3::InternalUpstreamTransport {
                passthrough_metadata,
                transport_socket,
            } = cx.unpack(&any)?;
            cx.ignore(
                "passthrough_metadata",
                &passthrough_metadata,
                "metadata do not pass between listeners",
            );
            let inner = cx.required("transport_socket", transport_socket, upstream_socket)?;
            Some(UpstreamSocket::Internal(Box::new(inner)))
        }
        TCP_STATS => {
            let value = cx.unpack(&any)?;
            let (inner, stats) = tcp_stats(cx, value, upstream_socket)?;
            Some(UpstreamSocket::TcpStats(Box::new(inner), stats))
        }
        other => {
            cx.error("", format_args!("there is no upstream transport socket {other:?}"));
            None
        }
    })
}

fn tcp_stats<T>(
    cx: &mut Cx<'_>,
    value: xds_api::envoy::extensions::transport_sockets::tcp_stats::v3::Config,
    inner: impl FnOnce(&mut Cx<'_>, pb::core::TransportSocket) -> Option<T>,
) -> Option<(T, TcpStats)> {
    let xds_api::envoy::extensions::transport_sockets::tcp_stats::v3::Config {
        transport_socket,
        update_period,
    } = value;
    let update_period =
        update_period.is_some().then(|| values::duration(cx, "update_period", update_period)).flatten();
    if update_period.is_some_and(|period| period < Duration::from_millis(1)) {
        cx.error("update_period", "it must be 1 ms at least");
    }
    let inner = cx.required("transport_socket", transport_socket, inner)?;
    Some((inner, TcpStats { update_period }))
}

fn downstream(cx: &mut Cx<'_>, value: pb::tls::DownstreamTlsContext) -> Option<DownstreamTls> {
    use pb::tls::downstream_tls_context::{OcspStaplePolicy as Policy, SessionTicketKeysType};
    let pb::tls::DownstreamTlsContext {
        common_tls_context,
        require_client_certificate,
        require_sni,
        disable_stateful_session_resumption,
        session_timeout,
        ocsp_staple_policy,
        full_scan_certs_on_sni_mismatch,
        prefer_client_ciphers,
        session_ticket_keys_type,
    } = value;
    cx.ignore(
        "full_scan_certs_on_sni_mismatch",
        &full_scan_certs_on_sni_mismatch,
        "all certificates are looked at",
    );
    let ocsp_staple_policy = match Policy::try_from(ocsp_staple_policy) {
        Ok(Policy::LenientStapling) => OcspStaplePolicy::Lenient,
        Ok(Policy::StrictStapling) => OcspStaplePolicy::Strict,
        Ok(Policy::MustStaple) => OcspStaplePolicy::Must,
        Err(_) => {
            cx.error("ocsp_staple_policy", "it is not known");
            return None;
        }
    };
    let tickets = match session_ticket_keys_type {
        None | Some(SessionTicketKeysType::DisableStatelessSessionResumption(false)) => Tickets::Own,
        Some(SessionTicketKeysType::DisableStatelessSessionResumption(true)) => Tickets::Disabled,
        Some(SessionTicketKeysType::SessionTicketKeys(keys)) => {
            Tickets::Keys(cx.within("session_ticket_keys", |cx| secret::ticket_keys(cx, keys))?)
        }
        Some(SessionTicketKeysType::SessionTicketKeysSdsSecretConfig(config)) => {
            let field = "session_ticket_keys_sds_secret_config";
            Tickets::Sds(cx.within(field, |cx| values::sds(cx, config))?)
        }
    };
    let common = cx.required("common_tls_context", common_tls_context, common)?;
    if common.certificates.is_empty() {
        cx.error("common_tls_context", "a server needs a certificate");
    }
    if ocsp_staple_policy == OcspStaplePolicy::Must
        && common.certificates.iter().any(
            |source| matches!(source, CertificateSource::Inline(certificate) if certificate.staple.is_none()),
        )
    {
        cx.error("ocsp_staple_policy", "MUST_STAPLE needs an ocsp_staple of every certificate");
    }
    Some(DownstreamTls {
        require_client_certificate: values::bool_or(require_client_certificate, false),
        require_sni: values::bool_or(require_sni, false),
        prefer_client_ciphers,
        disable_stateful_session_resumption,
        tickets,
        ocsp_staple_policy,
        session_timeout: values::duration(cx, "session_timeout", session_timeout),
        common,
    })
}

fn upstream(cx: &mut Cx<'_>, value: pb::tls::UpstreamTlsContext) -> Option<UpstreamTls> {
    let pb::tls::UpstreamTlsContext {
        common_tls_context,
        sni,
        auto_host_sni,
        auto_sni_san_validation,
        allow_renegotiation,
        max_session_keys,
        // rustls checks the key usage in any case.
        enforce_rsa_key_usage: _,
    } = value;
    cx.refuse("allow_renegotiation", &allow_renegotiation);
    let common = cx.within("common_tls_context", |cx| common(cx, common_tls_context.unwrap_or_default()))?;
    if common.certificates.len() > 1 {
        cx.error("common_tls_context.tls_certificates", "a client shows one certificate");
    }
    Some(UpstreamTls {
        common,
        sni: arc(sni),
        auto_host_sni,
        auto_sni_san_validation,
        max_session_keys: values::u32_or(max_session_keys, 1),
    })
}

fn common(cx: &mut Cx<'_>, value: pb::tls::CommonTlsContext) -> Option<CommonTls> {
    let pb::tls::CommonTlsContext {
        tls_params,
        tls_certificates,
        tls_certificate_sds_secret_configs,
        tls_certificate_provider_instance,
        custom_tls_certificate_selector,
        tls_certificate_certificate_provider,
        tls_certificate_certificate_provider_instance,
        alpn_protocols,
        custom_handshaker,
        key_log,
        validation_context_type,
    } = value;
    cx.refuse("tls_certificate_provider_instance", &tls_certificate_provider_instance);
    cx.refuse("custom_tls_certificate_selector", &custom_tls_certificate_selector);
    cx.refuse("tls_certificate_certificate_provider", &tls_certificate_certificate_provider);
    cx.refuse(
        "tls_certificate_certificate_provider_instance",
        &tls_certificate_certificate_provider_instance,
    );
    cx.refuse("custom_handshaker", &custom_handshaker);
    cx.refuse("key_log", &key_log);
    let inline = cx.each("tls_certificates", tls_certificates, |cx, value| {
        secret::certificate(cx, value).map(CertificateSource::Inline)
    });
    let sds =
        cx.each("tls_certificate_sds_secret_configs", tls_certificate_sds_secret_configs, |cx, value| {
            values::sds(cx, value).map(CertificateSource::Sds)
        });
    let validation = validation(cx, validation_context_type)?;
    let params = cx.within("tls_params", |cx| params(cx, tls_params.unwrap_or_default()))?;
    Some(CommonTls {
        min_version: params.min,
        max_version: params.max,
        cipher_suites: params.cipher_suites,
        ecdh_curves: params.ecdh_curves,
        signature_algorithms: params.signature_algorithms,
        alpn_protocols: alpn_protocols.into_iter().map(Box::from).collect(),
        certificates: inline.into_iter().chain(sds).collect(),
        validation,
    })
}

struct Params {
    min: TlsVersion,
    max: TlsVersion,
    cipher_suites: Box<[Cipher]>,
    ecdh_curves: Box<[Curve]>,
    signature_algorithms: Box<[Signature]>,
}

fn params(cx: &mut Cx<'_>, value: pb::tls::TlsParameters) -> Option<Params> {
    use pb::tls::tls_parameters::TlsProtocol;
    let pb::tls::TlsParameters {
        tls_minimum_protocol_version,
        tls_maximum_protocol_version,
        cipher_suites,
        ecdh_curves,
        signature_algorithms,
        compliance_policies,
    } = value;
    cx.refuse("compliance_policies", &compliance_policies);
    let min = match TlsProtocol::try_from(tls_minimum_protocol_version) {
        Ok(TlsProtocol::TlsAuto | TlsProtocol::TlSv12) => TlsVersion::V1_2,
        Ok(TlsProtocol::TlSv13) => TlsVersion::V1_3,
        // What the peer has to speak rises; nothing that is safe is refused.
        Ok(TlsProtocol::TlSv10 | TlsProtocol::TlSv11) => {
            cx.warn(
                "tls_minimum_protocol_version",
                "TLS 1.0 and 1.1 are not spoken: the lowest version is 1.2",
            );
            TlsVersion::V1_2
        }
        Err(_) => {
            cx.error("tls_minimum_protocol_version", "it is not known");
            return None;
        }
    };
    let max = match TlsProtocol::try_from(tls_maximum_protocol_version) {
        Ok(TlsProtocol::TlsAuto | TlsProtocol::TlSv13) => TlsVersion::V1_3,
        Ok(TlsProtocol::TlSv12) => TlsVersion::V1_2,
        _ => {
            cx.error("tls_maximum_protocol_version", "only TLS 1.2 and 1.3 are spoken");
            return None;
        }
    };
    if min > max {
        cx.error("tls_minimum_protocol_version", "it is above tls_maximum_protocol_version");
    }
    Some(Params {
        min,
        max,
        cipher_suites: algorithms::ciphers(cx, &cipher_suites),
        ecdh_curves: algorithms::curves(cx, &ecdh_curves),
        signature_algorithms: algorithms::signatures(cx, &signature_algorithms),
    })
}

fn validation(
    cx: &mut Cx<'_>,
    value: Option<pb::tls::common_tls_context::ValidationContextType>,
) -> Option<Validation> {
    use pb::tls::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType as Kind};
    Some(match value {
        None => Validation::default(),
        Some(Kind::ValidationContext(value)) => {
            let context = cx.within("validation_context", |cx| {
                let context = secret::validation(cx, value)?;
                if !context.match_subject_alt_names.is_empty() && !context.has_roots() {
                    cx.error("match_typed_subject_alt_names", "names mean nothing without trusted_ca");
                }
                Some(context)
            })?;
            Validation { context: Some(context), sds: None }
        }
        Some(Kind::ValidationContextSdsSecretConfig(value)) => {
            let sds = cx.within("validation_context_sds_secret_config", |cx| values::sds(cx, value))?;
            Validation { context: None, sds: Some(sds) }
        }
        Some(Kind::CombinedValidationContext(value)) => cx.within("combined_validation_context", |cx| {
            let CombinedCertificateValidationContext {
                default_validation_context,
                validation_context_sds_secret_config,
                validation_context_certificate_provider,
                validation_context_certificate_provider_instance,
            } = value;
            cx.refuse("validation_context_certificate_provider", &validation_context_certificate_provider);
            cx.refuse(
                "validation_context_certificate_provider_instance",
                &validation_context_certificate_provider_instance,
            );
            let context =
                cx.option("default_validation_context", default_validation_context, secret::validation);
            let sds = cx.option(
                "validation_context_sds_secret_config",
                validation_context_sds_secret_config,
                values::sds,
            );
            Validation { context, sds }
        }),
        Some(Kind::ValidationContextCertificateProvider(_)) => {
            cx.error("validation_context_certificate_provider", "it is not supported");
            return None;
        }
        Some(Kind::ValidationContextCertificateProviderInstance(_)) => {
            cx.error("validation_context_certificate_provider_instance", "it is not supported");
            return None;
        }
    })
}
