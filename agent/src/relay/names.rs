//! The name table on the two wire forms of xDS: subscribing, reading, acknowledging.

use bytes::Bytes;
use prost::Message as _;
use xds_api::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use xds_api::google::protobuf::Any;
use xds_api::google::rpc;
use xds_api::istio::nds::NameTable;
use xds_api::{any, type_url};

use crate::dns::NameTables;

/// The field of a response's type URL, the same in both forms.
pub(super) const RESPONSE_TYPE_URL: u32 = 4;

/// gRPC's code for a wrong argument.
pub(super) const INVALID_ARGUMENT: i32 = 3;

/// A wire form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    /// State of the world.
    Sotw,
    /// Delta.
    Delta,
}

impl Wire {
    pub(super) fn of_path(path: &str) -> Option<Self> {
        [Self::Sotw, Self::Delta].into_iter().find(|wire| wire.path() == path)
    }

    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Sotw => "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
            Self::Delta => "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
        }
    }

    /// The node was said in the first request of the stream.
    pub(super) fn subscribe_to_names(self) -> Bytes {
        self.request(String::new(), String::new(), None)
    }

    /// Takes over a name table; returns the acknowledgement, or the refusal.
    pub(super) fn take_names(self, response: Bytes, tables: &NameTables) -> Bytes {
        let (version, nonce, resource) = match self.read(response) {
            Ok(parts) => parts,
            Err(error) => return self.request(String::new(), String::new(), Some(error.to_string())),
        };
        let Some(resource) = resource else { return self.request(version, nonce, None) };
        match any::unpack::<NameTable>(&resource) {
            Ok(table) => {
                tables.replace(table);
                self.request(version, nonce, None)
            }
            Err(error) => self.request(version, nonce, Some(error.to_string())),
        }
    }

    /// Says that the extension configurations of a response cannot be taken.
    pub(super) fn refusal(self, nonce: String, error: &dyn std::fmt::Display) -> Bytes {
        let error = Some(error.to_string());
        self.request_of(type_url::EXTENSION_CONFIG, String::new(), nonce, error)
    }

    fn read(self, response: Bytes) -> Result<(String, String, Option<Any>), prost::DecodeError> {
        Ok(match self {
            Self::Sotw => {
                let response = DiscoveryResponse::decode(response)?;
                (response.version_info, response.nonce, response.resources.into_iter().next())
            }
            Self::Delta => {
                let response = DeltaDiscoveryResponse::decode(response)?;
                let resource = response.resources.into_iter().find_map(|resource| resource.resource);
                (response.system_version_info, response.nonce, resource)
            }
        })
    }

    fn request(self, version: String, nonce: String, error: Option<String>) -> Bytes {
        self.request_of(type_url::NAME_TABLE, version, nonce, error)
    }

    fn request_of(self, type_url: &str, version: String, nonce: String, error: Option<String>) -> Bytes {
        let type_url = type_url.to_owned();
        let error_detail =
            error.map(|message| rpc::Status { code: INVALID_ARGUMENT, message, ..Default::default() });
        let bytes = match self {
            Self::Sotw => DiscoveryRequest {
                version_info: version,
                type_url,
                response_nonce: nonce,
                error_detail,
                ..Default::default()
            }
            .encode_to_vec(),
            Self::Delta => {
                DeltaDiscoveryRequest { type_url, response_nonce: nonce, error_detail, ..Default::default() }
                    .encode_to_vec()
            }
        };
        Bytes::from(bytes)
    }
}
