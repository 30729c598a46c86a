//! Who the client is: addresses, certificates; and what becomes of its paths.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sail_proxy_decide::address::CidrSet;

use super::{ClientAddress, ClientCertDetails, EscapedSlashes, ForwardClientCert};
use crate::convert::{Cx, address as addresses, headers, type_name, values};
use crate::pb;
use crate::pb::hcm::http_connection_manager as manager;

/// What is internal where no ranges are named.
const PRIVATE: [IpNet; 6] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::LOCALHOST, 32)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0), 8)),
];

pub(super) fn address(
    cx: &mut Cx<'_>,
    use_remote_address: Option<pb::BoolValue>,
    extensions: Vec<pb::core::TypedExtensionConfig>,
    internal: Option<manager::InternalAddressConfig>,
) -> Option<ClientAddress> {
    let mut result = ClientAddress {
        use_remote_address: values::bool_or(use_remote_address, false),
        ..Default::default()
    };
    let extensions = cx.each("original_ip_detection_extensions", extensions, detection);
    for detection in extensions {
        match detection {
            Detection::Xff { hops, trusted, append } => {
                result.xff_num_trusted_hops = hops;
                result.xff_trusted_cidrs = trusted;
                result.append_to_xff = append;
            }
            Detection::Header { name, trusted, reject } => {
                result.custom_header = Some(name);
                result.custom_header_is_trusted = trusted;
                result.custom_header_reject = reject;
            }
        }
    }
    if let Some(manager::InternalAddressConfig { unix_sockets, cidr_ranges }) = internal {
        let ranges =
            cx.within("internal_address_config", |cx| addresses::ranges(cx, "cidr_ranges", cidr_ranges));
        result.internal = Some(if ranges.is_empty() { CidrSet::new(PRIVATE) } else { CidrSet::new(ranges) });
        result.unix_sockets_are_internal = unix_sockets;
    }
    Some(result)
}

enum Detection {
    Xff { hops: u32, trusted: Option<CidrSet>, append: bool },
    Header { name: http::HeaderName, trusted: bool, reject: Option<http::StatusCode> },
}

fn detection(cx: &mut Cx<'_>, value: pb::core::TypedExtensionConfig) -> Option<Detection> {
    use xds_api::envoy::extensions::http::original_ip_detection as detections;
    let any = value.typed_config.unwrap_or_default();
    match type_name(&any) {
        "envoy.extensions.http.original_ip_detection.custom_header.v3.CustomHeaderConfig" => {
            let detections::custom_header::v3::CustomHeaderConfig {
                header_name,
                allow_extension_to_set_address_as_trusted,
                reject_with_status,
            } = cx.unpack(&any)?;
            let reject = match reject_with_status {
                None => None,
                Some(status) => {
                    let code = u32::try_from(status.code).unwrap_or_default();
                    Some(cx.ok(
                        "typed_config.reject_with_status.code",
                        crate::route::action::status_code(code),
                    )?)
                }
            };
            Some(Detection::Header {
                name: headers::name(cx, "typed_config.header_name", &header_name)?,
                trusted: allow_extension_to_set_address_as_trusted,
                reject,
            })
        }
        "envoy.extensions.http.original_ip_detection.xff.v3.XffConfig" => {
            let detections::xff::v3::XffConfig {
                xff_num_trusted_hops: hops,
                xff_trusted_cidrs,
                skip_xff_append,
            } = cx.unpack(&any)?;
            if hops > 0 && xff_trusted_cidrs.is_some() {
                cx.error("typed_config", "xff_num_trusted_hops and xff_trusted_cidrs exclude each other");
            }
            let trusted = xff_trusted_cidrs.map(|trusted| {
                CidrSet::new(addresses::ranges(cx, "typed_config.xff_trusted_cidrs.cidrs", trusted.cidrs))
            });
            let append = !values::bool_or(skip_xff_append, true);
            Some(Detection::Xff { hops, trusted, append })
        }
        other => {
            cx.error("typed_config", format_args!("there is no original IP detection {other:?}"));
            None
        }
    }
}

pub(super) fn forward(cx: &mut Cx<'_>, value: i32) -> ForwardClientCert {
    use manager::ForwardClientCertDetails as Kind;
    match Kind::try_from(value) {
        Ok(Kind::Sanitize) => ForwardClientCert::Sanitize,
        Ok(Kind::ForwardOnly) => ForwardClientCert::ForwardOnly,
        Ok(Kind::AppendForward) => ForwardClientCert::AppendForward,
        Ok(Kind::SanitizeSet) => ForwardClientCert::SanitizeSet,
        Ok(Kind::AlwaysForwardOnly) => ForwardClientCert::AlwaysForwardOnly,
        Err(_) => {
            cx.error("forward_client_cert_details", "it is not known");
            ForwardClientCert::Sanitize
        }
    }
}

pub(super) fn details(
    cx: &mut Cx<'_>,
    value: Option<manager::SetCurrentClientCertDetails>,
) -> ClientCertDetails {
    let manager::SetCurrentClientCertDetails { subject, cert, chain, dns, uri, issuer, format } =
        value.unwrap_or_default();
    cx.refuse("set_current_client_cert_details.issuer", &issuer);
    cx.refuse("set_current_client_cert_details.format", &format);
    ClientCertDetails { subject: values::bool_or(subject, false), cert, chain, dns, uri }
}

pub(super) fn escaped_slashes(cx: &mut Cx<'_>, value: i32) -> EscapedSlashes {
    use manager::PathWithEscapedSlashesAction as Kind;
    match Kind::try_from(value) {
        Ok(Kind::ImplementationSpecificDefault | Kind::KeepUnchanged) => EscapedSlashes::KeepUnchanged,
        Ok(Kind::RejectRequest) => EscapedSlashes::RejectRequest,
        Ok(Kind::UnescapeAndRedirect) => EscapedSlashes::UnescapeAndRedirect,
        Ok(Kind::UnescapeAndForward) => EscapedSlashes::UnescapeAndForward,
        Err(_) => {
            cx.error("path_with_escaped_slashes_action", "it is not known");
            EscapedSlashes::RejectRequest
        }
    }
}
