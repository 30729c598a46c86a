//! What expressions read of a stream that a log is written of.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::UNIX_EPOCH;

use sail_proxy_decide::cel::{Attribute, Attributes, Table, Value};
use sail_proxy_decide::format::{Field, MetadataSource};
use sail_proxy_decide::head::HeaderKey;

use super::attributes::View;
use crate::stream_info::{Direction, UpstreamAddress};

impl Attributes for View<'_> {
    fn get(&self, attribute: Attribute) -> Option<Value<'_>> {
        let info = self.info;
        let bytes = &info.bytes;
        if let Some(field) = field_of(attribute) {
            return self.field(field).map(Value::text);
        }
        Some(match attribute {
            Attribute::RequestPath => Value::text(self.path()),
            Attribute::RequestUrlPath => Value::text(self.path().split('?').next()?),
            Attribute::RequestQuery => {
                Value::text(self.path().split_once('?').map_or("", |(_, query)| query))
            }
            Attribute::RequestHost => Value::text(self.request_header(&HeaderKey::Authority)?),
            Attribute::RequestScheme => Value::text(self.request_header(&HeaderKey::Scheme)?),
            Attribute::RequestMethod => Value::text(self.request_header(&HeaderKey::Method)?),
            Attribute::RequestReferer => self.look_up(Table::RequestHeaders, "referer")?,
            Attribute::RequestUseragent => self.look_up(Table::RequestHeaders, "user-agent")?,
            Attribute::RequestTime => {
                let since = info.start_time.duration_since(UNIX_EPOCH).ok()?;
                Value::Timestamp(i128::try_from(since.as_nanos()).ok()?)
            }
            Attribute::RequestDuration => Value::Duration(i128::try_from(info.duration().as_nanos()).ok()?),
            Attribute::ResponseBackendLatency => {
                let (from, to) = (info.timing.first_upstream_tx?, info.timing.first_upstream_rx?);
                Value::Duration(i128::try_from(to.checked_duration_since(from)?.as_nanos()).ok()?)
            }
            Attribute::RequestSize => int(bytes.received)?,
            Attribute::RequestTotalSize => int(bytes.received + bytes.request_headers)?,
            Attribute::ResponseSize => int(bytes.sent)?,
            Attribute::ResponseTotalSize => {
                int(bytes.sent + bytes.response_headers + bytes.response_trailers)?
            }
            Attribute::ResponseCode => Value::Int(info.response_code?.into()),
            Attribute::ResponseGrpcStatus => Value::Int(info.grpc_status?.into()),
            Attribute::ResponseFlags => {
                let flags = info.flags.iter().fold(0_i64, |all, flag| all | 1 << flag as u8);
                Value::Int(flags)
            }
            Attribute::ConnectionRequestedServerName => Value::text(info.downstream.server_name.as_deref()?),
            Attribute::SourcePort => Value::Int(info.downstream.remote_address.port().into()),
            Attribute::DestinationPort => Value::Int(info.downstream.local_address.port().into()),
            Attribute::ConnectionId => Value::Uint(info.downstream.connection_id),
            Attribute::ConnectionMtls => {
                Value::Bool(info.downstream.tls.as_ref().is_some_and(|tls| tls.peer_certificate_presented))
            }
            Attribute::UpstreamPort => Value::Int(self.upstream_socket()?.port().into()),
            Attribute::UpstreamSha256Peer => {
                Value::text(info.upstream.as_ref()?.tls.as_ref()?.peer_fingerprint.as_deref()?)
            }
            Attribute::UpstreamSubjectLocal => {
                Value::text(info.upstream.as_ref()?.tls.as_ref()?.local_subject.as_deref()?)
            }
            Attribute::UpstreamRequestAttemptCount => Value::Uint(info.attempt_count.into()),
            Attribute::XdsVirtualHostName => Value::text(info.virtual_host.as_deref()?),
            Attribute::XdsListenerDirection => Value::Int(match info.downstream.direction {
                Direction::Unspecified => 0,
                Direction::Inbound => 1,
                Direction::Outbound => 2,
            }),
            Attribute::XdsClusterMetadata => self.config_metadata(MetadataSource::Cluster)?,
            Attribute::XdsListenerMetadata => self.config_metadata(MetadataSource::Listener)?,
            Attribute::XdsRouteMetadata => self.config_metadata(MetadataSource::Route)?,
            Attribute::XdsVirtualHostMetadata => self.config_metadata(MetadataSource::VirtualHost)?,
            Attribute::XdsUpstreamHostMetadata => self.config_metadata(MetadataSource::UpstreamHost)?,
            _ => return None,
        })
    }

    fn look_up(&self, table: Table, key: &str) -> Option<Value<'_>> {
        let name = || HeaderKey::parse(key).ok();
        match table {
            Table::RequestHeaders => self.request_header(&name()?).map(Value::text),
            Table::ResponseHeaders => self.response_header(&name()?).map(Value::text),
            Table::ResponseTrailers => self.info.captured.trailer(key).map(Value::text),
            Table::FilterMetadata => {
                Some(Value::from_json(Cow::Borrowed(self.info.dynamic_metadata.get(key)?)))
            }
            Table::FilterState | Table::UpstreamFilterState => self.info.filter_state(key).map(Value::text),
            Table::Metadata => None,
        }
    }
}

