//! Requests that scripts make: what they ask for, how it is asked, and what they are told.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode, Version};
use mlua::{Error, Lua, LuaString, MultiValue, Table, UserDataRef, Value};

use super::handle::Handle;
use super::headers;
use super::stream::{Call, Pending};
use super::vm::mistake;
use crate::callout::{self, CalloutError};
use crate::http::head::Head;
use crate::http::scan::Present;
use crate::worker::state::Worker;

const INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const EXPECTED_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");

/// What is said after the body.
struct Options {
    timeout_ms: i64,
    asynchronous: bool,
    duplicates: bool,
    forwarded_for: bool,
}

impl Options {
    fn of(lua: &Lua, timeout: Value, flag: Value) -> Result<Self, Error> {
        let mut options = Self { timeout_ms: 0, asynchronous: false, duplicates: false, forwarded_for: true };
        if let Value::Table(table) = timeout {
            options.timeout_ms = table.get::<Option<i64>>("timeout_ms")?.unwrap_or(0);
            options.asynchronous = table.get::<Option<bool>>("asynchronous")?.unwrap_or(false);
            options.duplicates = table.get::<Option<bool>>("return_duplicate_headers")?.unwrap_or(false);
            options.forwarded_for = table.get::<Option<bool>>("send_xff")?.unwrap_or(true);
        } else {
            let number = lua.coerce_number(timeout)?;
            let number =
                number.ok_or_else(|| mistake(lua, 2, "bad argument: the timeout must be a number"))?;
            #[expect(clippy::cast_possible_truncation, reason = "as Lua does it")]
            {
                options.timeout_ms = number as i64;
            }
            options.asynchronous = match flag {
                Value::Nil => false,
                Value::Boolean(flag) => flag,
                _ => {
                    let why = "http call asynchronous flag must be 'true', 'false', or empty";
                    return Err(mistake(lua, 2, why));
                }
            };
        }
        if options.timeout_ms < 0 {
            return Err(mistake(lua, 2, "http call timeout must be >= 0"));
        }
        Ok(options)
    }
}

/// `httpCall`: says whether the script is to wait.
pub(super) fn start(lua: &Lua, arguments: Arguments) -> Result<bool, Error> {
    let (handle, cluster, table, body, timeout, flag) = arguments;
    let stream = &handle.0;
    let exchange = stream.exchange(lua)?;
    let options = Options::of(lua, timeout, flag)?;
    let cluster = cluster.to_string_lossy();
    if exchange.connection.worker.active().cluster(&cluster).is_none() {
        return Err(mistake(lua, 2, "http call cluster invalid. Must be configured"));
    }
    let timeout = Duration::from_millis(options.timeout_ms.unsigned_abs());
    let timeout = (!timeout.is_zero()).then_some(timeout);
    let mut head = head(lua, &table)?;
    head.headers.insert(INTERNAL, HeaderValue::from_static("true"));
    if options.forwarded_for {
        let own = exchange.connection.downstream.local_address.ip().to_string();
        if let Ok(own) = HeaderValue::from_str(&own) {
            head.headers.append(FORWARDED_FOR, own);
        }
    }
    if let Some(timeout) = timeout {
        head.headers.insert(EXPECTED_TIMEOUT, HeaderValue::from(timeout.as_millis() as u64));
    }
    let body = body.map(|body| Bytes::copy_from_slice(&body.as_bytes()));
    if let Some(body) = &body {
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    let call = Call { cluster: cluster.into(), head, body, timeout, duplicates: options.duplicates };
    if options.asynchronous {
        let worker = exchange.connection.worker.clone();
        // Nobody waits for it; its own limit ends it.
        tokio::task::spawn_local(async move {
            let _ = fetch(&worker, call).await;
        });
        return Ok(false);
    }
    stream.pending.replace(Some(Pending::Call(Box::new(call))));
    Ok(true)
}

/// Of `httpCall`: the handle, the cluster, headers, the body, then the options in either form.
pub(super) type Arguments = (UserDataRef<Handle>, LuaString, Table, Option<LuaString>, Value, Value);

fn head(lua: &Lua, table: &Table) -> Result<Head, Error> {
    let all = headers::from_table(lua, table)?;
    let pseudo = |name: &str| all.iter().find(|(known, _)| known == name).map(|(_, value)| &**value);
    let authority = pseudo(":authority").or_else(|| pseudo("host"));
    let (Some(path), Some(method), Some(authority)) = (pseudo(":path"), pseudo(":method"), authority) else {
        let why = "http call headers must include ':path', ':method', and ':authority'";
        return Err(mistake(lua, 2, why));
    };
    let refuse = |what: &str| mistake(lua, 2, format_args!("http call: that cannot be a {what}"));
    Ok(Head {
        method: Method::from_bytes(method).map_err(|_| refuse(":method"))?,
        scheme: if pseudo(":scheme") == Some(b"https") { "https" } else { "http" },
        authority: HeaderValue::from_bytes(authority).map_err(|_| refuse(":authority"))?,
        path: path.try_into().map_err(|_| refuse(":path"))?,
        protocol: None,
        version: Version::HTTP_11,
        headers: headers::plain(lua, &all)?,
        present: Present::default(),
    })
}

/// Makes the request. What goes wrong is an answer, too, as the router would give it.
pub(super) async fn fetch(worker: &Rc<Worker>, call: Call) -> Response<Bytes> {
    let Call { cluster, head, body, timeout, .. } = call;
    let answer = callout::fetch(worker, &cluster, head, body.unwrap_or_default(), timeout).await;
    answer.unwrap_or_else(|error| {
        tracing::debug!(%cluster, %error, "a script's http call failed");
        let (status, text) = match error {
            CalloutError::Timeout(_) => (StatusCode::GATEWAY_TIMEOUT, "upstream request timeout"),
            CalloutError::NoHost(_) => (StatusCode::SERVICE_UNAVAILABLE, "no healthy upstream"),
            CalloutError::Pool(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "upstream connect error or disconnect/reset before headers. reset reason: remote connection \
                 failure",
            ),
            _ => (
                StatusCode::SERVICE_UNAVAILABLE,
                "upstream connect error or disconnect/reset before headers. reset reason: connection \
                 termination",
            ),
        };
        let mut response = Response::new(Bytes::from_static(text.as_bytes()));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        response
    })
}

/// An answer as the script gets it: a table of headers, and the body if there is one.
pub(super) fn answer(lua: &Lua, answer: &Response<Bytes>, duplicates: bool) -> Result<MultiValue, Error> {
    let table = lua.create_table()?;
    table.raw_set(":status", answer.status().as_str())?;
    fill(lua, &table, answer.headers(), duplicates)?;
    let body = match answer.body() {
        body if body.is_empty() => Value::Nil,
        body => Value::String(lua.create_string(body)?),
    };
    Ok(MultiValue::from_iter([Value::Table(table), body]))
}

fn fill(lua: &Lua, table: &Table, headers: &HeaderMap, duplicates: bool) -> Result<(), Error> {
    for name in headers.keys() {
        let values = || headers.get_all(name).iter().map(|value| lua.create_string(value.as_bytes()));
        if duplicates && values().count() > 1 {
            table.raw_set(name.as_str(), values().collect::<Result<Vec<_>, _>>()?)?;
        } else if let Some(value) = values().next_back() {
            table.raw_set(name.as_str(), value?)?;
        }
    }
    Ok(())
}
