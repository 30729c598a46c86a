//! A bootstrap's clusters, apart from the rest of it: there may be thousands, and a decoded one takes several times its
//! bytes.

use bytes::Bytes;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost::{DecodeError, Message};
use xds_api::envoy::config::bootstrap::v3::Bootstrap;

const STATIC_RESOURCES: u32 = 2;
const CLUSTERS: u32 = 2;

/// The message without `static_resources.clusters`, and each of these, encoded.
pub(super) fn clusters(encoded: &Bytes) -> Result<(Bootstrap, Vec<Bytes>), DecodeError> {
    let mut bootstrap = Bootstrap::default();
    let mut clusters = Vec::new();
    let mut rest = encoded.clone();
    while let Some(field) = Field::next(&mut rest)? {
        // One message behind the other is both merged, and so are parts of one.
        let Some(mut fixed) = field.message(STATIC_RESOURCES)? else {
            bootstrap.merge(field.whole)?;
            continue;
        };
        let others = bootstrap.static_resources.get_or_insert_default();
        while let Some(field) = Field::next(&mut fixed)? {
            match field.message(CLUSTERS)? {
                Some(cluster) => clusters.push(cluster),
                None => others.merge(field.whole)?,
            }
        }
    }
    Ok((bootstrap, clusters))
}

/// One field of an encoded message.
struct Field {
    number: u32,
    kind: WireType,
    whole: Bytes,
    /// All behind the key.
    value: Bytes,
}

impl Field {
    /// Takes the next one off a message.
    fn next(message: &mut Bytes) -> Result<Option<Self>, DecodeError> {
        if message.is_empty() {
            return Ok(None);
        }
        let mut whole = message.clone();
        let (number, kind) = decode_key(message)?;
        let mut value = message.clone();
        skip_field(kind, number, message, DecodeContext::default())?;
        whole.truncate(whole.len() - message.len());
        value.truncate(value.len() - message.len());
        Ok(Some(Self { number, kind, whole, value }))
    }

    /// Its bytes, if it is of this number and a message.
    fn message(&self, number: u32) -> Result<Option<Bytes>, DecodeError> {
        if self.number != number || self.kind != WireType::LengthDelimited {
            return Ok(None);
        }
        let mut value = self.value.clone();
        decode_varint(&mut value)?;
        Ok(Some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xds_api::envoy::config::bootstrap::v3::bootstrap::StaticResources;
    use xds_api::envoy::config::cluster::v3::Cluster;
    use xds_api::envoy::config::core::v3::Node;
    use xds_api::envoy::config::listener::v3::Listener;

    fn bootstrap(id: &str, clusters: &[&str], listener: &str) -> Bootstrap {
        let cluster = |name: &&str| Cluster { name: (*name).to_owned(), ..Cluster::default() };
        let fixed = StaticResources {
            clusters: clusters.iter().map(cluster).collect(),
            listeners: vec![Listener { name: listener.to_owned(), ..Listener::default() }],
            ..StaticResources::default()
        };
        Bootstrap {
            node: Some(Node { id: id.to_owned(), ..Node::default() }),
            static_resources: Some(fixed),
            ..Bootstrap::default()
        }
    }

    #[test]
    fn nothing_is_lost() {
        let mut encoded = bootstrap("one", &["a", "b"], "x").encode_to_vec();
        encoded.extend(bootstrap("two", &["c"], "y").encode_to_vec());
        let (mut rest, apart) = clusters(&encoded.clone().into()).unwrap();
        let fixed = rest.static_resources.as_mut().unwrap();
        assert!(fixed.clusters.is_empty());
        fixed.clusters.extend(apart.iter().map(|body| Cluster::decode(body.clone()).unwrap()));
        assert_eq!(rest, Bootstrap::decode(encoded.as_slice()).unwrap());
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        let encoded = Bytes::from(bootstrap("one", &["a"], "x").encode_to_vec());
        for end in 0..encoded.len() {
            let _ = clusters(&encoded.slice(..end));
        }
        assert!(clusters(&encoded.slice(..encoded.len() - 1)).is_err());
    }
}
