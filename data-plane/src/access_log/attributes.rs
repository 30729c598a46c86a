//! What format operators read of a stream.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sail_proxy_decide::format::{
    Attributes, Field, FilterStateArgs, FilterStateStyle, GrpcStatusFormat, MetadataSource, Moment, Operator,
    PathSource, Precision,
};
use sail_proxy_decide::head::HeaderKey;
use serde_json::Value;

use super::{LogType, time};
use crate::stream_info::{StreamInfo, TlsInfo, UpstreamAddress, UpstreamInfo};

/// A stream as a format sees it.
pub(super) struct View<'a> {
    pub(super) info: &'a StreamInfo,
    pub(super) kind: LogType,
}

type Text<'a> = Option<Cow<'a, str>>;

impl Attributes for View<'_> {
    fn text(&self, operator: &Operator) -> Option<Cow<'_, str>> {
        let info = self.info;
        match operator {
            Operator::Field(field) => self.field(*field),
            Operator::Request(main, other) => {
                self.request_header(main).or_else(|| self.request_header(other.as_ref()?))
            }
            Operator::RequestWithoutQuery(main, other) => {
                let value = self.request_header(main).or_else(|| self.request_header(other.as_ref()?))?;
                let end = value.find('?').unwrap_or(value.len());
                Some(value[..end].to_owned().into())
            }
            Operator::Response(main, other) => {
                let get = |key: &HeaderKey| match key {
                    HeaderKey::Status => Some(number(info.response_code?.into())),
                    key => info.captured.response(key.as_str()).map(Cow::Borrowed),
                };
                get(main).or_else(|| get(other.as_ref()?))
            }
            Operator::Trailer(main, other) => {
                let get = |key: &HeaderKey| info.captured.trailer(key.as_str()).map(Cow::Borrowed);
                get(main).or_else(|| get(other.as_ref()?))
            }
            Operator::QueryParam(name) => {
                let query = info.request.path().split_once('?')?.1;
                sail_proxy_decide::matcher::query_value(query, name)
            }
            Operator::Path { query, source } => {
                let original =
                    info.request.original_path.as_ref().map(|_| info.request.path_before_rewrite());
                let path = match source {
                    PathSource::OriginalOrPath => info.request.path_before_rewrite(),
                    PathSource::Path => info.request.path(),
                    PathSource::Original => original?,
                };
                let end = if *query { path.len() } else { path.find('?').unwrap_or(path.len()) };
                some(&path[..end])
            }
            Operator::Time(moment, format) => {
                let at = match moment {
                    Moment::Start | Moment::StartLocal => info.start_time,
                    Moment::Emit | Moment::EmitLocal => std::time::SystemTime::now(),
                    Moment::DownstreamCertStart
                    | Moment::DownstreamCertEnd
                    | Moment::UpstreamCertStart
                    | Moment::UpstreamCertEnd => return None,
                };
                let mut text = String::new();
                time::write(at, format, &mut text);
                Some(text.into())
            }
            Operator::CommonDuration { start, end, precision } => {
                let between = self.point(end)?.checked_duration_since(self.point(start)?)?;
                let value = match precision {
                    Precision::Millis => between.as_millis(),
                    Precision::Micros => between.as_micros(),
                    Precision::Nanos => between.as_nanos(),
                };
                Some(value.to_string().into())
            }
            Operator::Metadata(..) => self.json(operator).map(|value| plain(value).into()),
            Operator::FilterState(args) | Operator::UpstreamFilterState(args) => self.filter_state(args),
            Operator::GrpcStatus(format) => {
                let status = info.grpc_status?;
                Some(match format {
                    GrpcStatusFormat::Number => number(status.into()),
                    GrpcStatusFormat::CamelString => grpc_name(status).into(),
                    GrpcStatusFormat::SnakeString => snake(grpc_name(status)).into(),
                })
            }
            Operator::RequestedServerName(_) => info.downstream.server_name.as_deref().map(Cow::Borrowed),
            // Both are refused or replaced when the configuration is taken.
            Operator::Environment(_) | Operator::Cel(_) => None,
        }
    }

    fn json(&self, operator: &Operator) -> Option<Value> {
        match operator {
            Operator::Field(field) if is_number(*field) => {
                let text = self.field(*field)?;
                text.parse::<u64>()
                    .map_or_else(|_| Some(text.into_owned().into()), |number| Some(number.into()))
            }
            Operator::GrpcStatus(GrpcStatusFormat::Number) => Some(self.info.grpc_status?.into()),
            Operator::CommonDuration { .. } => self.text(operator)?.parse::<u64>().ok().map(Value::from),
            Operator::Metadata(MetadataSource::Dynamic, namespace, path) => {
                let all = self.metadata_namespace(namespace)?;
                let found = path.iter().try_fold(&all, |value, key| value.get(&**key))?;
                Some(found.clone())
            }
            // Metadata of configuration are the workers' to look up; they stand in dynamic metadata where they matter.
            Operator::Metadata(..) => None,
            _ => self.text(operator).map(|text| Value::String(text.into_owned())),
        }
    }
}

