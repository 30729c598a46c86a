//! From a JSON value to a message, along the message's descriptor.

use std::borrow::Cow;
use std::fmt;

use prost::Message;
use prost::bytes::Bytes;
use prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey, MessageDescriptor,
    ReflectMessage, Value,
};
use serde_json::{Map, Value as Json};

use super::{Error, UnknownFields};

const ANY: &str = "google.protobuf.Any";

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

    pub(super) fn message(
        &mut self,
        descriptor: MessageDescriptor,
        json: &Json,
    ) -> Result<DynamicMessage, Error> {
        self.any_message(descriptor, json, &Path { parent: None, step: Step::Root })
    }

    fn any_message(
        &mut self,
        descriptor: MessageDescriptor,
        json: &Json,
        path: &Path<'_>,
    ) -> Result<DynamicMessage, Error> {
        if descriptor.full_name() == ANY {
            return self.packed(descriptor, json, path);
        }
        if is_well_known(descriptor.full_name()) {
            return DynamicMessage::deserialize(descriptor, json)
                .map_err(|error| path.error(error.to_string()));
        }
        let Json::Object(object) = json else {
            return Err(path.expected("an object", json));
        };
        self.fields(DynamicMessage::new(descriptor), object, path)
    }

    /// An `Any`: the message that `@type` names, packed. An empty object is an empty `Any`, as Envoy reads it.
    fn packed(
        &mut self,
        any: MessageDescriptor,
        json: &Json,
        path: &Path<'_>,
    ) -> Result<DynamicMessage, Error> {
        let Json::Object(object) = json else {
            return Err(path.expected("an object with an @type", json));
        };
        let mut packed = DynamicMessage::new(any);
        if object.is_empty() {
            return Ok(packed);
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
        let inner = if is_well_known(name) || name == ANY {
            let value = object.get("value").unwrap_or(&Json::Null);
            self.any_message(descriptor, value, &path.then(Step::Field("value")))?
        } else {
            self.fields(DynamicMessage::new(descriptor), object, path)?
        };
        packed.set_field_by_name("type_url", Value::String(type_url.clone()));
        packed.set_field_by_name("value", Value::Bytes(inner.encode_to_vec().into()));
        Ok(packed)
    }

    fn fields(
        &mut self,
        mut message: DynamicMessage,
        object: &Map<String, Json>,
        path: &Path<'_>,
    ) -> Result<DynamicMessage, Error> {
        let descriptor = message.descriptor();
        for (name, json) in object {
            if name == "@type" {
                continue;
            }
            let found =
                descriptor.get_field_by_name(name).or_else(|| descriptor.get_field_by_json_name(name));
            let path = path.then(Step::Field(name));
            let Some(field) = found else {
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
            if message.has_field(&field) {
                return Err(path.error("is given twice"));
            }
            if let Some(other) = field.containing_oneof().and_then(|oneof| {
                oneof
                    .fields()
                    .find(|other| *other != field && other.supports_presence() && message.has_field(other))
            }) {
                return Err(path.error(format!("excludes {}, which is given too", other.name())));
            }
            let value = self.field(&field, json, &path)?;
            message.set_field(&field, value);
        }
        Ok(message)
    }

    fn field(&mut self, field: &FieldDescriptor, json: &Json, path: &Path<'_>) -> Result<Value, Error> {
        if field.is_map() {
            return self.map(field, json, path);
        }
        if !field.is_list() {
            return self.single(&field.kind(), json, path);
        }
        let Json::Array(items) = json else {
            return Err(path.expected("a list", json));
        };
        let kind = field.kind();
        let items = items
            .iter()
            .enumerate()
            .map(|(index, item)| self.single(&kind, item, &path.then(Step::Index(index))));
        Ok(Value::List(items.collect::<Result<_, _>>()?))
    }

    fn map(&mut self, field: &FieldDescriptor, json: &Json, path: &Path<'_>) -> Result<Value, Error> {
        let Json::Object(object) = json else {
            return Err(path.expected("an object", json));
        };
        let entry = field.kind();
        let entry = entry.as_message().ok_or_else(|| path.error("is a map without an entry type"))?;
        let (key_kind, value_kind) =
            (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
        let mut map = std::collections::HashMap::with_capacity(object.len());
        for (key, value) in object {
            let path = path.then(Step::Key(key));
            let value = self.single(&value_kind, value, &path)?;
            map.insert(map_key(&key_kind, key, &path)?, value);
        }
        Ok(Value::Map(map))
    }

    fn single(&mut self, kind: &Kind, json: &Json, path: &Path<'_>) -> Result<Value, Error> {
        Ok(match kind {
            Kind::Message(descriptor) => Value::Message(self.any_message(descriptor.clone(), json, path)?),
            Kind::Enum(descriptor) => Value::EnumNumber(enumeration(descriptor, json, path)?),
            Kind::Bool => Value::Bool(json.as_bool().ok_or_else(|| path.expected("true or false", json))?),
            Kind::String => Value::String(string(json, path)?.into_owned()),
            Kind::Bytes => Value::Bytes(bytes(json, path)?),
            Kind::Double => Value::F64(float(json, path)?),
            Kind::Float => Value::F32(float(json, path)? as f32),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(integer(json, path)?),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(integer(json, path)?),
            Kind::Uint32 | Kind::Fixed32 => Value::U32(integer(json, path)?),
            Kind::Uint64 | Kind::Fixed64 => Value::U64(integer(json, path)?),
        })
    }
}

/// The messages whose JSON form is not that of their fields.
fn is_well_known(name: &str) -> bool {
    name.strip_prefix("google.protobuf.").is_some_and(|name| {
        matches!(
            name,
            "BoolValue"
                | "BytesValue"
                | "DoubleValue"
                | "Duration"
                | "FieldMask"
                | "FloatValue"
                | "Int32Value"
                | "Int64Value"
                | "ListValue"
                | "StringValue"
                | "Struct"
                | "Timestamp"
                | "UInt32Value"
                | "UInt64Value"
                | "Value"
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

fn map_key(kind: &Kind, key: &str, path: &Path<'_>) -> Result<MapKey, Error> {
    let json = || Json::String(key.to_owned());
    Ok(match kind {
        Kind::String => MapKey::String(key.to_owned()),
        Kind::Bool => {
            MapKey::Bool(key.parse().map_err(|_| path.expected("true or false as a key", &json()))?)
        }
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => MapKey::I32(integer(&json(), path)?),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => MapKey::I64(integer(&json(), path)?),
        Kind::Uint32 | Kind::Fixed32 => MapKey::U32(integer(&json(), path)?),
        Kind::Uint64 | Kind::Fixed64 => MapKey::U64(integer(&json(), path)?),
        other => return Err(path.error(format!("{other:?} cannot be a key"))),
    })
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
