//! One resource as it crosses the wire: its name, the version of its content, and its encoded bytes, which all
//! streams that carry it share.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use crate::{kind, wire};

/// An encoded resource. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Unique within its type.
    pub name: Arc<str>,
    /// Equal versions mean equal content. Empty when the peer gave none.
    pub version: Arc<str>,
    /// The type of the message in `body`.
    pub type_url: Arc<str>,
    /// The encoded message.
    pub body: Bytes,
}

impl Resource {
    /// As an entry of a delta response.
    pub fn to_wire(&self) -> wire::Resource {
        wire::Resource {
            name: self.name.to_string(),
            version: self.version.to_string(),
            resource: Some(self.to_any()),
            ..Default::default()
        }
    }

    /// As an entry of a state-of-the-world response.
    pub fn to_any(&self) -> wire::Any {
        wire::Any { type_url: self.type_url.to_string(), value: self.body.clone() }
    }

    /// From an entry of a delta response; one that lacks its body has no type.
    pub(crate) fn from_wire(resource: wire::Resource) -> Self {
        let any = resource.resource.unwrap_or_default();
        Self {
            name: resource.name.into(),
            version: resource.version.into(),
            type_url: any.type_url.into(),
            body: any.value,
        }
    }

    /// From an entry of a state-of-the-world response, where the name has to be read from the message.
    pub(crate) fn from_any(any: wire::Any, version: &Arc<str>) -> Result<Self, prost::DecodeError> {
        let wrapped = any.type_url == wire::RESOURCE_TYPE_URL;
        if wrapped {
            let inner = wire::Resource::decode(any.value)?;
            let name = inner.name.clone();
            let any = inner.resource.unwrap_or_default();
            return Ok(Self {
                name: name.into(),
                version: Arc::clone(version),
                type_url: any.type_url.into(),
                body: any.value,
            });
        }
        let name = if kind::carries_name(&any.type_url) {
            wire::NameOnly::decode(any.value.clone())?.name
        } else {
            String::new()
        };
        Ok(Self {
            name: name.into(),
            version: Arc::clone(version),
            type_url: any.type_url.into(),
            body: any.value,
        })
    }
}