impl<'a> View<'a> {
    /// A request header or pseudo-header.
    pub(super) fn request_header(&self, key: &HeaderKey) -> Text<'a> {
        let request = &self.info.request;
        match key {
            HeaderKey::Method => request.method.as_ref().map(|method| method.as_str().into()),
            HeaderKey::Path => some(request.path()),
            HeaderKey::Authority => some(request.authority()),
            HeaderKey::Scheme => request.scheme.map(Cow::Borrowed),
            HeaderKey::Protocol => self.info.upgrade.as_deref().map(Cow::Borrowed),
            HeaderKey::Status => None,
            HeaderKey::Name(name) if name == "x-envoy-original-path" => {
                request.original_path.as_ref().map(|_| request.path_before_rewrite().into())
            }
            HeaderKey::Name(name) => self.info.captured.request(name.as_str()).map(Cow::Borrowed),
        }
    }

    /// A namespace of dynamic metadata as an object.
    pub(super) fn metadata_namespace(&self, namespace: &str) -> Option<Value> {
        let mut all = serde_json::Map::new();
        for data in self.info.dynamic_metadata.iter().filter(|data| data.namespace == namespace) {
            all.insert(data.key.to_string(), data.value.clone());
        }
        (!all.is_empty()).then_some(Value::Object(all))
    }

    fn filter_state(&self, args: &FilterStateArgs) -> Text<'a> {
        let value = self.info.filter_state(&args.key)?;
        match &args.style {
            FilterStateStyle::Plain => Some(value.into()),
            FilterStateStyle::Typed => Some(Value::from(value).to_string().into()),
            FilterStateStyle::Field(_) => None,
        }
    }

    #[allow(clippy::too_many_lines, reason = "a table")]
    fn field(&self, field: Field) -> Text<'a> {
        let info = self.info;
        let down = &info.downstream;
        let up = info.upstream.as_ref();
        let tls = down.tls.as_deref();
        let up_tls = up.and_then(|up| up.tls.as_deref());
        let timing = &info.timing;
        match field {
            Field::AccessLogType => Some(self.kind.as_str().into()),
            Field::BytesReceived => Some(number(info.bytes.received)),
            Field::BytesSent => Some(number(info.bytes.sent)),
            Field::RequestHeadersBytes | Field::DownstreamHeaderBytesReceived => {
                Some(number(info.bytes.request_headers))
            }
            Field::ResponseHeadersBytes | Field::DownstreamHeaderBytesSent => {
                Some(number(info.bytes.response_headers))
            }
            Field::DownstreamWireBytesReceived => {
                Some(number(info.bytes.request_headers + info.bytes.received))
            }
            Field::DownstreamWireBytesSent => Some(number(info.bytes.response_headers + info.bytes.sent)),
            Field::UpstreamWireBytesSent => Some(number(info.bytes.upstream_sent)),
            Field::UpstreamWireBytesReceived => Some(number(info.bytes.upstream_received)),
            Field::ConnectionId => Some(number(down.connection_id)),
            Field::ConnectionTerminationDetails => info.termination_details.as_deref().map(Cow::Borrowed),
            Field::DownstreamDirectRemoteAddress => Some(down.direct_remote_address.to_string().into()),
            Field::DownstreamDirectRemoteAddressWithoutPort => {
                Some(down.direct_remote_address.ip().to_string().into())
            }
            Field::DownstreamDirectRemotePort => Some(number(down.direct_remote_address.port().into())),
            Field::DownstreamLocalAddress | Field::DownstreamDirectLocalAddress => {
                Some(down.local_address.to_string().into())
            }
            Field::DownstreamLocalAddressWithoutPort | Field::DownstreamDirectLocalAddressWithoutPort => {
                Some(down.local_address.ip().to_string().into())
            }
            Field::DownstreamLocalPort | Field::DownstreamDirectLocalPort => {
                Some(number(down.local_address.port().into()))
            }
            Field::DownstreamRemoteAddress => Some(down.remote_address.to_string().into()),
            Field::DownstreamRemoteAddressWithoutPort => Some(down.remote_address.ip().to_string().into()),
            Field::DownstreamRemotePort => Some(number(down.remote_address.port().into())),
            Field::DownstreamTlsVersion => some(tls?.version),
            Field::DownstreamTlsCipher => some(tls?.cipher),
            Field::DownstreamPeerUriSan => list(&tls?.peer_uri_sans),
            Field::DownstreamPeerDnsSan => list(&tls?.peer_dns_sans),
            Field::DownstreamPeerSubject => tls?.peer_subject.as_deref().map(Cow::Borrowed),
            Field::DownstreamPeerIssuer => tls?.peer_issuer.as_deref().map(Cow::Borrowed),
            Field::DownstreamPeerSerial => tls?.peer_serial.as_deref().map(Cow::Borrowed),
            Field::DownstreamPeerFingerprint256 => tls?.peer_fingerprint.as_deref().map(Cow::Borrowed),
            Field::DownstreamLocalUriSan => list(&tls?.local_uri_sans),
            Field::DownstreamLocalSubject => local_subject(tls),
            Field::DownstreamTransportFailureReason => down.transport_failure.as_deref().map(Cow::Borrowed),
            Field::Duration => Some(millis(info.duration())),
            Field::RequestDuration => self.since(timing.last_downstream_rx),
            Field::RequestTxDuration => self.since(timing.last_upstream_tx),
            Field::ResponseDuration => self.since(timing.first_upstream_rx),
            Field::ResponseTxDuration => {
                Some(millis(timing.last_downstream_tx?.checked_duration_since(timing.first_upstream_rx?)?))
            }
            Field::FilterChainName => info.filter_chain.as_deref().map(Cow::Borrowed),
            Field::GrpcStatusNumber => Some(number(info.grpc_status?.into())),
            Field::Protocol => Some(info.protocol?.as_str().into()),
            Field::QueryParams => some(info.request.path().split_once('?')?.1),
            Field::ResponseCode => Some(number(info.response_code.unwrap_or(0).into())),
            Field::ResponseCodeDetails => info.code_details.as_deref().map(Cow::Borrowed),
            Field::ResponseFlags => Some(flags(info)),
            Field::ResponseFlagsLong => {
                let long: Vec<&str> = info.flags.iter().map(|flag| flag.long()).collect();
                some(long.join(",").as_str()).map(|text| text.into_owned().into())
            }
            Field::RouteName => info.route_name.as_deref().and_then(some),
            Field::TraceId => Some(info.span.as_ref()?.trace.to_string().into()),
            Field::SpanId => Some(info.span.as_ref()?.id.to_string().into()),
            Field::StreamId => {
                info.request_id.as_ref().and_then(|id| std::str::from_utf8(id).ok()).map(Cow::Borrowed)
            }
            Field::UpstreamCluster => some(&info.cluster.as_ref()?.observability_name),
            Field::UpstreamClusterRaw => some(&info.cluster.as_ref()?.name),
            Field::UpstreamConnectionId => Some(number(up?.connection_id?)),
            Field::UpstreamHost | Field::UpstreamRemoteAddress => Some(up?.host.as_ref()?.to_string().into()),
            Field::UpstreamRemoteAddressWithoutPort => Some(socket(up?)?.ip().to_string().into()),
            Field::UpstreamRemotePort => Some(number(socket(up?)?.port().into())),
            Field::UpstreamHostName | Field::UpstreamHostNameWithoutPort => {
                up?.hostname.as_deref().map(Cow::Borrowed)
            }
            Field::UpstreamLocalAddress => Some(up?.local_address?.to_string().into()),
            Field::UpstreamLocalAddressWithoutPort => Some(up?.local_address?.ip().to_string().into()),
            Field::UpstreamLocalPort => Some(number(up?.local_address?.port().into())),
            Field::UpstreamProtocol => Some(up?.protocol?.as_str().into()),
            Field::UpstreamRequestAttemptCount => Some(number(info.attempt_count.into())),
            Field::UpstreamTlsVersion => some(up_tls?.version),
            Field::UpstreamTlsCipher => some(up_tls?.cipher),
            Field::UpstreamPeerUriSan => list(&up_tls?.peer_uri_sans),
            Field::UpstreamPeerDnsSan => list(&up_tls?.peer_dns_sans),
            Field::UpstreamPeerSubject => up_tls?.peer_subject.as_deref().map(Cow::Borrowed),
            Field::UpstreamPeerIssuer => up_tls?.peer_issuer.as_deref().map(Cow::Borrowed),
            Field::UpstreamLocalUriSan => list(&up_tls?.local_uri_sans),
            Field::UpstreamLocalSubject => local_subject(up_tls),
            Field::UpstreamTransportFailureReason => up?.transport_failure.as_deref().map(Cow::Borrowed),
            // Nothing of these is known here; a dash is what Envoy prints for what it does not know, too.
            _ => None,
        }
    }

    fn since(&self, moment: Option<Instant>) -> Text<'a> {
        Some(millis(moment?.saturating_duration_since(self.info.start)))
    }

    /// A time point of `COMMON_DURATION`.
    fn point(&self, name: &str) -> Option<Instant> {
        let timing = &self.info.timing;
        match name {
            "DS_RX_BEG" => Some(self.info.start),
            "DS_RX_END" => timing.last_downstream_rx,
            "US_TX_BEG" => timing.first_upstream_tx,
            "US_TX_END" => timing.last_upstream_tx,
            "US_RX_BEG" => timing.first_upstream_rx,
            "US_RX_END" => timing.last_upstream_rx,
            "DS_TX_BEG" => timing.first_downstream_tx,
            "DS_TX_END" => timing.last_downstream_tx,
            _ => None,
        }
    }
}

