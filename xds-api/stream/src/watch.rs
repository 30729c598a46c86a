//! What one client watches of one type, what it holds of it, and how its last answer fared. The server's bookkeeping,
//! the same for both variants of the protocol.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::kind::{WILDCARD, is_wildcard};
use crate::resource::Resource;

/// The version and the nonce of one response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The version of the configuration that the response was made from.
    pub version: String,
    /// Unique to the response within its stream.
    pub nonce: String,
}

/// A refusal of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nack {
    /// The response that was refused.
    pub stamp: Stamp,
    /// What the client said.
    pub message: String,
}

/// How the responses of one type fared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The latest response.
    pub sent: Option<Stamp>,
    /// The latest that was accepted.
    pub acked: Option<Stamp>,
    /// Set while the latest answer of the client is a refusal.
    pub nacked: Option<Nack>,
}

/// What a client says about a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The latest response was accepted.
    Acked,
    /// The latest response was refused.
    Nacked(String),
    /// The answer is to an older response.
    Stale,
}

impl Status {
    pub(crate) fn settle(&mut self, nonce: &str, error: Option<&str>) -> Verdict {
        let Some(sent) = self.sent.as_ref().filter(|sent| sent.nonce == nonce) else {
            return Verdict::Stale;
        };
        match error {
            Some(message) => {
                self.nacked = Some(Nack { stamp: sent.clone(), message: message.to_owned() });
                Verdict::Nacked(message.to_owned())
            }
            None => {
                self.acked = Some(sent.clone());
                self.nacked = None;
                Verdict::Acked
            }
        }
    }
}

/// What of a type has to be generated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Demand {
    /// All resources of the type that the client may have: what is not among them is gone.
    Everything,
    /// Exactly these: a name without a resource is gone or does not exist.
    Names(BTreeSet<String>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    Version(Arc<str>),
    /// The client was told that there is no such resource.
    Absent,
}

/// One type on one stream.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    pub(crate) wildcard: bool,
    pub(crate) names: BTreeSet<String>,
    pub(crate) held: HashMap<Arc<str>, Held>,
    /// Names that the client waits to hear of.
    pub(crate) owed: BTreeSet<String>,
    /// A response must be sent even if there is nothing in it: the client waits for one.
    pub(crate) owes_reply: bool,
    /// State of the world: the next request is answered in full even if it looks like an acknowledgement.
    pub(crate) always_respond: bool,
    /// Delta: resources sent since the last settled response, for what warms on them.
    pub(crate) unsettled: BTreeSet<String>,
    pub(crate) status: Status,
}

/// What changes for a client: the raw material of a response.
#[derive(Clone, Debug, Default)]
pub(crate) struct Difference {
    pub(crate) changed: Vec<Resource>,
    pub(crate) removed: Vec<String>,
    /// The client waits for a response even if nothing changed.
    pub(crate) awaited: bool,
}

impl Watch {
    /// Whether all resources of the type are watched.
    pub fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    /// The names watched explicitly.
    pub fn names(&self) -> &BTreeSet<String> {
        &self.names
    }

    /// How its responses fared.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Names and versions of what the client holds, as far as the server knows.
    pub fn held(&self) -> impl Iterator<Item = (&str, &str)> {
        self.held.iter().filter_map(|(name, held)| match held {
            Held::Version(version) => Some((name.as_ref(), version.as_ref())),
            Held::Absent => None,
        })
    }

    /// Whether a response is due although no configuration changed.
    pub(crate) fn is_due(&self) -> bool {
        self.owes_reply || !self.owed.is_empty()
    }

    pub(crate) fn subscribe(&mut self, names: &[String], fresh: bool) {
        for name in names {
            if name == WILDCARD {
                self.owes_reply |= !self.wildcard;
                self.wildcard = true;
                continue;
            }
            // Asking again for what was asked before means that the client may have dropped it meanwhile.
            if !fresh {
                self.held.remove(name.as_str());
            }
            self.names.insert(name.clone());
            self.owed.insert(name.clone());
        }
    }