impl View<'_> {
    fn upstream_socket(&self) -> Option<SocketAddr> {
        match self.info.upstream.as_ref()?.host.as_ref()? {
            UpstreamAddress::Socket(address) => Some(*address),
            UpstreamAddress::Pipe(_) => None,
        }
    }

    fn config_metadata(&self, source: MetadataSource) -> Option<Value<'static>> {
        let metadata = self.info.config_metadata.as_ref()?.of(source)?;
        Some(Value::from_json(Cow::Owned(serde_json::Value::Object((**metadata).clone()))))
    }
}

fn int(count: u64) -> Option<Value<'static>> {
    i64::try_from(count).ok().map(Value::Int)
}

/// The operator that tells what the attribute tells, as text.
fn field_of(attribute: Attribute) -> Option<Field> {
    Some(match attribute {
        Attribute::RequestId => Field::StreamId,
        Attribute::RequestProtocol => Field::Protocol,
        Attribute::ResponseCodeDetails => Field::ResponseCodeDetails,
        Attribute::SourceAddress => Field::DownstreamRemoteAddress,
        Attribute::DestinationAddress => Field::DownstreamLocalAddress,
        Attribute::ConnectionTlsVersion => Field::DownstreamTlsVersion,
        Attribute::ConnectionSubjectLocal => Field::DownstreamLocalSubject,
        Attribute::ConnectionSubjectPeer => Field::DownstreamPeerSubject,
        Attribute::ConnectionDnsSanLocal => Field::DownstreamLocalDnsSan,
        Attribute::ConnectionDnsSanPeer => Field::DownstreamPeerDnsSan,
        Attribute::ConnectionUriSanLocal => Field::DownstreamLocalUriSan,
        Attribute::ConnectionUriSanPeer => Field::DownstreamPeerUriSan,
        Attribute::ConnectionSha256Peer => Field::DownstreamPeerFingerprint256,
        Attribute::ConnectionTerminationDetails => Field::ConnectionTerminationDetails,
        Attribute::ConnectionTransportFailureReason => Field::DownstreamTransportFailureReason,
        Attribute::UpstreamAddress => Field::UpstreamHost,
        Attribute::UpstreamTlsVersion => Field::UpstreamTlsVersion,
        Attribute::UpstreamSubjectPeer => Field::UpstreamPeerSubject,
        Attribute::UpstreamDnsSanLocal => Field::UpstreamLocalDnsSan,
        Attribute::UpstreamDnsSanPeer => Field::UpstreamPeerDnsSan,
        Attribute::UpstreamUriSanLocal => Field::UpstreamLocalUriSan,
        Attribute::UpstreamUriSanPeer => Field::UpstreamPeerUriSan,
        Attribute::UpstreamLocalAddress => Field::UpstreamLocalAddress,
        Attribute::UpstreamTransportFailureReason => Field::UpstreamTransportFailureReason,
        Attribute::XdsClusterName => Field::UpstreamClusterRaw,
        Attribute::XdsRouteName => Field::RouteName,
        Attribute::XdsFilterChainName => Field::FilterChainName,
        _ => return None,
    })
}
