//! `ScopedRoutes`: which route table a request gets, by its headers. Scopes are given inline; those from a service are
//! refused.

use std::collections::HashMap;
use std::sync::Arc;

use http::HeaderName;
use sail_proxy_decide::head::{RequestHead, joined};
use sail_proxy_decide::route::RouteTable;

use crate::convert::{Cx, hash, headers};
use crate::pb;
use crate::pb::hcm::scoped_routes::{ConfigSpecifier, scope_key_builder};
use crate::route;

/// `ScopedRoutes`
#[derive(Debug)]
pub struct ScopedRoutes {
    /// What a scope's key is built from.
    pub fragments: Box<[ScopeFragment]>,
    /// The tables by key.
    pub scopes: HashMap<Box<[Box<str>]>, Arc<RouteTable>>,
}

/// One part of a key.
#[derive(Clone, Debug)]
pub struct ScopeFragment {
    /// The header that it is taken from.
    pub header: HeaderName,
    /// What stands between the header's elements; empty: the header is one.
    pub separator: Box<str>,
    /// Which element.
    pub extract: Extract,
}

/// Which element of a header is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extract {
    /// By its place.
    Index(usize),
    /// The value of a key: the text between both, and the key.
    Key(Box<str>, Box<str>),
}

impl ScopedRoutes {
    /// The table for a request; `None` if it is in no scope.
    pub fn table(&self, head: &RequestHead<'_>) -> Option<&Arc<RouteTable>> {
        let key: Option<Box<[Box<str>]>> =
            self.fragments.iter().map(|fragment| fragment.take(head)).collect();
        self.scopes.get(&key?)
    }
}

impl ScopeFragment {
    fn take(&self, head: &RequestHead<'_>) -> Option<Box<str>> {
        let value = joined(head.headers, &self.header)?;
        let text = std::str::from_utf8(&value).ok()?;
        let mut one = Some(text);
        let mut parts = text.split(&*self.separator);
        let mut elements =
            std::iter::from_fn(|| if self.separator.is_empty() { one.take() } else { parts.next() });
        let found = match &self.extract {
            Extract::Index(place) => elements.nth(*place)?,
            Extract::Key(separator, key) => elements
                .filter_map(|element| element.split_once(&**separator))
                .find_map(|(name, value)| (*name == **key).then_some(value))?,
        };
        Some(found.into())
    }
}

pub(super) fn routes(cx: &mut Cx<'_>, value: pb::hcm::ScopedRoutes) -> Option<ScopedRoutes> {
    let pb::hcm::ScopedRoutes { name: _, scope_key_builder, rds_config_source, config_specifier } = value;
    cx.refuse("rds_config_source", &rds_config_source);
    let builder = cx.required("scope_key_builder", scope_key_builder, |_, builder| Some(builder))?;
    let fragments = cx.each("scope_key_builder.fragments", builder.fragments, fragment);
    let list = match config_specifier {
        Some(ConfigSpecifier::ScopedRouteConfigurationsList(list)) => list.scoped_route_configurations,
        Some(ConfigSpecifier::ScopedRds(_)) => {
            cx.error("scoped_rds", "it is not supported: scopes are given inline");
            return None;
        }
        None => {
            cx.error("config_specifier", "it must be set");
            return None;
        }
    };
    let field = "scoped_route_configurations_list.scoped_route_configurations";
    let scopes = cx.each(field, list, scope);
    let mut by_key = HashMap::new();
    for (key, table) in scopes {
        if by_key.insert(key.clone(), table).is_some() {
            cx.error(field, format_args!("two scopes have the key {key:?}"));
        }
    }
    Some(ScopedRoutes { fragments: fragments.into(), scopes: by_key })
}

fn fragment(cx: &mut Cx<'_>, value: scope_key_builder::FragmentBuilder) -> Option<ScopeFragment> {
    use scope_key_builder::fragment_builder::header_value_extractor::{ExtractType, KvElement};
    use scope_key_builder::fragment_builder::{HeaderValueExtractor, Type};
    let Some(Type::HeaderValueExtractor(value)) = value.r#type else {
        cx.error("header_value_extractor", "it must be set");
        return None;
    };
    let HeaderValueExtractor { name, element_separator, extract_type } = value;
    let extract = match extract_type {
        None => Extract::Index(0),
        Some(ExtractType::Index(place)) => {
            if place > 0 && element_separator.is_empty() {
                cx.error("header_value_extractor.index", "it needs an element_separator");
            }
            Extract::Index(place as usize)
        }
        Some(ExtractType::Element(KvElement { separator, key })) => {
            Extract::Key(separator.into(), key.into())
        }
    };
    let header = headers::name(cx, "header_value_extractor.name", &name)?;
    Some(ScopeFragment { header, separator: element_separator.into(), extract })
}

type Scope = (Box<[Box<str>]>, Arc<RouteTable>);

fn scope(cx: &mut Cx<'_>, value: pb::route::ScopedRouteConfiguration) -> Option<Scope> {
    use pb::route::scoped_route_configuration::key::fragment::Type;
    let pb::route::ScopedRouteConfiguration {
        on_demand,
        name: _,
        route_configuration_name,
        route_configuration,
        key,
    } = value;
    cx.refuse("on_demand", &on_demand);
    cx.refuse("route_configuration_name", &route_configuration_name);
    let key = cx.required("key", key, |_, key| Some(key))?;
    let key: Box<[Box<str>]> = key
        .fragments
        .into_iter()
        .map(|fragment| fragment.r#type.map(|Type::StringKey(text)| text).unwrap_or_default().into())
        .collect();
    let table = cx.required("route_configuration", route_configuration, |cx, value| {
        let version = hash(&prost::Message::encode_to_vec(&value));
        route::table(cx, value, version)
    })?;
    Some((key, Arc::new(table)))
}
