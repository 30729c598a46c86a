//! The server's end of one stream. Requests go in, and out comes what has to be generated; what was generated goes
//! in, and out comes the response, if the client needs one.

use std::collections::{BTreeMap, BTreeSet};

use xds_api::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};

use crate::kind;
use crate::resource::Resource;
use crate::watch::{Held, Verdict, Watch};
use crate::wire;

pub use crate::watch::{Demand, Nack, Stamp, Status};

#[cfg(test)]
mod tests;

/// Which variant of the protocol a stream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Incremental.
    Delta,
    /// State of the world.
    Sotw,
}

/// What a request turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The first of its type on the stream.
    Opened,
    /// The latest response was accepted.
    Acked,
    /// The latest response was refused; what the client said.
    Nacked(String),
    /// An answer to a response that is not the latest.
    Stale,
    /// The client watches other names than before.
    Changed,
    /// The client no longer watches the type.
    Closed,
}

/// The result of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What the request was.
    pub event: Event,
    /// The types that have to be generated now, and of each, what.
    pub due: Vec<(String, Demand)>,
}

/// A response, ready for the wire.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// For a delta stream.
    Delta(wire::DeltaResponse),
    /// For a state-of-the-world stream.
    Sotw(wire::Response),
}

/// Why a request cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The request has no type URL.
    #[error("a discovery request on an aggregated stream must have a type_url")]
    NoType,
}

/// One stream's state.
#[derive(Clone, Debug)]
pub struct Session {
    protocol: Protocol,
    watches: BTreeMap<String, Watch>,
}

impl Session {
    /// A stream on which nothing has been said.
    pub fn new(protocol: Protocol) -> Self {
        Self { protocol, watches: BTreeMap::new() }
    }

    /// The variant that the stream speaks.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// What is watched, by type URL.
    pub fn watches(&self) -> impl Iterator<Item = (&str, &Watch)> {
        self.watches.iter().map(|(type_url, watch)| (type_url.as_str(), watch))
    }

    /// What is watched of one type.
    pub fn watch(&self, type_url: &str) -> Option<&Watch> {
        self.watches.get(type_url)
    }

    /// The watched types in the order in which a push sends them.
    pub fn types_in_push_order(&self) -> Vec<String> {
        let mut types: Vec<String> = self.watches.keys().cloned().collect();
        types.sort_by_key(|type_url| kind::push_order(type_url));
        types
    }

    /// Takes a request of a delta stream.
    pub fn on_delta(&mut self, request: &DeltaDiscoveryRequest) -> Result<Step, Error> {
        let type_url = required_type(&request.type_url)?;
        let fresh = !self.watches.contains_key(type_url);
        let watch = self.watches.entry(type_url.to_owned()).or_insert_with(|| {
            Watch::fresh(
                type_url,
                !request.resource_names_subscribe.is_empty(),
                &request.initial_resource_versions,
            )
        });
        let mut event = if fresh { Event::Opened } else { Event::Changed };
        if !fresh && !request.response_nonce.is_empty() {
            let error = request.error_detail.as_ref().map(|status| status.message.as_str());
            event = event_of(watch.status.settle(&request.response_nonce, error));
        }
        // Subscriptions count even in an answer to an old response: they are increments, and would be lost.
        watch.subscribe(&request.resource_names_subscribe, fresh);
        watch.unsubscribe(&request.resource_names_unsubscribe);
        // The watch itself stays: an acknowledgement may still be under way, and must not look like a beginning.
        if event == Event::Changed && !watch.wildcard && watch.names.is_empty() {
            event = Event::Closed;
        }
        let demand = watch.due(false).map(|demand| (type_url.to_owned(), demand));
        let mut due: Vec<(String, Demand)> = demand.into_iter().collect();
        if matches!(event, Event::Acked | Event::Nacked(_)) {
            due.extend(self.warm(type_url));
        }
        Ok(Step { event, due })
    }

    /// A changed cluster waits for its endpoints, which the client does not ask for again: they are sent again once
    /// the client has the cluster.
    fn warm(&mut self, type_url: &str) -> Option<(String, Demand)> {
        let unsettled = std::mem::take(&mut self.watches.get_mut(type_url)?.unsettled);
        let dependent = kind::warms(type_url)?;
        let watch = self.watches.get_mut(dependent)?;
        let names: Vec<String> = unsettled.into_iter().filter(|name| watch.names.contains(name)).collect();
        watch.owe(names);
        Some((dependent.to_owned(), watch.due(false)?))
    }