    pub(crate) fn unsubscribe(&mut self, names: &[String]) {
        for name in names {
            if name == WILDCARD {
                self.wildcard = false;
                let names = &self.names;
                self.held.retain(|held, _| names.contains(held.as_ref()));
                continue;
            }
            self.names.remove(name);
            self.held.remove(name.as_str());
            self.owed.remove(name);
            // The wildcard may still cover it, which the client cannot know: it has to be told again.
            if self.wildcard {
                self.owed.insert(name.clone());
            }
        }
    }

    /// Names of which the client waits for news whatever it holds.
    pub(crate) fn owe(&mut self, names: impl IntoIterator<Item = String>) {
        for name in names {
            self.held.remove(name.as_str());
            self.owed.insert(name);
        }
    }

    /// What has to be generated when `changed` (`None`: anything) may have changed.
    pub(crate) fn demand(&self, changed: Option<&BTreeSet<String>>, complete: bool) -> Option<Demand> {
        if self.wildcard {
            return match changed {
                Some(changed) if !complete && !self.owes_reply => {
                    names(changed.union(&self.owed).cloned().collect())
                }
                _ => Some(Demand::Everything),
            };
        }
        match changed {
            Some(changed) if !complete => {
                let mut wanted: BTreeSet<String> = changed.intersection(&self.names).cloned().collect();
                wanted.extend(self.owed.iter().cloned());
                names(wanted)
            }
            _ => names(self.names.clone()),
        }
    }

    /// What a request has to be answered with.
    pub(crate) fn due(&self, complete: bool) -> Option<Demand> {
        if !self.is_due() {
            return None;
        }
        let demand = self.demand(Some(&BTreeSet::new()), complete);
        // An awaited response to a subscription to nothing is empty.
        demand.or_else(|| self.owes_reply.then(|| Demand::Names(BTreeSet::new())))
    }

    /// Compares with what the client holds, and from now on assumes that it holds this. Of what it held and is gone, it hears
    /// only where that is `withdrawn`.
    pub(crate) fn advance(&mut self, demand: &Demand, resources: &[Resource], withdrawn: bool) -> Difference {
        let mut difference = Difference { awaited: self.owes_reply, ..Difference::default() };
        let mut present: hashbrown::HashSet<&str> = hashbrown::HashSet::with_capacity(resources.len());
        for resource in resources {
            present.insert(&resource.name);
            let owed = self.owed.remove(resource.name.as_ref());
            difference.awaited |= owed;
            // What is owed and held was named at the start of the stream with its version; what must go out whatever
            // the client holds was dropped from `held` when it became owed.
            let same = matches!(self.held.get(&resource.name), Some(Held::Version(held)) if *held == resource.version);
            if !same {
                self.held.insert(Arc::clone(&resource.name), Held::Version(Arc::clone(&resource.version)));
                difference.changed.push(resource.clone());
            }
        }
        let mut gone: BTreeSet<String> = match demand {
            Demand::Everything => {
                let held = self.held.iter().filter(|(_, held)| **held != Held::Absent);
                let held = held.map(|(name, _)| name.to_string());
                held.chain(self.names.iter().cloned()).chain(self.owed.iter().cloned()).collect()
            }
            Demand::Names(names) => names.clone(),
        };
        gone.retain(|name| !present.contains(name.as_str()));
        for name in gone {
            let owed = self.owed.remove(&name);
            difference.awaited |= owed;
            let told = self.held.get(name.as_str()) == Some(&Held::Absent);
            let explicit = self.names.contains(&name);
            let unheard = self.wildcard && !explicit && !owed && !self.held.contains_key(name.as_str());
            if explicit {
                self.held.insert(name.as_str().into(), Held::Absent);
            } else {
                self.held.remove(name.as_str());
            }
            if owed || (withdrawn && !told && !unheard) {
                difference.removed.push(name);
            }
        }
        self.owes_reply = false;
        difference
    }

    /// The state at the start of a delta stream.
    pub(crate) fn fresh<'a>(
        type_url: &str,
        names_given: bool,
        initial: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Self {
        let held = initial
            .into_iter()
            .map(|(name, version)| (Arc::from(name.as_str()), Held::Version(Arc::from(version.as_str()))));
        Self {
            wildcard: !names_given && is_wildcard(type_url),
            held: held.collect(),
            owes_reply: true,
            ..Self::default()
        }
    }
}

fn names(names: BTreeSet<String>) -> Option<Demand> {
    (!names.is_empty()).then_some(Demand::Names(names))
}
