//! Management servers: which there are, what each is asked for, and what becomes of what it sends.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::{Rc, Weak};
use std::time::Instant;

use base::task::Supervised;
use xds_api::type_url;
use xds_stream::client::{Client, Names, Received, Rejection};

use super::files::{self, Found};
use super::manager::{Manager, Phase};
use super::needs::{ALL, Source};
use super::resources::{DNS, HEALTH};
use super::service_path;
use super::stream::{self, Applier, Service, Subscription};
use super::subscriptions::{Known, Wanted};
use crate::dial::Target;
use crate::stats::sets::control_plane;

/// A server, and what it is asked for. Secrets have a stream each, as Envoy has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ServerKey {
    source: Source,
    type_url: Option<&'static str>,
    name: Option<String>,
}

/// A server that is called.
pub(super) struct Server {
    subscription: Rc<Subscription>,
    _task: Supervised<()>,
}

impl Manager {
    /// Tells every server what is wanted of it now.
    pub(super) fn subscribe(&self) {
        self.count_wanted();
        let mut wanted: BTreeMap<ServerKey, BTreeMap<&'static str, Names>> = BTreeMap::new();
        let phase = self.phase.get();
        for (whole, type_url, from) in [
            (&self.cds, type_url::CLUSTER, Phase::Clusters),
            (&self.lds, type_url::LISTENER, Phase::Listeners),
        ] {
            if let Some(whole) = whole.borrow().as_ref().filter(|_| phase >= from) {
                let key = ServerKey::new(&whole.source, type_url, None);
                wanted.entry(key).or_default().insert(type_url, Names::All);
            }
        }
        {
            let resources = self.resources.borrow();
            let listeners = resources.listeners.needs().filter(|_| phase >= Phase::Listeners);
            let named = resources
                .clusters
                .needs()
                .chain(listeners)
                .chain(self.layers.needs().iter().filter(|_| phase >= Phase::Runtime))
                .filter(|need| ![DNS, HEALTH].contains(&need.type_url));
            for need in named {
                if need.name == ALL {
                    let key = ServerKey::new(&need.source, need.type_url, None);
                    wanted.entry(key).or_default().insert(need.type_url, Names::All);
                    continue;
                }
                let key = ServerKey::new(&need.source, need.type_url, Some(&need.name));
                let names = wanted.entry(key).or_default().entry(need.type_url);
                if let Names::Only(names) = names.or_insert_with(|| Names::Only(BTreeSet::new())) {
                    names.insert(need.name.clone());
                }
            }
        }
        let tables = self.parts().tables_of_scopes();
        for source in self.resources.borrow().tables_of_scopes.keys().filter(|_| !tables.is_empty()) {
            let key = ServerKey::new(source, type_url::ROUTE, None);
            let names = wanted.entry(key).or_default().entry(type_url::ROUTE);
            if let Names::Only(names) = names.or_insert_with(|| Names::Only(BTreeSet::new())) {
                names.extend(tables.iter().map(ToString::to_string));
            }
        }
        self.leave_extensions(&wanted);
        let mut servers = self.servers.borrow_mut();
        // An aggregated stream stays for the types that it may serve again.
        servers.retain(|key, _| wanted.contains_key(key) || key.source == Source::Ads);
        for (key, types) in wanted {
            if let Source::Path(path) = &key.source {
                for type_url in types.keys() {
                    self.watch_file(path, type_url);
                }
                continue;
            }
            let Some(server) = self.server(&mut servers, &key) else { continue };
            server.subscription.update(|client| {
                client.unwatch_others(|type_url| types.contains_key(type_url));
                for (type_url, names) in types {
                    client.watch(type_url, names);
                }
            });
        }
    }

    /// Has what is asked for counted.
    fn count_wanted(&self) {
        let phase = self.phase.get();
        let (cds, lds, resources) = (self.cds.borrow(), self.lds.borrow(), self.resources.borrow());
        let tables = self.parts().tables_of_scopes();
        let scoped = resources.tables_of_scopes.iter().flat_map(|(source, prefix)| {
            tables.iter().map(|name| Wanted {
                type_url: type_url::ROUTE,
                name,
                source,
                timeout: None,
                asker: prefix,
            })
        });
        let of_clusters = resources.clusters.needs_of_each();
        let of_listeners = resources.listeners.needs().filter(|_| phase >= Phase::Listeners);
        let cds = cds.iter().filter(|_| phase >= Phase::Clusters);
        let lds = lds.iter().filter(|_| phase >= Phase::Listeners);
        let all = cds
            .map(|whole| Wanted::all(type_url::CLUSTER, whole))
            .chain(lds.map(|whole| Wanted::all(type_url::LISTENER, whole)))
            .chain(of_clusters.map(|(cluster, need)| Wanted::of(need, &cluster.stat_name)))
            .chain(of_listeners.map(|need| Wanted::of(need, &need.stat_prefix)))
            .chain(scoped);
        let files = self.files.borrow();
        self.subscriptions.borrow_mut().update(all, Instant::now(), |wanted| {
            let Source::Path(path) = wanted.source else { return None };
            let kind = resources.kinds.get(wanted.type_url)?;
            let read = files.contains_key(&(path.clone(), wanted.type_url.to_owned()));
            let (held, refused) = (kind.held.get(wanted.name), kind.refused.get(wanted.name));
            match (held.filter(|_| read), refused.filter(|_| read)) {
                (_, Some(_)) => Some(Known::Refused),
                (Some(_), None) => Some(Known::Taken),
                (None, None) => None,
            }
        });
    }

