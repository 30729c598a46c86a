//! The handle that a script is called with. What waits is here only begun: `prelude.lua` pauses for it.

use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderValue};
use http::{Response, StatusCode};
use mlua::{Error, Lua, LuaString, Table, UserData, UserDataFields, UserDataMethods, UserDataRef, Value};
use sail_proxy_decide::signature::{self, SignatureError};

use super::buffer::Buffer;
use super::call;
use super::headers::{self, Headers, Which};
use super::metadata::{Configured, Metadata};
use super::stream::{Pending, Stream};
use super::stream_info::{Connection, ConnectionInfo, Info};
use super::vm::{self, mistake};

/// See the module's documentation.
pub(super) struct Handle(pub(super) Rc<Stream>);

/// A public key; `None` if it is none.
struct PublicKey(Option<LuaString>);

/// Units of `EnvoyTimestampResolution`.
const MILLISECOND: i64 = 0;
const MICROSECOND: i64 = 1;

impl UserData for Handle {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        // What is not found below.
        fields.add_meta_field_with("__index", vm::methods);
    }

    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods
            .add_method("headers", |_, this, ()| Ok(Headers { stream: this.0.clone(), which: Which::Head }));
        methods.add_method("streamInfo", |_, this, ()| Ok(Info(this.0.clone())));
        methods.add_method("connection", |_, this, ()| Ok(Connection(this.0.clone())));
        methods.add_method("connectionStreamInfo", |_, this, ()| Ok(ConnectionInfo(this.0.clone())));
        methods.add_method("metadata", |lua, this, ()| {
            let exchange = this.0.routed(lua)?;
            let found = exchange.routed.get();
            let route = found.as_ref().and_then(|found| found.route.as_ref());
            Ok(Metadata::of_filter(route.and_then(|route| route.metadata.clone()), &this.0.filter))
        });
        methods.add_method("route", |lua, this, ()| {
            let exchange = this.0.routed(lua)?;
            let found = exchange.routed.get();
            let route = found.as_ref().and_then(|found| found.route.as_ref());
            Ok(Configured(route.and_then(|route| route.metadata.clone()), this.0.filter.clone()))
        });
        methods.add_method("virtualHost", |lua, this, ()| {
            let exchange = this.0.routed(lua)?;
            let found = exchange.routed.get();
            let metadata = found.as_ref().and_then(|found| found.virtual_host.metadata.clone());
            Ok(Configured(metadata, this.0.filter.clone()))
        });
        methods.add_method("filterContext", |_, this, ()| Ok(Metadata::whole(this.0.context.clone())));
        methods.add_method("clearRouteCache", |_, this, ()| {
            this.0.clear_route();
            Ok(())
        });
        methods.add_method("setUpstreamOverrideHost", set_override);
        methods.add_method("timestamp", |lua, _, unit: Value| match unit_of(&unit) {
            Some(MILLISECOND) => Ok(now().as_millis() as f64),
            _ => Err(mistake(lua, 1, "timestamp format must be MILLISECOND.")),
        });
        methods.add_method("timestampString", |lua, _, unit: Value| match unit_of(&unit) {
            Some(MILLISECOND) => Ok(now().as_millis().to_string()),
            Some(MICROSECOND) => Ok(now().as_micros().to_string()),
            _ => Err(mistake(lua, 1, "timestamp format must be MILLISECOND or MICROSECOND.")),
        });
        methods.add_method("base64Escape", |_, _, text: LuaString| Ok(STANDARD.encode(&*text.as_bytes())));
        methods.add_method("importPublicKey", |lua, _, (key, length): (LuaString, usize)| {
            let key = lua.create_string(prefix(&key.as_bytes(), length))?;
            let good = signature::is_public_key(&key.as_bytes());
            Ok(PublicKey(Some(key).filter(|_| good)))
        });
        methods.add_method("verifySignature", verify);
        log(methods);
    }
}

impl UserData for PublicKey {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("get", |_, this, ()| Ok(this.0.clone()));
    }
}

/// The `log` methods, which write at the filter's own name.
fn log<M: UserDataMethods<Handle>>(methods: &mut M) {
    let text = |text: &LuaString| text.to_string_lossy();
    methods.add_method("logTrace", move |_, _, said: LuaString| {
        tracing::trace!("script log: {}", text(&said));
        Ok(())
    });
    methods.add_method("logDebug", move |_, _, said: LuaString| {
        tracing::debug!("script log: {}", text(&said));
        Ok(())
    });
    methods.add_method("logInfo", move |_, _, said: LuaString| {
        tracing::info!("script log: {}", text(&said));
        Ok(())
    });
    methods.add_method("logWarn", move |_, _, said: LuaString| {
        tracing::warn!("script log: {}", text(&said));
        Ok(())
    });
    for name in ["logErr", "logCritical"] {
        methods.add_method(name, move |_, _, said: LuaString| {
            tracing::error!("script log: {}", text(&said));
            Ok(())
        });
    }
}

fn now() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn unit_of(unit: &Value) -> Option<i64> {
    match unit {
        Value::Nil => Some(MILLISECOND),
        value => value.as_i64(),
    }
}

