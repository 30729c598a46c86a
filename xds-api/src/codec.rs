//! JSON and YAML in and out, as protobuf's JSON mapping and Envoy's configuration files have them
//! (<https://protobuf.dev/programming-guides/json/>).
//!
//! `Any` is resolved by its `@type` among the messages that this crate knows, at any depth. An error carries the
//! path of the field it is about, in the words of the input.

mod files;
mod json;
mod merge;
mod out;
mod read;
mod structs;
mod unknown;
mod yaml;

pub use merge::Lists;
pub use structs::TypedStructs;

use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde::Deserialize;
use serde_json::Value;

use self::json::Json;
use crate::google::protobuf::Any;

static DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.binpb"));

/// Why a text is not the message that it should be, or a message cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is neither JSON nor YAML.
    #[error("not valid YAML or JSON: {0}")]
    Syntax(String),
    /// One field is wrong.
    #[error("{}{reason}", prefix(path))]
    Field {
        /// Where, as `static_resources.listeners[0].name`; empty for the message itself.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The message is not among the known ones.
    #[error("message {0} is not known")]
    Unknown(String),
    /// The bytes do not decode as the message that they are said to be.
    #[error("{name} does not decode")]
    Decode {
        /// The message's full name.
        name: String,
        /// What the decoder said.
        #[source]
        source: prost::DecodeError,
    },
    /// A message holds something that has no JSON form.
    #[error("{name} has no JSON form: {reason}")]
    Write {
        /// The message's full name.
        name: String,
        /// What the serializer said.
        reason: String,
    },
}

fn prefix(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("{path}: ") }
}

/// What to do with a field that the message does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownFields {
    /// An error that names it.
    #[default]
    Reject,
    /// Passed over; [`Codec::read`] lists them.
    Allow,
}

/// A message that was read, and what was passed over on the way.
#[derive(Debug)]
pub struct Read<M> {
    /// The message.
    pub message: M,
    /// The paths of fields that the message does not have.
    pub unknown: Vec<String>,
}

/// Reads and writes every known message. It holds a descriptor for each of them, some megabytes: make it when it is
/// needed and drop it afterwards.
#[derive(Clone, Debug)]
pub struct Codec {
    pool: DescriptorPool,
}

impl Default for Codec {
    fn default() -> Self {
        Self::new()
    }
}

impl Codec {
    /// Decodes the descriptors.
    pub fn new() -> Self {
        let pool = DescriptorPool::decode(DESCRIPTORS)
            .expect("the descriptor set was written by this crate's build");
        Self { pool }
    }

