//! `envoy.filters.network.ext_authz`: asks a service who may connect.

use std::sync::Arc;
use std::time::Duration;

use sail_proxy_decide::matcher::MetadataMatcher;

use crate::callout::{self, GrpcTarget};
use crate::convert::{Cx, arc, matchers};
use crate::pb;

/// How long the service may take where the configuration says nothing.
const TIMEOUT: Duration = Duration::from_millis(200);

/// The network filter `ext_authz`.
#[derive(Debug)]
pub struct NetworkExtAuthz {
    /// What its statistics are called.
    pub stat_prefix: Arc<str>,
    /// The service.
    pub target: GrpcTarget,
    /// Whether connections pass while the service cannot be asked.
    pub failure_mode_allow: bool,
    /// Whether the service is shown the client's certificate.
    pub include_peer_certificate: bool,
    /// Whether the service is told the SNI.
    pub include_tls_session: bool,
    /// Connections of which this metadata does not hold pass without being asked about.
    pub enabled: Option<MetadataMatcher>,
    /// Namespaces of dynamic metadata that the service is shown.
    pub metadata_namespaces: Box<[Arc<str>]>,
}

/// `ExtAuthz`
pub(super) fn ext_authz(
    cx: &mut Cx<'_>,
    value: pb::filters::network::ext_authz::v3::ExtAuthz,
) -> Option<NetworkExtAuthz> {
    let pb::filters::network::ext_authz::v3::ExtAuthz {
        stat_prefix,
        grpc_service,
        failure_mode_allow,
        include_peer_certificate,
        transport_api_version,
        filter_enabled_metadata,
        bootstrap_metadata_labels_key,
        include_tls_session,
        send_tls_alert_on_denial,
        metadata_context_namespaces,
        typed_metadata_context_namespaces,
        shadow_mode,
    } = value;
    if transport_api_version == pb::core::ApiVersion::V2 as i32 {
        cx.error("transport_api_version", "version 2 of the API is gone; version 3 is spoken");
    }
    cx.refuse("bootstrap_metadata_labels_key", &bootstrap_metadata_labels_key);
    cx.refuse("typed_metadata_context_namespaces", &typed_metadata_context_namespaces);
    cx.refuse("shadow_mode", &shadow_mode);
    cx.ignore(
        "send_tls_alert_on_denial",
        &send_tls_alert_on_denial,
        "refused connections are closed in order",
    );
    let target = cx.required("grpc_service", grpc_service, |cx, value| callout::grpc(cx, value, TIMEOUT));
    let enabled = match filter_enabled_metadata {
        Some(value) => Some(cx.within("filter_enabled_metadata", |cx| matchers::metadata(cx, value))?),
        None => None,
    };
    Some(NetworkExtAuthz {
        stat_prefix: arc(stat_prefix),
        target: target?,
        failure_mode_allow,
        include_peer_certificate,
        include_tls_session,
        enabled,
        metadata_namespaces: metadata_context_namespaces.into_iter().map(arc).collect(),
    })
}
