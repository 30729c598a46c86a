//! The session against messages of a client.

use super::*;
use bytes::Bytes;
use xds_api::google::rpc;
use xds_api::type_url::{CLUSTER, ENDPOINT, EXTENSION_CONFIG, LISTENER, ROUTE};

/// A server that has, of every type, these resources (name, version), and counts its responses.
struct Server {
    session: Session,
    has: BTreeMap<String, Vec<(&'static str, &'static str)>>,
    count: u32,
}

impl Server {
    fn new(protocol: Protocol) -> Self {
        Self { session: Session::new(protocol), has: BTreeMap::new(), count: 0 }
    }

    fn has(&mut self, type_url: &str, resources: &[(&'static str, &'static str)]) {
        self.has.insert(type_url.into(), resources.to_vec());
    }

    fn generate(&self, type_url: &str, demand: &Demand) -> Vec<Resource> {
        let all = self.has.get(type_url).into_iter().flatten();
        all.filter(|(name, _)| match demand {
            Demand::Everything => true,
            Demand::Names(names) => names.contains(*name),
        })
        .map(|(name, version)| Resource {
            name: (*name).into(),
            version: (*version).into(),
            type_url: type_url.into(),
            body: Bytes::from_static(b"body"),
        })
        .collect()
    }

    fn answer(&mut self, type_url: &str, demand: &Demand) -> Option<String> {
        self.count += 1;
        let stamp = Stamp { version: format!("v{}", self.count), nonce: format!("n{}", self.count) };
        let resources = self.generate(type_url, demand);
        self.session.answer(type_url, demand, &resources, stamp).map(|reply| describe(&reply))
    }

    fn push(&mut self, type_url: &str, changed: Option<&[&str]>) -> Option<String> {
        let changed = changed.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        let demand = self.session.demand(type_url, changed.as_ref())?;
        self.answer(type_url, &demand)
    }

    fn serve(&mut self, step: Step) -> (Event, Vec<String>) {
        let replies =
            step.due.iter().filter_map(|(type_url, demand)| self.answer(type_url, demand)).collect();
        (step.event, replies)
    }

    fn delta(&mut self, request: DeltaDiscoveryRequest) -> (Event, Vec<String>) {
        let step = self.session.on_delta(&request).unwrap();
        self.serve(step)
    }

    fn sotw(&mut self, request: DiscoveryRequest) -> (Event, Vec<String>) {
        let step = self.session.on_sotw(&request).unwrap();
        self.serve(step)
    }
}

/// `CDS n1 +a@1 +b@1 -c`; a state-of-the-world response lists with `=`.
fn describe(reply: &Reply) -> String {
    let (type_url, nonce, mut parts) = match reply {
        Reply::Delta(response) => {
            let added = response.resources.iter().map(|entry| format!("+{}@{}", entry.name, entry.version));
            let removed = response.removed_resources.iter().map(|name| format!("-{name}"));
            (&response.type_url, &response.nonce, added.chain(removed).collect::<Vec<_>>())
        }
        Reply::Sotw(response) => {
            (&response.type_url, &response.nonce, vec![format!("={}", response.resources.len())])
        }
    };
    parts.insert(0, format!("{} {nonce}", xds_api::type_url::short_name(type_url)));
    parts.join(" ")
}

fn delta(type_url: &str, subscribe: &[&str], unsubscribe: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: type_url.into(),
        resource_names_subscribe: subscribe.iter().map(|&name| name.into()).collect(),
        resource_names_unsubscribe: unsubscribe.iter().map(|&name| name.into()).collect(),
        ..Default::default()
    }
}

fn ack(type_url: &str, nonce: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { response_nonce: nonce.into(), ..delta(type_url, &[], &[]) }
}

fn status(message: &str) -> Option<rpc::Status> {
    Some(rpc::Status { code: 3, message: message.into(), details: Vec::new() })
}

fn sotw(type_url: &str, nonce: &str, names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        type_url: type_url.into(),
        response_nonce: nonce.into(),
        resource_names: names.iter().map(|&name| name.into()).collect(),
        ..Default::default()
    }
}

#[test]
fn delta_sends_only_what_changed() {
    let mut server = Server::new(Protocol::Delta);
    server.has(CLUSTER, &[("a", "1"), ("b", "1")]);
    assert_eq!(server.delta(delta(CLUSTER, &[], &[])), (Event::Opened, vec!["CDS n1 +a@1 +b@1".into()]));
    assert_eq!(server.delta(ack(CLUSTER, "n1")), (Event::Acked, vec![]));
    assert_eq!(server.push(CLUSTER, None), None);
    server.has(CLUSTER, &[("a", "2"), ("c", "1")]);
    assert_eq!(server.push(CLUSTER, None).unwrap(), "CDS n3 +a@2 +c@1 -b");
    assert_eq!(server.push(CLUSTER, None), None);
}

