//! What format operators read of a stream: from its record, and, while a request is under way, from its head.

use std::borrow::Cow;
use std::time::Instant;

use http::{HeaderMap, StatusCode};
use sail_proxy_decide::format::{
    Attributes, FilterStateArgs, FilterStateStyle, GrpcStatusFormat, MetadataSource, Moment, Operator,
    PathSource, Precision, TimeFormat, TimePoint, decode_query,
};
use sail_proxy_decide::head::{HeaderKey, told};
use serde_json::Value;

use super::fields::{Text, is_number, number, some};
use super::{LogType, certificates, file, time};
use crate::http::head::Head;
use crate::stream_info::{PeerMetadata, StreamInfo, TLV_STATE, TlsInfo, lookup};

/// A stream as a format sees it.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) info: &'a StreamInfo,
    pub(super) kind: LogType,
    /// The request, while it is there; else what was kept of it.
    head: Option<&'a Head>,
    /// The response's headers, while they are there.
    response: Option<&'a HeaderMap>,
    /// Its status, before the record has it.
    status: Option<u16>,
    /// The body of the local reply that is being written.
    body: Option<&'a str>,
}

impl<'a> View<'a> {
    /// Of a stream's record.
    pub(crate) fn new(info: &'a StreamInfo, kind: LogType) -> Self {
        Self { info, kind, head: None, response: None, status: None, body: None }
    }

    /// Of a request under way.
    pub(crate) fn of_request(info: &'a StreamInfo, head: &'a Head) -> Self {
        Self { head: Some(head), ..Self::new(info, LogType::NotAccepted) }
    }

    /// With a response's headers.
    pub(crate) fn with_response(self, headers: &'a HeaderMap) -> Self {
        Self { response: Some(headers), ..self }
    }

    /// With the status of a response that is not noted yet.
    pub(crate) fn with_status(self, status: StatusCode) -> Self {
        Self { status: Some(status.as_u16()), ..self }
    }

    /// With a local reply's body.
    pub(crate) fn with_body(self, body: &'a str) -> Self {
        Self { body: Some(body), ..self }
    }

