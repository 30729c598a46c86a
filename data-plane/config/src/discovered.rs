//! Filters whose configuration is a resource of its own (ECDS): `config_discovery`. The same for HTTP filters, network
//! filters and listener filters.

use std::sync::Arc;

use crate::convert::{Cx, arc, type_name, values};
use crate::http_filter::HttpFilterKind;
use crate::listener::{self, ListenerFilterKind};
use crate::network_filter::{self, NetworkFilter};
use crate::pb;
use crate::source::ResourceRef;

/// `ExtensionConfigSource`, of a filter of one kind.
#[derive(Debug)]
pub struct Discovered<F> {
    /// The resource.
    pub resource: ResourceRef,
    /// What it may be, by the names of messages.
    pub types: Box<[Box<str>]>,
    /// What holds until it arrives, and once it is gone.
    pub default: Option<F>,
}

/// `TypedExtensionConfig`, of a filter.
#[derive(Debug)]
pub struct Extension {
    /// The name of its message.
    pub type_name: Box<str>,
    /// What it says.
    pub kind: ExtensionKind,
}

/// The kinds of filters.
#[derive(Debug)]
pub enum ExtensionKind {
    /// An HTTP filter.
    Http(HttpFilterKind),
    /// A network filter.
    Network(NetworkFilter),
    /// A listener filter.
    Listener(ListenerFilterKind),
}

/// A kind of filters that discovery may bring.
pub trait Discoverable: Sized {
    /// It, if it is of this kind.
    fn of(kind: &ExtensionKind) -> Option<&Self>;
}

impl Discoverable for HttpFilterKind {
    fn of(kind: &ExtensionKind) -> Option<&Self> {
        if let ExtensionKind::Http(filter) = kind { Some(filter) } else { None }
    }
}

impl Discoverable for NetworkFilter {
    fn of(kind: &ExtensionKind) -> Option<&Self> {
        if let ExtensionKind::Network(filter) = kind { Some(filter) } else { None }
    }
}

impl Discoverable for ListenerFilterKind {
    fn of(kind: &ExtensionKind) -> Option<&Self> {
        if let ExtensionKind::Listener(filter) = kind { Some(filter) } else { None }
    }
}

impl<F: Discoverable> Discovered<F> {
    /// What holds, given the resource that is there; `None`: nobody can be served.
    pub fn kind<'a>(&'a self, found: Option<&'a Arc<Extension>>) -> Option<&'a F> {
        let fits = |extension: &&Arc<Extension>| self.types.iter().any(|name| **name == *extension.type_name);
        found.filter(fits).and_then(|extension| F::of(&extension.kind)).or(self.default.as_ref())
    }
}

/// `config_discovery`; `read` reads a filter of the kind.
pub(crate) fn discovered<F>(
    cx: &mut Cx<'_>,
    name: &str,
    value: pb::core::ExtensionConfigSource,
    read: impl FnOnce(&mut Cx<'_>, &pb::Any) -> Option<F>,
) -> Option<Discovered<F>> {
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
            read(cx, &any)
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
    let name = type_name(&any);
    let kind = cx.within("typed_config", |cx| {
        if listener::KNOWN.contains(&name) {
            listener::filter_kind(cx, &any).map(ExtensionKind::Listener)
        } else if network_filter::is_discoverable(name) {
            network_filter::discoverable(cx, &any).map(ExtensionKind::Network)
        } else {
            http(cx, &any).map(ExtensionKind::Http)
        }
    })?;
    Some(Extension { type_name: name.into(), kind })
}

/// A filter that acts in the chain: others are looked for when the connection manager is set up.
pub(crate) fn http(cx: &mut Cx<'_>, any: &pb::Any) -> Option<HttpFilterKind> {
    let kind = crate::http_filter::kind(cx, any)?;
    if matches!(kind, HttpFilterKind::Router(_) | HttpFilterKind::IstioStats(_)) {
        cx.error("", format_args!("{:?} is not found by discovery: give it as typed_config", type_name(any)));
        return None;
    }
    Some(kind)
}