#[test]
fn delta_answers_an_empty_wildcard() {
    let mut server = Server::new(Protocol::Delta);
    assert_eq!(server.delta(delta(LISTENER, &[], &[])).1, ["LDS n1"]);
}

#[test]
fn delta_says_which_names_do_not_exist_once() {
    let mut server = Server::new(Protocol::Delta);
    server.has(ENDPOINT, &[("a", "1")]);
    assert_eq!(server.delta(delta(ENDPOINT, &["a", "nope"], &[])).1, ["EDS n1 +a@1 -nope"]);
    assert!(server.session.is_known_absent(ENDPOINT, "nope"));
    assert_eq!(server.push(ENDPOINT, None), None);
    server.has(ENDPOINT, &[("a", "1"), ("nope", "1")]);
    assert_eq!(server.push(ENDPOINT, None).unwrap(), "EDS n3 +nope@1");
}

#[test]
fn delta_answers_only_the_names_added() {
    let mut server = Server::new(Protocol::Delta);
    server.has(ENDPOINT, &[("a", "1"), ("b", "1")]);
    server.delta(delta(ENDPOINT, &["a"], &[]));
    assert_eq!(server.delta(delta(ENDPOINT, &["b"], &[])), (Event::Changed, vec!["EDS n2 +b@1".into()]));
    // What is asked for again may have been dropped meanwhile.
    assert_eq!(server.delta(delta(ENDPOINT, &["a"], &[])).1, ["EDS n3 +a@1"]);
}

#[test]
fn delta_unsubscribes() {
    let mut server = Server::new(Protocol::Delta);
    server.has(ENDPOINT, &[("a", "1"), ("b", "1")]);
    server.delta(delta(ENDPOINT, &["a", "b"], &[]));
    assert_eq!(server.delta(delta(ENDPOINT, &[], &["a"])), (Event::Changed, vec![]));
    server.has(ENDPOINT, &[("a", "2"), ("b", "2")]);
    assert_eq!(server.push(ENDPOINT, None).unwrap(), "EDS n2 +b@2");
    assert_eq!(server.delta(delta(ENDPOINT, &[], &["b"])), (Event::Closed, vec![]));
    // A late acknowledgement does not open the watch again.
    assert_eq!(server.delta(ack(ENDPOINT, "n2")), (Event::Acked, vec![]));
    assert_eq!(server.push(ENDPOINT, None), None);
}

#[test]
fn delta_narrows_a_push_to_the_names_that_changed() {
    let mut server = Server::new(Protocol::Delta);
    server.has(ENDPOINT, &[("a", "1"), ("b", "1")]);
    server.delta(delta(ENDPOINT, &["a", "b"], &[]));
    server.has(ENDPOINT, &[("a", "2"), ("b", "2"), ("c", "2")]);
    assert_eq!(server.push(ENDPOINT, Some(&["a", "c"])).unwrap(), "EDS n2 +a@2");
    assert_eq!(server.push(ENDPOINT, Some(&["c"])), None);
    server.has(ENDPOINT, &[("a", "2")]);
    assert_eq!(server.push(ENDPOINT, Some(&["b"])).unwrap(), "EDS n3 -b");
}

#[test]
fn delta_grows_from_names_to_everything_and_back() {
    let mut server = Server::new(Protocol::Delta);
    server.has(CLUSTER, &[("a", "1"), ("b", "1")]);
    assert_eq!(server.delta(delta(CLUSTER, &["a"], &[])).1, ["CDS n1 +a@1"]);
    assert_eq!(server.delta(delta(CLUSTER, &["*"], &[])).1, ["CDS n2 +b@1"]);
    // The name is still covered by the wildcard, which the client cannot know.
    assert_eq!(server.delta(delta(CLUSTER, &[], &["a"])).1, ["CDS n3 +a@1"]);
    assert_eq!(server.delta(delta(CLUSTER, &["b"], &["*"])).1, ["CDS n4 +b@1"]);
    server.has(CLUSTER, &[("a", "2"), ("b", "2")]);
    assert_eq!(server.push(CLUSTER, None).unwrap(), "CDS n5 +b@2");
}

