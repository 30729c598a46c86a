//! Resources as they came, for `/config_dump` and for those who have to read them again: accepted ones, and the last
//! refused version of each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

/// One accepted resource.
#[derive(Clone, Debug)]
pub struct Held {
    /// The server's version.
    pub version: Arc<str>,
    /// The encoded message.
    pub body: Bytes,
    /// When it was accepted.
    pub updated: SystemTime,
}

/// A version that was not accepted.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The server's version.
    pub version: Arc<str>,
    /// The encoded message.
    pub body: Bytes,
    /// When it came.
    pub at: SystemTime,
    /// What is wrong with it.
    pub details: String,
}

/// All resources of one type.
#[derive(Clone, Debug, Default)]
pub struct Kind {
    /// The version of the last response.
    pub version: String,
    /// By name.
    pub held: BTreeMap<Arc<str>, Held>,
    /// By name.
    pub refused: BTreeMap<Arc<str>, Refused>,
    /// What is in force while a newer version warms, by name; of clusters and listeners.
    pub before: BTreeMap<Arc<str>, Held>,
}

impl Kind {
    /// Keeps an accepted resource; the memory is its own, not a slice of the response it came in. One that is what it was
    /// keeps the version and the time at which it became so; else the old one is handed out.
    pub fn accept(
        &mut self,
        name: &Arc<str>,
        version: &Arc<str>,
        body: &[u8],
        now: SystemTime,
    ) -> Option<Held> {
        self.refused.remove(name);
        if self.held.get(name).is_some_and(|held| *held.body == *body) {
            return None;
        }
        let held = Held { version: version.clone(), body: Bytes::copy_from_slice(body), updated: now };
        self.held.insert(name.clone(), held)
    }

    /// Keeps the reason why one was refused.
    pub fn refuse(
        &mut self,
        name: &Arc<str>,
        version: &Arc<str>,
        body: &[u8],
        details: String,
        now: SystemTime,
    ) {
        let refused =
            Refused { version: version.clone(), body: Bytes::copy_from_slice(body), at: now, details };
        self.refused.insert(name.clone(), refused);
    }

    /// Forgets a resource.
    pub fn remove(&mut self, name: &str) {
        self.held.remove(name);
        self.refused.remove(name);
        self.before.remove(name);
    }
}
