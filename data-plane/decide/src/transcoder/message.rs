//! Messages from JSON, path and query, and back into JSON.

use prost_reflect::prost::Message as _;
use prost_reflect::{
    DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _,
    SerializeOptions, Value,
};
use serde::Serialize as _;
use serde_json::Value as Json;
use serde_json::ser::PrettyFormatter;

use super::{Input, Print};

/// Objects within objects: no deeper.
const DEEPEST: usize = 64;

/// Why a text is no message, or a message no text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unfit(String);

impl Unfit {
    pub(super) fn response(error: impl std::fmt::Display) -> Self {
        Self(format!("the response does not decode: {error}"))
    }
}

/// A `google.api.HttpBody`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raw {
    /// Its type; empty for none.
    pub content_type: String,
    /// Its bytes.
    pub data: Vec<u8>,
}

/// A field by either of its names.
pub(super) fn field(message: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    message.get_field_by_name(name).or_else(|| message.get_field_by_json_name(name))
}

/// The fields of a path with dots.
pub(super) fn field_path(message: &MessageDescriptor, path: &str) -> Option<Vec<FieldDescriptor>> {
    let mut message = Some(message.clone());
    let mut all = Vec::new();
    for name in path.split('.') {
        let found = field(message.as_ref()?, name)?;
        message = found.kind().as_message().filter(|_| !found.is_list() && !found.is_map()).cloned();
        all.push(found);
    }
    Some(all)
}

/// Whether a text may be a field's value.
pub(super) fn is_settable(field: &FieldDescriptor) -> bool {
    match field.kind() {
        _ if field.is_map() => false,
        Kind::Message(message) => {
            let name = message.full_name();
            name.strip_prefix("google.protobuf.").is_some_and(|name| {
                name.ends_with("Value") && name != "Value" && name != "ListValue"
                    || ["Timestamp", "Duration", "FieldMask"].contains(&name)
            })
        }
        _ => true,
    }
}

/// A text as the JSON value of a field.
fn json_of(kind: &Kind, text: &str) -> Result<Json, Unfit> {
    let bad = || Unfit(format!("{text:?} is not a value of {kind:?}"));
    Ok(match kind {
        Kind::Bool => match text {
            "true" | "1" => true.into(),
            "false" | "0" => false.into(),
            _ => return Err(bad()),
        },
        Kind::Enum(of) => match text.parse::<i32>() {
            Ok(number) => number.into(),
            Err(_)
                if of.get_value_by_name(text).is_none() && of.get_value_by_name(&upper(text)).is_none() =>
            {
                return Err(bad());
            }
            Err(_) => text.into(),
        },
        Kind::Message(of) if of.full_name() == "google.protobuf.BoolValue" => json_of(&Kind::Bool, text)?,
        _ => text.into(),
    })
}

/// The message that path and query make.
pub(super) fn bound(
    descriptor: &MessageDescriptor,
    fields: &[(Vec<String>, String)],
    input: &Input,
) -> Result<DynamicMessage, Unfit> {
    let mut root = serde_json::Map::new();
    for (path, text) in fields {
        let all =
            field_path(descriptor, &path.join(".")).ok_or_else(|| Unfit(format!("no field {path:?}")))?;
        let Some((last, before)) = all.split_last() else { continue };
        let mut at = &mut root;
        for field in before {
            let inner = at.entry(field.name()).or_insert_with(|| Json::Object(serde_json::Map::new()));
            let Json::Object(inner) = inner else { return Err(Unfit(format!("{path:?} has two values"))) };
            at = inner;
        }
        let value = json_of(&last.kind(), text)?;
        if last.is_list() {
            match at.entry(last.name()).or_insert_with(|| Json::Array(Vec::new())) {
                Json::Array(list) => list.push(value),
                _ => return Err(Unfit(format!("{path:?} has two values"))),
            }
        } else {
            at.insert(last.name().to_owned(), value);
        }
    }
    from_json(descriptor, Json::Object(root), input)
}

/// The message of a body in JSON.
pub(super) fn read(
    descriptor: &MessageDescriptor,
    body_field: &str,
    body: &[u8],
    input: &Input,
) -> Result<DynamicMessage, Unfit> {
    let json: Json = serde_json::from_slice(body)
        .map_err(|error| Unfit(format!("the request's body is not JSON: {error}")))?;
    from_json(descriptor, wrapped(body_field, json), input)
}

/// The body as the field that it is.
fn wrapped(body_field: &str, json: Json) -> Json {
    if body_field == "*" {
        return json;
    }
    body_field.rsplit('.').fold(json, |inner, name| {
        let mut outer = serde_json::Map::new();
        outer.insert(name.to_owned(), inner);
        Json::Object(outer)
    })
}

fn from_json(descriptor: &MessageDescriptor, mut json: Json, input: &Input) -> Result<DynamicMessage, Unfit> {
    if input.case_insensitive_enums {
        raise_enums(descriptor, &mut json, 0);
    }
    let options = DeserializeOptions::new();
    DynamicMessage::deserialize_with_options(descriptor.clone(), json, &options)
        .map_err(|error| Unfit(format!("the request does not fit {}: {error}", descriptor.full_name())))
}

fn upper(text: &str) -> String {
    text.to_ascii_uppercase().replace('-', "_")
}