#[test]
fn delta_keeps_a_stale_answer_from_counting() {
    let mut server = Server::new(Protocol::Delta);
    server.has(CLUSTER, &[("a", "1")]);
    server.delta(delta(CLUSTER, &[], &[]));
    server.has(CLUSTER, &[("a", "2")]);
    server.push(CLUSTER, None);
    assert_eq!(server.delta(ack(CLUSTER, "n1")), (Event::Stale, vec![]));
    let status = server.session.watch(CLUSTER).unwrap().status().clone();
    assert_eq!((status.sent.unwrap().nonce.as_str(), status.acked), ("n2", None));
    // The subscription in it counts all the same.
    server.has(ENDPOINT, &[("a", "1"), ("b", "1")]);
    server.delta(delta(ENDPOINT, &["a"], &[]));
    let late = DeltaDiscoveryRequest { response_nonce: "old".into(), ..delta(ENDPOINT, &["b"], &[]) };
    assert_eq!(server.delta(late), (Event::Stale, vec!["EDS n4 +b@1".into()]));
}

#[test]
fn delta_records_a_refusal_and_tries_the_next_version() {
    let mut server = Server::new(Protocol::Delta);
    server.has(LISTENER, &[("a", "bad")]);
    server.delta(delta(LISTENER, &[], &[]));
    let nack = DeltaDiscoveryRequest { error_detail: status("no such filter"), ..ack(LISTENER, "n1") };
    assert_eq!(server.delta(nack), (Event::Nacked("no such filter".into()), vec![]));
    assert_eq!(server.push(LISTENER, None), None, "the same content would be refused again");
    server.has(LISTENER, &[("a", "good")]);
    assert_eq!(server.push(LISTENER, None).unwrap(), "LDS n3 +a@good");
    assert!(server.session.watch(LISTENER).unwrap().status().nacked.is_some());
    server.delta(ack(LISTENER, "n3"));
    assert_eq!(server.session.watch(LISTENER).unwrap().status().nacked, None);
}

#[test]
fn delta_reconnects_with_what_the_client_holds() {
    let mut server = Server::new(Protocol::Delta);
    server.has(CLUSTER, &[("a", "1"), ("b", "2")]);
    server.has(ENDPOINT, &[("a", "1"), ("b", "2")]);
    let held = [("a", "1"), ("b", "1"), ("gone", "1")].map(|(name, version)| (name.into(), version.into()));
    let first = DeltaDiscoveryRequest {
        initial_resource_versions: held.clone().into(),
        response_nonce: "of the last stream".into(),
        ..delta(CLUSTER, &[], &[])
    };
    assert_eq!(server.delta(first), (Event::Opened, vec!["CDS n1 +b@2 -gone".into()]));
    let first = DeltaDiscoveryRequest {
        initial_resource_versions: held.into(),
        ..delta(ENDPOINT, &["a", "b", "gone"], &[])
    };
    assert_eq!(server.delta(first).1, ["EDS n2 +b@2 -gone"]);
}

#[test]
fn delta_sends_endpoints_again_once_their_cluster_changed() {
    let mut server = Server::new(Protocol::Delta);
    server.has(CLUSTER, &[("a", "1"), ("b", "1")]);
    server.has(ENDPOINT, &[("a", "1"), ("b", "1")]);
    server.delta(delta(CLUSTER, &[], &[]));
    server.delta(ack(CLUSTER, "n1"));
    server.delta(delta(ENDPOINT, &["a", "b"], &[]));
    server.has(CLUSTER, &[("a", "2"), ("b", "1")]);
    server.push(CLUSTER, None);
    assert_eq!(server.delta(ack(CLUSTER, "n3")), (Event::Acked, vec!["EDS n4 +a@1".into()]));
    assert_eq!(server.delta(ack(ENDPOINT, "n4")).1, Vec::<String>::new());
}

#[test]
fn sotw_sends_the_whole_state_of_clusters() {
    let mut server = Server::new(Protocol::Sotw);
    server.has(CLUSTER, &[("a", "1"), ("b", "1")]);
    assert_eq!(server.sotw(sotw(CLUSTER, "", &[])), (Event::Opened, vec!["CDS n1 =2".into()]));
    assert_eq!(server.sotw(sotw(CLUSTER, "n1", &[])), (Event::Acked, vec![]));
    server.has(CLUSTER, &[("a", "2"), ("b", "1"), ("c", "1")]);
    assert_eq!(server.push(CLUSTER, Some(&["a"])).unwrap(), "CDS n2 =3");
    server.has(CLUSTER, &[("a", "2")]);
    assert_eq!(server.push(CLUSTER, None).unwrap(), "CDS n3 =1");
    assert_eq!(server.push(CLUSTER, None), None);
}

