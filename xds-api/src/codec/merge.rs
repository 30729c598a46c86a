//! One message laid over another, as protobuf merges and as people mean it.

use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, ReflectMessage, Value};

use super::{Codec, Error};

/// What becomes of the lists of a message that another is laid over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lists {
    /// The other's items come behind.
    #[default]
    Append,
    /// The other's list takes their place.
    Replace,
}

impl Codec {
    /// Lays `over` on `base`: fields that are set replace, messages merge, also within an `Any` of the same type. Wrapped
    /// values and durations are values: they replace.
    pub fn merge<M: Message + Name + Default>(&self, base: &M, over: &M, lists: Lists) -> Result<M, Error> {
        let name = M::full_name();
        let descriptor = self.descriptor(&name)?;
        let read = |bytes: Vec<u8>| DynamicMessage::decode(descriptor.clone(), bytes.as_slice());
        let decode = |source| Error::Decode { name: name.clone(), source };
        let mut merged = read(base.encode_to_vec()).map_err(decode)?;
        lay(&self.pool, &mut merged, &read(over.encode_to_vec()).map_err(decode)?, lists);
        M::decode(merged.encode_to_vec().as_slice()).map_err(decode)
    }
}

fn lay(pool: &DescriptorPool, base: &mut DynamicMessage, over: &DynamicMessage, lists: Lists) {
    for (field, value) in over.fields() {
        if !base.has_field(&field) {
            base.set_field(&field, value.clone());
            continue;
        }
        match (base.get_field_mut(&field), value) {
            (Value::Message(own), Value::Message(value)) => lay_message(pool, own, value, lists),
            (Value::List(own), Value::List(items)) if lists == Lists::Append => {
                own.extend(items.iter().cloned());
            }
            (Value::Map(own), Value::Map(entries)) => {
                own.extend(entries.iter().map(|(key, value)| (key.clone(), value.clone())));
            }
            (own, value) => *own = value.clone(),
        }
    }
}

fn lay_message(pool: &DescriptorPool, base: &mut DynamicMessage, over: &DynamicMessage, lists: Lists) {
    let descriptor = over.descriptor();
    match descriptor.full_name() {
        "google.protobuf.Any" => {
            *base = any(pool, base, over, lists).unwrap_or_else(|| over.clone());
        }
        "google.protobuf.Struct" => lay(pool, base, over, lists),
        name if name.starts_with("google.protobuf.") => *base = over.clone(),
        _ => lay(pool, base, over, lists),
    }
}

/// Two of the same known type as one.
fn any(
    pool: &DescriptorPool,
    base: &DynamicMessage,
    over: &DynamicMessage,
    lists: Lists,
) -> Option<DynamicMessage> {
    let parts = |any: &DynamicMessage| {
        let url = any.get_field_by_name("type_url")?.as_str()?.to_owned();
        let bytes = any.get_field_by_name("value")?.as_bytes()?.clone();
        Some((url, bytes))
    };
    let ((url, bytes), (other, over)) = (parts(base)?, parts(over)?);
    let name = |url: &str| url.rsplit('/').next().unwrap_or_default().to_owned();
    if name(&url) != name(&other) {
        return None;
    }
    let descriptor = pool.get_message_by_name(&name(&url))?;
    let mut merged = DynamicMessage::decode(descriptor.clone(), bytes).ok()?;
    lay(pool, &mut merged, &DynamicMessage::decode(descriptor, over).ok()?, lists);
    let mut out = base.clone();
    out.set_field_by_name("value", Value::Bytes(merged.encode_to_vec().into()));
    Some(out)
}
