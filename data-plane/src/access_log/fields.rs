//! What format operators without arguments read of a stream.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use identity::SanKind;
use sail_proxy_decide::format::Field;

use super::attributes::View;
use super::certificates as certs;
use crate::stream_info::{
    Attempted, CloseType, DownstreamInfo, StreamInfo, TlsInfo, UpstreamAddress, UpstreamInfo,
};

pub(super) type Text<'a> = Option<Cow<'a, str>>;

impl<'a> View<'a> {
    /// The operator's text.
    pub(super) fn field(&self, field: Field) -> Text<'a> {
        let info = self.info;
        match field {
            Field::AccessLogType => Some(self.kind.as_str().into()),
            Field::LocalReplyBody => Some(self.local_reply_body().into()),
            Field::Protocol => Some(info.protocol?.as_str().into()),
            Field::QueryParams => some(self.path().split_once('?')?.1),
            Field::ResponseCode => Some(number(info.response_code.unwrap_or(0).into())),
            Field::ResponseCodeDetails => info.code_details.as_deref().map(Cow::Borrowed),
            Field::ResponseFlags => Some(flags(info)),
            Field::ResponseFlagsLong => Some(long_flags(info)),
            Field::ConnectionTerminationDetails => info.termination_details.as_deref().map(Cow::Borrowed),
            Field::FilterChainName => info.filter_chain.as_deref().map(Cow::Borrowed),
            Field::VirtualClusterName => info.virtual_cluster.as_deref().map(Cow::Borrowed),
            Field::RouteName => info.route_name.as_deref().and_then(some),
            Field::GrpcStatusNumber => Some(number(info.grpc_status?.into())),
            Field::TraceId => Some(info.span.as_ref()?.trace.to_string().into()),
            Field::SpanId => Some(info.span.as_ref()?.id.to_string().into()),
            Field::StreamId => {
                info.request_id.as_ref().and_then(|id| std::str::from_utf8(id).ok()).map(Cow::Borrowed)
            }
            Field::UniqueId => Some(uuid::Uuid::new_v4().to_string().into()),
            Field::Hostname => some(hostname()),
            // No filter here sets any.
            Field::CustomFlags => Some("".into()),
            // What QUIC sent again; there is no QUIC.
            Field::BytesRetransmitted | Field::PacketsRetransmitted => Some("0".into()),
            Field::DownstreamDetectedCloseType
            | Field::DownstreamLocalCloseReason
            | Field::UpstreamDetectedCloseType
            | Field::UpstreamLocalCloseReason => close(info, field),
            // TLS gives none away.
            Field::DownstreamTlsSessionId | Field::UpstreamTlsSessionId => None,
            _ => duration(info, field).or_else(|| bytes(info, field)).or_else(|| self.connection(field)),
        }
    }

    fn connection(&self, field: Field) -> Text<'a> {
        let info = self.info;
        let down = &*info.downstream;
        let up = info.upstream.as_ref();
        downstream(down, field)
            .or_else(|| upstream(info, field))
            .or_else(|| downstream_tls(down.tls.as_deref()?, field))
            .or_else(|| upstream_tls(up?.tls.as_deref()?, field))
    }
}

fn duration<'a>(info: &StreamInfo, field: Field) -> Text<'a> {
    let timing = &info.timing;
    let since = |moment: Option<Instant>| Some(millis(moment?.saturating_duration_since(info.start)));
    match field {
        Field::Duration => Some(millis(info.duration())),
        Field::RequestDuration => since(timing.last_downstream_rx),
        Field::RequestTxDuration => since(timing.last_upstream_tx),
        Field::ResponseDuration => since(timing.first_upstream_rx),
        Field::UpstreamConnectionPoolReadyDuration => since(timing.pool_ready),
        Field::ResponseTxDuration => {
            Some(millis(timing.last_downstream_tx?.checked_duration_since(timing.first_upstream_rx?)?))
        }
        Field::DownstreamHandshakeDuration => handshake(info),
        Field::DownstreamCxRtt => info.downstream.state.life.round_trip().map(millis),
        // Known of QUIC alone.
        Field::RoundtripDuration => None,
        _ => None,
    }
}

