//! The user's API and the agent's: manifests, mesh configuration, DNS messages.

use mesh_api::{MeshConfig, check};
use serde_json::Value;

use crate::text;

/// A manifest is read or refused; what was read is written so that it is read as the same.
pub fn manifest(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let Ok(manifest) = serde_norway::from_str::<Value>(text) else { return };
    let Ok((object, _)) = check(&manifest) else { return };
    let written = object.to_manifest();
    let again = check(&written).map(|(again, _)| again);
    assert_eq!(again.as_ref().ok(), Some(&object), "{written}");
}

/// A mesh configuration is read or refused.
pub fn mesh_config(data: &[u8]) {
    if let Some(text) = text(data) {
        let _ = MeshConfig::from_yaml(text);
    }
}

/// A DNS message gets no answer, or one with its id that is marked as an answer.
pub fn dns(data: &[u8]) {
    let Some(answer) = sail_agent::dns::local_answer(data) else { return };
    assert_eq!(answer.get(..2), data.get(..2), "the answer's id");
    assert!(answer.get(2).is_some_and(|flags| flags & 0x80 != 0), "the answer says that it is one");
}
