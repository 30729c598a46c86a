//! From a JSON value to an encoded message, along the message's descriptor.
//!
//! It writes the bytes as it goes: a configuration of thousands of clusters is read before a proxy serves, and a tree of
//! dynamic messages in between took most of that time. Fields stand in the order of their numbers, as encoders write
//! them, so that equal messages within an `Any` have equal bytes.

use std::borrow::Cow;
use std::fmt;

use prost::Message;
use prost::bytes::Bytes;
use prost::encoding::WireType;
use prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor,
};
use serde_json::Value;
use smallvec::SmallVec;

use super::json::{Json, Object};
use super::out::Out;
use super::{Error, UnknownFields};
use crate::type_url::message as message_of;

/// Reads one input; it gathers the unknown fields that it passes over.
pub(super) struct Reader<'a> {
    pool: &'a DescriptorPool,
    policy: UnknownFields,
    unknown: Vec<String>,
    out: Out,
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

    fn object<'j, 't>(&self, json: &'j Json<'t>) -> Result<&'j Object<'t>, Error> {
        match json {
            Json::Object(object) => Ok(object),
            other => Err(self.expected("an object", other)),
        }
    }

    fn list<'j, 't>(&self, json: &'j Json<'t>) -> Result<&'j [Json<'t>], Error> {
        match json {
            Json::List(items) => Ok(items),
            other => Err(self.expected("a list", other)),
        }
    }

    fn expected(&self, what: &str, found: &Json<'_>) -> Error {
        let mut shown = found.to_string();
        if shown.len() > 60 {
            shown = shown.chars().take(57).chain("...".chars()).collect();
        }
        self.error(format!("expected {what}, found {shown}"))
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(pool: &'a DescriptorPool, policy: UnknownFields) -> Self {
        Self { pool, policy, unknown: Vec::new(), out: Out::default() }
    }

    /// The bytes of a message, and the paths of the unknown fields that were passed over.
    pub(super) fn read(
        mut self,
        descriptor: &MessageDescriptor,
        json: &Json<'_>,
    ) -> Result<(Vec<u8>, Vec<String>), Error> {
        self.message(descriptor, json, &Path { parent: None, step: Step::Root })?;
        Ok((self.out.into_bytes(), self.unknown))
    }

    fn message(
        &mut self,
        descriptor: &MessageDescriptor,
        json: &Json<'_>,
        path: &Path<'_>,
    ) -> Result<(), Error> {
        if let Some(name) = descriptor.full_name().strip_prefix("google.protobuf.") {
            match name {
                "Any" => return self.any(json, path),
                "ListValue" => return self.list_value(json, path),
                "Struct" => return self.structure(json, path),
                "Value" => return self.value(json, path),
                _ if is_wrapper(name) => return self.wrapper(descriptor, json, path),
                // Envoy reads them as plain messages, too: `{seconds: 5}`.
                "Duration" | "Timestamp" if matches!(json, Json::Object(_)) => {}
                "Duration" | "FieldMask" | "Timestamp" => {
                    let message = DynamicMessage::deserialize(descriptor.clone(), Value::from(json))
                        .map_err(|error| path.error(error.to_string()))?;
                    self.out.raw(&message.encode_to_vec());
                    return Ok(());
                }
                _ => {}
            }
        }
        self.fields(descriptor, path.object(json)?, path)
    }

    /// An `Any`: the message that `@type` names, packed. An empty object is an empty `Any`, as Envoy reads it.
    fn any(&mut self, json: &Json<'_>, path: &Path<'_>) -> Result<(), Error> {
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
        // The message that a `TypedStruct` stands for, as Envoy takes it wherever it takes that message.
        let of_struct =
            matches!(message_of(type_url), "udpa.type.v1.TypedStruct" | "xds.type.v3.TypedStruct");
        let type_url = match object.get("type_url").filter(|_| of_struct) {
            Some(Json::String(url)) => url,
            Some(other) => return Err(path.then(Step::Field("type_url")).expected("a type URL", other)),
            None => type_url,
        };
        let name = message_of(type_url);
        let descriptor = self
            .pool
            .get_message_by_name(name)
            .ok_or_else(|| path.then(Step::Field("@type")).error(format!("message {name:?} is not known")))?;
        self.out.key(TYPE_URL, WireType::LengthDelimited);
        self.out.bytes(type_url.as_bytes());
        let start = self.out.len();
        let open = self.out.open_field(VALUE);
        let inner = self.out.len();
        if of_struct {
            if let Some(value) = object.get("value") {
                self.message(&descriptor, value, &path.then(Step::Field("value")))?;
            }
        } else if is_well_known(name) {
            let value = object.get("value").unwrap_or(&Json::Null);
            self.message(&descriptor, value, &path.then(Step::Field("value")))?;
        } else {
            self.fields(&descriptor, object, path)?;
        }
        if self.out.len() == inner {
            self.out.truncate(start);
        } else {
            self.out.close(open);
        }
        Ok(())
    }

    fn fields(
        &mut self,
        descriptor: &MessageDescriptor,
        object: &Object<'_>,
        path: &Path<'_>,
    ) -> Result<(), Error> {
        let mut given: SmallVec<[(FieldDescriptor, &str, &Json<'_>); 4]> = SmallVec::new();
        for (name, json) in object.iter() {
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
            if *json == Json::Null && !accepts_null(&field) {
                continue;
            }
            fits(&field, &given).map_err(|reason| path.then(Step::Field(name)).error(reason))?;
            given.push((field, name, json));
        }
        given.sort_unstable_by_key(|(field, ..)| field.number());
        for (field, name, json) in &given {
            self.field(field, json, &path.then(Step::Field(name)))?;
        }
        Ok(())
    }

    fn field(&mut self, field: &FieldDescriptor, json: &Json<'_>, path: &Path<'_>) -> Result<(), Error> {
        if field.is_map() {
            return self.map(field, json, path);
        }
        let kind = field.kind();
        if field.is_list() {
            return self.list(field, &kind, json, path);
        }
        let start = self.out.len();
        self.out.key(field.number(), wire_type(&kind));
        let value = self.out.len();
        self.single(&kind, json, path)?;
        // Without presence, a default is not written. Each of them is nothing but zeros, the empty string's length, too.
        if !field.supports_presence() && self.out.is_zero_from(value) {
            self.out.truncate(start);
        }
        Ok(())
    }

    fn list(
        &mut self,
        field: &FieldDescriptor,
        kind: &Kind,
        json: &Json<'_>,
        path: &Path<'_>,
    ) -> Result<(), Error> {
        // Envoy reads `domains: "*"` as a list of one.
        let items = match json {
            Json::List(items) => items.as_ref(),
            one => std::slice::from_ref(one),
        };
        let alone = !matches!(json, Json::List(_));
        let packed = (field.is_packed() && !items.is_empty()).then(|| self.out.open_field(field.number()));
        for (index, item) in items.iter().enumerate() {
            if packed.is_none() {
                self.out.key(field.number(), wire_type(kind));
            }
            let step = path.then(Step::Index(index));
            self.single(kind, item, if alone { path } else { &step })?;
        }
        if let Some(open) = packed {
            self.out.close(open);
        }
        Ok(())
    }

    fn map(&mut self, field: &FieldDescriptor, json: &Json<'_>, path: &Path<'_>) -> Result<(), Error> {
        let object = path.object(json)?;
        let entry = field.kind();
        let entry = entry.as_message().ok_or_else(|| path.error("is a map without an entry type"))?;
        let (keys, values) = (entry.map_entry_key_field(), entry.map_entry_value_field());
        let (key_kind, value_kind) = (keys.kind(), values.kind());
        for (key, value) in object.iter() {
            let path = path.then(Step::Key(key));
            let open = self.out.open_field(field.number());
            self.out.key(keys.number(), wire_type(&key_kind));
            self.map_key(&key_kind, key, &path)?;
            self.out.key(values.number(), wire_type(&value_kind));
            self.single(&value_kind, value, &path)?;
            self.out.close(open);
        }
        Ok(())
    }

    fn map_key(&mut self, kind: &Kind, key: &str, path: &Path<'_>) -> Result<(), Error> {
        match (kind, key) {
            (Kind::String, key) => self.out.bytes(key.as_bytes()),
            (Kind::Bool, "true") => self.out.unsigned(1),
            (Kind::Bool, "false") => self.out.unsigned(0),
            (Kind::Bool, other) => {
                return Err(path.error(format!("{other:?} is neither true nor false")));
            }
            _ => self.integer(kind, &Json::String(key.into()), path)?,
        }
        Ok(())
    }

    /// One of the messages that hold one value only to have presence; Envoy reads them as plain ones, too: `{value: 1}`.
    fn wrapper(
        &mut self,
        descriptor: &MessageDescriptor,
        json: &Json<'_>,
        path: &Path<'_>,
    ) -> Result<(), Error> {
        if let Json::Object(object) = json {
            return self.fields(descriptor, object, path);
        }
        let value = descriptor.get_field(1).ok_or_else(|| path.error("is a wrapper of nothing"))?;
        self.field(&value, json, path)
    }

    /// A value without its key.
    fn single(&mut self, kind: &Kind, json: &Json<'_>, path: &Path<'_>) -> Result<(), Error> {
        match kind {
            Kind::Message(descriptor) => {
                let open = self.out.open();
                self.message(descriptor, json, path)?;
                self.out.close(open);
            }
            Kind::Enum(descriptor) => self.out.signed(enumeration(descriptor, json, path)?.into()),
            Kind::Bool => {
                let value = truth(json).ok_or_else(|| path.expected("true or false", json))?;
                self.out.unsigned(value.into());
            }
            Kind::String => self.out.bytes(string(json, path)?.as_bytes()),
            Kind::Bytes => self.out.bytes(&bytes(json, path)?),
            Kind::Double => self.out.raw(&float(json, path)?.to_le_bytes()),
            Kind::Float => self.out.raw(&(float(json, path)? as f32).to_le_bytes()),
            _ => self.integer(kind, json, path)?,
        }
        Ok(())
    }

    fn integer(&mut self, kind: &Kind, json: &Json<'_>, path: &Path<'_>) -> Result<(), Error> {
        let out = &mut self.out;
        match kind {
            Kind::Int32 => out.signed(integer::<i32>(json, path)?.into()),
            Kind::Int64 => out.signed(integer(json, path)?),
            Kind::Uint32 => out.unsigned(integer::<u32>(json, path)?.into()),
            Kind::Uint64 => out.unsigned(integer(json, path)?),
            Kind::Sint32 => out.zigzag(integer::<i32>(json, path)?.into()),
            Kind::Sint64 => out.zigzag(integer(json, path)?),
            Kind::Fixed32 => out.raw(&integer::<u32>(json, path)?.to_le_bytes()),
            Kind::Sfixed32 => out.raw(&integer::<i32>(json, path)?.to_le_bytes()),
            Kind::Fixed64 => out.raw(&integer::<u64>(json, path)?.to_le_bytes()),
            Kind::Sfixed64 => out.raw(&integer::<i64>(json, path)?.to_le_bytes()),
            other => return Err(path.error(format!("{other:?} is not a kind of integers"))),
        }
        Ok(())
    }

    /// `google.protobuf.Struct`: any object. Its one field is a map, of key 1 and value 2.
    fn structure(&mut self, json: &Json<'_>, path: &Path<'_>) -> Result<(), Error> {
        for (key, value) in path.object(json)?.iter() {
            let entry = self.out.open_field(1);
            self.out.key(1, WireType::LengthDelimited);
            self.out.bytes(key.as_bytes());
            let open = self.out.open_field(2);
            self.value(value, &path.then(Step::Key(key)))?;
            self.out.close(open);
            self.out.close(entry);
        }
        Ok(())
    }

    /// `google.protobuf.ListValue`: any list.
    fn list_value(&mut self, json: &Json<'_>, path: &Path<'_>) -> Result<(), Error> {
        for (index, item) in path.list(json)?.iter().enumerate() {
            let open = self.out.open_field(1);
            self.value(item, &path.then(Step::Index(index)))?;
            self.out.close(open);
        }
        Ok(())
    }

    /// `google.protobuf.Value`: anything.
    fn value(&mut self, json: &Json<'_>, path: &Path<'_>) -> Result<(), Error> {
        match json {
            Json::Null => {
                self.out.key(1, WireType::Varint);
                self.out.unsigned(0);
            }
            Json::Number(_) => {
                self.out.key(2, WireType::SixtyFourBit);
                self.out.raw(&float(json, path)?.to_le_bytes());
            }
            Json::String(text) => {
                self.out.key(3, WireType::LengthDelimited);
                self.out.bytes(text.as_bytes());
            }
            Json::Bool(value) => {
                self.out.key(4, WireType::Varint);
                self.out.unsigned((*value).into());
            }
            Json::Object(_) => {
                let open = self.out.open_field(5);
                self.structure(json, path)?;
                self.out.close(open);
            }
            Json::List(_) => {
                let open = self.out.open_field(6);
                self.list_value(json, path)?;
                self.out.close(open);
            }
        }
        Ok(())
    }
}

/// Why a field cannot be given beside those that were given before it, if so.
fn fits(field: &FieldDescriptor, given: &[(FieldDescriptor, &str, &Json<'_>)]) -> Result<(), String> {
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

fn wire_type(kind: &Kind) -> WireType {
    match kind {
        Kind::Message(_) | Kind::String | Kind::Bytes => WireType::LengthDelimited,
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => WireType::SixtyFourBit,
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => WireType::ThirtyTwoBit,
        _ => WireType::Varint,
    }
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

fn enumeration(descriptor: &EnumDescriptor, json: &Json<'_>, path: &Path<'_>) -> Result<i32, Error> {
    if descriptor.full_name() == "google.protobuf.NullValue" && *json == Json::Null {
        return Ok(0);
    }
    if let Json::String(name) = json {
        let found = descriptor.get_value_by_name(name).or_else(|| {
            // Envoy's are read in any case: `round_robin`.
            let of_envoy = descriptor.full_name().starts_with("envoy.");
            of_envoy.then(|| descriptor.get_value_by_name(&name.to_ascii_uppercase().replace('-', "_")))?
        });
        let number = || name.parse().ok();
        return found.map(|value| value.number()).or_else(number).ok_or_else(|| {
            let known: Vec<_> = descriptor.values().map(|value| value.name().to_owned()).collect();
            path.error(format!("{name:?} is not one of {}", known.join(", ")))
        });
    }
    integer(json, path)
}

/// A truth value, also as YAML 1.1 and thus Envoy has it: `yes`, `On`, or between quotes.
fn truth(json: &Json<'_>) -> Option<bool> {
    let text = match json {
        Json::Bool(value) => return Some(*value),
        Json::String(text) => text,
        _ => return None,
    };
    match text.as_ref() {
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "y" | "Y" => Some(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "n" | "N" => Some(false),
        _ => None,
    }
}

/// YAML reads an unquoted `8080` or `true` as a number or a truth value; where a string belongs, its text is meant.
fn string<'a>(json: &'a Json<'_>, path: &Path<'_>) -> Result<Cow<'a, str>, Error> {
    match json {
        Json::String(value) => Ok(Cow::Borrowed(value)),
        Json::Number(value) => Ok(Cow::Owned(value.to_string())),
        Json::Bool(value) => Ok(Cow::Owned(value.to_string())),
        other => Err(path.expected("a string", other)),
    }
}

/// Base64, whose four dialects prost-reflect reads as the `BytesValue` wrapper.
fn bytes(json: &Json<'_>, path: &Path<'_>) -> Result<Bytes, Error> {
    let wrapper = prost_reflect::DescriptorPool::global()
        .get_message_by_name("google.protobuf.BytesValue")
        .ok_or_else(|| path.error("the descriptor of BytesValue is missing"))?;
    let message =
        DynamicMessage::deserialize(wrapper, Value::from(json)).map_err(|_| path.expected("base64", json))?;
    let value = message.get_field_by_name("value");
    Ok(value.and_then(|value| value.as_bytes().cloned()).unwrap_or_default())
}

fn float(json: &Json<'_>, path: &Path<'_>) -> Result<f64, Error> {
    match json {
        Json::Number(value) => value.as_f64(),
        Json::String(value) => match &**value {
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            "NaN" => Some(f64::NAN),
            text => text.parse().ok().filter(|number: &f64| number.is_finite()),
        },
        _ => None,
    }
    .ok_or_else(|| path.expected("a number", json))
}

fn integer<T: TryFrom<i128>>(json: &Json<'_>, path: &Path<'_>) -> Result<T, Error> {
    let integral = |number: f64| (number.fract() == 0.0 && number.abs() < 9.0e15).then_some(number as i128);
    let wide = match json {
        Json::Number(value) => value
            .as_i64()
            .map(i128::from)
            .or_else(|| value.as_u64().map(i128::from))
            .or_else(|| value.as_f64().and_then(integral)),
        // `"1e3"` and `"1.0"` are whole numbers as well.
        Json::String(value) => value.parse().ok().or_else(|| value.parse().ok().and_then(integral)),
        _ => None,
    };
    let wide = wide.ok_or_else(|| path.expected("a whole number", json))?;
    T::try_from(wide).map_err(|_| path.error(format!("{wide} is out of range")))
}