/// From the stream's begin, as every duration: the handshake was before all requests of a connection but the first.
fn handshake<'a>(info: &StreamInfo) -> Text<'a> {
    let (_, done) = info.downstream.state.life.handshake.get()?;
    let after = done.saturating_duration_since(info.start).as_millis();
    let before = info.start.saturating_duration_since(done).as_millis();
    Some(if before > 0 { format!("-{before}").into() } else { number(after as u64) })
}

/// How connections were closed. A request's end is before its connections', which end in order for all it knows.
fn close(info: &StreamInfo, field: Field) -> Text<'static> {
    let life = &info.downstream.state.life;
    let request = info.protocol.is_some();
    let text = match field {
        Field::DownstreamDetectedCloseType if request => CloseType::Normal.as_str(),
        Field::DownstreamDetectedCloseType => life.closed.get().as_str(),
        Field::DownstreamLocalCloseReason if !request => life.local_close_reason.get()?,
        Field::UpstreamDetectedCloseType if request => {
            info.cluster.as_ref().map(|_| CloseType::Normal.as_str())?
        }
        Field::UpstreamDetectedCloseType => life.upstream.get()?.0.as_str(),
        Field::UpstreamLocalCloseReason if !request => life.upstream.get()?.1?,
        _ => return None,
    };
    Some(text.into())
}

fn bytes<'a>(info: &StreamInfo, field: Field) -> Text<'a> {
    let bytes = &info.bytes;
    let count = match field {
        Field::BytesReceived => bytes.received,
        Field::BytesSent => bytes.sent,
        Field::RequestHeadersBytes
        | Field::DownstreamHeaderBytesReceived
        | Field::DownstreamDecompressedHeaderBytesReceived => bytes.request_headers,
        Field::ResponseHeadersBytes
        | Field::DownstreamHeaderBytesSent
        | Field::DownstreamDecompressedHeaderBytesSent => bytes.response_headers,
        Field::ResponseTrailersBytes => bytes.response_trailers,
        Field::DownstreamWireBytesReceived => bytes.request_headers + bytes.received,
        Field::DownstreamWireBytesSent => bytes.response_headers + bytes.sent + bytes.response_trailers,
        Field::UpstreamHeaderBytesSent | Field::UpstreamDecompressedHeaderBytesSent => {
            bytes.upstream_request_headers
        }
        Field::UpstreamHeaderBytesReceived | Field::UpstreamDecompressedHeaderBytesReceived => {
            bytes.upstream_response_headers
        }
        Field::UpstreamWireBytesSent => upstream_sent(info),
        Field::UpstreamWireBytesReceived => upstream_received(info),
        _ => return None,
    };
    Some(number(count))
}

/// Wire bytes to the upstream: what went by of a request once an upstream had it.
pub(super) fn upstream_sent(info: &StreamInfo) -> u64 {
    let bytes = &info.bytes;
    match bytes.upstream_request_headers {
        0 => bytes.upstream_sent,
        head => head + bytes.received,
    }
}

/// Wire bytes from the upstream.
pub(super) fn upstream_received(info: &StreamInfo) -> u64 {
    let bytes = &info.bytes;
    match bytes.upstream_response_headers {
        0 => bytes.upstream_received,
        head => head + bytes.sent,
    }
}

