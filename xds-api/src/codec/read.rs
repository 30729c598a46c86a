//! From a JSON value to an encoded message, along the message's descriptor.
//!
//! It writes the bytes as it goes: a configuration of thousands of clusters is read before a proxy serves, and a tree of
//! dynamic messages in between took most of that time. Fields stand in the order of their numbers, as encoders write
//! them, so that equal messages within an `Any` have equal bytes.

use std::borrow::Cow;
use std::fmt;

use prost::Message;
use prost::bytes::Bytes;
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor,
};
use serde_json::{Map, Value as Json};

use super::{Error, UnknownFields};

/// Reads one input; it gathers the unknown fields that it passes over.
pub(super) struct Reader<'a> {
    pool: &'a DescriptorPool,
    policy: UnknownFields,
    unknown: Vec<String>,
}

/// Where the reader is: a list through the callers' frames, written out only for an error.
struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

enum Step<'a> {
    Root,
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Field(name) if self.parent.is_none_or(|parent| matches!(parent.step, Step::Root)) => {
                f.write_str(name)
            }
            Step::Field(name) => write!(f, ".{name}"),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => write!(f, "[{key:?}]"),
        }
    }
}

impl<'a> Path<'a> {
    fn then(&'a self, step: Step<'a>) -> Path<'a> {
        Path { parent: Some(self), step }
    }

    fn error(&self, reason: impl Into<String>) -> Error {
        Error::Field { path: self.to_string(), reason: reason.into() }
    }

    fn expected(&self, what: &str, found: &Json) -> Error {
        let mut shown = found.to_string();
        if shown.len() > 60 {
            shown = shown.chars().take(57).chain("...".chars()).collect();
        }
        self.error(format!("expected {what}, found {shown}"))
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(pool: &'a DescriptorPool, policy: UnknownFields) -> Self {
        Self { pool, policy, unknown: Vec::new() }
    }

    pub(super) fn into_unknown(self) -> Vec<String> {
        self.unknown
    }

    /// The bytes of a message.
    pub(super) fn message(&mut self, descriptor: &MessageDescriptor, json: &Json) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        self.any_message(descriptor, json, &Path { parent: None, step: Step::Root }, &mut out)?;
        Ok(out)
    }

    fn any_message(
        &mut self,
        descriptor: &MessageDescriptor,
        json: &Json,
        path: &Path<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        if let Some(name) = descriptor.full_name().strip_prefix("google.protobuf.") {
            match name {
                "Any" => return self.packed(json, path, out),
                "Value" => return dynamic_value(json, path, out),
                "Struct" | "ListValue" => return dynamic(name, json, path, out),
                _ if is_wrapper(name) => return self.wrapper(descriptor, json, path, out),
                "Duration" | "FieldMask" | "Timestamp" => {
                    let message = DynamicMessage::deserialize(descriptor.clone(), json)
                        .map_err(|error| path.error(error.to_string()))?;
                    out.extend(message.encode_to_vec());
                    return Ok(());
                }
                _ => {}
            }
        }
        let Json::Object(object) = json else {
            return Err(path.expected("an object", json));
        };
        self.fields(descriptor, object, path, out)
    }

    /// An `Any`: the message that `@type` names, packed. An empty object is an empty `Any`, as Envoy reads it.
    fn packed(&mut self, json: &Json, path: &Path<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        const TYPE_URL: u32 = 1;
        const VALUE: u32 = 2;
        let Json::Object(object) = json else {
            return Err(path.expected("an object with an @type", json));
        };
        if object.is_empty() {
            return Ok(());
        }
        let type_url = match object.get("@type") {
            Some(Json::String(url)) => url,
            Some(other) => return Err(path.then(Step::Field("@type")).expected("a type URL", other)),
            None => return Err(path.error("has no @type")),
        };
        let name = type_url.rsplit('/').next().unwrap_or_default();
        let descriptor = self
            .pool
            .get_message_by_name(name)
            .ok_or_else(|| path.then(Step::Field("@type")).error(format!("message {name:?} is not known")))?;
        encode_key(TYPE_URL, WireType::LengthDelimited, out);
        put_bytes(type_url.as_bytes(), out);
        let start = out.len();
        encode_key(VALUE, WireType::LengthDelimited, out);
        let empty = delimited(out, |out| {
            let start = out.len();
            if is_well_known(name) {
                let value = object.get("value").unwrap_or(&Json::Null);
                self.any_message(&descriptor, value, &path.then(Step::Field("value")), out)?;
            } else {
                self.fields(&descriptor, object, path, out)?;
            }
            Ok(out.len() == start)
        })?;
        if empty {
            out.truncate(start);
        }
        Ok(())
    }

    fn fields(
        &mut self,
        descriptor: &MessageDescriptor,
        object: &Map<String, Json>,
        path: &Path<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let mut given: Vec<(FieldDescriptor, &str, &Json)> = Vec::with_capacity(object.len());
        for (name, json) in object {
            if name == "@type" {
                continue;
            }
            let found =
                descriptor.get_field_by_name(name).or_else(|| descriptor.get_field_by_json_name(name));
            let Some(field) = found else {
                let path = path.then(Step::Field(name));
                match self.policy {
                    UnknownFields::Reject => {
                        return Err(path.error(format!("{} has no such field", descriptor.full_name())));
                    }
                    UnknownFields::Allow => self.unknown.push(path.to_string()),
                }
                continue;
            };
            if json.is_null() && !accepts_null(&field) {
                continue;
            }
            fits(&field, &given).map_err(|reason| path.then(Step::Field(name)).error(reason))?;
            given.push((field, name, json));
        }
        given.sort_unstable_by_key(|(field, ..)| field.number());
        for (field, name, json) in &given {
            self.field(field, json, &path.then(Step::Field(name)), out)?;
        }
        Ok(())
    }

    fn field(
        &mut self,
        field: &FieldDescriptor,
        json: &Json,
        path: &Path<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        if field.is_map() {
            return self.map(field, json, path, out);
        }
        let kind = field.kind();
        if field.is_list() {
            return self.list(field, &kind, json, path, out);
        }
        let start = out.len();
        encode_key(field.number(), wire_type(&kind), out);
        let value = out.len();
        self.single(&kind, json, path, out)?;
        // Without presence, a default is not written. Each of them is nothing but zeros, the empty string's length, too.
        if !field.supports_presence() && out.iter().skip(value).all(|byte| *byte == 0) {
            out.truncate(start);
        }
        Ok(())
    }

    fn list(
        &mut self,
        field: &FieldDescriptor,
        kind: &Kind,
        json: &Json,
        path: &Path<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let Json::Array(items) = json else {
            return Err(path.expected("a list", json));
        };
        if field.is_packed() {
            if items.is_empty() {
                return Ok(());
            }
            encode_key(field.number(), WireType::LengthDelimited, out);
            return delimited(out, |out| {
                for (index, item) in items.iter().enumerate() {
                    self.single(kind, item, &path.then(Step::Index(index)), out)?;
                }
                Ok(())
            });
        }
        for (index, item) in items.iter().enumerate() {
            encode_key(field.number(), wire_type(kind), out);
            self.single(kind, item, &path.then(Step::Index(index)), out)?;
        }
        Ok(())
    }

    fn map(
        &mut self,
        field: &FieldDescriptor,
        json: &Json,
        path: &Path<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let Json::Object(object) = json else {
            return Err(path.expected("an object", json));
        };
        let entry = field.kind();
        let entry = entry.as_message().ok_or_else(|| path.error("is a map without an entry type"))?;
        let (keys, values) = (entry.map_entry_key_field(), entry.map_entry_value_field());
        let (key_kind, value_kind) = (keys.kind(), values.kind());
        for (key, value) in object {
            let path = path.then(Step::Key(key));
            encode_key(field.number(), WireType::LengthDelimited, out);
            delimited(out, |out| {
                encode_key(keys.number(), wire_type(&key_kind), out);
                map_key(&key_kind, key, &path, out)?;
                encode_key(values.number(), wire_type(&value_kind), out);
                self.single(&value_kind, value, &path, out)
            })?;
        }
        Ok(())
    }

    /// One of the messages that hold one value only to have presence.
    fn wrapper(
        &mut self,
        descriptor: &MessageDescriptor,
        json: &Json,
        path: &Path<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let value = descriptor.get_field(1).ok_or_else(|| path.error("is a wrapper of nothing"))?;
        self.field(&value, json, path, out)
    }

    /// A value without its key.
    fn single(&mut self, kind: &Kind, json: &Json, path: &Path<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        match kind {
            Kind::Message(descriptor) => {
                return delimited(out, |out| self.any_message(descriptor, json, path, out));
            }
            Kind::Enum(descriptor) => put_signed(enumeration(descriptor, json, path)?.into(), out),
            Kind::Bool => {
                let value = json.as_bool().ok_or_else(|| path.expected("true or false", json))?;
                encode_varint(value.into(), out);
            }
            Kind::String => put_bytes(string(json, path)?.as_bytes(), out),
            Kind::Bytes => put_bytes(&bytes(json, path)?, out),
            Kind::Double => out.extend(float(json, path)?.to_le_bytes()),
            Kind::Float => out.extend((float(json, path)? as f32).to_le_bytes()),
            _ => put_integer(kind, json, path, out)?,
        }
        Ok(())
    }
}

