//! Bodies and their chunks as scripts see them.

use std::rc::Rc;

use bytes::Bytes;
use mlua::{Error, Lua, LuaString, UserData, UserDataMethods};

use super::stream::Stream;
use super::vm::mistake;

/// See the module's documentation.
pub(super) struct Buffer {
    stream: Rc<Stream>,
    chunk: u32,
}

impl Buffer {
    /// What is at hand.
    pub(super) fn new(stream: &Rc<Stream>) -> Self {
        Self { stream: stream.clone(), chunk: stream.chunk.get() }
    }

    fn bytes(&self, lua: &Lua) -> Result<Bytes, Error> {
        self.stream.exchange(lua)?;
        if self.chunk != self.stream.chunk.get() {
            return Err(mistake(lua, 1, "object used outside of proper scope"));
        }
        Ok(self.stream.body.borrow().clone())
    }
}

impl UserData for Buffer {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("length", |lua, this, ()| Ok(this.bytes(lua)?.len()));
        methods.add_method("getBytes", |lua, this, (index, length): (i64, i64)| {
            let bytes = this.bytes(lua)?;
            let range = usize::try_from(index).ok().zip(usize::try_from(length).ok());
            let part = range.and_then(|(index, length)| bytes.get(index..index.checked_add(length)?));
            let why = "index/length must be >= 0 and (index + length) must be <= buffer size";
            lua.create_string(part.ok_or_else(|| mistake(lua, 1, why))?)
        });
        methods.add_method("setBytes", |lua, this, bytes: LuaString| {
            this.bytes(lua)?;
            let bytes = Bytes::copy_from_slice(&bytes.as_bytes());
            let length = bytes.len();
            this.stream.set_body(bytes);
            Ok(length)
        });
    }
}