fn downstream(down: &DownstreamInfo, field: Field) -> Text<'_> {
    Some(match field {
        Field::ConnectionId => number(down.connection_id),
        Field::DownstreamDirectRemoteAddress => whole(down.direct_remote_address, down),
        Field::DownstreamDirectRemoteAddressWithoutPort => ip(down.direct_remote_address, down),
        Field::DownstreamDirectRemotePort => port(down.direct_remote_address, down),
        Field::DownstreamLocalAddress => whole(down.local_address, down),
        Field::DownstreamLocalAddressWithoutPort => ip(down.local_address, down),
        Field::DownstreamLocalPort => port(down.local_address, down),
        Field::DownstreamDirectLocalAddress => whole(down.direct_local_address, down),
        Field::DownstreamDirectLocalAddressWithoutPort => ip(down.direct_local_address, down),
        Field::DownstreamDirectLocalPort => port(down.direct_local_address, down),
        Field::DownstreamRemoteAddress => whole(down.remote_address, down),
        Field::DownstreamRemoteAddressWithoutPort => ip(down.remote_address, down),
        Field::DownstreamRemotePort => port(down.remote_address, down),
        // Addresses of sockets have none.
        Field::DownstreamLocalAddressEndpointId | Field::DownstreamDirectLocalAddressEndpointId => "".into(),
        Field::TlsJa3Fingerprint => down.state.fingerprints.as_ref()?.ja3.as_deref()?.into(),
        Field::TlsJa4Fingerprint => down.state.fingerprints.as_ref()?.ja4.as_deref()?.into(),
        Field::DownstreamTransportFailureReason => {
            in_one_word(down.state.life.transport_failure.get()?.as_ref())
        }
        _ => return None,
    })
}

fn upstream(info: &StreamInfo, field: Field) -> Text<'_> {
    match field {
        Field::UpstreamCluster => return some(&info.cluster.as_ref()?.observability_name),
        Field::UpstreamClusterRaw => return some(&info.cluster.as_ref()?.name),
        Field::UpstreamRequestAttemptCount => return Some(number(info.attempt_count.into())),
        Field::UpstreamConnectionId => {
            return Some(number(info.upstream.as_ref().and_then(|up| up.connection_id).unwrap_or(0)));
        }
        _ => {}
    }
    let up = info.upstream.as_ref()?;
    Some(match field {
        Field::UpstreamHost | Field::UpstreamRemoteAddress => up.host.as_ref()?.to_string().into(),
        Field::UpstreamRemoteAddressWithoutPort => match up.host.as_ref()? {
            UpstreamAddress::Socket(address) => address.ip().to_string().into(),
            // A path has no port.
            other => other.to_string().into(),
        },
        Field::UpstreamRemotePort => match up.host.as_ref()? {
            UpstreamAddress::Socket(address) => number(address.port().into()),
            _ => "".into(),
        },
        Field::UpstreamRemoteAddressEndpointId => "".into(),
        Field::UpstreamHostName => up.hostname.as_deref()?.into(),
        Field::UpstreamHostNameWithoutPort => without_port(up.hostname.as_deref()?).into(),
        Field::UpstreamLocalAddress => up.local_address?.to_string().into(),
        Field::UpstreamLocalAddressWithoutPort => up.local_address?.ip().to_string().into(),
        Field::UpstreamLocalPort => number(up.local_address?.port().into()),
        Field::UpstreamProtocol => up.protocol?.as_str().into(),
        Field::UpstreamTransportFailureReason => in_one_word(up.transport_failure.as_deref()?),
        Field::UpstreamHostsAttempted => attempted(info, |one| Some(one.host.as_ref()?.to_string()))?,
        Field::UpstreamHostsAttemptedWithoutPort => {
            attempted(info, |one| Some(socket(one.host.as_ref())?.ip().to_string()))?
        }
        Field::UpstreamHostNamesAttempted => attempted(info, |one| Some(one.hostname.as_ref()?.to_string()))?,
        Field::UpstreamHostNamesAttemptedWithoutPort => {
            attempted(info, |one| Some(without_port(one.hostname.as_ref()?).to_owned()))?
        }
        Field::UpstreamConnectionIdsAttempted => {
            attempted(info, |one| one.connection_id.map(|id| id.to_string()))?
        }
        _ => return None,
    })
}