/// Why a field cannot be given beside those that were given before it, if so.
fn fits(field: &FieldDescriptor, given: &[(FieldDescriptor, &str, &Json)]) -> Result<(), String> {
    let oneof = field.containing_oneof();
    for (other, ..) in given {
        if other.number() == field.number() {
            return Err("is given twice".to_owned());
        }
        if oneof.is_some() && other.containing_oneof() == oneof {
            return Err(format!("excludes {}, which is given too", other.name()));
        }
    }
    Ok(())
}

/// Writes what `write` writes behind its length.
fn delimited<T>(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> Result<T, Error>) -> Result<T, Error> {
    let start = out.len();
    // Room for a length of one byte, which is most often enough.
    out.push(0);
    let value = write(out)?;
    let length = out.len() - start - 1;
    let mut prefix = Vec::new();
    if length < 0x80 {
        prefix.push(length as u8);
    } else {
        encode_varint(length as u64, &mut prefix);
    }
    out.splice(start..=start, prefix);
    Ok(value)
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn put_signed(value: i64, out: &mut Vec<u8>) {
    encode_varint(value.cast_unsigned(), out);
}

fn put_integer(kind: &Kind, json: &Json, path: &Path<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
    let zigzag = |value: i64| ((value << 1) ^ (value >> 63)).cast_unsigned();
    match kind {
        Kind::Int32 => put_signed(integer::<i32>(json, path)?.into(), out),
        Kind::Int64 => put_signed(integer(json, path)?, out),
        Kind::Uint32 => encode_varint(integer::<u32>(json, path)?.into(), out),
        Kind::Uint64 => encode_varint(integer(json, path)?, out),
        Kind::Sint32 => encode_varint(zigzag(integer::<i32>(json, path)?.into()), out),
        Kind::Sint64 => encode_varint(zigzag(integer(json, path)?), out),
        Kind::Fixed32 => out.extend(integer::<u32>(json, path)?.to_le_bytes()),
        Kind::Sfixed32 => out.extend(integer::<i32>(json, path)?.to_le_bytes()),
        Kind::Fixed64 => out.extend(integer::<u64>(json, path)?.to_le_bytes()),
        Kind::Sfixed64 => out.extend(integer::<i64>(json, path)?.to_le_bytes()),
        other => return Err(path.error(format!("{other:?} is not a kind of integers"))),
    }
    Ok(())
}

fn wire_type(kind: &Kind) -> WireType {
    match kind {
        Kind::Message(_) | Kind::String | Kind::Bytes => WireType::LengthDelimited,
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => WireType::SixtyFourBit,
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => WireType::ThirtyTwoBit,
        _ => WireType::Varint,
    }
}

/// `google.protobuf.Struct` and `ListValue`: any object, any list.
fn dynamic(name: &str, json: &Json, path: &Path<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
    match (name, json) {
        ("Struct", Json::Object(fields)) => {
            for (key, value) in fields {
                // A map's entry: field 1 of the message, the key its field 1 and the value its field 2.
                encode_key(1, WireType::LengthDelimited, out);
                delimited(out, |out| {
                    encode_key(1, WireType::LengthDelimited, out);
                    put_bytes(key.as_bytes(), out);
                    encode_key(2, WireType::LengthDelimited, out);
                    delimited(out, |out| dynamic_value(value, &path.then(Step::Key(key)), out))
                })?;
            }
        }
        ("ListValue", Json::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                encode_key(1, WireType::LengthDelimited, out);
                delimited(out, |out| dynamic_value(item, &path.then(Step::Index(index)), out))?;
            }
        }
        ("Struct", other) => return Err(path.expected("an object", other)),
        (_, other) => return Err(path.expected("a list", other)),
    }
    Ok(())
}

