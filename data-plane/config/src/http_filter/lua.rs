//! `lua`: scripts that look at requests and responses.

use std::collections::BTreeMap;
use std::sync::Arc;

use sail_proxy_decide::route::PerFilterConfig;
use serde_json::{Map, Value};

use super::{Entry, HttpFilterKind, PerRoute};
use crate::convert::{Cx, arc, values};
use crate::pb;
use crate::pb::filters::http::lua::v3 as proto;

pub(super) const ENTRY: Entry = Entry {
    name: "envoy.extensions.filters.http.lua.v3.Lua",
    convert: |cx, any| Some(HttpFilterKind::Lua(Arc::new(read(cx, any)?))),
    per_route: Some(PerRoute {
        name: "envoy.extensions.filters.http.lua.v3.LuaPerRoute",
        convert: |cx, any| Some(PerFilterConfig::typed(read_per_route(cx, any)?)),
    }),
};

/// `Lua`
#[derive(Debug)]
pub struct Lua {
    /// What runs where routes say nothing.
    pub default: Option<Script>,
    /// What routes may ask for by name.
    pub sources: BTreeMap<Box<str>, Script>,
    /// Goes between `lua.` and the statistics' names.
    pub stat_prefix: Box<str>,
    /// Whether the route is chosen again after a script changed headers.
    pub clear_route_cache: bool,
    /// What scripts read where routes say nothing.
    pub context: Option<Arc<Map<String, Value>>>,
}

/// A script. It was loaded once when the configuration was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// The text.
    pub code: Arc<str>,
    /// Where its modules are looked for first.
    pub package_paths: Arc<[Box<str>]>,
}

/// `LuaPerRoute`
#[derive(Debug)]
pub struct LuaPerRoute {
    /// Which script runs.
    pub choice: Choice,
    /// In place of the filter's.
    pub context: Option<Arc<Map<String, Value>>>,
}

/// `override`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The filter's own.
    Default,
    /// None.
    Disabled,
    /// One of the filter's, by name.
    Named(Box<str>),
    /// This one.
    Own(Script),
}

fn read(cx: &mut Cx<'_>, any: &pb::Any) -> Option<Lua> {
    // Old, and still how most scripts are written.
    #[allow(deprecated, reason = "configurations use it")]
    let proto::Lua {
        inline_code,
        source_codes,
        default_source_code,
        stat_prefix,
        clear_route_cache,
        filter_context,
        package_paths,
        package_cpaths,
    } = cx.unpack(any)?;
    let paths = paths(cx, package_paths, &package_cpaths);
    if !inline_code.is_empty() && default_source_code.is_some() {
        cx.error("inline_code", "it cannot be set together with default_source_code");
    }
    let default = match default_source_code {
        Some(source) => Some(cx.within("default_source_code", |cx| script(cx, source, &paths))?),
        None if inline_code.is_empty() => None,
        None => Some(cx.within("inline_code", |cx| loaded(cx, inline_code, &paths))?),
    };
    let mut sources = BTreeMap::new();
    for (name, source) in source_codes {
        let field = format!("source_codes[{name:?}]");
        if let Some(script) = cx.within(field, |cx| script(cx, source, &paths)) {
            sources.insert(name.into(), script);
        }
    }
    Some(Lua {
        default,
        sources,
        stat_prefix: stat_prefix.into(),
        clear_route_cache: values::bool_or(clear_route_cache, true),
        context: filter_context.map(|context| Arc::new(values::object(context))),
    })
}

fn read_per_route(cx: &mut Cx<'_>, any: &pb::Any) -> Option<LuaPerRoute> {
    use proto::lua_per_route::Override;
    let proto::LuaPerRoute { filter_context, package_paths, package_cpaths, r#override } = cx.unpack(any)?;
    let paths = paths(cx, package_paths, &package_cpaths);
    let choice = match r#override {
        None => Choice::Default,
        Some(Override::Disabled(true)) => Choice::Disabled,
        Some(Override::Disabled(false)) => {
            cx.error("disabled", "it must be true if it is set");
            return None;
        }
        Some(Override::Name(name)) if name.is_empty() => {
            cx.error("name", "it must not be empty");
            return None;
        }
        Some(Override::Name(name)) => Choice::Named(name.into()),
        Some(Override::SourceCode(source)) => {
            Choice::Own(cx.within("source_code", |cx| script(cx, source, &paths))?)
        }
    };
    Some(LuaPerRoute { choice, context: filter_context.map(|context| Arc::new(values::object(context))) })
}

fn paths(cx: &mut Cx<'_>, paths: Vec<String>, cpaths: &[String]) -> Arc<[Box<str>]> {
    if !cpaths.is_empty() {
        cx.error("package_cpaths", "modules in C are not loaded");
    }
    cx.each("package_paths", paths, |cx, path| {
        if path.is_empty() {
            cx.error("", "it must not be empty");
        }
        Some(path.into())
    })
    .into()
}

fn script(cx: &mut Cx<'_>, value: pb::core::DataSource, paths: &Arc<[Box<str>]>) -> Option<Script> {
    let code = values::text(cx, value)?;
    loaded(cx, code, paths)
}

fn loaded(cx: &mut Cx<'_>, code: String, paths: &Arc<[Box<str>]>) -> Option<Script> {
    let script = Script { code: arc(code), package_paths: paths.clone() };
    let result = cx.sources.lua(&script);
    cx.ok("", result)?;
    Some(script)
}
