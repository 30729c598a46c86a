//! The discovery responses with resource bodies as [`Bytes`]: on the server one encoding is shared by every stream
//! that sends it, on the client a body is a slice of the received frame. On the wire they equal
//! `envoy.service.discovery.v3.{DeltaDiscoveryResponse, DiscoveryResponse}`.
//!
//! With tonic: `ProstCodec<DeltaDiscoveryRequest, wire::DeltaResponse>` on [`DELTA_PATH`], and
//! `ProstCodec<DiscoveryRequest, wire::Response>` on [`SOTW_PATH`].

use bytes::Bytes;
use prost::Message;
use xds_api::envoy::config::core::v3::ControlPlane;
use xds_api::google::protobuf::Duration;

/// The gRPC path of the delta variant.
pub const DELTA_PATH: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/// The gRPC path of the state-of-the-world variant.
pub const SOTW_PATH: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
/// The gRPC service's name.
pub const SERVICE: &str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
/// The type URL of a resource wrapped to carry its name in a state-of-the-world response.
pub const RESOURCE_TYPE_URL: &str = "type.googleapis.com/envoy.service.discovery.v3.Resource";

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Any {
    /// The type of the message in `value`.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The encoded message.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

/// `envoy.service.discovery.v3.Resource`.
#[derive(Clone, PartialEq, Message)]
pub struct Resource {
    /// Unique within its type.
    #[prost(string, tag = "3")]
    pub name: String,
    /// Other names under which it answers.
    #[prost(string, repeated, tag = "4")]
    pub aliases: Vec<String>,
    /// Equal versions mean equal content.
    #[prost(string, tag = "1")]
    pub version: String,
    /// The resource; absent in a heartbeat.
    #[prost(message, optional, tag = "2")]
    pub resource: Option<Any>,
    /// After which the client forgets it.
    #[prost(message, optional, tag = "6")]
    pub ttl: Option<Duration>,
}

/// `envoy.service.discovery.v3.DeltaDiscoveryResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct DeltaResponse {
    /// The server's version; for people.
    #[prost(string, tag = "1")]
    pub system_version_info: String,
    /// Added and changed resources.
    #[prost(message, repeated, tag = "2")]
    pub resources: Vec<Resource>,
    /// The type of all of them.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// Names of resources that are gone or do not exist.
    #[prost(string, repeated, tag = "6")]
    pub removed_resources: Vec<String>,
    /// What the client acknowledges by.
    #[prost(string, tag = "5")]
    pub nonce: String,
    /// Who answered.
    #[prost(message, optional, tag = "7")]
    pub control_plane: Option<ControlPlane>,
}

/// `envoy.service.discovery.v3.DiscoveryResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct Response {
    /// The version that the client acknowledges.
    #[prost(string, tag = "1")]
    pub version_info: String,
    /// The resources; complete for clusters and listeners.
    #[prost(message, repeated, tag = "2")]
    pub resources: Vec<Any>,
    /// The type of all of them.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// What the client acknowledges by.
    #[prost(string, tag = "5")]
    pub nonce: String,
    /// Who answered.
    #[prost(message, optional, tag = "6")]
    pub control_plane: Option<ControlPlane>,
}

/// The first field of the resource types that have their name there.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct NameOnly {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use xds_api::envoy::service::discovery::v3 as discovery;
    use xds_api::google::protobuf;

    #[test]
    fn equals_envoys_messages_on_the_wire() {
        let ours = DeltaResponse {
            system_version_info: "v1".into(),
            resources: vec![Resource {
                name: "a".into(),
                aliases: vec!["b".into()],
                version: "7".into(),
                resource: Some(Any { type_url: "t".into(), value: Bytes::from_static(b"xyz") }),
                ttl: Some(Duration { seconds: 3, nanos: 0 }),
            }],
            type_url: "t".into(),
            removed_resources: vec!["gone".into()],
            nonce: "n".into(),
            control_plane: Some(ControlPlane { identifier: "saild".into() }),
        };
        let theirs = discovery::DeltaDiscoveryResponse::decode(ours.encode_to_vec().as_slice()).unwrap();
        assert_eq!(theirs.resources[0].name, "a");
        assert_eq!(
            theirs.resources[0].resource,
            Some(protobuf::Any { type_url: "t".into(), value: b"xyz".to_vec() })
        );
        assert_eq!(DeltaResponse::decode(theirs.encode_to_vec().as_slice()).unwrap(), ours);

        let ours = Response {
            version_info: "v1".into(),
            resources: vec![Any { type_url: "t".into(), value: Bytes::from_static(b"xyz") }],
            type_url: "t".into(),
            nonce: "n".into(),
            control_plane: None,
        };
        let theirs = discovery::DiscoveryResponse::decode(ours.encode_to_vec().as_slice()).unwrap();
        assert_eq!(Response::decode(theirs.encode_to_vec().as_slice()).unwrap(), ours);
    }
}