fn local_subject(tls: Option<&TlsInfo>) -> Text<'_> {
    tls?.local_subject.as_deref().map(Cow::Borrowed)
}

fn flags(info: &StreamInfo) -> Cow<'static, str> {
    let mut flags = info.flags.iter();
    match (flags.next(), flags.next()) {
        (None, _) => "-".into(),
        (Some(one), None) => one.as_str().into(),
        _ => info.flags.to_string().into(),
    }
}

fn socket(up: &UpstreamInfo) -> Option<SocketAddr> {
    match up.host.as_ref()? {
        UpstreamAddress::Socket(address) => Some(*address),
        UpstreamAddress::Pipe(_) => None,
    }
}

fn some(text: &str) -> Text<'_> {
    (!text.is_empty()).then_some(Cow::Borrowed(text))
}

fn list(items: &[Box<str>]) -> Text<'_> {
    match items {
        [] => None,
        [one] => Some(Cow::Borrowed(one)),
        many => Some(many.join(",").into()),
    }
}

fn number(value: u64) -> Cow<'static, str> {
    itoa::Buffer::new().format(value).to_owned().into()
}

fn millis(duration: Duration) -> Cow<'static, str> {
    number(duration.as_millis() as u64)
}

fn plain(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

fn is_number(field: Field) -> bool {
    matches!(
        field,
        Field::BytesReceived
            | Field::BytesSent
            | Field::ConnectionId
            | Field::Duration
            | Field::RequestDuration
            | Field::RequestTxDuration
            | Field::ResponseDuration
            | Field::ResponseTxDuration
            | Field::ResponseCode
            | Field::RequestHeadersBytes
            | Field::ResponseHeadersBytes
            | Field::GrpcStatusNumber
            | Field::UpstreamConnectionId
            | Field::UpstreamRequestAttemptCount
            | Field::UpstreamWireBytesReceived
            | Field::UpstreamWireBytesSent
            | Field::DownstreamWireBytesReceived
            | Field::DownstreamWireBytesSent
            | Field::DownstreamHeaderBytesReceived
            | Field::DownstreamHeaderBytesSent
    )
}

const GRPC: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

fn grpc_name(status: u32) -> &'static str {
    GRPC.get(status as usize).copied().unwrap_or("InvalidCode")
}

fn snake(camel: &str) -> String {
    let mut text = String::new();
    for (place, c) in camel.chars().enumerate() {
        if place > 0 && c.is_ascii_uppercase() && camel != "OK" {
            text.push('_');
        }
        text.push(c.to_ascii_uppercase());
    }
    text
}
