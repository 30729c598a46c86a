//! `TypedStruct`s in encoded messages: how a control plane configures an extension whose messages it does not have
//! (<https://www.envoyproxy.io/docs/envoy/latest/configuration/overview/extension>). Istiod sends its own filters so.

use std::collections::HashSet;
use std::fmt::Display;

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MapKey, MessageDescriptor, ReflectMessage, Value};

use super::json::Json;
use super::read::Reader;
use super::{Codec, Error, UnknownFields};
use crate::google::protobuf::{Any, Struct};
use crate::type_url::message as message_of;

/// `xds.type.v3.TypedStruct`, which `udpa.type.v1.TypedStruct` is equal to.
#[derive(Clone, PartialEq, prost::Message)]
struct TypedStruct {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Struct>,
}

/// Takes the `TypedStruct`s out of encoded messages. The descriptors of what these messages name alone are made once for
/// all of them.
#[derive(Debug)]
pub struct TypedStructs(Codec);

impl TypedStructs {
    /// For messages of this name; `None` where none of them has a `TypedStruct`.
    pub fn within<'b>(name: &str, messages: impl IntoIterator<Item = &'b [u8]>) -> Option<Self> {
        let mut names: HashSet<&str> =
            messages.into_iter().filter(|bytes| has_any(bytes)).flat_map(names_in).collect();
        if names.is_empty() {
            return None;
        }
        names.insert(name);
        Some(Self(Codec::of(names)))
    }

    /// The encoded message with each `TypedStruct` as the message that it stands for; `None` where it has none. Fields
    /// that such a message does not have are passed over, as Envoy does in what it discovers.
    ///
    /// # Errors
    /// The bytes are not that message, or a value does not fit the message that it stands for.
    pub fn resolve(&self, name: &str, bytes: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        if !has_any(bytes) {
            return Ok(None);
        }
        let mut message = decode(self.0.descriptor(name)?, bytes)?;
        let changed = within(&self.0.pool, &mut message)?;
        Ok(changed.then(|| message.encode_to_vec()))
    }
}

fn has_any(bytes: &[u8]) -> bool {
    memchr::memmem::find(bytes, b".TypedStruct").is_some()
}

/// What may be the names of messages in type URLs: whatever follows a slash.
fn names_in(bytes: &[u8]) -> impl Iterator<Item = &str> {
    let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_');
    memchr::memchr_iter(b'/', bytes).filter_map(move |slash| {
        let rest = bytes.get(slash + 1..)?;
        let end = rest.iter().position(|byte| !is_of_name(byte)).unwrap_or(rest.len());
        std::str::from_utf8(rest.get(..end)?).ok().filter(|name| name.contains('.'))
    })
}

fn decode(descriptor: MessageDescriptor, bytes: &[u8]) -> Result<DynamicMessage, Error> {
    let name = descriptor.full_name().to_owned();
    DynamicMessage::decode(descriptor, bytes).map_err(|source| Error::Decode { name, source })
}

/// Whether there was one.
fn within(pool: &DescriptorPool, message: &mut DynamicMessage) -> Result<bool, Error> {
    if message.descriptor().full_name() == "google.protobuf.Any" {
        return within_any(pool, message);
    }
    let holds_messages = |kind: Kind| matches!(kind, Kind::Message(_));
    let fields: Vec<_> =
        message.fields().map(|(field, _)| field).filter(|field| holds_messages(field.kind())).collect();
    let mut changed = false;
    for field in fields {
        let value = message.get_field_mut(&field);
        changed |= within_value(pool, value).map_err(|error| below(field.name(), error))?;
    }
    Ok(changed)
}

fn within_value(pool: &DescriptorPool, value: &mut Value) -> Result<bool, Error> {
    let mut changed = false;
    match value {
        Value::Message(message) => changed = within(pool, message)?,
        Value::List(items) => {
            for (place, item) in items.iter_mut().enumerate() {
                changed |=
                    within_value(pool, item).map_err(|error| below(format_args!("[{place}]"), error))?;
            }
        }
        Value::Map(entries) => {
            for (key, item) in entries {
                let step = match key {
                    MapKey::String(key) => format!("[{key:?}]"),
                    other => format!("[{other:?}]"),
                };
                changed |= within_value(pool, item).map_err(|error| below(step, error))?;
            }
        }
        _ => {}
    }
    Ok(changed)
}

fn within_any(pool: &DescriptorPool, message: &mut DynamicMessage) -> Result<bool, Error> {
    let mut any: Any =
        message.transcode_to().map_err(|source| Error::Decode { name: "Any".into(), source })?;
    let name = message_of(&any.type_url);
    if matches!(name, "udpa.type.v1.TypedStruct" | "xds.type.v3.TypedStruct") {
        any = meant(pool, &any)?;
    } else {
        let Some(descriptor) = pool.get_message_by_name(name) else { return Ok(false) };
        let mut inner = decode(descriptor, &any.value)?;
        if !within(pool, &mut inner)? {
            return Ok(false);
        }
        any.value = inner.encode_to_vec();
    }
    message.transcode_from(&any).map_err(|source| Error::Decode { name: "Any".into(), source })?;
    Ok(true)
}

/// The message that a `TypedStruct` stands for. One that is not known is empty: its name is what matters to who reads it.
fn meant(pool: &DescriptorPool, any: &Any) -> Result<Any, Error> {
    let TypedStruct { type_url, value } = TypedStruct::decode(any.value.as_slice())
        .map_err(|source| Error::Decode { name: message_of(&any.type_url).to_owned(), source })?;
    let Some(descriptor) = pool.get_message_by_name(message_of(&type_url)) else {
        return Ok(Any { type_url, value: Vec::new() });
    };
    let value: Struct = value.unwrap_or_default();
    let reader = Reader::new(pool, UnknownFields::Allow);
    let (value, _) = reader.read(&descriptor, &Json::from(&value)).map_err(|error| below("value", error))?;
    Ok(Any { type_url, value })
}

