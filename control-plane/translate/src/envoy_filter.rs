//! EnvoyFilter: users' patches of listeners, clusters and routes, applied to what was made from everything else.
//!
//! Objects of the root namespace come before those of the proxy's; in each, those of lower priority, then the older ones.
//! A patch that cannot be applied is left out, and its object gets a warning that names the field.

mod cluster;
mod list;
mod listener;
mod matches;
mod route;

use std::sync::Arc;

use mesh_api::envoy_filter::{
    ApplyTo, ConfigPatch, EnvoyFilter, FilterClass, Patch, PatchContext, PatchOperation,
};
use mesh_api::{Object, ObjectMeta};
use prost::{Message, Name};
use saild_model::mesh::Attachment;
use saild_model::{Mesh, ProxyType, ProxyView};
use serde_json::{Map, Value};
use xds_api::codec::{Codec, Lists};
use xds_api::envoy::config::cluster::v3::Cluster;
use xds_api::envoy::config::listener::v3 as lds;
use xds_api::envoy::config::route::v3 as rds;
use xds_api::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use xds_api::type_url;

use crate::Cache;
use crate::cache::Memo;
use crate::resource::NamedResource;
use crate::warning::Warning;

/// What a patched resource is made of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PatchedInputs {
    /// The resource before, encoded; empty for one that a patch adds.
    base: Vec<u8>,
    /// The patches of its type, in order.
    patches: Vec<ConfigPatch>,
    /// Of whose proxy it is.
    context: PatchContext,
}

/// What patches are applied with.
struct Tools<'a> {
    codec: &'a Codec,
    context: PatchContext,
}

impl Tools<'_> {
    /// The value of a patch. One that cannot be read was warned of.
    fn value<M: Message + Name + Default>(&self, patch: &ConfigPatch) -> Option<M> {
        self.codec.from_json_value(&plain(patch.patch.as_ref()?.value.as_ref()?)).ok()
    }

    /// Lays the value of a patch over a message.
    fn merge<M: Message + Name + Default>(&self, base: &mut M, patch: &ConfigPatch) {
        let lists = match operation(patch) {
            PatchOperation::MergeAndReplaceList => Lists::Replace,
            _ => Lists::Append,
        };
        let merged = self.value::<M>(patch).and_then(|over| self.codec.merge(base, &over, lists).ok());
        if let Some(merged) = merged {
            *base = merged;
        }
    }
}

/// The value with every `TypedStruct` as the message that it stands for, which all proxies understand.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let text = |key: &str| map.get(key).and_then(Value::as_str);
            let is_struct = text("@type").is_some_and(|name| {
                matches!(
                    name.rsplit('/').next(),
                    Some("udpa.type.v1.TypedStruct" | "xds.type.v3.TypedStruct")
                )
            });
            let target = text("type_url").or_else(|| text("typeUrl")).filter(|_| is_struct);
            let mut fields: Map<String, Value> = match (target, map.get("value")) {
                (Some(target), value) => {
                    let mut fields = value.and_then(Value::as_object).cloned().unwrap_or_default();
                    fields.insert("@type".to_owned(), target.into());
                    fields
                }
                (None, _) => map.clone(),
            };
            fields.values_mut().for_each(|value| *value = plain(value));
            Value::Object(fields)
        }
        Value::Array(items) => Value::Array(items.iter().map(plain).collect()),
        other => other.clone(),
    }
}

fn operation(patch: &ConfigPatch) -> PatchOperation {
    patch.patch.as_ref().map(|patch| patch.operation).unwrap_or_default()
}

fn is_merge(patch: &ConfigPatch) -> bool {
    matches!(operation(patch), PatchOperation::Merge | PatchOperation::MergeAndReplaceList)
}

/// The objects for a proxy, in the order in which they are applied.
fn objects(mesh: &Mesh, proxy: &ProxyView) -> Vec<Arc<Object<EnvoyFilter>>> {
    let all = &mesh.config().envoy_filters;
    let root = mesh.root_namespace();
    let own = (proxy.namespace != root).then_some(proxy.namespace.as_str());
    let mut out = Vec::new();
    for namespace in [root].into_iter().chain(own) {
        let applicable = |o: &&Arc<Object<EnvoyFilter>>| Attachment::from(&o.spec).is_for(namespace, proxy);
        let mut objects: Vec<_> = all.in_namespace(namespace).filter(applicable).cloned().collect();
        // The order of age stays among equals.
        objects.sort_by_key(|object| object.spec.priority);
        out.extend(objects);
    }
    out
}