#[test]
fn sotw_answers_only_names_added_and_is_silent_about_removals() {
    let mut server = Server::new(Protocol::Sotw);
    server.has(ROUTE, &[("a", "1"), ("b", "1")]);
    assert_eq!(server.sotw(sotw(ROUTE, "", &["a"])).1, ["RDS n1 =1"]);
    assert_eq!(server.sotw(sotw(ROUTE, "n1", &["a"])), (Event::Acked, vec![]));
    assert_eq!(server.sotw(sotw(ROUTE, "n1", &["a", "b"])).1, ["RDS n2 =1"]);
    assert_eq!(server.sotw(sotw(ROUTE, "n2", &["b"])), (Event::Acked, vec![]));
    server.has(ROUTE, &[("b", "1")]);
    assert_eq!(server.push(ROUTE, None), None);
    assert_eq!(server.sotw(sotw(ROUTE, "n2", &[])), (Event::Closed, vec![]));
    assert_eq!(server.push(ROUTE, None), None);
}

#[test]
fn sotw_treats_a_nonce_of_another_stream_as_a_reconnect_and_an_old_one_as_stale() {
    let mut server = Server::new(Protocol::Sotw);
    server.has(CLUSTER, &[("a", "1")]);
    assert_eq!(
        server.sotw(sotw(CLUSTER, "of the last stream", &[])),
        (Event::Opened, vec!["CDS n1 =1".into()])
    );
    assert_eq!(server.sotw(sotw(CLUSTER, "older", &[])), (Event::Stale, vec![]));
    assert_eq!(server.sotw(sotw(CLUSTER, "", &[])), (Event::Opened, vec!["CDS n2 =1".into()]));
}

#[test]
fn sotw_records_a_refusal_without_a_reply() {
    let mut server = Server::new(Protocol::Sotw);
    server.has(CLUSTER, &[("a", "1")]);
    server.sotw(sotw(CLUSTER, "", &[]));
    let nack = DiscoveryRequest { error_detail: status("bad"), ..sotw(CLUSTER, "n1", &[]) };
    assert_eq!(server.sotw(nack), (Event::Nacked("bad".into()), vec![]));
    server.has(CLUSTER, &[("a", "2")]);
    assert_eq!(server.push(CLUSTER, None).unwrap(), "CDS n2 =1");
}

#[test]
fn sotw_answers_the_endpoints_that_a_changed_cluster_waits_for() {
    let mut server = Server::new(Protocol::Sotw);
    server.has(CLUSTER, &[("a", "1")]);
    server.has(ENDPOINT, &[("a", "1")]);
    server.sotw(sotw(CLUSTER, "", &[]));
    server.sotw(sotw(ENDPOINT, "", &["a"]));
    assert_eq!(server.sotw(sotw(ENDPOINT, "n2", &["a"])).1, Vec::<String>::new());
    server.has(CLUSTER, &[("a", "2")]);
    server.push(CLUSTER, None);
    // The client repeats its request for the same names: it looks like an acknowledgement, and is not.
    assert_eq!(server.sotw(sotw(ENDPOINT, "n2", &["a"])).1, ["EDS n4 =1"]);
    assert_eq!(server.sotw(sotw(ENDPOINT, "n4", &["a"])).1, Vec::<String>::new());
}

#[test]
fn sotw_listeners_by_name_are_complete() {
    let mut server = Server::new(Protocol::Sotw);
    server.has(LISTENER, &[("a", "1"), ("b", "1"), ("c", "1")]);
    assert_eq!(server.sotw(sotw(LISTENER, "", &["a"])).1, ["LDS n1 =1"]);
    assert_eq!(server.sotw(sotw(LISTENER, "n1", &["a", "b"])).1, ["LDS n2 =2"]);
    server.has(LISTENER, &[("a", "1"), ("b", "2"), ("c", "1")]);
    assert_eq!(server.push(LISTENER, Some(&["b"])).unwrap(), "LDS n3 =2");
}

#[test]
fn a_request_without_a_type_is_an_error() {
    let mut session = Session::new(Protocol::Delta);
    assert_eq!(session.on_delta(&DeltaDiscoveryRequest::default()), Err(Error::NoType));
}

#[test]
fn a_filter_configuration_that_is_gone_stays_with_those_who_have_it() {
    let mut server = Server::new(Protocol::Delta);
    server.has(EXTENSION_CONFIG, &[("a", "1")]);
    assert_eq!(server.delta(delta(EXTENSION_CONFIG, &["a"], &[])).1, ["ECDS n1 +a@1"]);
    server.has(EXTENSION_CONFIG, &[]);
    assert_eq!(server.push(EXTENSION_CONFIG, None), None);
    // It comes again, and goes again; whoever asks hears that it is gone.
    server.has(EXTENSION_CONFIG, &[("a", "1")]);
    assert_eq!(server.push(EXTENSION_CONFIG, None).unwrap(), "ECDS n3 +a@1");
    server.has(EXTENSION_CONFIG, &[]);
    assert_eq!(server.push(EXTENSION_CONFIG, None), None);
    assert_eq!(server.delta(delta(EXTENSION_CONFIG, &["a"], &[])).1, ["ECDS n5 -a"]);
}