    /// A file is not read again for who names it again: what came of files stays.
    fn leave_extensions(&self, wanted: &BTreeMap<ServerKey, BTreeMap<&'static str, Names>>) {
        let of_servers = wanted.iter().filter(|(key, _)| !matches!(key.source, Source::Path(_)));
        let named = of_servers.filter_map(|(_, types)| match types.get(type_url::EXTENSION_CONFIG) {
            Some(Names::Only(names)) => Some(names.iter().cloned()),
            _ => None,
        });
        let drain = self.drain_time();
        let mut resources = self.resources.borrow_mut();
        resources.leave(named.flatten().collect(), Instant::now(), drain, self.parts());
    }

    fn server<'a>(
        &self,
        servers: &'a mut BTreeMap<ServerKey, Server>,
        key: &ServerKey,
    ) -> Option<&'a Server> {
        if !servers.contains_key(key) {
            let source = if key.source == Source::Ads { self.ads.as_ref()? } else { &key.source };
            let Source::Grpc { authority, initial_metadata, max_message, backoff, .. } = source else {
                return None;
            };
            let authority = Some(authority.clone()).filter(|authority| !authority.is_empty());
            let path = service_path(key.type_url, source.protocol())?;
            let subscription = Subscription::new(Client::new(source.protocol(), self.main.node.clone()));
            let applier = Rc::new(ServerApplier {
                manager: self.this.clone(),
                key: key.clone(),
                server: source.clone(),
            });
            let service = Service {
                path,
                authority,
                initial_metadata: initial_metadata.clone(),
                max_message: *max_message,
                backoff: *backoff,
            };
            let task = Supervised::spawn_local(stream::run(subscription.clone(), service, applier));
            servers.insert(key.clone(), Server { subscription, _task: task });
        }
        servers.get(key)
    }

    fn watch_file(&self, path: &str, type_url: &'static str) {
        let key = (path.to_owned(), type_url.to_owned());
        self.files.borrow_mut().entry(key).or_insert_with(|| {
            let (manager, path) = (self.this.clone(), path.to_owned());
            Supervised::spawn_local(files::watch(path.clone(), type_url, move |found| {
                let Some(manager) = manager.upgrade() else { return };
                let source = Source::Path(path.clone());
                match found {
                    // All but one would be of no use to who reads it.
                    Found::Resources(received)
                        if type_url == type_url::ENDPOINT && received.resources.len() > 1 =>
                    {
                        let count = received.resources.len();
                        tracing::warn!(
                            path,
                            "refused a file's resources: {count} endpoint assignments, not one"
                        );
                        manager.subscriptions.borrow_mut().refuse(&source, type_url);
                    }
                    Found::Resources(received) => {
                        if let Err(rejection) = manager.apply(&source, &received) {
                            tracing::warn!(path, reason = rejection.message, "refused a file's resources");
                        }
                    }
                    Found::Refused => manager.subscriptions.borrow_mut().refuse(&source, type_url),
                    Found::Nothing => manager.subscriptions.borrow().fail(&source, Some(type_url), None),
                }
            }))
        });
    }
}

impl ServerKey {
    fn new(source: &Source, type_url: &'static str, name: Option<&str>) -> Self {
        let alone = !matches!(source, Source::Ads);
        let secret = alone && type_url == type_url::SECRET;
        Self {
            source: source.clone(),
            type_url: alone.then_some(type_url),
            name: name.filter(|_| secret).map(str::to_owned),
        }
    }
}

struct ServerApplier {
    manager: Weak<Manager>,
    key: ServerKey,
    server: Source,
}

impl Applier for ServerApplier {
    fn target(&self) -> Option<Target> {
        let Source::Grpc { cluster, .. } = &self.server else { return None };
        self.manager.upgrade()?.target(cluster)
    }

    fn apply(&self, received: &Received) -> Result<(), Rejection> {
        match self.manager.upgrade() {
            Some(manager) => manager.apply(&self.key.source, received),
            None => Err(Rejection::of(&received.type_url, &[])),
        }
    }

    fn refused(&self, type_url: &str) {
        if let Some(manager) = self.manager.upgrade() {
            manager.subscriptions.borrow_mut().refuse(&self.key.source, type_url);
        }
    }

    fn opened(&self) {
        self.note_state(true);
    }

    fn identified(&self, identifier: &str) {
        let Some(manager) = self.manager.upgrade().filter(|_| self.key.source == Source::Ads) else { return };
        manager.main.stats.set_text(&manager.stats.control_plane, &identifier.into());
    }

    fn connected(&self, up: Result<(), &str>) {
        let Some(manager) = self.manager.upgrade() else { return };
        if up.is_err() {
            self.note_state(false);
            let ServerKey { source, type_url, name } = &self.key;
            manager.subscriptions.borrow().fail(source, *type_url, name.as_deref());
        }
        match up {
            Ok(()) => tracing::info!(server = self.server.called(), "connected to a management server"),
            Err(reason) => {
                tracing::warn!(server = self.server.called(), reason, "no stream from a management server")
            }
        }
    }
}

impl ServerApplier {
    fn note_state(&self, up: bool) {
        let Some(manager) = self.manager.upgrade() else { return };
        let ServerKey { source, type_url, name } = &self.key;
        match source {
            Source::Ads => manager.stats.control_plane.set(control_plane::connected_state, up.into()),
            // As Envoy does with servers that are not the aggregated one.
            source => {
                manager.subscriptions.borrow().connect(source, *type_url, name.as_deref(), up);
            }
        }
    }
}
