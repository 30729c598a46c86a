//! The client's end: what it wants, what it holds, and what it still has to say. It outlives its streams: after
//! [`Client::reconnect`] it asks again for everything, naming the versions that it holds.
//!
//! The order of use: [`Client::watch`] says what is wanted; [`Client::next_request`] is drained into the stream
//! whenever something happened; a response goes through [`Client::on_delta`] or [`Client::on_sotw`], is applied, and
//! ends in [`Client::accept`] or [`Client::reject`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use hashbrown::HashMap;
use xds_api::envoy::config::core::v3::Node;
use xds_api::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use xds_api::google::rpc::Status;
use xds_api::type_url;

use crate::kind::{self, WILDCARD};
use crate::resource::Resource;
use crate::wire;

pub use crate::session::Protocol;

#[cfg(test)]
mod tests;

/// The longest error text that is sent: it travels in one gRPC message, and a server keeps the latest of each proxy.
const MAX_ERROR: usize = 8 * 1024;
/// gRPC's code for an argument that makes no sense.
const INVALID_ARGUMENT: i32 = 3;

/// Which resources of a type are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Names {
    /// Whatever the server has for this client.
    All,
    /// These.
    Only(BTreeSet<String>),
}

impl Names {
    fn contains(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(name),
        }
    }
}

/// A message for the server.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// On a delta stream.
    Delta(DeltaDiscoveryRequest),
    /// On a state-of-the-world stream.
    Sotw(DiscoveryRequest),
}

/// A response, cut down to what is wanted. It has to be accepted or rejected.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "the server waits for an answer: accept or reject it"]
pub struct Received {
    /// The type of all resources in it.
    pub type_url: String,
    /// The server's version.
    pub version: String,
    /// Added and changed resources.
    pub resources: Vec<Resource>,
    /// Names of resources that are gone, or that were asked for and do not exist.
    pub removed: Vec<String>,
    /// Whether there are no others of the type.
    pub complete: bool,
    nonce: String,
}

/// Why a response was not accepted as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rejection {
    /// What the server is told.
    pub message: String,
    /// The resources that were not taken; the others were. Empty: none was.
    pub failed: BTreeSet<String>,
}

impl Rejection {
    /// From a list of resource names and what is wrong with each, in Envoy's wording.
    pub fn of(type_url: &str, failures: &[(String, String)]) -> Self {
        Self {
            message: error_text(type_url, failures),
            failed: failures.iter().map(|(name, _)| name.clone()).collect(),
        }
    }
}

/// What a server's operator reads about a refused response.
pub fn error_text(type_url: &str, failures: &[(String, String)]) -> String {
    let noun = match type_url {
        type_url::CLUSTER => "cluster(s)",
        type_url::LISTENER => "listener(s)",
        type_url::ENDPOINT => "endpoint(s)",
        type_url::ROUTE => "route(s)",
        type_url::SECRET => "secret(s)",
        _ => "resource(s)",
    };
    let list: Vec<String> = failures.iter().map(|(name, reason)| format!("{name}: {reason}")).collect();
    bounded(format!("Error adding/updating {noun} {}", list.join(", ")))
}