/// The resources of a type after the patches for a proxy.
pub(crate) fn patch(
    mesh: &Mesh,
    proxy: &ProxyView,
    type_url: &str,
    resources: Vec<Arc<NamedResource>>,
    cache: &Cache,
) -> Vec<Arc<NamedResource>> {
    if mesh.config().envoy_filters.all().is_empty() {
        return resources;
    }
    let concerns = |patch: &&ConfigPatch| {
        is_of_type(patch, type_url) && matches::proxy(patch, proxy) && matches::kind(patch, proxy.kind)
    };
    let objects = objects(mesh, proxy);
    let patches: Vec<ConfigPatch> =
        objects.iter().flat_map(|o| &o.spec.config_patches).filter(concerns).cloned().collect();
    if patches.is_empty() {
        return resources;
    }
    let set = Set { patches, kind: proxy.kind, codec: cache.codec() };
    match type_url {
        type_url::CLUSTER => cluster::patch(&set, resources, &cache.patched),
        type_url::LISTENER => listener::patch(&set, resources, &cache.patched),
        _ => route::patch(&set, resources, &cache.patched),
    }
}

/// The patches of one type of resource.
struct Set<'a> {
    patches: Vec<ConfigPatch>,
    kind: ProxyType,
    codec: &'a Codec,
}

impl Set<'_> {
    fn tools(&self, context: PatchContext) -> Tools<'_> {
        Tools { codec: self.codec, context }
    }

    /// One resource with those patches that concern it.
    fn patched<M: Message + Name + Default>(
        &self,
        resource: Arc<NamedResource>,
        context: PatchContext,
        patches: Vec<ConfigPatch>,
        memo: &Memo<PatchedInputs>,
        apply: fn(&Tools<'_>, M, &[ConfigPatch]) -> M,
    ) -> Arc<NamedResource> {
        if patches.is_empty() {
            return resource;
        }
        let inputs = PatchedInputs { base: resource.any.value.clone(), patches, context };
        memo.get(&resource.name, inputs, |inputs| {
            let base = M::decode(inputs.base.as_slice()).unwrap_or_default();
            apply(&self.tools(context), base, &inputs.patches)
        })
    }

    /// Resources that patches add, which other patches do not concern.
    fn added<M: Message + Name + Default + Clone>(
        &self,
        apply_to: ApplyTo,
        name: fn(&M) -> &str,
        memo: &Memo<PatchedInputs>,
    ) -> Vec<Arc<NamedResource>> {
        let adds =
            |patch: &&ConfigPatch| patch.apply_to == apply_to && operation(patch) == PatchOperation::Add;
        let tools = self.tools(PatchContext::Any);
        let mut out = Vec::new();
        for patch in self.patches.iter().filter(adds) {
            let Some(value) = tools.value::<M>(patch) else { continue };
            let inputs =
                PatchedInputs { base: Vec::new(), patches: vec![patch.clone()], context: PatchContext::Any };
            out.push(memo.get(name(&value), inputs, |_| value.clone()));
        }
        out
    }
}

fn is_of_type(patch: &ConfigPatch, type_url: &str) -> bool {
    match patch.apply_to {
        ApplyTo::Cluster => type_url == type_url::CLUSTER,
        ApplyTo::Listener
        | ApplyTo::ListenerFilter
        | ApplyTo::FilterChain
        | ApplyTo::NetworkFilter
        | ApplyTo::HttpFilter => type_url == type_url::LISTENER,
        // The routes of inbound ports are part of their listener.
        ApplyTo::RouteConfiguration | ApplyTo::VirtualHost | ApplyTo::HttpRoute => {
            matches!(type_url, type_url::ROUTE | type_url::LISTENER)
        }
        ApplyTo::Invalid | ApplyTo::ExtensionConfig | ApplyTo::Bootstrap => false,
    }
}

