//! Expressions that give labels of Istio's metrics their values, and choose the streams that are counted: CEL, with both
//! peers in the filter state (`filter_state.upstream_peer.labels['team']`).

use std::borrow::Cow;

use sail_proxy_decide::cel::{Attribute, Attributes, CompileError, Program, Table, Value};
use serde_json::{Value as Json, json};
use xds_api::envoy::config::core::v3::Node;
use xds_api::google::protobuf::value::Kind;

use crate::access_log::{LogType, View};
use crate::stream_info::{Capture, PeerMetadata, StreamInfo};

/// The value of an expression that holds.
pub(super) const TRUE: &str = "true";

/// An expression. Those that are usual need no program, and no more of a stream than they name.
#[derive(Debug)]
pub(super) enum Expression {
    Literal(String),
    Header(String),
    ResponseHeader(String),
    Host,
    Method,
    Path,
    Scheme,
    Protocol,
    ResponseCode,
    DestinationPort,
    ServerName,
    Peer(PeerSide, PeerField),
    Coalesce(Vec<Expression>),
    Program(Program),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PeerSide {
    Up,
    Down,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PeerField {
    Workload,
    Namespace,
    Cluster,
    App,
    Version,
    Name,
    Canonical,
    Revision,
}

impl Expression {
    /// From text: the usual ones are told at once, and others are programs.
    pub(super) fn parse(text: &str, node: Option<&Node>) -> Result<Self, CompileError> {
        if let Some(usual) = Self::usual(text, node) {
            return Ok(usual);
        }
        // Peers were attributes of their own once, and their labels messages.
        let text = text.trim();
        let peer = ["upstream_peer.", "downstream_peer."].iter().any(|peer| text.starts_with(peer));
        let program = if peer {
            Program::compile(&format!("filter_state.{}", text.strip_suffix(".value").unwrap_or(text)))
        } else {
            Program::compile(text)
        };
        Ok(Self::Program(program?))
    }

    fn usual(text: &str, node: Option<&Node>) -> Option<Self> {
        let text = text.trim();
        let alternatives: Vec<&str> = text.split("||").collect();
        if alternatives.len() > 1 {
            let parsed: Option<Vec<Self>> = alternatives.iter().map(|one| Self::usual(one, node)).collect();
            return parsed.map(Self::Coalesce);
        }
        if let Some(literal) = quoted(text) {
            return Some(Self::Literal(literal.to_owned()));
        }
        let index = |prefix: &str| quoted(text.strip_prefix(prefix)?.strip_prefix('[')?.strip_suffix(']')?);
        if let Some(name) = index("request.headers") {
            return Some(Self::Header(name.to_ascii_lowercase()));
        }
        if let Some(name) = index("response.headers") {
            return Some(Self::ResponseHeader(name.to_ascii_lowercase()));
        }
        if let Some(key) = index("node.metadata").or(index("xds.node.metadata")) {
            let metadata = node.and_then(|node| node.metadata.as_ref());
            let value =
                metadata.and_then(|metadata| metadata.fields.get(key)).and_then(|value| value.kind.as_ref());
            let text = match value {
                Some(Kind::StringValue(text)) => text.clone(),
                _ => String::new(),
            };
            return Some(Self::Literal(text));
        }
        Some(match text {
            "request.host" => Self::Host,
            "request.method" => Self::Method,
            "request.path" | "request.url_path" => Self::Path,
            "request.scheme" => Self::Scheme,
            "request.protocol" => Self::Protocol,
            "response.code" | "string(response.code)" => Self::ResponseCode,
            "destination.port" | "string(destination.port)" => Self::DestinationPort,
            "connection.requested_server_name" => Self::ServerName,
            _ => return Self::parse_peer(text),
        })
    }

    fn parse_peer(text: &str) -> Option<Self> {
        let text = text.strip_prefix("filter_state.").unwrap_or(text);
        let (side, field) = if let Some(field) = text.strip_prefix("upstream_peer.") {
            (PeerSide::Up, field)
        } else {
            (PeerSide::Down, text.strip_prefix("downstream_peer.")?)
        };
        let field = match field {
            "workload" => PeerField::Workload,
            "namespace" => PeerField::Namespace,
            "cluster" | "cluster_id" => PeerField::Cluster,
            "app" | "labels['app']" | "labels['app'].value" => PeerField::App,
            "version" | "labels['version']" | "labels['version'].value" => PeerField::Version,
            "name" => PeerField::Name,
            "service" | "canonical_service" => PeerField::Canonical,
            "revision" | "canonical_revision" => PeerField::Revision,
            _ => return None,
        };
        Some(Self::Peer(side, field))
    }

    /// Adds the headers that it reads.
    pub(super) fn plan(&self, capture: &mut Capture) {
        match self {
            Self::Header(name) => capture.request(name),
            Self::ResponseHeader(name) => capture.response(name),
            Self::Coalesce(all) => all.iter().for_each(|one| one.plan(capture)),
            Self::Program(_) => capture.everything(),
            _ => {}
        }
    }

    /// Its value for a stream; `unknown` where there is none.
    pub(super) fn value(&self, info: &StreamInfo) -> String {
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        let value = match self {
            Self::Literal(literal) => return literal.clone(),
            Self::Header(name) => text(info.captured.request(name)),
            Self::ResponseHeader(name) => text(info.captured.response(name)),
            Self::Host => info.request.authority().to_owned(),
            Self::Method => text(info.request.method.as_ref().map(|method| method.as_str())),
            Self::Path => info.request.path().split('?').next().unwrap_or_default().to_owned(),
            Self::Scheme => text(info.request.scheme),
            Self::Protocol => text(info.protocol.map(|protocol| protocol.as_str())),
            Self::ResponseCode => info.response_code.unwrap_or(0).to_string(),
            Self::DestinationPort => info.downstream.local_address.port().to_string(),
            Self::ServerName => text(info.downstream.server_name.as_deref()),
            Self::Peer(side, field) => {
                let peer = match side {
                    PeerSide::Up => info.upstream_peer.as_deref(),
                    PeerSide::Down => info.downstream_peer.as_deref(),
                };
                peer.map(|peer| field.of(peer).to_owned()).unwrap_or_default()
            }
            Self::Program(program) => {
                let stream = Stream { info, view: View::new(info, LogType::DownstreamEnd) };
                program.eval(&stream).ok().and_then(printed).unwrap_or_default()
            }
            Self::Coalesce(all) => {
                let values = all.iter().map(|one| one.value(info));
                return values
                    .into_iter()
                    .find(|value| value != "unknown")
                    .unwrap_or_else(|| "unknown".to_owned());
            }
        };
        if value.is_empty() { "unknown".to_owned() } else { value }
    }
}

impl PeerField {
    fn of(self, peer: &PeerMetadata) -> &str {
        match self {
            Self::Workload => &peer.workload,
            Self::Namespace => &peer.namespace,
            Self::Cluster => &peer.cluster,
            Self::App => &peer.app,
            Self::Version => &peer.version,
            Self::Name => &peer.name,
            Self::Canonical => &peer.canonical_name,
            Self::Revision => &peer.canonical_revision,
        }
    }
}

fn quoted(text: &str) -> Option<&str> {
    let inner =
        |quote: char| text.strip_prefix(quote)?.strip_suffix(quote).filter(|inner| !inner.contains(quote));
    inner('\'').or_else(|| inner('"'))
}

/// A stream, with its peers.
struct Stream<'a> {
    info: &'a StreamInfo,
    view: View<'a>,
}

impl Attributes for Stream<'_> {
    fn get(&self, attribute: Attribute) -> Option<Value<'_>> {
        self.view.get(attribute)
    }

    fn look_up(&self, table: Table, key: &str) -> Option<Value<'_>> {
        let peer = match (table, key) {
            (Table::FilterState, "upstream_peer") => self.info.upstream_peer.as_deref(),
            (Table::FilterState, "downstream_peer") => self.info.downstream_peer.as_deref(),
            _ => return self.view.look_up(table, key),
        };
        Some(Value::from_json(Cow::Owned(described(peer?))))
    }
}

/// A peer as expressions look into it.
fn described(peer: &PeerMetadata) -> Json {
    let labels: serde_json::Map<String, Json> =
        peer.labels.iter().map(|(name, value)| (name.to_string(), (**value).into())).collect();
    json!({
        "workload": peer.workload,
        "namespace": peer.namespace,
        "cluster": peer.cluster,
        "name": peer.name,
        "identity": peer.identity,
        "app": peer.app,
        "version": peer.version,
        "service": peer.canonical_name,
        "revision": peer.canonical_revision,
        "labels": labels,
    })
}

/// A value as a label has it.
fn printed(value: Value<'_>) -> Option<String> {
    Some(match value {
        Value::String(text) => text.into_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => value.to_string(),
        Value::Double(value) => value.to_string(),
        Value::Bytes(bytes) => String::from_utf8(bytes.into_owned()).ok()?,
        _ => return None,
    })
}
