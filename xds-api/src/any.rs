//! Packing and unpacking of `google.protobuf.Any`.

use envoy_types::pb::google::protobuf::Any;
use prost::{Message, Name};

/// Why an `Any` did not unpack.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It holds another message.
    #[error("expected {expected}, found {found:?}")]
    Type {
        /// The type URL that was asked for.
        expected: String,
        /// The type URL that the message has.
        found: String,
    },
    /// Its bytes are not that message.
    #[error("{type_url} does not decode")]
    Decode {
        /// The type URL.
        type_url: String,
        /// What the decoder said.
        #[source]
        source: prost::DecodeError,
    },
}

/// The message as an `Any`, under its own type URL.
pub fn pack<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

/// The message in an `Any`.
pub fn unpack<M: Message + Name + Default>(any: &Any) -> Result<M, Error> {
    // The prefix before the last slash is free; the message's name after it decides.
    if any.type_url.rsplit('/').next() != Some(M::full_name().as_str()) {
        return Err(Error::Type { expected: M::type_url(), found: any.type_url.clone() });
    }
    M::decode(any.value.as_slice()).map_err(|source| Error::Decode { type_url: any.type_url.clone(), source })
}