/// The error of what lies a step further up.
fn below(step: impl Display, error: Error) -> Error {
    match error {
        Error::Field { path, reason } => {
            let joint = if path.is_empty() || path.starts_with('[') { "" } else { "." };
            Error::Field { path: format!("{step}{joint}{path}"), reason }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::any;
    use crate::envoy::config::cluster::v3::{Cluster, Filter};
    use crate::envoy::config::listener::v3::{Filter as NetworkFilter, FilterChain, Listener, filter};
    use crate::envoy::extensions::filters::network::http_connection_manager::v3::{
        HttpConnectionManager, HttpFilter, http_filter,
    };
    use crate::istio::metadata_exchange::MetadataExchange;
    use crate::istio::stats::PluginConfig;

    const EXCHANGE: &str = "type.googleapis.com/envoy.tcp.metadataexchange.config.MetadataExchange";

    fn wrapped(type_url: &str, value: &serde_json::Value) -> Any {
        let value = Some(Codec::new().from_json_value::<Struct>(value).unwrap());
        let value = TypedStruct { type_url: type_url.into(), value }.encode_to_vec();
        Any { type_url: "type.googleapis.com/udpa.type.v1.TypedStruct".into(), value }
    }

    fn resolve(name: &str, bytes: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        TypedStructs::within(name, [bytes]).map_or(Ok(None), |structs| structs.resolve(name, bytes))
    }

    fn cluster(typed_config: Any) -> Cluster {
        let filter = Filter { name: "f".into(), typed_config: Some(typed_config), ..Filter::default() };
        Cluster { name: "c".into(), filters: vec![filter], ..Cluster::default() }
    }

    fn resolved<M: prost::Name + Default>(message: &M) -> M {
        let bytes = resolve(&M::full_name(), &message.encode_to_vec()).unwrap();
        M::decode(bytes.expect("there is one").as_slice()).unwrap()
    }

    #[test]
    fn a_filter_is_the_message_that_it_stands_for() {
        let expected =
            MetadataExchange { protocol: "p".into(), enable_discovery: true, ..Default::default() };
        let value = json!({"protocol": "p", "enable_discovery": true, "of_later_versions": 1});
        let sent = cluster(wrapped(EXCHANGE, &value));
        let plain = cluster(Any { type_url: EXCHANGE.into(), value: expected.encode_to_vec() });
        assert_eq!(resolved(&sent), plain);
        let bytes = plain.encode_to_vec();
        assert_eq!(resolve("envoy.config.cluster.v3.Cluster", &bytes).unwrap(), None);
    }

    #[test]
    fn messages_within_messages_are_looked_at() {
        let stats =
            wrapped("type.googleapis.com/stats.PluginConfig", &json!({"tcp_reporting_duration": "5s"}));
        let filter = |any: Any| HttpFilter {
            config_type: Some(http_filter::ConfigType::TypedConfig(any)),
            ..HttpFilter::default()
        };
        let hcm = HttpConnectionManager { http_filters: vec![filter(stats)], ..Default::default() };
        let filter = NetworkFilter {
            config_type: Some(filter::ConfigType::TypedConfig(any::pack(&hcm))),
            ..Default::default()
        };
        let chain = FilterChain { filters: vec![filter], ..FilterChain::default() };
        let listener = resolved(&Listener { filter_chains: vec![chain], ..Listener::default() });
        let Some(filter::ConfigType::TypedConfig(hcm)) = &listener.filter_chains[0].filters[0].config_type
        else {
            panic!("no configuration");
        };
        let hcm: HttpConnectionManager = any::unpack(hcm).unwrap();
        let Some(http_filter::ConfigType::TypedConfig(stats)) = &hcm.http_filters[0].config_type else {
            panic!("no configuration");
        };
        let stats: PluginConfig = any::unpack(stats).unwrap();
        assert_eq!(stats.tcp_reporting_duration.unwrap().seconds, 5);
    }

    #[test]
    fn what_is_not_known_keeps_its_name() {
        let found = resolved(&cluster(wrapped("type.googleapis.com/none.Such", &json!({"a": 1}))));
        let any = found.filters[0].typed_config.as_ref().unwrap();
        assert_eq!(any.type_url, "type.googleapis.com/none.Such");
    }

    #[test]
    fn a_value_that_does_not_fit_is_an_error_that_says_where() {
        let wrong = cluster(wrapped(EXCHANGE, &json!({"enable_discovery": "maybe"}))).encode_to_vec();
        let error = resolve("envoy.config.cluster.v3.Cluster", &wrong).unwrap_err().to_string();
        assert!(error.starts_with("filters[0].typed_config.value.enable_discovery: expected "), "{error}");
        let mut broken = wrapped(EXCHANGE, &json!({}));
        broken.value = vec![0xff];
        let bytes = cluster(broken).encode_to_vec();
        assert!(resolve("envoy.config.cluster.v3.Cluster", &bytes).is_err());
    }

    #[test]
    fn whole_numbers_are_whole() {
        let value =
            json!({"metrics": [], "disable_host_header_fallback": true, "rotation_interval": {"seconds": 7}});
        let sent = cluster(wrapped("type.googleapis.com/stats.PluginConfig", &value));
        let any = resolved(&sent).filters[0].typed_config.clone().unwrap();
        let stats: PluginConfig = any::unpack(&any).unwrap();
        assert_eq!(stats.rotation_interval.unwrap().seconds, 7);
    }
}
