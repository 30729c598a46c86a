//! Headers and trailers as scripts see them.

use std::rc::Rc;

use http::header::{HeaderMap, HeaderValue};
use hyper::ext::ReasonPhrase;
use mlua::{Error, Function, Lua, LuaString, MetaMethod, MultiValue, UserData, UserDataMethods, Value};
use sail_proxy_decide::headers::AppendAction;

use super::stream::{Message, Stream};
use super::vm::mistake;
use crate::filters::edit::{self, Invalid};

/// Which of a message's maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Head,
    Trailers,
}

/// See the module's documentation.
pub(super) struct Headers {
    pub(super) stream: Rc<Stream>,
    pub(super) which: Which,
}

/// A map while it is looked at.
enum View<'a> {
    Message(&'a mut Message),
    Trailers(&'a mut HeaderMap),
}

impl View<'_> {
    fn headers(&mut self) -> &mut HeaderMap {
        match self {
            Self::Message(message) => message.headers_mut(),
            Self::Trailers(trailers) => trailers,
        }
    }

    fn pseudo(&self, name: &str) -> Option<Vec<u8>> {
        let Self::Message(message) = self else { return None };
        match (&**message, name) {
            (Message::Request(head), "host") => Some(head.authority.as_bytes().to_vec()),
            (Message::Request(head), name) if name.starts_with(':') => {
                edit::request_headers(head).find(|(known, _)| *known == name).map(|(_, value)| value.to_vec())
            }
            (Message::Response(response), ":status") => Some(response.status().as_str().as_bytes().to_vec()),
            _ => None,
        }
    }

    /// Every value of a name.
    fn values(&mut self, name: &str) -> Vec<Vec<u8>> {
        match self.pseudo(name) {
            Some(value) => vec![value],
            None => self.headers().get_all(name).iter().map(|value| value.as_bytes().to_vec()).collect(),
        }
    }

    fn all(&mut self) -> Vec<(String, Vec<u8>)> {
        let own = |(name, value): (&str, &[u8])| (name.to_owned(), value.to_vec());
        match self {
            Self::Message(Message::Request(head)) => edit::request_headers(head).map(own).collect(),
            Self::Message(Message::Response(response)) => {
                let status = response.status();
                let pseudo = std::iter::once((":status", status.as_str().as_bytes()));
                pseudo.chain(pairs(response.headers())).map(own).collect()
            }
            Self::Trailers(trailers) => pairs(trailers).map(own).collect(),
        }
    }

    fn set(&mut self, name: &str, value: &[u8], action: AppendAction) -> Result<(), Invalid> {
        match self {
            Self::Message(Message::Request(head)) => edit::set_request(head, name, value, action),
            Self::Message(Message::Response(response)) => edit::set_response(response, name, value, action),
            Self::Trailers(trailers) => edit::set(trailers, name, value, action),
        }
    }
}

fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
}

