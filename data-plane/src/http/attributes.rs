//! What substitution operators in header values read of a request that is under way.

use std::borrow::Cow;
use std::net::SocketAddr;

use sail_proxy_decide::format::{Attributes, Field, Operator};
use sail_proxy_decide::head::HeaderKey;

use super::head::Head;
use crate::stream_info::StreamInfo;

/// A request and its record.
pub(crate) struct RequestAttributes<'a> {
    pub(crate) head: &'a Head,
    pub(crate) info: &'a StreamInfo,
}

impl RequestAttributes<'_> {
    fn header(&self, key: &HeaderKey) -> Option<Cow<'_, str>> {
        match self.head.view().get(key)? {
            Cow::Borrowed(_) => self.borrowed(key),
            Cow::Owned(value) => String::from_utf8(value).ok().map(Cow::Owned),
        }
    }

    fn borrowed(&self, key: &HeaderKey) -> Option<Cow<'_, str>> {
        let text = match key {
            HeaderKey::Method => self.head.method.as_str(),
            HeaderKey::Path => self.head.path.as_str(),
            HeaderKey::Authority => self.head.authority(),
            HeaderKey::Scheme => self.head.scheme,
            HeaderKey::Protocol => self.head.protocol.as_deref()?,
            HeaderKey::Status => return None,
            HeaderKey::Name(name) => self.head.headers.get(name)?.to_str().ok()?,
        };
        Some(Cow::Borrowed(text))
    }

    fn field(&self, field: Field) -> Option<Cow<'_, str>> {
        let info = self.info;
        let downstream = &info.downstream;
        let tls = downstream.tls.as_ref();
        let ip = |address: SocketAddr| Some(Cow::Owned(address.ip().to_string()));
        let whole = |address: SocketAddr| Some(Cow::Owned(address.to_string()));
        let port = |address: SocketAddr| Some(Cow::Owned(address.port().to_string()));
        match field {
            Field::DownstreamRemoteAddress => whole(downstream.remote_address),
            Field::DownstreamRemoteAddressWithoutPort => ip(downstream.remote_address),
            Field::DownstreamRemotePort => port(downstream.remote_address),
            Field::DownstreamDirectRemoteAddress => whole(downstream.direct_remote_address),
            Field::DownstreamDirectRemoteAddressWithoutPort => ip(downstream.direct_remote_address),
            Field::DownstreamLocalAddress => whole(downstream.local_address),
            Field::DownstreamLocalAddressWithoutPort => ip(downstream.local_address),
            Field::DownstreamLocalPort => port(downstream.local_address),
            Field::DownstreamPeerUriSan => tls.map(|tls| Cow::Owned(tls.peer_uri_sans.join(","))),
            Field::DownstreamPeerDnsSan => tls.map(|tls| Cow::Owned(tls.peer_dns_sans.join(","))),
            Field::DownstreamPeerSubject => tls?.peer_subject.as_deref().map(Cow::Borrowed),
            Field::DownstreamPeerIssuer => tls?.peer_issuer.as_deref().map(Cow::Borrowed),
            Field::DownstreamPeerSerial => tls?.peer_serial.as_deref().map(Cow::Borrowed),
            Field::DownstreamPeerFingerprint256 => tls?.peer_fingerprint.as_deref().map(Cow::Borrowed),
            Field::DownstreamLocalUriSan => tls.map(|tls| Cow::Owned(tls.local_uri_sans.join(","))),
            Field::DownstreamTlsVersion => tls.map(|tls| Cow::Borrowed(tls.version)),
            Field::DownstreamTlsCipher => tls.map(|tls| Cow::Borrowed(tls.cipher)),
            Field::ConnectionId => Some(Cow::Owned(downstream.connection_id.to_string())),
            Field::Protocol => info.protocol.map(|protocol| Cow::Borrowed(protocol.as_str())),
            Field::RouteName => info.route_name.as_deref().map(Cow::Borrowed),
            Field::VirtualClusterName => None,
            Field::UpstreamCluster | Field::UpstreamClusterRaw => {
                info.cluster.as_ref().map(|cluster| Cow::Borrowed(&*cluster.name))
            }
            Field::UpstreamHost => {
                info.upstream.as_ref()?.host.as_ref().map(|host| Cow::Owned(host.to_string()))
            }
            Field::ResponseCode => info.response_code.map(|code| Cow::Owned(code.to_string())),
            Field::ResponseFlags => Some(Cow::Owned(info.flags.to_string())),
            Field::ResponseCodeDetails => info.code_details.as_deref().map(Cow::Borrowed),
            _ => None,
        }
    }
}

impl Attributes for RequestAttributes<'_> {
    fn text(&self, operator: &Operator) -> Option<Cow<'_, str>> {
        match operator {
            Operator::Request(main, alternative) => {
                self.header(main).or_else(|| alternative.as_ref().and_then(|key| self.header(key)))
            }
            Operator::Field(field) => self.field(*field),
            Operator::RequestedServerName(_) => {
                self.info.downstream.server_name.as_deref().map(Cow::Borrowed)
            }
            Operator::FilterState(args) => self.info.filter_state(&args.key).map(Cow::Borrowed),
            _ => None,
        }
    }
}