    /// Takes a request of a state-of-the-world stream, which repeats all names every time.
    pub fn on_sotw(&mut self, request: &DiscoveryRequest) -> Result<Step, Error> {
        let type_url = required_type(&request.type_url)?;
        let names: BTreeSet<String> =
            request.resource_names.iter().filter(|name| *name != kind::WILDCARD).cloned().collect();
        let asks_all = request.resource_names.iter().any(|name| name == kind::WILDCARD)
            || (request.resource_names.is_empty() && kind::is_wildcard(type_url));

        let known = self.watches.get(type_url);
        if known.is_none_or(|_| request.response_nonce.is_empty()) {
            if names.is_empty() && !asks_all {
                self.watches.remove(type_url);
                return Ok(Step { event: Event::Closed, due: Vec::new() });
            }
            return Ok(self.open_sotw(type_url, asks_all, names));
        }
        let complete = kind::is_full_state(type_url);
        let Some(watch) = self.watches.get_mut(type_url) else { return Err(Error::NoType) };
        let error = request.error_detail.as_ref().map(|status| status.message.as_str());
        let event = event_of(watch.status.settle(&request.response_nonce, error));
        if event == Event::Stale {
            return Ok(Step { event, due: Vec::new() });
        }
        // Names that were given once and are given no more: the client lost interest, also where no names at the
        // start would have meant everything.
        if names.is_empty() && !watch.wildcard && request.resource_names.is_empty() {
            self.watches.remove(type_url);
            return Ok(Step { event: Event::Closed, due: Vec::new() });
        }
        watch.owes_reply |= asks_all && !watch.wildcard;
        watch.wildcard = asks_all;
        let added: Vec<String> = names.difference(&watch.names).cloned().collect();
        if !asks_all {
            watch.held.retain(|held, _| names.contains(held.as_ref()));
        }
        watch.names = names;
        watch.owed.retain(|name| watch.names.contains(name));
        watch.owe(added);
        if std::mem::take(&mut watch.always_respond) && event == Event::Acked {
            let all: Vec<String> = watch.names.iter().cloned().collect();
            watch.owe(all);
        }
        let due = watch.due(complete).map(|demand| (type_url.to_owned(), demand)).into_iter().collect();
        Ok(Step { event, due })
    }

    fn open_sotw(&mut self, type_url: &str, wildcard: bool, names: BTreeSet<String>) -> Step {
        let status = self.watches.remove(type_url).map(|watch| watch.status).unwrap_or_default();
        let watch =
            Watch { wildcard, owed: names.clone(), names, owes_reply: true, status, ..Watch::default() };
        let due = watch.due(kind::is_full_state(type_url)).map(|demand| (type_url.to_owned(), demand));
        self.watches.insert(type_url.to_owned(), watch);
        Step { event: Event::Opened, due: due.into_iter().collect() }
    }

    /// What to generate of a type for a push. `changed` names the resources that may have changed, `None` says that
    /// any may have. `None` as the result: the client does not watch them.
    pub fn demand(&self, type_url: &str, changed: Option<&BTreeSet<String>>) -> Option<Demand> {
        let complete = self.protocol == Protocol::Sotw && kind::is_full_state(type_url);
        self.watches.get(type_url)?.demand(changed, complete)
    }

    /// Takes what was generated for a demand; gives the response that the client needs, or `None` when it holds all
    /// of it already.
    pub fn answer(
        &mut self,
        type_url: &str,
        demand: &Demand,
        resources: &[Resource],
        stamp: Stamp,
    ) -> Option<Reply> {
        let protocol = self.protocol;
        let complete = protocol == Protocol::Sotw && kind::is_full_state(type_url);
        let watch = self.watches.get_mut(type_url)?;
        let difference = watch.advance(demand, resources, kind::is_withdrawn(type_url));
        let removal_counts = protocol == Protocol::Delta || complete;
        let nothing = difference.changed.is_empty() && (difference.removed.is_empty() || !removal_counts);
        if nothing && !difference.awaited {
            return None;
        }
        watch.status.sent = Some(stamp.clone());
        if protocol == Protocol::Delta && type_url == xds_api::type_url::CLUSTER {
            watch.unsettled.extend(difference.changed.iter().map(|resource| resource.name.to_string()));
        }
        if protocol == Protocol::Sotw
            && let Some(dependent) =
                kind::warms(type_url).and_then(|dependent| self.watches.get_mut(dependent))
        {
            dependent.always_respond = true;
        }
        Some(match protocol {
            Protocol::Delta => Reply::Delta(wire::DeltaResponse {
                system_version_info: stamp.version,
                resources: difference.changed.iter().map(Resource::to_wire).collect(),
                type_url: type_url.to_owned(),
                removed_resources: difference.removed,
                nonce: stamp.nonce,
                control_plane: None,
            }),
            Protocol::Sotw => {
                let sent = if complete { resources } else { &difference.changed };
                Reply::Sotw(wire::Response {
                    version_info: stamp.version,
                    resources: sent.iter().map(Resource::to_any).collect(),
                    type_url: type_url.to_owned(),
                    nonce: stamp.nonce,
                    control_plane: None,
                })
            }
        })
    }

    /// Whether the client was told that a resource does not exist.
    pub fn is_known_absent(&self, type_url: &str, name: &str) -> bool {
        self.watches.get(type_url).is_some_and(|watch| watch.held.get(name) == Some(&Held::Absent))
    }
}

fn required_type(type_url: &str) -> Result<&str, Error> {
    if type_url.is_empty() { Err(Error::NoType) } else { Ok(type_url) }
}

fn event_of(verdict: Verdict) -> Event {
    match verdict {
        Verdict::Acked => Event::Acked,
        Verdict::Nacked(message) => Event::Nacked(message),
        Verdict::Stale => Event::Stale,
    }
}
