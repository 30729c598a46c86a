//! gRPC messages as bytes: what only passes through is neither decoded nor copied, and what must be known about it is
//! read off its outermost fields.

use bytes::{Buf as _, BufMut as _, Bytes};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// A codec that leaves messages as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(src.copy_to_bytes(src.remaining())))
    }
}

/// The text in a field of a message, without decoding the others. `None` where it is missing or the message is
/// damaged; of several, the last counts.
pub fn text_field(message: &[u8], field: u32) -> Option<&str> {
    let mut rest = message;
    let mut found = None;
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        match key & 7 {
            0 => {
                varint(&mut rest)?;
            }
            1 => rest = rest.get(8..)?,
            5 => rest = rest.get(4..)?,
            2 => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                let value = rest.get(..length)?;
                rest = &rest[length..];
                if key >> 3 == u64::from(field) {
                    found = Some(std::str::from_utf8(value).ok()?);
                }
            }
            _ => return None,
        }
    }
    found
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;
    use xds_api::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse};
    use xds_api::google::protobuf::Any;

    #[test]
    fn finds_the_type_url_of_both_protocols() {
        let any = Any { type_url: "other".into(), value: vec![7; 300] };
        let sotw = DiscoveryResponse {
            version_info: "1".into(),
            resources: vec![any],
            type_url: "type.googleapis.com/x".into(),
            nonce: "n".into(),
            ..Default::default()
        };
        assert_eq!(text_field(&sotw.encode_to_vec(), 4), Some("type.googleapis.com/x"));
        let delta = DeltaDiscoveryResponse {
            type_url: "type.googleapis.com/y".into(),
            removed_resources: vec!["a".into()],
            ..Default::default()
        };
        assert_eq!(text_field(&delta.encode_to_vec(), 4), Some("type.googleapis.com/y"));
    }

    #[test]
    fn a_damaged_message_says_nothing() {
        for damaged in [&[0x22_u8][..], &[0x22, 0x05, b'a'], &[0xff; 20], &[0x07]] {
            assert_eq!(text_field(damaged, 4), None);
        }
    }
}
