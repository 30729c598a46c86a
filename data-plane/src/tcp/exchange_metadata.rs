//! Istio's metadata exchange on TCP: each side begins its stream with a frame that says who it is.
//!
//! A frame is a magic number, a length, and a protobuf `Any` of a `Struct` with the workload's metadata and id.

use std::io;

use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use xds_api::google::protobuf::{Any, Struct, Value, value::Kind};
use xds_api::istio::metadata_exchange::MetadataExchange;

use crate::net::Stream;
use crate::stream_info::PeerMetadata;
use crate::worker::state::Worker;

const MAGIC: u32 = 0x3D23_0467;
/// No sidecar sends more.
const MAX_FRAME: u32 = 256 * 1024;
const METADATA: &str = "x-envoy-peer-metadata";
const ID: &str = "x-envoy-peer-metadata-id";
const STRUCT_URL: &str = "type.googleapis.com/google.protobuf.Struct";

/// As the server: the client's frame comes first, ours is the answer.
pub(crate) async fn with_client(
    stream: &mut Stream,
    worker: &Worker,
    config: &MetadataExchange,
) -> io::Result<Option<PeerMetadata>> {
    let peer = read(stream).await?;
    stream.write_all(&frame(worker, &config.additional_labels)).await?;
    stream.flush().await?;
    Ok(peer)
}

/// As the client: our frame first, then the server's.
pub(crate) async fn with_server(
    stream: &mut Stream,
    worker: &Worker,
    config: &MetadataExchange,
) -> io::Result<Option<PeerMetadata>> {
    stream.write_all(&frame(worker, &config.additional_labels)).await?;
    stream.flush().await?;
    read(stream).await
}

async fn read(stream: &mut Stream) -> io::Result<Option<PeerMetadata>> {
    let magic = stream.read_u32().await?;
    if magic != MAGIC {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the peer sent no metadata frame"));
    }
    let length = stream.read_u32().await?;
    if length > MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the peer's metadata frame is too large"));
    }
    let mut bytes = vec![0; length as usize];
    stream.read_exact(&mut bytes).await?;
    Ok(parse(&bytes))
}

fn parse(bytes: &[u8]) -> Option<PeerMetadata> {
    let any = Any::decode(bytes).ok()?;
    let outer = Struct::decode(any.value.as_ref()).ok()?;
    match outer.fields.get(METADATA)?.kind.as_ref()? {
        Kind::StructValue(metadata) => Some(PeerMetadata::from_struct(metadata)),
        _ => None,
    }
}

fn frame(worker: &Worker, labels: &[String]) -> Vec<u8> {
    let options = &worker.shared.options;
    let metadata = PeerMetadata::exchange(&options.node_metadata, labels);
    let value = |kind| Value { kind: Some(kind) };
    let mut outer = Struct::default();
    outer.fields.insert(METADATA.to_owned(), value(Kind::StructValue(metadata)));
    outer.fields.insert(ID.to_owned(), value(Kind::StringValue(options.node_id.clone())));
    let any = Any { type_url: STRUCT_URL.to_owned(), value: outer.encode_to_vec() };
    let body = any.encode_to_vec();
    let mut frame = Vec::with_capacity(8 + body.len());
    frame.extend_from_slice(&MAGIC.to_be_bytes());
    frame.extend_from_slice(&(body.len() as u32).to_be_bytes());
    frame.extend_from_slice(&body);
    frame
}