/// `google.protobuf.Value`: anything.
fn dynamic_value(json: &Json, path: &Path<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
    match json {
        Json::Null => {
            encode_key(1, WireType::Varint, out);
            out.push(0);
        }
        Json::Number(_) => {
            encode_key(2, WireType::SixtyFourBit, out);
            out.extend(float(json, path)?.to_le_bytes());
        }
        Json::String(text) => {
            encode_key(3, WireType::LengthDelimited, out);
            put_bytes(text.as_bytes(), out);
        }
        Json::Bool(value) => {
            encode_key(4, WireType::Varint, out);
            out.push(u8::from(*value));
        }
        Json::Object(_) => {
            encode_key(5, WireType::LengthDelimited, out);
            delimited(out, |out| dynamic("Struct", json, path, out))?;
        }
        Json::Array(_) => {
            encode_key(6, WireType::LengthDelimited, out);
            delimited(out, |out| dynamic("ListValue", json, path, out))?;
        }
    }
    Ok(())
}

fn is_wrapper(name: &str) -> bool {
    matches!(
        name,
        "BoolValue"
            | "BytesValue"
            | "DoubleValue"
            | "FloatValue"
            | "Int32Value"
            | "Int64Value"
            | "StringValue"
            | "UInt32Value"
            | "UInt64Value"
    )
}

