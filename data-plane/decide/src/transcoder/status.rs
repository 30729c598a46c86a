//! `google.rpc.Status`, which errors are written as. Descriptor sets need not have it.

use prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
use prost_reflect::prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto};
use prost_reflect::{DescriptorPool, DynamicMessage, Value};

const NAME: &str = "google.rpc.Status";
const ANY: &str = "google/protobuf/any.proto";

/// Adds the message where there is none.
pub(super) fn add(pool: &mut DescriptorPool) {
    if pool.get_message_by_name(NAME).is_some() {
        return;
    }
    if pool.get_file_by_name(ANY).is_none()
        && let Some(any) = DescriptorPool::global().get_file_by_name(ANY)
        && pool.add_file_descriptor_proto(any.file_descriptor_proto().clone()).is_err()
    {
        return;
    }
    let field =
        |name: &str, number, label: Label, kind: Type, type_name: Option<&str>| FieldDescriptorProto {
            name: Some(name.to_owned()),
            number: Some(number),
            label: Some(label.into()),
            r#type: Some(kind.into()),
            type_name: type_name.map(ToOwned::to_owned),
            ..FieldDescriptorProto::default()
        };
    let status = DescriptorProto {
        name: Some("Status".to_owned()),
        field: vec![
            field("code", 1, Label::Optional, Type::Int32, None),
            field("message", 2, Label::Optional, Type::String, None),
            field("details", 3, Label::Repeated, Type::Message, Some(".google.protobuf.Any")),
        ],
        ..DescriptorProto::default()
    };
    // Where it cannot be added, errors have no form in JSON.
    let _ = pool.add_file_descriptor_proto(FileDescriptorProto {
        name: Some("google/rpc/status.proto".to_owned()),
        package: Some("google.rpc".to_owned()),
        syntax: Some("proto3".to_owned()),
        dependency: vec![ANY.to_owned()],
        message_type: vec![status],
        ..FileDescriptorProto::default()
    });
}

/// The message that is encoded, or else the one that code and text make.
pub(super) fn message(
    pool: &DescriptorPool,
    encoded: Option<&[u8]>,
    code: u32,
    text: &str,
) -> Option<DynamicMessage> {
    let descriptor = pool.get_message_by_name(NAME)?;
    if let Some(bytes) = encoded
        && let Ok(status) = DynamicMessage::decode(descriptor.clone(), bytes)
    {
        return Some(status);
    }
    let mut status = DynamicMessage::new(descriptor);
    status.try_set_field_by_name("code", Value::I32(i32::try_from(code).unwrap_or(i32::MAX))).ok()?;
    status.try_set_field_by_name("message", Value::String(text.to_owned())).ok()?;
    Some(status)
}