    /// For these messages and all that they refer to; `Any`s of other ones are not known.
    fn of<'n>(names: impl IntoIterator<Item = &'n str>) -> Self {
        let pool = files::pool(DESCRIPTORS, names)
            .expect("the descriptor set was written by this crate's build, each file with its imports");
        Self { pool }
    }

    /// Reads YAML or JSON text. A field that the message does not have is an error.
    pub fn from_yaml<M: Message + Name + Default>(&self, text: &str) -> Result<M, Error> {
        self.from_json_value(&parse(text)?)
    }

    /// Reads a JSON value. A field that the message does not have is an error.
    pub fn from_json_value<M: Message + Name + Default>(&self, value: &Value) -> Result<M, Error> {
        Ok(self.read(value, UnknownFields::Reject)?.message)
    }

    /// Reads a JSON value and says which fields were passed over.
    pub fn read<M: Message + Name + Default>(
        &self,
        value: &Value,
        unknown: UnknownFields,
    ) -> Result<Read<M>, Error> {
        let Read { message, unknown } = self.encode::<M>(value, unknown)?;
        let message =
            M::decode(message.as_slice()).map_err(|source| Error::Decode { name: M::full_name(), source })?;
        Ok(Read { message, unknown })
    }

    /// As [`Codec::read`], for who needs the bytes of the message only.
    pub fn encode<M: Name>(&self, value: &Value, unknown: UnknownFields) -> Result<Read<Vec<u8>>, Error> {
        self.encode_json::<M>(&value.into(), unknown)
    }

    fn encode_json<M: Name>(&self, json: &Json<'_>, unknown: UnknownFields) -> Result<Read<Vec<u8>>, Error> {
        let reader = read::Reader::new(&self.pool, unknown);
        let (message, unknown) = reader.read(&self.descriptor(&M::full_name())?, json)?;
        Ok(Read { message, unknown })
    }

    /// Reads a JSON object with an `@type` into an `Any`.
    pub fn any_from_json(&self, value: &Value) -> Result<Any, Error> {
        self.from_json_value(value)
    }

    /// Writes a message, under the field names of its `.proto` file as Envoy's admin pages do.
    pub fn to_json<M: Message + Name>(&self, message: &M) -> Result<Value, Error> {
        self.bytes_to_json(&M::full_name(), &message.encode_to_vec())
    }

    /// Writes the message inside an `Any`, with its `@type`.
    pub fn any_to_json(&self, any: &Any) -> Result<Value, Error> {
        self.to_json(any)
    }

    /// Writes an encoded message of the given full name.
    pub fn bytes_to_json(&self, name: &str, bytes: &[u8]) -> Result<Value, Error> {
        let dynamic = DynamicMessage::decode(self.descriptor(name)?, bytes)
            .map_err(|source| Error::Decode { name: name.to_owned(), source })?;
        let options = SerializeOptions::new().use_proto_field_name(true);
        dynamic
            .serialize_with_options(serde_json::value::Serializer, &options)
            .map_err(|error| Error::Write { name: name.to_owned(), reason: error.to_string() })
    }

    /// The first message in an encoded one that has fields that are not known, and their numbers. Messages inside an
    /// `Any` are looked at where their type is known.
    pub fn unknown_fields(&self, name: &str, bytes: &[u8]) -> Result<Option<(String, Vec<u32>)>, Error> {
        let message = DynamicMessage::decode(self.descriptor(name)?, bytes)
            .map_err(|source| Error::Decode { name: name.to_owned(), source })?;
        Ok(unknown::find(&self.pool, &message))
    }

    /// The full names of all messages that are known, nested ones left out.
    pub fn messages(&self) -> impl Iterator<Item = String> + '_ {
        let top = self.pool.all_messages().filter(|message| message.parent_message().is_none());
        top.map(|message| message.full_name().to_owned())
    }

    fn descriptor(&self, name: &str) -> Result<MessageDescriptor, Error> {
        self.pool.get_message_by_name(name).ok_or_else(|| Error::Unknown(name.to_owned()))
    }
}

/// The bytes of a message that YAML or JSON text describes. The descriptors are made of what the text names alone, and
/// JSON is walked where it stands: this is how to read a configuration of megabytes, or one only.
pub fn encode_text<M: Name>(text: &str, unknown: UnknownFields) -> Result<Read<Vec<u8>>, Error> {
    let value;
    let text = without_mark(text);
    let json = match parse_json(text) {
        Some(json) => json,
        None => {
            value = yaml::parse(text)?;
            Json::from(&value)
        }
    };
    let name = M::full_name();
    let mut names = json.types();
    names.insert(&name);
    Codec::of(names).encode_json::<M>(&json, unknown)
}

/// Parses YAML or JSON text into a JSON value: merge keys applied, keys as strings, one document.
pub fn parse(text: &str) -> Result<Value, Error> {
    let text = without_mark(text);
    parse_json(text).map_or_else(|| yaml::parse(text), Ok)
}

/// Some editors begin a file with a mark of its byte order.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// JSON is the common case of generated files, and its errors are better: it is tried before YAML.
fn parse_json<'a, J: Deserialize<'a>>(text: &'a str) -> Option<J> {
    text.trim_start().starts_with('{').then(|| serde_json::from_str(text).ok())?
}

#[cfg(test)]
mod tests;