    pub(super) fn local_reply_body(&self) -> &'a str {
        self.body.or(self.info.local_reply_body.as_deref()).unwrap_or_default()
    }

    /// `:path` as it is now.
    pub(super) fn path(&self) -> &'a str {
        match self.head {
            Some(head) => head.path.as_str(),
            None => self.info.request.path(),
        }
    }

    fn either(
        &self,
        main: &HeaderKey,
        other: Option<&HeaderKey>,
        get: impl Fn(&HeaderKey) -> Text<'a>,
    ) -> Text<'a> {
        get(main).or_else(|| get(other?))
    }

    /// A request header or pseudo-header.
    pub(super) fn request_header(&self, key: &HeaderKey) -> Text<'a> {
        if let Some(head) = self.head {
            let live = match key {
                HeaderKey::Method => some(head.method.as_str()),
                HeaderKey::Path if head.is_connect() && head.protocol.is_none() => None,
                HeaderKey::Path => some(head.path.as_str()),
                HeaderKey::Authority => some(head.authority()),
                HeaderKey::Scheme => some(head.scheme),
                HeaderKey::Protocol => head.protocol.as_deref().map(Cow::Borrowed),
                HeaderKey::Status => None,
                HeaderKey::Name(name) => header_text(&head.headers, name),
            };
            return live;
        }
        let request = &self.info.request;
        match key {
            HeaderKey::Method => request.method.as_ref().map(|method| method.as_str().into()),
            // A tunnel's request has none.
            HeaderKey::Path
                if request.method == Some(http::Method::CONNECT) && self.info.upgrade.is_none() =>
            {
                None
            }
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

    pub(super) fn response_header(&self, key: &HeaderKey) -> Text<'a> {
        match (key, self.response) {
            (HeaderKey::Status, _) => Some(number(self.status.or(self.info.response_code)?.into())),
            (HeaderKey::Name(name), Some(headers)) => header_text(headers, name),
            (key, _) => self.info.captured.response(key.as_str()).map(Cow::Borrowed),
        }
    }

    fn path_of(&self, query: bool, source: PathSource) -> Text<'a> {
        let original = match self.head {
            Some(head) => head.headers.get("x-envoy-original-path").and_then(|value| value.to_str().ok()),
            None => self.info.request.original_path.as_ref().map(|_| self.info.request.path_before_rewrite()),
        };
        let path = match source {
            PathSource::OriginalOrPath => original.unwrap_or_else(|| self.path()),
            PathSource::Path => self.path(),
            PathSource::Original => original?,
        };
        let end = if query { path.len() } else { path.find('?').unwrap_or(path.len()) };
        some(&path[..end])
    }

    fn time(&self, moment: Moment, format: &TimeFormat) -> Text<'a> {
        let down = || self.info.downstream.tls.as_deref();
        let up = || self.info.upstream.as_ref()?.tls.as_deref();
        let validity = |tls: Option<&TlsInfo>| certificates::validity(tls?);
        let (at, zone) = match moment {
            Moment::Start => (self.info.start_time, time::Zone::Utc),
            Moment::StartLocal => (self.info.start_time, time::Zone::Local),
            Moment::Emit => (std::time::SystemTime::now(), time::Zone::Utc),
            Moment::EmitLocal => (std::time::SystemTime::now(), time::Zone::Local),
            Moment::DownstreamCertStart => (validity(down())?.0.into(), time::Zone::Utc),
            Moment::DownstreamCertEnd => (validity(down())?.1.into(), time::Zone::Utc),
            Moment::UpstreamCertStart => (validity(up())?.0.into(), time::Zone::Utc),
            Moment::UpstreamCertEnd => (validity(up())?.1.into(), time::Zone::Utc),
        };
        let mut text = String::new();
        time::write(at, zone, format, &mut text);
        Some(text.into())
    }

    fn point(&self, point: TimePoint) -> Option<Instant> {
        let timing = &self.info.timing;
        let life = &self.info.downstream.state.life;
        let upstream = || self.info.upstream.as_ref()?.life.as_deref();
        match point {
            TimePoint::DownstreamConnected => life.accepted,
            TimePoint::DownstreamEnded => life.ended.get(),
            TimePoint::HandshakeBegun => Some(life.handshake.get()?.0),
            TimePoint::HandshakeDone => Some(life.handshake.get()?.1),
            TimePoint::RequestBegun => Some(self.info.start),
            // A stream begins when its head is there.
            TimePoint::RequestHeaders => self.info.protocol.map(|_| self.info.start),
            TimePoint::RequestDone => timing.last_downstream_rx,
            TimePoint::UpstreamConnecting => Some(upstream()?.begun),
            TimePoint::UpstreamConnected => Some(upstream()?.connected),
            TimePoint::UpstreamHandshakeDone => upstream()?.handshaken,
            TimePoint::UpstreamSending => timing.first_upstream_tx,
            TimePoint::UpstreamSent => timing.last_upstream_tx,
            TimePoint::UpstreamReceiving => timing.first_upstream_rx,
            TimePoint::UpstreamBody => timing.first_upstream_body,
            TimePoint::UpstreamReceived => timing.last_upstream_rx,
            TimePoint::ResponseBegun => timing.first_downstream_tx,
            TimePoint::ResponseDone => timing.last_downstream_tx,
        }
    }

    fn common_duration(&self, start: TimePoint, end: TimePoint, precision: Precision) -> Option<u64> {
        let between = self.point(end)?.checked_duration_since(self.point(start)?)?;
        let value = match precision {
            Precision::Millis => between.as_millis(),
            Precision::Micros => between.as_micros(),
            Precision::Nanos => between.as_nanos(),
        };
        u64::try_from(value).ok()
    }

    fn metadata(&self, source: MetadataSource, namespace: &str, path: &[Box<str>]) -> Option<&'a Value> {
        if source == MetadataSource::Dynamic {
            return self.info.dynamic_metadata.lookup(namespace, path);
        }
        lookup(self.info.config_metadata.as_ref()?.of(source), namespace, path)
    }

    fn filter_state(&self, args: &FilterStateArgs) -> Text<'a> {
        if let FilterStateStyle::Field(field) = &args.style {
            let peer = match args.key.strip_prefix("wasm.").unwrap_or(&args.key) {
                "downstream_peer" => self.info.downstream_peer.as_ref()?,
                "upstream_peer" => self.info.upstream_peer.as_ref()?,
                key => return object_field(self.info.filter_state(key)?, field),
            };
            return some(peer_field(peer, field)?);
        }
        let value = self.info.filter_state(&args.key)?;
        match &args.style {
            FilterStateStyle::Plain => Some(value.into()),
            // It is an object as it is.
            FilterStateStyle::Typed if *args.key == *TLV_STATE => Some(value.into()),
            FilterStateStyle::Typed => Some(Value::from(value).to_string().into()),
            FilterStateStyle::Field(_) => None,
        }
    }

    /// SNI, or the host, as the operator's options put it.
    fn requested_server_name(&self, options: &str) -> Text<'a> {
        let sni = self.info.downstream.server_name.as_deref().map(Cow::Borrowed);
        let (from, which) = options.split_once(':').unwrap_or((options, ""));
        let host = || {
            let original = || self.request_header(&HeaderKey::Name("x-envoy-original-host".parse().ok()?));
            match which {
                "ORIG" => original(),
                "HOST" => self.request_header(&HeaderKey::Authority),
                _ => original().or_else(|| self.request_header(&HeaderKey::Authority)),
            }
        };
        match from {
            "SNI_FIRST" => sni.or_else(host),
            "HOST_FIRST" => host().or(sni),
            _ => sni,
        }
    }
}

