//! What scripts read of streams and connections.

use std::rc::Rc;

use mlua::{Error, Lua, UserData, UserDataMethods, Value};

use super::metadata::{Dynamic, OfConnection};
use super::ssl::Ssl;
use super::stream::{Message, Stream};
use crate::stream_info::DownstreamInfo;

/// `streamInfo()`
pub(super) struct Info(pub(super) Rc<Stream>);

/// `connection()`
pub(super) struct Connection(pub(super) Rc<Stream>);

/// `connectionStreamInfo()`
pub(super) struct ConnectionInfo(pub(super) Rc<Stream>);

/// `filterState()`
struct FilterState(Rc<Stream>);

impl Info {
    fn downstream<R>(&self, lua: &Lua, read: impl FnOnce(&DownstreamInfo) -> R) -> Result<R, Error> {
        let exchange = self.0.exchange(lua)?;
        let info = exchange.info.borrow();
        Ok(read(&info.downstream))
    }
}

impl UserData for Info {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("protocol", |lua, this, ()| {
            Ok(this.0.exchange(lua)?.info.borrow().protocol.map(crate::stream_info::Protocol::as_str))
        });
        methods.add_method("routeName", |lua, this, ()| {
            let exchange = this.0.routed(lua)?;
            let found = exchange.routed.get();
            let route = found.as_ref().and_then(|found| found.route.as_ref());
            Ok(route.map(|route| route.name.to_string()).unwrap_or_default())
        });
        methods.add_method("virtualClusterName", |lua, this, ()| {
            let exchange = this.0.routed(lua)?;
            let found = exchange.routed.get();
            let Some(host) = found.as_ref().map(|found| &found.virtual_host) else {
                return Ok(String::new());
            };
            if host.virtual_clusters.is_empty() {
                return Ok(String::new());
            }
            let group = match &*this.0.message.borrow() {
                Some(Message::Request(head)) => host.virtual_cluster(&head.view()),
                // The head went upstream; what was noted of it says as much as most groups ask for.
                _ => host.virtual_cluster(&exchange.noted_head().view()),
            };
            let name = group.and_then(|group| group.stat_name.rsplit_once(".vcluster."));
            Ok(name.map(|(_, name)| name.to_owned()).unwrap_or_default())
        });
        methods.add_method("downstreamLocalAddress", |lua, this, ()| {
            this.downstream(lua, |downstream| downstream.local_address.to_string())
        });
        methods.add_method("downstreamDirectLocalAddress", |lua, this, ()| {
            this.downstream(lua, |downstream| downstream.local_address.to_string())
        });
        methods.add_method("downstreamRemoteAddress", |lua, this, ()| {
            this.downstream(lua, |downstream| downstream.remote_address.to_string())
        });
        methods.add_method("downstreamDirectRemoteAddress", |lua, this, ()| {
            this.downstream(lua, |downstream| downstream.direct_remote_address.to_string())
        });
        methods.add_method("requestedServerName", |lua, this, ()| {
            this.downstream(lua, |downstream| {
                downstream.server_name.as_deref().unwrap_or_default().to_owned()
            })
        });
        methods.add_method("downstreamSslConnection", |lua, this, ()| {
            this.downstream(lua, |downstream| downstream.tls.clone().map(Ssl))
        });
        methods.add_method("dynamicMetadata", |_, this, ()| Ok(Dynamic(this.0.clone())));
        // Messages of filters are not kept as such.
        methods.add_method("dynamicTypedMetadata", |_, _, _: String| Ok(Value::Nil));
        methods.add_method("filterState", |_, this, ()| Ok(FilterState(this.0.clone())));
        methods.add_method("drainConnectionUponCompletion", |lua, this, ()| {
            this.0.exchange(lua)?.connection.close_after_this();
            Ok(())
        });
    }
}

impl UserData for FilterState {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("get", |lua, this, (name, _field): (String, Option<String>)| {
            let exchange = this.0.exchange(lua)?;
            let info = exchange.info.borrow();
            info.filter_state(&name).map(|value| lua.create_string(value)).transpose()
        });
        // What a value is made by does not matter: all are text here.
        methods.add_method("set", |lua, this, (name, _factory, value): (String, String, String)| {
            let exchange = this.0.exchange(lua)?;
            exchange.info.borrow_mut().filter_state.push((name.into(), value.into()));
            Ok(())
        });
    }
}

impl UserData for Connection {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("ssl", |lua, this, ()| {
            Ok(this.0.exchange(lua)?.connection.downstream.tls.clone().map(Ssl))
        });
    }
}

impl UserData for ConnectionInfo {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("dynamicMetadata", |_, this, ()| Ok(OfConnection(this.0.clone())));
        methods.add_method("dynamicTypedMetadata", |_, _, _: String| Ok(Value::Nil));
    }
}