fn bounded(mut text: String) -> String {
    if text.len() > MAX_ERROR {
        let end = (0..=MAX_ERROR).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Why a response could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A resource's bytes are not its type.
    #[error("a resource of {type_url} does not decode")]
    Decode {
        /// The type.
        type_url: String,
        /// What the decoder said.
        #[source]
        source: prost::DecodeError,
    },
}

#[derive(Clone, Debug)]
struct Answer {
    nonce: String,
    error: Option<Status>,
}

/// One type: what is wanted, held, and was said about it.
#[derive(Clone, Debug)]
struct Interest {
    wanted: Option<Names>,
    /// Resources that were accepted, with their versions.
    held: HashMap<Arc<str>, Arc<str>>,
    /// What the server was told on this stream.
    told: Option<Names>,
    answers: VecDeque<Answer>,
    /// Names to ask for again although they were asked for.
    again: BTreeSet<String>,
    /// State of the world: the version of the last accepted response, and the nonce of the last response.
    version: String,
    nonce: String,
}

impl Interest {
    fn new() -> Self {
        Self {
            wanted: None,
            held: HashMap::new(),
            told: None,
            answers: VecDeque::new(),
            again: BTreeSet::new(),
            version: String::new(),
            nonce: String::new(),
        }
    }
}

/// A client of one management server.
#[derive(Clone, Debug)]
pub struct Client {
    protocol: Protocol,
    node: Node,
    node_told: bool,
    /// Keyed by push order first: subscriptions go out in the order in which they should be answered.
    interests: BTreeMap<(u8, String), Interest>,
}

impl Client {
    /// A client that wants nothing yet.
    pub fn new(protocol: Protocol, node: Node) -> Self {
        Self { protocol, node, node_told: false, interests: BTreeMap::new() }
    }

    /// The variant that it speaks.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Says what is wanted of a type from now on, in place of what was.
    pub fn watch(&mut self, type_url: &str, names: Names) {
        let protocol = self.protocol;
        let interest = self.interest(type_url);
        if protocol == Protocol::Delta
            && let Names::Only(wanted) = &names
        {
            interest.held.retain(|held, _| wanted.contains(held.as_ref()));
        }
        interest.wanted = Some(names);
    }

    /// Adds a name to a type that is watched by name.
    pub fn watch_also(&mut self, type_url: &str, name: &str) {
        let interest = self.interest(type_url);
        match &mut interest.wanted {
            Some(Names::All) => {}
            Some(Names::Only(names)) => {
                names.insert(name.to_owned());
            }
            None => interest.wanted = Some(Names::Only(BTreeSet::from([name.to_owned()]))),
        }
    }

    /// Asks the server to send a resource again although it is held, as when it was dropped meanwhile.
    pub fn ask_again(&mut self, type_url: &str, name: &str) {
        let interest = self.interest(type_url);
        interest.held.remove(name);
        interest.again.insert(name.to_owned());
    }

    /// Wants nothing more of a type.
    pub fn unwatch(&mut self, type_url: &str) {
        let interest = self.interest(type_url);
        interest.wanted = None;
        interest.held.clear();
        interest.again.clear();
    }

    /// Wants nothing more of types that are not kept.
    pub fn unwatch_others(&mut self, keep: impl Fn(&str) -> bool) {
        let watched = self.interests.iter().filter(|(_, interest)| interest.wanted.is_some());
        let others: Vec<String> =
            watched.map(|((_, type_url), _)| type_url.clone()).filter(|type_url| !keep(type_url)).collect();
        others.iter().for_each(|type_url| self.unwatch(type_url));
    }

    /// Whether a resource was accepted and not removed since.
    pub fn holds(&self, type_url: &str, name: &str) -> bool {
        self.interests.get(&key(type_url)).is_some_and(|interest| interest.held.contains_key(name))
    }

    /// To be called before the first request of every stream: nothing has been said on it.
    pub fn reconnect(&mut self) {
        self.node_told = false;
        self.interests.retain(|_, interest| interest.wanted.is_some());
        for interest in self.interests.values_mut() {
            interest.told = None;
            interest.answers.clear();
            interest.again.clear();
            interest.nonce.clear();
        }
    }

    /// The next message for the server; `None` when all has been said.
    pub fn next_request(&mut self) -> Option<Request> {
        let protocol = self.protocol;
        let mut next = None;
        for ((_, type_url), interest) in &mut self.interests {
            let request = match protocol {
                Protocol::Delta => interest.next_delta(type_url).map(Request::Delta),
                Protocol::Sotw => interest.next_sotw(type_url).map(Request::Sotw),
            };
            if request.is_some() {
                next = request;
                break;
            }
        }
        let mut next = next?;
        if !std::mem::replace(&mut self.node_told, true) {
            match &mut next {
                Request::Delta(request) => request.node = Some(self.node.clone()),
                Request::Sotw(request) => request.node = Some(self.node.clone()),
            }
        }
        Some(next)
    }

    /// Takes a response of a delta stream. `None`: it is of a type that is no longer watched, and was acknowledged.
    pub fn on_delta(&mut self, response: wire::DeltaResponse) -> Option<Received> {
        let interest = self.interest(&response.type_url);
        let Some(wanted) = &interest.wanted else {
            interest.answers.push_back(Answer { nonce: response.nonce, error: None });
            return None;
        };
        let resources = response
            .resources
            .into_iter()
            .filter(|resource| wanted.contains(&resource.name) && !is_without_news(resource, &interest.held));
        Some(Received {
            resources: resources.map(Resource::from_wire).collect(),
            removed: response.removed_resources.into_iter().filter(|name| wanted.contains(name)).collect(),
            type_url: response.type_url,
            version: response.system_version_info,
            complete: false,
            nonce: response.nonce,
        })
    }

    /// Takes a response of a state-of-the-world stream. `None`: it is of a type that is no longer watched. A response
    /// that cannot be read is refused here.
    pub fn on_sotw(&mut self, response: wire::Response) -> Result<Option<Received>, Error> {
        let type_url = response.type_url;
        let interest = self.interest(&type_url);
        interest.nonce.clone_from(&response.nonce);
        let Some(wanted) = &interest.wanted else { return Ok(None) };
        let version: Arc<str> = response.version_info.as_str().into();
        let read = response.resources.into_iter().map(|any| Resource::from_any(any, &version));
        let resources = match read.collect::<Result<Vec<Resource>, _>>() {
            Ok(resources) => resources,
            Err(source) => {
                let error = Error::Decode { type_url: type_url.clone(), source };
                let message = format!("{error}");
                interest.answers.push_back(Answer { nonce: response.nonce, error: Some(refusal(message)) });
                return Err(error);
            }
        };
        let resources: Vec<Resource> =
            resources.into_iter().filter(|resource| wanted.contains(&resource.name)).collect();
        let complete = kind::is_full_state(&type_url);
        let removed = if complete {
            let present: BTreeSet<&str> = resources.iter().map(|resource| resource.name.as_ref()).collect();
            let held = interest.held.keys().map(AsRef::as_ref);
            held.filter(|name| !present.contains(name)).map(str::to_owned).collect()
        } else {
            Vec::new()
        };
        Ok(Some(Received {
            type_url,
            version: response.version_info,
            resources,
            removed,
            complete,
            nonce: response.nonce,
        }))
    }

    /// The response was applied as a whole.
    pub fn accept(&mut self, received: &Received) {
        let interest = self.interest(&received.type_url);
        interest.take(received, &BTreeSet::new());
        interest.version.clone_from(&received.version);
        interest.answers.push_back(Answer { nonce: received.nonce.clone(), error: None });
    }

    /// The response was not applied, or not as a whole.
    pub fn reject(&mut self, received: &Received, rejection: Rejection) {
        let interest = self.interest(&received.type_url);
        if !rejection.failed.is_empty() {
            interest.take(received, &rejection.failed);
        }
        let error = Some(refusal(rejection.message));
        interest.answers.push_back(Answer { nonce: received.nonce.clone(), error });
    }

    fn interest(&mut self, type_url: &str) -> &mut Interest {
        self.interests.entry(key(type_url)).or_insert_with(Interest::new)
    }
}

/// Whether a resource without a body may be so: it says that what is held still holds, or that a name stands for nothing.
fn is_without_news(resource: &wire::Resource, held: &HashMap<Arc<str>, Arc<str>>) -> bool {
    let holds = || held.get(resource.name.as_str()).is_some_and(|version| **version == *resource.version);
    resource.resource.is_none() && (!resource.aliases.is_empty() || holds())
}

impl Interest {
    fn take(&mut self, received: &Received, failed: &BTreeSet<String>) {
        for resource in &received.resources {
            if !failed.contains(resource.name.as_ref()) {
                self.held.insert(Arc::clone(&resource.name), Arc::clone(&resource.version));
            }
        }
        for name in &received.removed {
            if !failed.contains(name) {
                self.held.remove(name.as_str());
            }
        }
    }

    fn next_delta(&mut self, type_url: &str) -> Option<DeltaDiscoveryRequest> {
        let request = DeltaDiscoveryRequest { type_url: type_url.to_owned(), ..Default::default() };
        // Acknowledgements travel alone: some servers read a message with a nonce as nothing else.
        if let Some(answer) = self.answers.pop_front() {
            return Some(DeltaDiscoveryRequest {
                response_nonce: answer.nonce,
                error_detail: answer.error,
                ..request
            });
        }
        let again = std::mem::take(&mut self.again);
        let Some(told) = &self.told else {
            let wanted = self.wanted.clone()?;
            let held = self.held.iter().filter(|(_, version)| !version.is_empty());
            let first = DeltaDiscoveryRequest {
                resource_names_subscribe: match &wanted {
                    // No names at the start mean everything, for the types where that is possible.
                    Names::All if kind::is_wildcard(type_url) => Vec::new(),
                    Names::All => vec![WILDCARD.to_owned()],
                    Names::Only(names) if names.is_empty() => return None,
                    Names::Only(names) => names.iter().cloned().collect(),
                },
                initial_resource_versions: held
                    .map(|(name, version)| (name.to_string(), version.to_string()))
                    .collect(),
                ..request
            };
            self.told = Some(wanted);
            return Some(first);
        };
        let nothing = Names::Only(BTreeSet::new());
        let wanted = self.wanted.as_ref().unwrap_or(&nothing);
        let (mut subscribe, unsubscribe) = difference(told, wanted);
        subscribe.extend(again.into_iter().filter(|name| wanted.contains(name)));
        if subscribe.is_empty() && unsubscribe.is_empty() {
            return None;
        }
        subscribe.sort();
        subscribe.dedup();
        self.told = Some(wanted.clone());
        Some(DeltaDiscoveryRequest {
            resource_names_subscribe: subscribe,
            resource_names_unsubscribe: unsubscribe,
            ..request
        })
    }

    fn next_sotw(&mut self, type_url: &str) -> Option<DiscoveryRequest> {
        let again = !std::mem::take(&mut self.again).is_empty();
        let answer = self.answers.pop_front();
        // Only the latest response may be answered, but a refusal is worth telling whenever it happened.
        let nothing = Names::Only(BTreeSet::new());
        let wanted = self.wanted.as_ref().unwrap_or(&nothing);
        if answer.is_none() && !again && self.told.as_ref().unwrap_or(&nothing) == wanted {
            return None;
        }
        let names = match wanted {
            Names::All if kind::is_wildcard(type_url) => Vec::new(),
            Names::All => vec![WILDCARD.to_owned()],
            Names::Only(names) => names.iter().cloned().collect(),
        };
        self.told = Some(wanted.clone());
        let (nonce, error_detail) = match answer {
            Some(answer) => (answer.nonce, answer.error),
            // Without a nonce the server starts over, and sends all of it again.
            None if again => (String::new(), None),
            None => (self.nonce.clone(), None),
        };
        Some(DiscoveryRequest {
            version_info: self.version.clone(),
            resource_names: names,
            type_url: type_url.to_owned(),
            response_nonce: nonce,
            error_detail,
            ..Default::default()
        })
    }
}

/// What to subscribe to and unsubscribe from on the way from one to the other.
fn difference(told: &Names, wanted: &Names) -> (Vec<String>, Vec<String>) {
    match (told, wanted) {
        (Names::All, Names::All) => (Vec::new(), Vec::new()),
        (Names::All, Names::Only(names)) => (names.iter().cloned().collect(), vec![WILDCARD.to_owned()]),
        (Names::Only(names), Names::All) => (vec![WILDCARD.to_owned()], names.iter().cloned().collect()),
        (Names::Only(told), Names::Only(wanted)) => {
            (wanted.difference(told).cloned().collect(), told.difference(wanted).cloned().collect())
        }
    }
}

fn refusal(message: String) -> Status {
    Status { code: INVALID_ARGUMENT, message: bounded(message), details: Vec::new() }
}

fn key(type_url: &str) -> (u8, String) {
    (kind::push_order(type_url), type_url.to_owned())
}
