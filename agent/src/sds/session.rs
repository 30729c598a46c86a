//! One SDS stream without its socket: which names are subscribed to, what was sent, and so what is to be sent. The
//! two wire forms differ only in how they say that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use xds_api::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use xds_api::google::protobuf::Any;
use xds_api::type_url;

/// What a request means.
pub(super) struct Change {
    subscribe: BTreeSet<String>,
    /// `None` where the subscription is stated as a whole.
    unsubscribe: Option<Vec<String>>,
    nonce: String,
    error: Option<String>,
}

/// A wire form.
pub(super) trait Protocol: Send + 'static {
    /// What the client sends.
    type Request: Send + 'static;
    /// What it gets.
    type Response: Send + 'static;

    fn read(request: Self::Request) -> Change;
    fn write(resources: Vec<(String, Arc<Any>)>, serial: u64) -> Self::Response;
}

/// State of the world.
pub(super) struct Sotw;

impl Protocol for Sotw {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    fn read(request: DiscoveryRequest) -> Change {
        Change {
            subscribe: request.resource_names.into_iter().collect(),
            unsubscribe: None,
            nonce: request.response_nonce,
            error: request.error_detail.map(|status| status.message),
        }
    }

    fn write(resources: Vec<(String, Arc<Any>)>, serial: u64) -> DiscoveryResponse {
        DiscoveryResponse {
            version_info: serial.to_string(),
            resources: resources.into_iter().map(|(_, any)| Any::clone(&any)).collect(),
            type_url: type_url::SECRET.to_owned(),
            nonce: serial.to_string(),
            ..Default::default()
        }
    }
}

/// Delta.
pub(super) struct Delta;

impl Protocol for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    fn read(request: DeltaDiscoveryRequest) -> Change {
        Change {
            subscribe: request.resource_names_subscribe.into_iter().collect(),
            unsubscribe: Some(request.resource_names_unsubscribe),
            nonce: request.response_nonce,
            error: request.error_detail.map(|status| status.message),
        }
    }

    fn write(resources: Vec<(String, Arc<Any>)>, serial: u64) -> DeltaDiscoveryResponse {
        let resource = |(name, any): (String, Arc<Any>)| Resource {
            name,
            version: serial.to_string(),
            resource: Some(Any::clone(&any)),
            ..Default::default()
        };
        DeltaDiscoveryResponse {
            system_version_info: serial.to_string(),
            resources: resources.into_iter().map(resource).collect(),
            type_url: type_url::SECRET.to_owned(),
            nonce: serial.to_string(),
            ..Default::default()
        }
    }
}

/// One stream.
pub(super) struct Session<P> {
    names: BTreeSet<String>,
    sent: BTreeMap<String, Arc<Any>>,
    serial: u64,
    protocol: std::marker::PhantomData<P>,
}

impl<P: Protocol> Session<P> {
    pub(super) fn new() -> Self {
        Self { names: BTreeSet::new(), sent: BTreeMap::new(), serial: 0, protocol: std::marker::PhantomData }
    }

    /// The subscription.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    pub(super) fn on_request(&mut self, request: P::Request) {
        let change = P::read(request);
        if let Some(error) = change.error {
            tracing::warn!(error, "the proxy refused a secret");
            return;
        }
        // An answer to something older than the last response says nothing about the subscription now.
        let stale = !change.nonce.is_empty() && change.nonce != self.serial.to_string();
        match change.unsubscribe {
            Some(gone) => {
                for name in &gone {
                    self.names.remove(name);
                    self.sent.remove(name);
                }
                // Who subscribes again wants it again.
                for name in change.subscribe {
                    self.sent.remove(&name);
                    self.names.insert(name);
                }
            }
            None if !stale => {
                self.sent.retain(|name, _| change.subscribe.contains(name));
                self.names = change.subscribe;
            }
            None => {}
        }
    }

    /// What is subscribed to and differs from what was sent; `None` when there is nothing to say.
    pub(super) fn response(&mut self, mut get: impl FnMut(&str) -> Option<Arc<Any>>) -> Option<P::Response> {
        let mut changed = Vec::new();
        for name in &self.names {
            let Some(secret) = get(name) else { continue };
            if self.sent.get(name) != Some(&secret) {
                self.sent.insert(name.clone(), Arc::clone(&secret));
                changed.push((name.clone(), secret));
            }
        }
        if changed.is_empty() {
            return None;
        }
        self.serial += 1;
        Some(P::write(changed, self.serial))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Arc<Any> {
        Arc::new(Any { type_url: type_url::SECRET.to_owned(), value: text.into() })
    }

    fn ask(names: &[&str], nonce: &str) -> DiscoveryRequest {
        DiscoveryRequest {
            resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
            response_nonce: nonce.to_owned(),
            ..Default::default()
        }
    }

    #[test]
    fn state_of_the_world_answers_once_and_after_a_change() {
        let mut session = Session::<Sotw>::new();
        session.on_request(ask(&["default"], ""));
        assert!(session.response(|_| None).is_none(), "nothing is there yet");
        let first = session.response(|_| Some(secret("a"))).unwrap();
        assert_eq!((first.resources.len(), first.nonce.as_str()), (1, "1"));
        session.on_request(ask(&["default"], "1"));
        assert!(session.response(|_| Some(secret("a"))).is_none(), "an acknowledgement is not answered");
        assert_eq!(session.response(|_| Some(secret("b"))).unwrap().nonce, "2");
        session.on_request(ask(&["default", "ROOTCA"], "2"));
        assert_eq!(session.response(|_| Some(secret("b"))).unwrap().resources.len(), 1);
        session.on_request(ask(&[], "1"));
        assert_eq!(session.names().count(), 2, "a stale request changes nothing");
    }

    #[test]
    fn a_refused_secret_is_not_sent_again() {
        let mut session = Session::<Sotw>::new();
        session.on_request(ask(&["default"], ""));
        session.response(|_| Some(secret("a"))).unwrap();
        let mut refusal = ask(&["default"], "1");
        refusal.error_detail =
            Some(xds_api::google::rpc::Status { message: "no".into(), ..Default::default() });
        session.on_request(refusal);
        assert!(session.response(|_| Some(secret("a"))).is_none());
    }

    #[test]
    fn delta_adds_and_removes_names() {
        let mut session = Session::<Delta>::new();
        let ask = |add: &[&str], gone: &[&str]| DeltaDiscoveryRequest {
            resource_names_subscribe: add.iter().map(|name| (*name).to_owned()).collect(),
            resource_names_unsubscribe: gone.iter().map(|name| (*name).to_owned()).collect(),
            ..Default::default()
        };
        session.on_request(ask(&["default"], &[]));
        session.on_request(ask(&["ROOTCA"], &[]));
        assert_eq!(session.response(|name| Some(secret(name))).unwrap().resources.len(), 2);
        session.on_request(ask(&[], &["default"]));
        let response = session.response(|_| Some(secret("new"))).unwrap();
        assert_eq!(response.resources.len(), 1);
        assert_eq!(response.resources[0].name, "ROOTCA");
    }
}
