//! Objects: metadata and spec of a kind, read from a manifest with every error named by its field.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::decode::{Decode, Encode};
use crate::field::{Cx, Finding, Severity};
use crate::kind::Kind;

/// The spec of a kind.
pub trait Spec: Decode + Encode + Default {
    /// Which kind this is the spec of.
    const KIND: Kind;
    /// Records what the types cannot express. The cursor stands at `spec`.
    fn validate(&self, meta: &ObjectMeta, cx: &mut Cx);
}

/// What is read of Kubernetes' object metadata.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct ObjectMeta {
    /// The name.
    pub name: String,
    /// The namespace; `default` where a manifest names none.
    pub namespace: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// When the object was made, which decides ties between policies.
    pub creation_timestamp: Option<Timestamp>,
    /// Counts changes of the spec.
    pub generation: i64,
    /// Opaque version.
    pub resource_version: String,
    /// Unique id.
    pub uid: String,
}

/// One object of kind `K`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Object<K> {
    /// Its metadata.
    pub meta: ObjectMeta,
    /// Its spec.
    pub spec: K,
}

/// Why a manifest cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// It is not an object with `apiVersion`, `kind` and `metadata.name`.
    NotAnObject {
        /// What is missing.
        reason: String,
    },
    /// Nobody here knows this kind.
    UnknownKind {
        /// As written.
        api_version: String,
        /// As written.
        kind: String,
        /// The name of the object.
        name: String,
        /// What to do.
        reason: String,
    },
    /// Fields are wrong.
    Invalid {
        /// The kind.
        kind: Kind,
        /// The namespace.
        namespace: String,
        /// The name.
        name: String,
        /// Every wrong field.
        fields: Vec<Finding>,
    },
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnObject { reason } => write!(f, "not a manifest: {reason}"),
            Self::UnknownKind { api_version, kind, name, reason } => {
                write!(f, "{kind} {name} ({api_version}): {reason}")
            }
            Self::Invalid { kind, namespace, name, fields } => {
                write!(f, "{kind} {namespace}/{name}: ")?;
                for (i, field) in fields.iter().enumerate() {
                    if i > 0 {
                        f.write_str("; ")?;
                    }
                    write!(f, "{field}")?;
                }
                Ok(())
            }
        }
    }
}

macro_rules! mesh_objects {
    ($($kind:ident : $spec:ty),* $(,)?) => {
        /// An object of any kind. Cloning is cheap.
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "variant names are the kinds")]
        pub enum MeshObject {
            $( $kind(Arc<Object<$spec>>), )*
        }

        impl MeshObject {
            /// Its kind.
            pub fn kind(&self) -> Kind {
                match self { $( Self::$kind(_) => Kind::$kind, )* }
            }

            /// Its metadata.
            pub fn meta(&self) -> &ObjectMeta {
                match self { $( Self::$kind(object) => &object.meta, )* }
            }

            /// Its spec as proto-JSON.
            pub fn spec(&self) -> Value {
                match self { $( Self::$kind(object) => object.spec.encode(), )* }
            }
        }

        fn read_spec(kind: Kind, meta: ObjectMeta, spec: &Value, cx: &mut Cx) -> Option<MeshObject> {
            match kind {
                $( Kind::$kind => read_as::<$spec>(meta, spec, cx).map(|o| MeshObject::$kind(Arc::new(o))), )*
            }
        }

        $(
            impl std::convert::From<Object<$spec>> for MeshObject {
                fn from(object: Object<$spec>) -> Self {
                    Self::$kind(Arc::new(object))
                }
            }
        )*
    };
}

mesh_objects! {
    VirtualService: crate::virtual_service::VirtualService,
    DestinationRule: crate::destination_rule::DestinationRule,
    Gateway: crate::gateway::Gateway,
    ServiceEntry: crate::service_entry::ServiceEntry,
    Sidecar: crate::sidecar::Sidecar,
    WorkloadEntry: crate::workload_entry::WorkloadEntry,
    WorkloadGroup: crate::workload_group::WorkloadGroup,
    ProxyConfig: crate::proxy_config::ProxyConfigResource,
    EnvoyFilter: crate::envoy_filter::EnvoyFilter,
    PeerAuthentication: crate::peer_authentication::PeerAuthentication,
    RequestAuthentication: crate::request_authentication::RequestAuthentication,
    AuthorizationPolicy: crate::authorization_policy::AuthorizationPolicy,
    Telemetry: crate::telemetry::Telemetry,
    WasmPlugin: crate::wasm_plugin::WasmPlugin,
}

impl MeshObject {
    /// The whole manifest, in the preferred version.
    pub fn to_manifest(&self) -> Value {
        let (info, meta) = (self.kind().info(), self.meta());
        let mut metadata = Map::new();
        metadata.insert("name".to_owned(), json!(meta.name));
        metadata.insert("namespace".to_owned(), json!(meta.namespace));
        if !meta.labels.is_empty() {
            metadata.insert("labels".to_owned(), meta.labels.encode());
        }
        if !meta.annotations.is_empty() {
            metadata.insert("annotations".to_owned(), meta.annotations.encode());
        }
        if let Some(created) = meta.creation_timestamp {
            metadata.insert("creationTimestamp".to_owned(), json!(created.to_string()));
        }
        json!({
            "apiVersion": format!("{}/{}", info.group, info.versions[0]),
            "kind": info.name,
            "metadata": metadata,
            "spec": self.spec(),
        })
    }
}