fn prefix(bytes: &[u8], length: usize) -> &[u8] {
    &bytes[..length.min(bytes.len())]
}

fn set_override(lua: &Lua, this: &Handle, (host, strict): (LuaString, Option<bool>)) -> Result<(), Error> {
    let exchange = this.0.exchange(lua)?;
    let Ok(address) = host.to_string_lossy().parse::<std::net::SocketAddr>() else {
        return Err(mistake(lua, 1, "host is not a valid IP address"));
    };
    exchange.set_upstream_override(address.to_string(), strict.unwrap_or(false));
    Ok(())
}

/// A digest's name, a key, a signature and its length, data and its length.
type Signed = (LuaString, LuaString, LuaString, usize, LuaString, usize);

fn verify(_: &Lua, _: &Handle, signed: Signed) -> Result<(bool, Option<String>), Error> {
    let (digest, key, signature, signature_length, data, data_length) = signed;
    let digest = digest.to_string_lossy();
    let result = signature::verify(
        &digest,
        &key.as_bytes(),
        prefix(&signature.as_bytes(), signature_length),
        prefix(&data.as_bytes(), data_length),
    );
    Ok(match result {
        Ok(()) => (true, None),
        Err(SignatureError::Digest) => (false, Some(format!("{digest} is not supported."))),
        Err(SignatureError::Mismatch) => (false, Some("Failed to verify digest. Error code: 0".to_owned())),
    })
}

/// What `prelude.lua` calls for methods that wait.
pub(super) fn waiting(lua: &Lua, native: &Table) -> Result<(), Error> {
    native.set("body", lua.create_function(body)?)?;
    native.set("body_chunks", lua.create_function(body_chunks)?)?;
    native.set("chunk", lua.create_function(chunk)?)?;
    native.set("trailers", lua.create_function(trailers)?)?;
    native.set("http_call", lua.create_function(call::start)?)?;
    native.set("respond", lua.create_function(respond)?)
}

/// Whether to wait, and the body if it is there.
fn body(
    lua: &Lua,
    (handle, always_wrap): (UserDataRef<Handle>, Value),
) -> Result<(bool, Option<Buffer>), Error> {
    let stream = &handle.0;
    stream.exchange(lua)?;
    let always_wrap = !matches!(always_wrap, Value::Nil | Value::Boolean(false));
    if stream.ended.get() {
        if !stream.buffered.get() && stream.saw_body.get() {
            return Err(mistake(lua, 2, "cannot call body() after body has been streamed"));
        }
        if always_wrap {
            stream.buffered.set(true);
        } else if !stream.saw_body.get() {
            return Ok((false, None));
        }
        return Ok((false, Some(Buffer::new(stream))));
    }
    if stream.saw_body.get() {
        return Err(mistake(lua, 2, "cannot call body() after body streaming has started"));
    }
    stream.buffered.set(true);
    stream.pending.replace(Some(Pending::Body(always_wrap)));
    Ok((true, None))
}

fn body_chunks(lua: &Lua, handle: UserDataRef<Handle>) -> Result<(), Error> {
    handle.0.exchange(lua)?;
    if handle.0.saw_body.get() {
        return Err(mistake(lua, 2, "cannot call bodyChunks after body processing has begun"));
    }
    Ok(())
}

fn chunk(lua: &Lua, handle: UserDataRef<Handle>) -> Result<bool, Error> {
    handle.0.exchange(lua)?;
    if handle.0.ended.get() {
        return Ok(false);
    }
    handle.0.pending.replace(Some(Pending::Chunk));
    Ok(true)
}

fn trailers(lua: &Lua, handle: UserDataRef<Handle>) -> Result<(bool, Option<Headers>), Error> {
    let stream = &handle.0;
    stream.exchange(lua)?;
    if stream.trailers.borrow().is_some() {
        return Ok((false, Some(Headers { stream: stream.clone(), which: Which::Trailers })));
    }
    if stream.ended.get() {
        return Ok((false, None));
    }
    stream.pending.replace(Some(Pending::Trailers));
    Ok((true, None))
}

fn respond(
    lua: &Lua,
    (handle, table, body): (UserDataRef<Handle>, Table, Option<LuaString>),
) -> Result<(), Error> {
    let stream = &handle.0;
    stream.exchange(lua)?;
    if stream.continued.get() {
        return Err(mistake(lua, 2, "respond() cannot be called if headers have been continued"));
    }
    let all = headers::from_table(lua, &table)?;
    let status = all.iter().find(|(name, _)| name == ":status");
    let status = status.and_then(|(_, value)| StatusCode::from_bytes(value).ok());
    let Some(status) = status.filter(|status| (200..600).contains(&status.as_u16())) else {
        return Err(mistake(lua, 2, ":status must be between 200-599"));
    };
    if stream.is_request() != Some(true) {
        return Err(mistake(lua, 2, "respond not currently supported in the response path"));
    }
    let body = body.map(|body| Bytes::copy_from_slice(&body.as_bytes())).unwrap_or_default();
    let mut headers = headers::plain(lua, &all)?;
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    stream.pending.replace(Some(Pending::Respond(Box::new(response))));
    Ok(())
}