/// The messages whose JSON form is not that of their fields: within an `Any` it stands under `value`.
fn is_well_known(name: &str) -> bool {
    name.strip_prefix("google.protobuf.").is_some_and(|name| {
        is_wrapper(name)
            || matches!(
                name,
                "Any" | "Duration" | "FieldMask" | "ListValue" | "Struct" | "Timestamp" | "Value"
            )
    })
}

fn accepts_null(field: &FieldDescriptor) -> bool {
    match field.kind() {
        Kind::Message(message) => message.full_name() == "google.protobuf.Value" && !field.is_list(),
        Kind::Enum(descriptor) => descriptor.full_name() == "google.protobuf.NullValue",
        _ => false,
    }
}

fn map_key(kind: &Kind, key: &str, path: &Path<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
    match kind {
        Kind::String => put_bytes(key.as_bytes(), out),
        Kind::Bool => {
            let value = key.parse().map_err(|_| path.error(format!("{key:?} is neither true nor false")))?;
            encode_varint(bool::into(value), out);
        }
        _ => put_integer(kind, &Json::String(key.to_owned()), path, out)?,
    }
    Ok(())
}

fn enumeration(descriptor: &EnumDescriptor, json: &Json, path: &Path<'_>) -> Result<i32, Error> {
    if descriptor.full_name() == "google.protobuf.NullValue" && json.is_null() {
        return Ok(0);
    }
    if let Json::String(name) = json {
        return descriptor.get_value_by_name(name).map(|value| value.number()).ok_or_else(|| {
            let known: Vec<_> = descriptor.values().map(|value| value.name().to_owned()).collect();
            path.error(format!("{name:?} is not one of {}", known.join(", ")))
        });
    }
    integer(json, path)
}

/// YAML reads an unquoted `8080` or `true` as a number or a truth value; where a string belongs, its text is meant.
fn string<'a>(json: &'a Json, path: &Path<'_>) -> Result<Cow<'a, str>, Error> {
    match json {
        Json::String(value) => Ok(Cow::Borrowed(value)),
        Json::Number(value) => Ok(Cow::Owned(value.to_string())),
        Json::Bool(value) => Ok(Cow::Owned(value.to_string())),
        other => Err(path.expected("a string", other)),
    }
}

/// Base64, whose four dialects prost-reflect reads as the `BytesValue` wrapper.
fn bytes(json: &Json, path: &Path<'_>) -> Result<Bytes, Error> {
    let wrapper = prost_reflect::DescriptorPool::global()
        .get_message_by_name("google.protobuf.BytesValue")
        .ok_or_else(|| path.error("the descriptor of BytesValue is missing"))?;
    let message = DynamicMessage::deserialize(wrapper, json).map_err(|_| path.expected("base64", json))?;
    let value = message.get_field_by_name("value");
    Ok(value.and_then(|value| value.as_bytes().cloned()).unwrap_or_default())
}

fn float(json: &Json, path: &Path<'_>) -> Result<f64, Error> {
    match json {
        Json::Number(value) => value.as_f64(),
        Json::String(value) => match value.as_str() {
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            "NaN" => Some(f64::NAN),
            text => text.parse().ok().filter(|number: &f64| number.is_finite()),
        },
        _ => None,
    }
    .ok_or_else(|| path.expected("a number", json))
}

fn integer<T: TryFrom<i128>>(json: &Json, path: &Path<'_>) -> Result<T, Error> {
    let integral = |number: f64| (number.fract() == 0.0 && number.abs() < 9.0e15).then_some(number as i128);
    let wide = match json {
        Json::Number(value) => value
            .as_i64()
            .map(i128::from)
            .or_else(|| value.as_u64().map(i128::from))
            .or_else(|| value.as_f64().and_then(integral)),
        Json::String(value) => value.parse().ok(),
        _ => None,
    };
    let wide = wide.ok_or_else(|| path.expected("a whole number", json))?;
    T::try_from(wide).map_err(|_| path.error(format!("{wide} is out of range")))
}