impl Attributes for View<'_> {
    fn text(&self, operator: &Operator) -> Option<Cow<'_, str>> {
        match operator {
            Operator::Field(field) => self.field(*field),
            Operator::Request(main, other) => {
                self.either(main, other.as_ref(), |key| self.request_header(key))
            }
            Operator::RequestWithoutQuery(main, other) => {
                let value = self.either(main, other.as_ref(), |key| self.request_header(key))?;
                let end = value.find('?').unwrap_or(value.len());
                Some(value[..end].to_owned().into())
            }
            Operator::Response(main, other) => {
                self.either(main, other.as_ref(), |key| self.response_header(key))
            }
            Operator::Trailer(main, other) => self.either(main, other.as_ref(), |key| {
                self.info.captured.trailer(key.as_str()).map(Cow::Borrowed)
            }),
            Operator::QueryParam(name) => {
                sail_proxy_decide::matcher::query_value(self.path().split_once('?')?.1, name)
            }
            Operator::DecodedQueryParams => Some(decode_query(self.path().split_once('?')?.1).into()),
            Operator::Path { query, source } => self.path_of(*query, *source),
            Operator::Time(moment, format) => self.time(*moment, format),
            Operator::CommonDuration { start, end, precision } => {
                self.common_duration(*start, *end, *precision).map(number)
            }
            Operator::Metadata(source, namespace, path) => {
                Some(match self.metadata(*source, namespace, path)? {
                    Value::String(text) => text.into(),
                    other => other.to_string().into(),
                })
            }
            Operator::FilterState(args) | Operator::UpstreamFilterState(args) => self.filter_state(args),
            Operator::GrpcStatus(format) => {
                let status = self.info.grpc_status?;
                Some(match format {
                    GrpcStatusFormat::Number => number(status.into()),
                    GrpcStatusFormat::CamelString => grpc_name(status).into(),
                    GrpcStatusFormat::SnakeString => snake(grpc_name(status)).into(),
                })
            }
            Operator::RequestedServerName(options) => self.requested_server_name(options),
            Operator::Cel(expression) | Operator::TypedCel(expression) => {
                let value = expression.program().eval(self).ok()?;
                Some(value.to_text()?.into())
            }
            Operator::FileContent(path) => file::content(path).map(Cow::Owned),
            Operator::Literal(text) => Some(text.to_string().into()),
            // Replaced when the configuration is taken, and taken apart by the format itself.
            Operator::Environment(_) | Operator::Coalesce(_) => None,
        }
    }

    fn json(&self, operator: &Operator) -> Option<Value> {
        match operator {
            Operator::Field(field) if is_number(*field) => {
                let text = self.field(*field)?;
                text.parse::<i64>()
                    .map_or_else(|_| Some(text.into_owned().into()), |number| Some(number.into()))
            }
            Operator::GrpcStatus(GrpcStatusFormat::Number) => Some(self.info.grpc_status?.into()),
            Operator::CommonDuration { start, end, precision } => {
                self.common_duration(*start, *end, *precision).map(Value::from)
            }
            Operator::Metadata(source, namespace, path) => self.metadata(*source, namespace, path).cloned(),
            Operator::TypedCel(expression) => expression.program().eval(self).ok()?.to_json(),
            _ => self.text(operator).map(|text| Value::String(text.into_owned())),
        }
    }
}

/// What is not UTF-8 is shown as well as it can be: a header that hides it would hide itself.
fn header_text<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> Text<'a> {
    Some(match told(headers, name)? {
        Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
    })
}

/// A field of an object that is kept as text: of an address, or of what is written as JSON.
fn object_field<'a>(text: &'a str, field: &str) -> Text<'a> {
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        return match field {
            "ip" => Some(address.ip().to_string().into()),
            "port" => Some(number(address.port().into())),
            _ => None,
        };
    }
    let object: Value = serde_json::from_str(text).ok().filter(Value::is_object)?;
    match object.get(field)? {
        Value::String(text) => Some(text.clone().into()),
        other => Some(other.to_string().into()),
    }
}

/// A field of a peer's metadata by the names that Istio's attributes have.
fn peer_field<'a>(peer: &'a PeerMetadata, field: &str) -> Option<&'a str> {
    Some(match field {
        "name" => &peer.name,
        "namespace" => &peer.namespace,
        "workload" => &peer.workload,
        "cluster" => &peer.cluster,
        "owner" => &peer.owner,
        "identity" => &peer.identity,
        "service" => &peer.canonical_name,
        "revision" => &peer.canonical_revision,
        "app" => &peer.app,
        "version" => &peer.version,
        _ => return None,
    })
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