/// A list over every upstream that was tried, the last one included.
fn attempted<'a>(info: &StreamInfo, what: impl Fn(&Attempted) -> Option<String>) -> Text<'a> {
    let last = info.upstream.as_ref().map(|up: &UpstreamInfo| Attempted {
        host: up.host.clone(),
        hostname: up.hostname.clone(),
        connection_id: up.connection_id,
    });
    let all: Vec<String> = info.attempted.iter().chain(&last).filter_map(what).collect();
    (!all.is_empty()).then(|| all.join(",").into())
}

fn downstream_tls(tls: &TlsInfo, field: Field) -> Text<'_> {
    let chain = &tls.peer_chain[..];
    match field {
        Field::DownstreamTlsVersion => some(tls.version),
        Field::DownstreamTlsCipher => some(tls.cipher),
        Field::DownstreamTlsGroup => some(tls.group),
        Field::DownstreamPeerUriSan => list(&tls.peer_uri_sans),
        Field::DownstreamPeerDnsSan => list(&tls.peer_dns_sans),
        Field::DownstreamPeerIpSan => certs::peer_sans(tls, SanKind::Ip),
        Field::DownstreamPeerEmailSan => certs::peer_sans(tls, SanKind::Email),
        Field::DownstreamPeerSubject => tls.peer_subject.as_deref().map(Cow::Borrowed),
        Field::DownstreamPeerIssuer => tls.peer_issuer.as_deref().map(Cow::Borrowed),
        Field::DownstreamPeerSerial => tls.peer_serial.as_deref().map(Cow::Borrowed),
        Field::DownstreamPeerFingerprint256 => tls.peer_fingerprint.as_deref().map(Cow::Borrowed),
        Field::DownstreamPeerFingerprint1 => certs::sha1_list(chain.get(..1)?),
        Field::DownstreamPeerCert => certs::pem(chain.first()?),
        Field::DownstreamPeerIssuerFingerprint256 => certs::sha256_list(chain.get(1..2)?),
        Field::DownstreamPeerIssuerSerial => certs::serials(chain.get(1..2)?),
        Field::DownstreamPeerChainFingerprints256 => certs::sha256_list(chain),
        Field::DownstreamPeerChainFingerprints1 => certs::sha1_list(chain),
        Field::DownstreamPeerChainSerials => certs::serials(chain),
        Field::DownstreamLocalUriSan => list(&tls.local_uri_sans),
        Field::DownstreamLocalDnsSan => certs::local_sans(tls, SanKind::Dns),
        Field::DownstreamLocalIpSan => certs::local_sans(tls, SanKind::Ip),
        Field::DownstreamPeerOthernameSan => certs::peer_sans(tls, SanKind::Other),
        Field::DownstreamLocalOthernameSan => certs::local_sans(tls, SanKind::Other),
        Field::DownstreamLocalEmailSan => certs::local_sans(tls, SanKind::Email),
        Field::DownstreamLocalSubject => tls.local_subject.as_deref().map(Cow::Borrowed),
        _ => None,
    }
}

fn upstream_tls(tls: &TlsInfo, field: Field) -> Text<'_> {
    match field {
        Field::UpstreamTlsVersion => some(tls.version),
        Field::UpstreamTlsCipher => some(tls.cipher),
        Field::UpstreamTlsGroup => some(tls.group),
        Field::UpstreamServerName => tls.server_name.as_deref().map(Cow::Borrowed),
        Field::UpstreamPeerUriSan => list(&tls.peer_uri_sans),
        Field::UpstreamPeerDnsSan => list(&tls.peer_dns_sans),
        Field::UpstreamPeerIpSan => certs::peer_sans(tls, SanKind::Ip),
        Field::UpstreamPeerSubject => tls.peer_subject.as_deref().map(Cow::Borrowed),
        Field::UpstreamPeerIssuer => tls.peer_issuer.as_deref().map(Cow::Borrowed),
        Field::UpstreamPeerCert => certs::pem(tls.peer_chain.first()?),
        Field::UpstreamLocalUriSan => list(&tls.local_uri_sans),
        Field::UpstreamLocalDnsSan => certs::local_sans(tls, SanKind::Dns),
        Field::UpstreamLocalIpSan => certs::local_sans(tls, SanKind::Ip),
        _ => None,
    }
}