/// Writes enum values as they are declared.
fn raise_enums(descriptor: &MessageDescriptor, json: &mut Json, depth: usize) {
    let Json::Object(map) = json else { return };
    if depth > DEEPEST {
        return;
    }
    for (name, value) in map {
        let Some(field) = field(descriptor, name) else { continue };
        let mut one = |value: &mut Json| match (field.kind(), &mut *value) {
            (Kind::Enum(of), Json::String(text)) if of.get_value_by_name(text).is_none() => {
                let raised = upper(text);
                let same = of.values().find(|value| value.name().eq_ignore_ascii_case(&raised));
                if let Some(same) = same {
                    *text = same.name().to_owned();
                }
            }
            (Kind::Message(inner), value) if !field.is_map() => raise_enums(&inner, value, depth + 1),
            _ => {}
        };
        match value {
            Json::Array(list) if field.is_list() => list.iter_mut().for_each(&mut one),
            value => one(value),
        }
    }
}

/// The message whose field is a body as it is.
pub(super) fn raw(
    descriptor: &MessageDescriptor,
    body_field: &str,
    (body, content_type): (&[u8], &str),
    extension: Option<(&str, Vec<u8>)>,
) -> Result<DynamicMessage, Unfit> {
    let mut root = DynamicMessage::new(descriptor.clone());
    let mut at = &mut root;
    if body_field != "*" {
        let path = field_path(descriptor, body_field).unwrap_or_default();
        for field in &path {
            at = at
                .get_field_mut(field)
                .as_message_mut()
                .ok_or_else(|| Unfit(format!("{body_field:?} is no message")))?;
        }
    }
    let fields = [
        ("content_type", Value::String(content_type.to_owned())),
        ("data", Value::Bytes(body.to_vec().into())),
    ];
    for (name, value) in fields {
        at.try_set_field_by_name(name, value).map_err(|error| Unfit(error.to_string()))?;
    }
    if let Some((type_url, value)) = extension
        && let Some(field) = at.descriptor().get_field_by_name("extensions")
        && let Kind::Message(any) = field.kind()
    {
        let mut message = DynamicMessage::new(any);
        for (name, value) in
            [("type_url", Value::String(type_url.to_owned())), ("value", Value::Bytes(value.into()))]
        {
            message.try_set_field_by_name(name, value).map_err(|error| Unfit(error.to_string()))?;
        }
        let list = Value::List(vec![Value::Message(message)]);
        at.try_set_field(&field, list).map_err(|error| Unfit(error.to_string()))?;
    }
    Ok(root)
}

/// The body that a message is, or has in a field.
pub(super) fn raw_of(message: &DynamicMessage, response_body: &str) -> Raw {
    let inner = (!response_body.is_empty()).then(|| field(&message.descriptor(), response_body)).flatten();
    let inner = inner.map(|field| message.get_field(&field).into_owned());
    let message = inner.as_ref().and_then(Value::as_message).unwrap_or(message);
    let content_type = message.get_field_by_name("content_type");
    let data = message.get_field_by_name("data");
    Raw {
        content_type: content_type.and_then(|value| Some(value.as_str()?.to_owned())).unwrap_or_default(),
        data: data.and_then(|value| Some(value.as_bytes()?.to_vec())).unwrap_or_default(),
    }
}

/// Fields that both have, with other values.
pub(super) fn check_collisions(
    given: &DynamicMessage,
    bound: &DynamicMessage,
    fields: &[(Vec<String>, String)],
) -> Result<(), Unfit> {
    for (path, _) in fields {
        let path = path.join(".");
        let Some(all) = field_path(&given.descriptor(), &path) else { continue };
        if let (Some(a), Some(b)) = (value(given, &all), value(bound, &all))
            && a != b
        {
            return Err(Unfit(format!("the binding and the body have different values of {path}")));
        }
    }
    Ok(())
}

fn value(message: &DynamicMessage, path: &[FieldDescriptor]) -> Option<Value> {
    let (first, rest) = path.split_first()?;
    if !message.has_field(first) {
        return None;
    }
    let found = message.get_field(first).into_owned();
    if rest.is_empty() { Some(found) } else { value(found.as_message()?, rest) }
}

pub(super) fn encoded(message: &DynamicMessage) -> Vec<u8> {
    message.encode_to_vec()
}

/// A message, or one field of it, in JSON.
pub(super) fn write(message: &DynamicMessage, print: &Print, response_body: &str) -> Result<String, Unfit> {
    let options = SerializeOptions::new()
        .use_proto_field_name(print.preserve_proto_field_names)
        .use_enum_numbers(print.always_print_enums_as_ints)
        .skip_default_fields(!print.always_print_primitive_fields);
    let unfit = |error: serde_json::Error| Unfit(format!("the response has no JSON form: {error}"));
    let mut out = Vec::new();
    let one = (!response_body.is_empty()).then(|| field(&message.descriptor(), response_body)).flatten();
    // Written at once where it is all of the message: so the fields keep their order.
    match (one, print.add_whitespace) {
        (None, false) => {
            message
                .serialize_with_options(&mut serde_json::Serializer::new(&mut out), &options)
                .map_err(unfit)?;
        }
        (None, true) => {
            let mut lines =
                serde_json::Serializer::with_formatter(&mut out, PrettyFormatter::with_indent(b" "));
            message.serialize_with_options(&mut lines, &options).map_err(unfit)?;
        }
        (Some(field), spaced) => {
            let mut json =
                message.serialize_with_options(serde_json::value::Serializer, &options).map_err(unfit)?;
            let name = if print.preserve_proto_field_names { field.name() } else { field.json_name() };
            let nothing =
                if field.is_list() { Json::Array(Vec::new()) } else { Json::Object(serde_json::Map::new()) };
            let json = json.get_mut(name).map_or(nothing, Json::take);
            if spaced {
                let mut lines =
                    serde_json::Serializer::with_formatter(&mut out, PrettyFormatter::with_indent(b" "));
                json.serialize(&mut lines).map_err(unfit)?;
            } else {
                out.extend(json.to_string().into_bytes());
            }
        }
    }
    if print.add_whitespace {
        out.push(b'\n');
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}