/// Reads and validates a manifest. Warnings are dropped: see [`check`].
pub fn parse(manifest: &Value) -> Result<MeshObject, Error> {
    check(manifest).map(|(object, _)| object)
}

/// Reads and validates a manifest, and gives what the user should be warned of.
pub fn check(manifest: &Value) -> Result<(MeshObject, Vec<Finding>), Error> {
    let header = header(manifest)?;
    let mut cx = Cx::new();
    for (key, value) in header.map {
        match key.as_str() {
            "apiVersion" | "kind" | "metadata" | "spec" | "status" => {}
            _ if value.is_null() => {}
            _ => cx.error_at(key, "unknown field"),
        }
    }
    let meta = read_meta(header.map, &mut cx);
    let empty = Value::Object(Map::new());
    let spec = header.map.get("spec").filter(|s| !s.is_null()).unwrap_or(&empty);
    let (namespace, name) = (meta.namespace.clone(), meta.name.clone());
    let object = read_spec(header.kind, meta, spec, &mut cx);
    let (errors, warnings): (Vec<_>, Vec<_>) =
        cx.into_findings().into_iter().partition(|f| f.severity == Severity::Error);
    match object {
        Some(object) if errors.is_empty() => Ok((object, warnings)),
        _ => Err(Error::Invalid { kind: header.kind, namespace, name, fields: errors }),
    }
}

/// Whether a manifest's `apiVersion` is of a group that [`parse`] reads, or of one that users expect of a mesh.
pub fn is_mesh_api(api_version: &str) -> bool {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    group.ends_with(".istio.io") || group == GATEWAY_API
}

const GATEWAY_API: &str = "gateway.networking.k8s.io";

struct Header<'a> {
    map: &'a Map<String, Value>,
    kind: Kind,
}

fn header(manifest: &Value) -> Result<Header<'_>, Error> {
    let missing = |reason: &str| Error::NotAnObject { reason: reason.to_owned() };
    let map = manifest.as_object().ok_or_else(|| missing("it is not an object"))?;
    let text = |key: &str| map.get(key).and_then(Value::as_str);
    let api_version = text("apiVersion").ok_or_else(|| missing("apiVersion is missing"))?;
    let kind_name = text("kind").ok_or_else(|| missing("kind is missing"))?;
    let name = map.get("metadata").and_then(|m| m.get("name")).and_then(Value::as_str).unwrap_or_default();
    let unknown = |reason: String| Error::UnknownKind {
        api_version: api_version.to_owned(),
        kind: kind_name.to_owned(),
        name: name.to_owned(),
        reason,
    };
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let Some(kind) = Kind::find(group, kind_name) else {
        return Err(unknown(if group == GATEWAY_API {
            "the Kubernetes Gateway API is not supported yet: use the kinds of networking.istio.io".to_owned()
        } else {
            format!("there is no such kind in {group}")
        }));
    };
    let versions = kind.info().versions;
    if !versions.contains(&version) {
        return Err(unknown(format!("the version must be one of {}", versions.join(", "))));
    }
    if name.is_empty() {
        return Err(missing("metadata.name is missing"));
    }
    Ok(Header { map, kind })
}

fn read_meta(map: &Map<String, Value>, cx: &mut Cx) -> ObjectMeta {
    let Some(metadata) = map.get("metadata") else { return ObjectMeta::default() };
    let strings = |key: &str, cx: &mut Cx| -> BTreeMap<String, String> {
        let value = metadata.get(key).filter(|v| !v.is_null());
        value.and_then(|v| cx.field(key, |cx| Decode::decode(v, cx))).unwrap_or_default()
    };
    let text = |key: &str| metadata.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    cx.field("metadata", |cx| {
        let created = metadata.get("creationTimestamp").and_then(Value::as_str).and_then(|t| {
            t.parse()
                .map_err(|_| cx.error_at("creationTimestamp", format!("{t:?} is not an RFC 3339 time")))
                .ok()
        });
        let namespace = text("namespace");
        ObjectMeta {
            name: text("name"),
            namespace: if namespace.is_empty() { "default".to_owned() } else { namespace },
            labels: strings("labels", cx),
            annotations: strings("annotations", cx),
            creation_timestamp: created,
            generation: metadata.get("generation").and_then(Value::as_i64).unwrap_or_default(),
            resource_version: text("resourceVersion"),
            uid: text("uid"),
        }
    })
}

fn read_as<K: Spec>(meta: ObjectMeta, spec: &Value, cx: &mut Cx) -> Option<Object<K>> {
    cx.field("spec", |cx| {
        let spec = K::decode(spec, cx)?;
        if !cx.has_errors() {
            spec.validate(&meta, cx);
        }
        Some(Object { meta, spec })
    })
}
