//! Who a peer is: Istio's workload metadata, from the peer's headers, its connection, or its endpoint.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use xds_api::google::protobuf::{Struct, Value, value::Kind};

/// A workload, as metrics label it. Empty fields are unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PeerMetadata {
    /// The pod's name (`NAME`).
    pub name: String,
    /// Its namespace (`NAMESPACE`).
    pub namespace: String,
    /// Its Deployment or the like (`WORKLOAD_NAME`).
    pub workload: String,
    /// Its cluster (`CLUSTER_ID`).
    pub cluster: String,
    /// Its owner (`OWNER`).
    pub owner: String,
    /// Its SPIFFE identity (`IDENTITY`), where it says so.
    pub identity: String,
    /// Label `service.istio.io/canonical-name`.
    pub canonical_name: String,
    /// Label `service.istio.io/canonical-revision`.
    pub canonical_revision: String,
    /// Label `app`.
    pub app: String,
    /// Label `version`.
    pub version: String,
    /// All labels that were told.
    pub labels: Box<[(Box<str>, Box<str>)]>,
}

impl PeerMetadata {
    /// From node metadata: our own, or what a peer sent.
    pub fn from_struct(metadata: &Struct) -> Self {
        let text = |key: &str| string(metadata.fields.get(key));
        let labels = match metadata.fields.get("LABELS").and_then(|value| value.kind.as_ref()) {
            Some(Kind::StructValue(labels)) => Some(labels),
            _ => None,
        };
        let label = |key: &str| string(labels.and_then(|labels| labels.fields.get(key)));
        let mut all: Vec<(Box<str>, Box<str>)> = labels.map(texts).into_iter().flatten().collect();
        all.sort_unstable();
        Self {
            labels: all.into(),
            name: text("NAME"),
            namespace: text("NAMESPACE"),
            workload: text("WORKLOAD_NAME"),
            cluster: text("CLUSTER_ID"),
            owner: text("OWNER"),
            identity: text("IDENTITY"),
            canonical_name: label("service.istio.io/canonical-name"),
            canonical_revision: label("service.istio.io/canonical-revision"),
            app: label("app"),
            version: label("version"),
        }
    }

    /// From the header `x-envoy-peer-metadata`: a `Struct` in base64.
    pub fn from_header(value: &[u8]) -> Option<Self> {
        // A peer may send anything; no sidecar sends more than this.
        if value.len() > 64 * 1024 {
            return None;
        }
        let bytes = STANDARD.decode(value).ok()?;
        Some(Self::from_struct(&Struct::decode(bytes.as_slice()).ok()?))
    }

    /// From an endpoint's metadata `istio.workload`:
    /// `workload;namespace;canonical-name;canonical-revision;cluster`.
    pub fn from_endpoint(workload: &str) -> Option<Self> {
        let mut parts = workload.split(';').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        let peer = Self {
            workload: next(),
            namespace: next(),
            canonical_name: next(),
            canonical_revision: next(),
            cluster: next(),
            ..Self::default()
        };
        (!peer.workload.is_empty()).then_some(peer)
    }

    /// What we send to peers: the parts of our node metadata that they read, and these labels.
    pub fn exchange(node: &Struct, more: &[String]) -> Struct {
        const KEYS: [&str; 6] = ["NAME", "NAMESPACE", "WORKLOAD_NAME", "CLUSTER_ID", "OWNER", "IDENTITY"];
        const LABELS: [&str; 4] =
            ["app", "version", "service.istio.io/canonical-name", "service.istio.io/canonical-revision"];
        let mut sent = Struct::default();
        for key in KEYS {
            if let Some(value) = node.fields.get(key) {
                sent.fields.insert(key.to_owned(), value.clone());
            }
        }
        if let Some(Kind::StructValue(all)) = node.fields.get("LABELS").and_then(|value| value.kind.as_ref())
        {
            let mut labels = Struct::default();
            for key in LABELS.into_iter().chain(more.iter().map(String::as_str)) {
                if let Some(value) = all.fields.get(key) {
                    labels.fields.insert(key.to_owned(), value.clone());
                }
            }
            sent.fields.insert("LABELS".to_owned(), Value { kind: Some(Kind::StructValue(labels)) });
        }
        sent
    }

    /// Our metadata as the header's value.
    pub fn header(node: &Struct, more: &[String]) -> String {
        STANDARD.encode(Self::exchange(node, more).encode_to_vec())
    }
}

/// The entries of an object that are text.
fn texts(object: &Struct) -> impl Iterator<Item = (Box<str>, Box<str>)> {
    object.fields.iter().filter_map(|(name, value)| match &value.kind {
        Some(Kind::StringValue(text)) => Some((name.as_str().into(), text.as_str().into())),
        _ => None,
    })
}

fn string(value: Option<&Value>) -> String {
    match value.and_then(|value| value.kind.as_ref()) {
        Some(Kind::StringValue(text)) => text.clone(),
        _ => String::new(),
    }
}
