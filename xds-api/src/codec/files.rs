//! The files of the descriptor set that a few messages need: a configuration names few of hundreds, and making
//! descriptors of all of them takes time and memory.

use std::collections::HashMap;

use prost::Message as _;
use prost::bytes::Bytes;
use prost_reflect::DescriptorPool;

/// A `FileDescriptorSet` whose files are left encoded.
#[derive(Clone, PartialEq, prost::Message)]
struct Set {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    files: Vec<Bytes>,
}

/// What of a `FileDescriptorProto` says where messages are.
#[derive(Clone, PartialEq, prost::Message)]
struct File {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    package: String,
    #[prost(string, repeated, tag = "3")]
    imports: Vec<String>,
    #[prost(message, repeated, tag = "4")]
    messages: Vec<Message>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Message {
    #[prost(string, tag = "1")]
    name: String,
}

/// The descriptors of these messages and of all that they refer to. Names that are not known are passed over.
pub(super) fn pool<'n>(
    set: &'static [u8],
    names: impl IntoIterator<Item = &'n str>,
) -> Result<DescriptorPool, Box<dyn std::error::Error>> {
    let set = Set::decode(Bytes::from_static(set))?;
    let files = set.files.iter().map(|file| File::decode(file.clone())).collect::<Result<Vec<_>, _>>()?;
    let by_name: HashMap<&str, usize> =
        files.iter().enumerate().map(|(place, file)| (file.name.as_str(), place)).collect();
    let messages = files.iter().enumerate().flat_map(|(place, file)| {
        file.messages.iter().map(move |message| (format!("{}.{}", file.package, message.name), place))
    });
    let by_message: HashMap<String, usize> = messages.collect();
    let mut needed = vec![false; files.len()];
    let mut next: Vec<usize> = names.into_iter().filter_map(|name| file_of(&by_message, name)).collect();
    while let Some(place) = next.pop() {
        if !std::mem::replace(&mut needed[place], true) {
            next.extend(files[place].imports.iter().filter_map(|name| by_name.get(name.as_str())));
        }
    }
    let files = set.files.into_iter().zip(needed).filter_map(|(file, needed)| needed.then_some(file));
    Ok(DescriptorPool::decode(Set { files: files.collect() }.encode_to_vec().as_slice())?)
}

/// The file of a message, or of the one that it is nested in.
fn file_of(by_message: &HashMap<String, usize>, mut name: &str) -> Option<usize> {
    loop {
        match by_message.get(name) {
            Some(place) => return Some(*place),
            None => name = name.rsplit_once('.')?.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Codec, DESCRIPTORS};
    use super::*;

    fn knows(pool: &DescriptorPool, name: &str) -> bool {
        pool.get_message_by_name(name).is_some()
    }

    #[test]
    fn what_is_named_is_there_with_all_that_it_refers_to() {
        let pool = pool(DESCRIPTORS, ["envoy.config.route.v3.RouteAction.HashPolicy", "none.Such"]).unwrap();
        assert!(knows(&pool, "envoy.config.route.v3.RouteAction.HashPolicy"));
        assert!(knows(&pool, "google.protobuf.Duration"));
        assert!(!knows(&pool, "envoy.config.bootstrap.v3.Bootstrap"));
    }

    /// A message alone is as it is among all.
    #[test]
    fn any_message_can_be_named() {
        let all = Codec::new();
        for name in all.messages().step_by(50) {
            let pool = pool(DESCRIPTORS, [name.as_str()]).unwrap();
            let alone = pool.get_message_by_name(&name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!(alone.fields().len(), all.descriptor(&name).unwrap().fields().len(), "{name}");
        }
    }
}
