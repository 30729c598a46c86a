//! `ScopedRoutes`: which route table a request gets, by its headers. Scopes stand here or come by SRDS; their tables
//! stand in them or come by RDS.

use std::collections::HashMap;
use std::sync::Arc;

use http::HeaderName;
use sail_proxy_decide::head::{RequestHead, joined};
use sail_proxy_decide::route::RouteTable;

use crate::convert::{Cx, arc, hash, headers, values};
use crate::pb;
use crate::pb::hcm::scoped_routes::{ConfigSpecifier, scope_key_builder};
use crate::route;
use crate::snapshot::Snapshot;
use crate::source::{ConfigSource, ResourceRef};

/// `ScopedRoutes`
#[derive(Debug)]
pub struct ScopedRoutes {
    /// What a scope's key is built from.
    pub fragments: Box<[ScopeFragment]>,
    /// The scopes; `None`: those that SRDS brings.
    pub scopes: Option<Scopes>,
    /// Where the scopes' tables come from, those that do not stand in them.
    pub tables: Option<ConfigSource>,
}

/// A scope's key.
pub type ScopeKey = Box<[Box<str>]>;

/// Scopes by key.
pub type Scopes = HashMap<ScopeKey, Arc<Scope>>;

/// `ScopedRouteConfiguration`
#[derive(Debug)]
pub struct Scope {
    /// Its name.
    pub name: Arc<str>,
    /// Its key.
    pub key: ScopeKey,
    /// Its table.
    pub routes: ScopeRoutes,
}

/// Where a scope's table is.
#[derive(Clone, Debug)]
pub enum ScopeRoutes {
    /// Here.
    Inline(Arc<RouteTable>),
    /// By RDS, under this name.
    Rds(Arc<str>),
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
    pub fn table<'a>(
        &'a self,
        head: &RequestHead<'_>,
        snapshot: &'a Snapshot,
    ) -> Option<&'a Arc<RouteTable>> {
        let key: Option<ScopeKey> = self.fragments.iter().map(|fragment| fragment.take(head)).collect();
        let scope = self.scopes.as_ref().unwrap_or(&snapshot.scopes).get(&key?)?;
        match &scope.routes {
            ScopeRoutes::Inline(table) => Some(table),
            ScopeRoutes::Rds(name) => snapshot.route_tables.get(name),
        }
    }

    /// The tables that are to come by RDS.
    pub fn wanted(&self) -> impl Iterator<Item = ResourceRef> {
        let names = self.scopes.iter().flat_map(HashMap::values).filter_map(|scope| scope.rds());
        names.filter_map(|name| Some(ResourceRef { name: name.clone(), source: self.tables.clone()? }))
    }
}

impl Scope {
    /// The name of its table, where that comes by RDS.
    pub fn rds(&self) -> Option<&Arc<str>> {
        match &self.routes {
            ScopeRoutes::Inline(_) => None,
            ScopeRoutes::Rds(name) => Some(name),
        }
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
    let tables = cx.option("rds_config_source", rds_config_source, values::config_source);
    let builder = cx.required("scope_key_builder", scope_key_builder, |_, builder| Some(builder))?;
    let fragments = cx.each("scope_key_builder.fragments", builder.fragments, fragment);
    let scopes = match config_specifier {
        Some(ConfigSpecifier::ScopedRouteConfigurationsList(list)) => {
            Some(inline(cx, list.scoped_route_configurations, tables.is_some()))
        }
        Some(ConfigSpecifier::ScopedRds(value)) => {
            let pb::hcm::ScopedRds { scoped_rds_config_source, srds_resources_locator } = value;
            cx.refuse("scoped_rds.srds_resources_locator", &srds_resources_locator);
            cx.required("scoped_rds.scoped_rds_config_source", scoped_rds_config_source, |cx, value| {
                values::config_source(cx, value)
            });
            None
        }
        None => {
            cx.error("config_specifier", "it must be set");
            return None;
        }
    };
    Some(ScopedRoutes { fragments: fragments.into(), scopes, tables })
}

fn inline(cx: &mut Cx<'_>, list: Vec<pb::route::ScopedRouteConfiguration>, has_rds: bool) -> Scopes {
    let field = "scoped_route_configurations_list.scoped_route_configurations";
    let mut scopes = Scopes::new();
    for scope in cx.each(field, list, scope) {
        if scope.rds().is_some() && !has_rds {
            cx.error("rds_config_source", format_args!("it must be set: scope {:?} needs it", scope.name));
        }
        let key = scope.key.clone();
        if scopes.insert(key.clone(), Arc::new(scope)).is_some() {
            cx.error(field, format_args!("two scopes have the key {key:?}"));
        }
    }
    scopes
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

/// `ScopedRouteConfiguration`
pub(crate) fn scope(cx: &mut Cx<'_>, value: pb::route::ScopedRouteConfiguration) -> Option<Scope> {
    use pb::route::scoped_route_configuration::key::fragment::Type;
    let pb::route::ScopedRouteConfiguration {
        on_demand,
        name,
        route_configuration_name,
        route_configuration,
        key,
    } = value;
    cx.refuse("on_demand", &on_demand);
    let key = cx.required("key", key, |_, key| Some(key))?;
    let key: ScopeKey = key
        .fragments
        .into_iter()
        .map(|fragment| fragment.r#type.map(|Type::StringKey(text)| text).unwrap_or_default().into())
        .collect();
    if key.is_empty() {
        cx.error("key.fragments", "they must not be empty");
    }
    let routes = match (route_configuration, route_configuration_name.is_empty()) {
        (Some(value), true) => {
            let version = hash(&prost::Message::encode_to_vec(&value));
            let table = cx.within("route_configuration", |cx| route::table(cx, value, version))?;
            ScopeRoutes::Inline(Arc::new(table))
        }
        (None, false) => ScopeRoutes::Rds(arc(route_configuration_name)),
        _ => {
            cx.error("route_configuration", "either it or route_configuration_name must be set");
            return None;
        }
    };
    Some(Scope { name: arc(name), key, routes })
}
