//! HTTP filters whose configuration is a resource of its own (ECDS): `config_discovery`.

use std::sync::Arc;

use super::HttpFilterKind;
use crate::convert::{Cx, arc, type_name, values};
use crate::pb;
use crate::source::ResourceRef;

/// `ExtensionConfigSource`
#[derive(Debug)]
pub struct Discovered {
    /// The resource.
    pub resource: ResourceRef,
    /// What it may be, by the names of messages.
    pub types: Box<[Box<str>]>,
    /// What holds until it arrives, and once it is gone.
    pub default: Option<HttpFilterKind>,
}

/// `TypedExtensionConfig`, of an HTTP filter.
#[derive(Debug)]
pub struct Extension {
    /// The name of its message.
    pub type_name: Box<str>,
    /// What it says.
    pub kind: HttpFilterKind,
}

impl Discovered {
    /// What holds, given the resource that is there; `None`: requests cannot be served.
    pub fn kind<'a>(&'a self, found: Option<&'a Arc<Extension>>) -> Option<&'a HttpFilterKind> {
        let fits = |extension: &&Arc<Extension>| self.types.iter().any(|name| **name == *extension.type_name);
        found.filter(fits).map(|extension| &extension.kind).or(self.default.as_ref())
    }
}

/// `config_discovery`
pub(super) fn discovered(
    cx: &mut Cx<'_>,
    name: &str,
    value: pb::core::ExtensionConfigSource,
) -> Option<Discovered> {
    let pb::core::ExtensionConfigSource {
        config_source,
        default_config,
        // Whoever waits for the resource reads it.
        apply_default_config_without_warming: _,
        type_urls,
    } = value;
    if type_urls.is_empty() {
        cx.error("type_urls", "it must be set");
    }
    let types: Box<[Box<str>]> =
        type_urls.iter().map(|url| url.rsplit('/').next().unwrap_or_default().into()).collect();
    let default = match default_config {
        Some(any) => cx.within("default_config", |cx| {
            if types.iter().all(|name| **name != *type_name(&any)) {
                cx.error("", format_args!("{:?} is none of type_urls", type_name(&any)));
            }
            kind(cx, &any)
        }),
        None => None,
    };
    let source = cx.required("config_source", config_source, values::config_source)?;
    Some(Discovered { resource: ResourceRef { name: arc(name.to_owned()), source }, types, default })
}

/// `TypedExtensionConfig`
pub(crate) fn extension(cx: &mut Cx<'_>, value: pb::core::TypedExtensionConfig) -> Option<Extension> {
    let pb::core::TypedExtensionConfig { name: _, typed_config } = value;
    let any = typed_config.unwrap_or_default();
    let kind = cx.within("typed_config", |cx| kind(cx, &any))?;
    Some(Extension { type_name: type_name(&any).into(), kind })
}

/// A filter that acts in the chain: others are looked for when the connection manager is set up.
fn kind(cx: &mut Cx<'_>, any: &pb::Any) -> Option<HttpFilterKind> {
    let kind = super::kind(cx, any)?;
    if matches!(kind, HttpFilterKind::Router(_) | HttpFilterKind::IstioStats(_)) {
        cx.error("", format_args!("{:?} is not found by discovery: give it as typed_config", type_name(any)));
        return None;
    }
    Some(kind)
}
