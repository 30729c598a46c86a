//! Extension configurations on the two wire forms of xDS, read and written as one.

use bytes::Bytes;
use prost::{DecodeError, Message as _, Name as _};
use xds_api::any;
use xds_api::envoy::config::core::v3::TypedExtensionConfig;
use xds_api::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use xds_api::google::rpc;
use xds_api::type_url::EXTENSION_CONFIG;

use super::names::{INVALID_ARGUMENT, Wire};
use crate::frames::text_field;

/// What a response says of itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Envelope {
    version: String,
    pub(super) nonce: String,
}

/// A response.
#[derive(Clone, Debug, Default)]
pub(super) struct Batch {
    pub(super) envelope: Envelope,
    pub(super) resources: Vec<Resource>,
    pub(super) removed: Vec<String>,
}

impl Batch {
    pub(super) fn read(wire: Wire, response: &[u8]) -> Result<Self, DecodeError> {
        Ok(match wire {
            Wire::Sotw => {
                let response = DiscoveryResponse::decode(response)?;
                let envelope = Envelope { version: response.version_info, nonce: response.nonce };
                Self {
                    envelope,
                    resources: response.resources.into_iter().map(named).collect(),
                    removed: Vec::new(),
                }
            }
            Wire::Delta => {
                let response = DeltaDiscoveryResponse::decode(response)?;
                let envelope = Envelope { version: response.system_version_info, nonce: response.nonce };
                Self { envelope, resources: response.resources, removed: response.removed_resources }
            }
        })
    }

    pub(super) fn write(self, wire: Wire) -> Bytes {
        let Self { envelope: Envelope { version, nonce }, resources, removed } = self;
        let type_url = EXTENSION_CONFIG.to_owned();
        let bytes = match wire {
            Wire::Sotw => DiscoveryResponse {
                version_info: version,
                resources: resources.into_iter().filter_map(|entry| entry.resource).collect(),
                type_url,
                nonce,
                ..Default::default()
            }
            .encode_to_vec(),
            Wire::Delta => DeltaDiscoveryResponse {
                system_version_info: version,
                resources,
                type_url,
                removed_resources: removed,
                nonce,
                ..Default::default()
            }
            .encode_to_vec(),
        };
        bytes.into()
    }
}

/// In state of the world, a resource's name is in it.
fn named(resource: xds_api::google::protobuf::Any) -> Resource {
    let name = match resource.type_url == TypedExtensionConfig::type_url() {
        true => any::unpack::<TypedExtensionConfig>(&resource).map(|config| config.name).unwrap_or_default(),
        false => String::new(),
    };
    Resource { name, resource: Some(resource), ..Default::default() }
}

/// A request.
#[derive(Clone, Debug)]
pub(super) enum Asked {
    Sotw(DiscoveryRequest),
    Delta(DeltaDiscoveryRequest),
}

impl Asked {
    /// `None`: it is about something else, or cannot be read.
    pub(super) fn read(wire: Wire, request: &[u8]) -> Option<Self> {
        let type_url = text_field(
            request,
            match wire {
                Wire::Sotw => 4,
                Wire::Delta => 2,
            },
        );
        if type_url != Some(EXTENSION_CONFIG) {
            return None;
        }
        match wire {
            Wire::Sotw => DiscoveryRequest::decode(request).ok().map(Self::Sotw),
            Wire::Delta => DeltaDiscoveryRequest::decode(request).ok().map(Self::Delta),
        }
    }

    pub(super) fn write(&self) -> Bytes {
        match self {
            Self::Sotw(request) => request.encode_to_vec().into(),
            Self::Delta(request) => request.encode_to_vec().into(),
        }
    }

    /// Makes a refusal of it, if it is an acknowledgement.
    pub(super) fn refuse(&mut self, message: String) {
        let (nonce, error) = match self {
            Self::Sotw(request) => (&request.response_nonce, &mut request.error_detail),
            Self::Delta(request) => (&request.response_nonce, &mut request.error_detail),
        };
        if !nonce.is_empty() && error.is_none() {
            *error = Some(rpc::Status { code: INVALID_ARGUMENT, message, ..Default::default() });
        }
    }
}