impl Headers {
    fn view<R>(&self, lua: &Lua, look: impl FnOnce(&mut View<'_>) -> R) -> Result<R, Error> {
        self.stream.exchange(lua)?;
        let found = match self.which {
            Which::Head => {
                self.stream.message.borrow_mut().as_mut().map(|message| look(&mut View::Message(message)))
            }
            Which::Trailers => {
                self.stream.trailers.borrow_mut().as_mut().map(|trailers| look(&mut View::Trailers(trailers)))
            }
        };
        found.ok_or_else(|| mistake(lua, 1, "object used outside of proper scope"))
    }

    fn change<R>(&self, lua: &Lua, change: impl FnOnce(&mut View<'_>) -> R) -> Result<R, Error> {
        if self.stream.iterating.get() {
            return Err(mistake(lua, 1, "header map cannot be modified while iterating"));
        }
        if self.which == Which::Head {
            if self.stream.continued.get() {
                return Err(mistake(lua, 1, "header map can no longer be modified"));
            }
            if self.stream.clears_route {
                self.stream.clear_route();
            }
        }
        self.view(lua, change)
    }

    fn put(&self, lua: &Lua, name: &LuaString, value: &LuaString, action: AppendAction) -> Result<(), Error> {
        let name = name.to_string_lossy().to_ascii_lowercase();
        let value = value.as_bytes();
        self.change(lua, |view| view.set(&name, &value, action))?
            .map_err(|Invalid| mistake(lua, 1, format_args!("{name:?} cannot be such a header")))
    }

    /// A function that gives one header a call.
    fn walk(&self, lua: &Lua) -> Result<Function, Error> {
        if self.stream.iterating.replace(true) {
            return Err(mistake(lua, 1, "cannot create a second iterator before completing the first"));
        }
        let mut all = self.view(lua, |view| view.all())?.into_iter();
        let stream = self.stream.clone();
        lua.create_function_mut(move |lua, _: MultiValue| match all.next() {
            Some((name, value)) => {
                Ok((Value::String(lua.create_string(name)?), Value::String(lua.create_string(value)?)))
            }
            None => {
                stream.iterating.set(false);
                Ok((Value::Nil, Value::Nil))
            }
        })
    }

    fn set_reason(&self, lua: &Lua, reason: &LuaString) -> Result<(), Error> {
        let reason = ReasonPhrase::try_from(reason.as_bytes().to_vec());
        let reason = reason.map_err(|_| mistake(lua, 1, "that cannot be a reason phrase"))?;
        self.view(lua, |view| {
            if let View::Message(Message::Response(response)) = view {
                response.extensions_mut().insert(reason);
            }
        })
    }
}

fn lower(name: &LuaString) -> String {
    name.to_string_lossy().to_ascii_lowercase()
}

impl UserData for Headers {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("add", |lua, this, (name, value): (LuaString, LuaString)| {
            this.put(lua, &name, &value, AppendAction::AppendIfExistsOrAdd)
        });
        methods.add_method("replace", |lua, this, (name, value): (LuaString, LuaString)| {
            this.put(lua, &name, &value, AppendAction::OverwriteIfExistsOrAdd)
        });
        methods.add_method("remove", |lua, this, name: LuaString| {
            let name = lower(&name);
            this.change(lua, |view| edit::remove(view.headers(), &name))
        });
        methods.add_method("get", |lua, this, name: LuaString| {
            let values = this.view(lua, |view| view.values(&lower(&name)))?;
            if values.is_empty() { Ok(None) } else { lua.create_string(values.join(&b',')).map(Some) }
        });
        methods.add_method("getAtIndex", |lua, this, (name, index): (LuaString, i64)| {
            let values = this.view(lua, |view| view.values(&lower(&name)))?;
            let value = usize::try_from(index).ok().and_then(|index| values.get(index));
            value.map(|value| lua.create_string(value)).transpose()
        });
        methods.add_method("getNumValues", |lua, this, name: LuaString| {
            this.view(lua, |view| view.values(&lower(&name)).len())
        });
        methods
            .add_method("setHttp1ReasonPhrase", |lua, this, reason: LuaString| this.set_reason(lua, &reason));
        methods.add_meta_method(MetaMethod::Pairs, |lua, this, ()| this.walk(lua));
    }
}

/// Headers from a table: a value a name, or a list of them.
pub(super) fn from_table(lua: &Lua, table: &mlua::Table) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let mut all = Vec::new();
    for pair in table.pairs::<LuaString, Value>() {
        let (name, value) = pair?;
        let name = lower(&name);
        match value {
            Value::Table(values) => {
                for value in values.sequence_values::<LuaString>() {
                    all.push((name.clone(), value?.as_bytes().to_vec()));
                }
            }
            value => match lua.coerce_string(value)? {
                Some(value) => all.push((name, value.as_bytes().to_vec())),
                None => return Err(mistake(lua, 2, format_args!("the value of header {name:?} is no text"))),
            },
        }
    }
    Ok(all)
}

/// Headers that are none of the pseudo-headers; what can be no header is refused.
pub(super) fn plain(lua: &Lua, all: &[(String, Vec<u8>)]) -> Result<HeaderMap<HeaderValue>, Error> {
    let mut headers = HeaderMap::new();
    for (name, value) in all.iter().filter(|(name, _)| !name.starts_with(':') && name != "host") {
        let (name, value) = edit::header(name, value)
            .map_err(|Invalid| mistake(lua, 2, format_args!("{name:?} cannot be such a header")))?;
        headers.append(name, value);
    }
    Ok(headers)
}
