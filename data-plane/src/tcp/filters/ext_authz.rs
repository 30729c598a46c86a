//! `envoy.filters.network.ext_authz`: an `envoy.service.auth.v3.Authorization` service says who may connect.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use sail_proxy_config::network_filter::NetworkExtAuthz;
use xds_api::envoy::config::core::v3 as core;
use xds_api::envoy::service::auth::v3::attribute_context::{Peer, Request, TlsSession};
use xds_api::envoy::service::auth::v3::{AttributeContext, CheckRequest, CheckResponse};
use xds_api::google::protobuf::Timestamp;

use super::{Cx, NetworkFilter, Step, Verdict};
use crate::callout::{grpc, json};
use crate::listener::connection::Accepted;
use crate::stats::sets::network_ext_authz as stats;
use crate::stream_info::TlsInfo;

const PATH: &str = "/envoy.service.auth.v3.Authorization/Check";
/// Where the service's own metadata are kept.
const NAMESPACE: &str = "envoy.filters.network.ext_authz";

impl NetworkFilter for Arc<NetworkExtAuthz> {
    fn on_connection<'a>(&'a self, cx: &'a mut Cx<'_>) -> Step<'a> {
        let scope: stats::Scope = cx.worker.shared.store.pinned(&self.stat_prefix);
        if let Some(enabled) = &self.enabled {
            let metadata = cx.accepted.downstream.state.metadata.borrow();
            if !enabled.is_match(metadata.get(&enabled.filter)) {
                scope.inc(stats::disabled);
                return Step::Now(Verdict::Pass);
            }
        }
        scope.inc(stats::total);
        Step::Later(Box::pin(async move {
            let _active = scope.hold(stats::active);
            let request = CheckRequest { attributes: Some(attributes(self, cx.accepted)) };
            let answer = grpc::unary::<_, CheckResponse>(cx.worker, &self.target, PATH, &request).await;
            let passes = match answer {
                Ok(response) => {
                    let allowed = response.status.is_none_or(|status| status.code == 0);
                    if let Some(fields) = response.dynamic_metadata {
                        let mut metadata = cx.accepted.downstream.state.metadata.borrow_mut();
                        metadata.merge(NAMESPACE, json::object(fields));
                    }
                    scope.inc(if allowed { stats::ok } else { stats::denied });
                    allowed
                }
                Err(status) => {
                    tracing::debug!(cluster = %self.target.cluster, %status, "ext_authz service failed");
                    scope.inc(stats::error);
                    if self.failure_mode_allow {
                        scope.inc(stats::failure_mode_allowed);
                    }
                    self.failure_mode_allow
                }
            };
            if passes {
                return Verdict::Pass;
            }
            scope.inc(stats::cx_closed);
            Verdict::Close(None)
        }))
    }
}

fn attributes(config: &NetworkExtAuthz, accepted: &Accepted) -> AttributeContext {
    let downstream = &accepted.downstream;
    let tls = downstream.tls.as_deref();
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let time = Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or_default(),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or_default(),
    };
    let metadata = downstream.state.metadata.borrow();
    let shown = config
        .metadata_namespaces
        .iter()
        .filter_map(|namespace| Some((namespace.to_string(), metadata.get(namespace).map(json::to_struct)?)));
    AttributeContext {
        source: Some(source(config, accepted)),
        destination: Some(Peer {
            address: Some(address(downstream.local_address)),
            principal: tls.and_then(TlsInfo::local_principal).unwrap_or_default().to_owned(),
            ..Default::default()
        }),
        request: Some(Request { time: Some(time), http: None }),
        metadata_context: Some(core::Metadata { filter_metadata: shown.collect(), ..Default::default() }),
        tls_session: (config.include_tls_session && tls.is_some())
            .then(|| TlsSession { sni: downstream.server_name.as_deref().unwrap_or_default().to_owned() }),
        ..Default::default()
    }
}

fn source(config: &NetworkExtAuthz, accepted: &Accepted) -> Peer {
    let tls = accepted.tls.as_deref();
    let principal = tls.and_then(|peer| {
        let names = peer.uri_sans.first().or(peer.dns_sans.first()).map(String::as_str);
        names.or(peer.info.peer_subject.as_deref())
    });
    let certificate = tls
        .filter(|_| config.include_peer_certificate)
        .and_then(|peer| peer.chain.first())
        .map(|leaf| crate::http::xfcc::pem(std::slice::from_ref(leaf)));
    Peer {
        address: Some(address(accepted.downstream.remote_address)),
        principal: principal.unwrap_or_default().to_owned(),
        certificate: certificate.unwrap_or_default(),
        ..Default::default()
    }
}

fn address(address: SocketAddr) -> core::Address {
    use core::socket_address::PortSpecifier;
    let socket = core::SocketAddress {
        address: address.ip().to_string(),
        port_specifier: Some(PortSpecifier::PortValue(u32::from(address.port()))),
        ..Default::default()
    };
    core::Address { address: Some(core::address::Address::SocketAddress(socket)) }
}
