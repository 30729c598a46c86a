//! Metadata as scripts see it: what configuration says, and what filters wrote for the stream.

use std::rc::Rc;
use std::sync::Arc;

use mlua::{Error, Function, Lua, MetaMethod, MultiValue, UserData, UserDataMethods, Value};
use serde_json::{Map, Value as Json};

use super::stream::Stream;
use super::values;
use super::vm::mistake;

/// An object of configuration: all of it, or one namespace.
pub(super) struct Metadata {
    all: Option<Arc<Map<String, Json>>>,
    namespace: Option<&'static str>,
    own: Option<Box<str>>,
}

impl Metadata {
    /// All of it.
    pub(super) fn whole(all: Option<Arc<Map<String, Json>>>) -> Self {
        Self { all, namespace: None, own: None }
    }

    /// What is said to a filter: under its name here, else under what it is called everywhere.
    pub(super) fn of_filter(all: Option<Arc<Map<String, Json>>>, filter: &str) -> Self {
        Self { all, namespace: Some("envoy.filters.http.lua"), own: Some(filter.into()) }
    }

    fn fields(&self) -> Option<&Map<String, Json>> {
        let all = self.all.as_deref()?;
        let Some(namespace) = self.namespace else { return Some(all) };
        let own = self.own.as_deref().and_then(|own| all.get(own));
        own.or_else(|| all.get(namespace))?.as_object()
    }
}

impl UserData for Metadata {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("get", |lua, this, key: String| get(lua, this.fields(), &key));
        methods.add_meta_method(MetaMethod::Pairs, |lua, this, ()| walk(lua, this.fields()));
    }
}

fn get(lua: &Lua, fields: Option<&Map<String, Json>>, key: &str) -> Result<Value, Error> {
    fields.and_then(|fields| fields.get(key)).map_or(Ok(Value::Nil), |value| values::to_lua(lua, value))
}

fn walk(lua: &Lua, fields: Option<&Map<String, Json>>) -> Result<Function, Error> {
    let fields = fields.into_iter().flatten();
    let all: Vec<(String, Value)> = fields
        .map(|(key, value)| Ok((key.clone(), values::to_lua(lua, value)?)))
        .collect::<Result<_, Error>>()?;
    let mut all = all.into_iter();
    lua.create_function_mut(move |lua, _: MultiValue| match all.next() {
        Some((key, value)) => Ok((Value::String(lua.create_string(key)?), value)),
        None => Ok((Value::Nil, Value::Nil)),
    })
}

/// `streamInfo():dynamicMetadata()`
pub(super) struct Dynamic(pub(super) Rc<Stream>);

impl UserData for Dynamic {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("get", |lua, this, filter: String| {
            let exchange = this.0.exchange(lua)?;
            let info = exchange.info.borrow();
            get(lua, Some(info.dynamic_metadata.all()), &filter)
        });
        methods.add_method("set", |lua, this, (filter, key, value): (String, String, Value)| {
            let exchange = this.0.exchange(lua)?;
            let value = values::to_json(&value).map_err(|kind| {
                mistake(lua, 1, format_args!("unexpected type '{kind}' in dynamicMetadata"))
            })?;
            exchange.info.borrow_mut().dynamic_metadata.set(&filter, &key, value);
            Ok(())
        });
        methods.add_meta_method(MetaMethod::Pairs, |lua, this, ()| {
            let exchange = this.0.exchange(lua)?;
            let info = exchange.info.borrow();
            walk(lua, Some(info.dynamic_metadata.all()))
        });
    }
}

/// `connectionStreamInfo():dynamicMetadata()`
pub(super) struct OfConnection(pub(super) Rc<Stream>);

impl UserData for OfConnection {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("get", |lua, this, filter: String| {
            let exchange = this.0.exchange(lua)?;
            let metadata = exchange.connection.downstream.state.metadata.borrow();
            get(lua, Some(metadata.all()), &filter)
        });
        methods.add_meta_method(MetaMethod::Pairs, |lua, this, ()| {
            let exchange = this.0.exchange(lua)?;
            let metadata = exchange.connection.downstream.state.metadata.borrow();
            walk(lua, Some(metadata.all()))
        });
    }
}

/// `route()` and `virtualHost()`
pub(super) struct Configured(pub(super) Option<Arc<Map<String, Json>>>, pub(super) Box<str>);

impl UserData for Configured {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("metadata", |_, this, ()| Ok(Metadata::of_filter(this.0.clone(), &this.1)));
    }
}