/// What of the objects for a proxy cannot be applied.
pub(crate) fn problems(mesh: &Mesh, proxy: &ProxyView, cache: &Cache) -> Vec<Warning> {
    let mut out = Vec::new();
    for object in objects(mesh, proxy) {
        for problem in cache.problems(&object.spec, check) {
            out.push(warning(&object.meta, &problem));
        }
    }
    out
}

fn warning(meta: &ObjectMeta, problem: &Problem) -> Warning {
    Warning::of("EnvoyFilter", meta, problem.to_string())
}

/// A patch that cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The field, from `spec`.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
    /// Whether the object can have no good use as it is.
    pub fatal: bool,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}; the patch has no effect", self.field, self.message)
    }
}

/// Reads every patch as what it is to be applied to.
pub fn check(filter: &EnvoyFilter, codec: &Codec) -> Vec<Problem> {
    let mut out = Vec::new();
    for (index, patch) in filter.config_patches.iter().enumerate() {
        let at = format!("configPatches[{index}]");
        let mut tell = |field: &str, message: String, fatal: bool| {
            out.push(Problem { field: format!("{at}{field}"), message, fatal });
        };
        match patch.apply_to {
            ApplyTo::Bootstrap | ApplyTo::ExtensionConfig => {
                tell(
                    ".applyTo",
                    format!("{} is not supported by this release", patch.apply_to.as_str()),
                    false,
                );
                continue;
            }
            _ => {}
        }
        let context = patch.r#match.as_ref().map(|m| m.context).unwrap_or_default();
        if context == PatchContext::Waypoint {
            tell(".match.context", "this release runs no waypoints".to_owned(), false);
        }
        let Some(change) = &patch.patch else { continue };
        if change.filter_class != FilterClass::Unspecified {
            let message = "is not supported by this release: use INSERT_BEFORE or INSERT_AFTER";
            tell(".patch.filterClass", message.to_owned(), false);
        }
        if let Some(allowed) = unsupported_operation(patch.apply_to, change.operation) {
            let message = format!("{} is not one of {allowed}", change.operation.as_str());
            tell(".patch.operation", message, true);
        }
        if let Some(message) = value_error(patch.apply_to, change, codec) {
            tell(".patch.value", message, true);
        }
    }
    out
}

/// What may be done with a part, where that is not everything.
fn unsupported_operation(part: ApplyTo, operation: PatchOperation) -> Option<&'static str> {
    use PatchOperation::{Add, Merge, MergeAndReplaceList, Remove};
    let simple = matches!(operation, Add | Remove | Merge | MergeAndReplaceList);
    match part {
        ApplyTo::RouteConfiguration => (!matches!(operation, Merge | MergeAndReplaceList)).then_some("MERGE"),
        ApplyTo::Listener | ApplyTo::FilterChain | ApplyTo::VirtualHost | ApplyTo::Cluster => {
            (!simple).then_some("ADD, REMOVE and MERGE")
        }
        _ => None,
    }
}

fn value_error(part: ApplyTo, patch: &Patch, codec: &Codec) -> Option<String> {
    let value = &plain(patch.value.as_ref()?);
    let read = match part {
        ApplyTo::Listener => codec.from_json_value::<lds::Listener>(value).err(),
        ApplyTo::FilterChain => codec.from_json_value::<lds::FilterChain>(value).err(),
        ApplyTo::NetworkFilter => codec.from_json_value::<lds::Filter>(value).err(),
        ApplyTo::ListenerFilter => codec.from_json_value::<lds::ListenerFilter>(value).err(),
        ApplyTo::HttpFilter => codec.from_json_value::<HttpFilter>(value).err(),
        ApplyTo::RouteConfiguration => codec.from_json_value::<rds::RouteConfiguration>(value).err(),
        ApplyTo::VirtualHost => codec.from_json_value::<rds::VirtualHost>(value).err(),
        ApplyTo::HttpRoute => codec.from_json_value::<rds::Route>(value).err(),
        ApplyTo::Cluster => codec.from_json_value::<Cluster>(value).err(),
        ApplyTo::Invalid | ApplyTo::ExtensionConfig | ApplyTo::Bootstrap => None,
    };
    read.map(|error| error.to_string())
}