fn hostname() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let name = nix::unistd::gethostname().ok();
        name.and_then(|name| name.into_string().ok()).unwrap_or_default()
    })
}

fn flags(info: &StreamInfo) -> Cow<'static, str> {
    let mut flags = info.flags.iter();
    match (flags.next(), flags.next()) {
        (None, _) => "-".into(),
        (Some(one), None) => one.as_str().into(),
        _ => info.flags.to_string().into(),
    }
}

fn long_flags(info: &StreamInfo) -> Cow<'static, str> {
    let long: Vec<&str> = info.flags.iter().map(|flag| flag.long()).collect();
    if long.is_empty() { "-".into() } else { long.join(",").into() }
}

fn socket(host: Option<&UpstreamAddress>) -> Option<SocketAddr> {
    match host? {
        UpstreamAddress::Socket(address) => Some(*address),
        UpstreamAddress::Pipe(_) => None,
    }
}

fn whole(address: SocketAddr, down: &DownstreamInfo) -> Cow<'_, str> {
    pipe(address, down).map_or_else(|| address.to_string().into(), Cow::Borrowed)
}

fn ip(address: SocketAddr, down: &DownstreamInfo) -> Cow<'_, str> {
    pipe(address, down).map_or_else(|| address.ip().to_string().into(), Cow::Borrowed)
}

fn port(address: SocketAddr, down: &DownstreamInfo) -> Cow<'_, str> {
    pipe(address, down).map_or_else(|| number(address.port().into()), |_| "".into())
}

/// The path of a Unix socket: it stands for either end, of which the client's has no name.
fn pipe(address: SocketAddr, down: &DownstreamInfo) -> Option<&str> {
    down.state.pipe.as_deref().filter(|_| address.ip().is_unspecified())
}

/// Log lines are split at spaces.
fn in_one_word(text: &str) -> Cow<'_, str> {
    if text.contains(' ') { text.replace(' ', "_").into() } else { text.into() }
}

fn without_port(host: &str) -> &str {
    let digits = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    host.rsplit_once(':').filter(|(_, port)| digits(port)).map_or(host, |(name, _)| name)
}

pub(super) fn some(text: &str) -> Text<'_> {
    (!text.is_empty()).then_some(Cow::Borrowed(text))
}

fn list(items: &[Box<str>]) -> Text<'_> {
    match items {
        [] => None,
        [one] => Some(Cow::Borrowed(one)),
        many => Some(many.join(",").into()),
    }
}

pub(super) fn number(value: u64) -> Cow<'static, str> {
    itoa::Buffer::new().format(value).to_owned().into()
}

fn millis(duration: Duration) -> Cow<'static, str> {
    number(duration.as_millis() as u64)
}

/// Whether JSON logs hold it as a number.
pub(super) fn is_number(field: Field) -> bool {
    let name = field.name();
    let counts = name.contains("_BYTES") || name.starts_with("BYTES_");
    let others = matches!(
        field,
        Field::ConnectionId
            | Field::DownstreamCxRtt
            | Field::PacketsRetransmitted
            | Field::ResponseCode
            | Field::GrpcStatusNumber
            | Field::UpstreamConnectionId
            | Field::UpstreamRequestAttemptCount
    );
    others
        || counts
        || name.ends_with("DURATION")
        || name.ends_with("_PORT") && !name.ends_with("WITHOUT_PORT")
}
