//! What the proxy on a stream has of plugins, and what is wrong with those that it has not: told by its requests and by what
//! it is given. While something is wrong, its acknowledgements say so to the control plane.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::batch::Asked;
use super::names::Wire;

#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    held: HashSet<String>,
    troubles: BTreeMap<String, String>,
}

/// What to do about a plugin whose module is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The proxy has nothing of it.
    Bare,
    /// The proxy runs what it was given before.
    Held,
    /// It is known.
    Again,
}

impl Ledger {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a request of the proxy; what to tell the control plane.
    pub(super) fn request(&self, wire: Wire, request: Bytes) -> Bytes {
        let Some(mut asked) = Asked::read(wire, &request) else { return request };
        let mut state = self.state();
        match &asked {
            Asked::Delta(request) => {
                let versions = request.initial_resource_versions.iter();
                let held = versions.filter(|(_, version)| !version.is_empty());
                state.held.extend(held.map(|(name, _)| name.clone()));
                for name in &request.resource_names_unsubscribe {
                    state.held.remove(name);
                }
            }
            // Which of them it has, it does not say.
            Asked::Sotw(request) if request.response_nonce.is_empty() && !request.version_info.is_empty() => {
                state.held.extend(request.resource_names.iter().cloned());
            }
            Asked::Sotw(request) => state.held.retain(|name| request.resource_names.contains(name)),
        }
        let Some(complaint) = state.complaint() else { return request };
        asked.refuse(complaint);
        asked.write()
    }

    /// The proxy is given a plugin that works.
    pub(super) fn given(&self, name: &str) {
        let mut state = self.state();
        state.held.insert(name.to_owned());
        state.troubles.remove(name);
    }

    /// The control plane has something new of a plugin.
    pub(super) fn renewed(&self, name: &str) {
        self.state().troubles.remove(name);
    }

    /// The plugin is no more.
    pub(super) fn gone(&self, name: &str) {
        let mut state = self.state();
        state.held.remove(name);
        state.troubles.remove(name);
    }

    /// Notes that a plugin's module is not there.
    pub(super) fn failed(&self, name: &str, error: String) -> Failure {
        let mut state = self.state();
        if state.troubles.insert(name.to_owned(), error).is_some() {
            return Failure::Again;
        }
        if state.held.contains(name) { Failure::Held } else { Failure::Bare }
    }

    /// What is wrong now.
    pub(super) fn complaint(&self) -> Option<String> {
        self.state().complaint()
    }
}

impl State {
    fn complaint(&self) -> Option<String> {
        let each: Vec<String> =
            self.troubles.iter().map(|(name, error)| format!("{name}: {error}")).collect();
        (!each.is_empty()).then(|| each.join("; "))
    }
}
