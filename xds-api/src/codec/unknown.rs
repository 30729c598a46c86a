//! Fields of encoded messages that are not known.

use prost_reflect::{DescriptorPool, DynamicMessage, ReflectMessage, Value};

/// The first message that has any, and their numbers.
pub(super) fn find(pool: &DescriptorPool, message: &DynamicMessage) -> Option<(String, Vec<u32>)> {
    let mut numbers: Vec<u32> = message.unknown_fields().map(|field| field.number()).collect();
    if !numbers.is_empty() {
        numbers.sort_unstable();
        numbers.dedup();
        return Some((message.descriptor().full_name().to_owned(), numbers));
    }
    if message.descriptor().full_name() == "google.protobuf.Any" {
        return within_any(pool, message);
    }
    message.fields().find_map(|(_, value)| within(pool, value))
}

fn within(pool: &DescriptorPool, value: &Value) -> Option<(String, Vec<u32>)> {
    match value {
        Value::Message(message) => find(pool, message),
        Value::List(values) => values.iter().find_map(|value| within(pool, value)),
        Value::Map(values) => values.values().find_map(|value| within(pool, value)),
        _ => None,
    }
}

fn within_any(pool: &DescriptorPool, any: &DynamicMessage) -> Option<(String, Vec<u32>)> {
    let url = any.get_field_by_name("type_url")?;
    let bytes = any.get_field_by_name("value")?;
    let name = url.as_str()?.rsplit('/').next()?;
    let descriptor = pool.get_message_by_name(name)?;
    let inner = DynamicMessage::decode(descriptor, bytes.as_bytes()?.clone()).ok()?;
    find(pool, &inner)
}
