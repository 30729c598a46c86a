//! Extension configurations on one stream. Plugins that name their modules by URL reach the proxy once the agent has the
//! module, everything else at once. Where a module is not to be had, the proxy keeps what it runs of the plugin, and gets what
//! the failure policy says if that is nothing; the control plane is told, and the module is asked for until it is there.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use base::backoff::Backoff;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::{AbortHandle, Aborted, BoxFuture, abortable};
use futures_util::stream::FuturesUnordered;

use super::batch::{Batch, Envelope};
use super::ledger::{Failure, Ledger};
use super::modules::{Error, Modules};
use super::names::Wire;
use super::plugin::Plugin;
use xds_api::envoy::service::discovery::v3::Resource;

/// Tries before a plugin counts as failed, and the pause between them.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);
/// How long until a failed one is tried again, and later.
const AGAIN_FIRST: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(60);

/// Those of a stream.
pub(super) struct Extensions<'a> {
    wire: Wire,
    modules: &'a Modules,
    ledger: &'a Ledger,
    /// Of the latest response. Whatever comes later on its own goes by it: a proxy that speaks state of the world answers the
    /// nonce that it saw last.
    envelope: Envelope,
    fetching: FuturesUnordered<BoxFuture<'a, Result<Fetched, Aborted>>>,
    /// The fetch of each plugin.
    handles: HashMap<String, AbortHandle>,
}

/// What came of a plugin's fetch.
struct Fetched {
    plugin: Plugin,
    again: Backoff,
    result: Result<PathBuf, Error>,
}

/// What a plugin's fetch leads to.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) for_proxy: Option<Bytes>,
    pub(super) for_control_plane: Option<Bytes>,
}

impl<'a> Extensions<'a> {
    pub(super) fn new(wire: Wire, modules: &'a Modules, ledger: &'a Ledger) -> Self {
        let (fetching, handles) = (FuturesUnordered::new(), HashMap::new());
        Self { wire, modules, ledger, envelope: Envelope::default(), fetching, handles }
    }

    /// Takes a response; what of it the proxy can have now, if that is anything.
    pub(super) async fn take(&mut self, response: Bytes) -> Option<Bytes> {
        // What cannot be read is the proxy's to refuse.
        let Ok(batch) = Batch::read(self.wire, &response) else { return Some(response) };
        self.envelope = batch.envelope.clone();
        for name in &batch.removed {
            self.forget(name);
            self.ledger.gone(name);
        }
        let total = batch.resources.len();
        let mut ready = Vec::with_capacity(total);
        for resource in batch.resources {
            self.forget(&resource.name);
            match prepare(self.modules, &resource).await {
                Ok(resource) => {
                    self.ledger.given(&resource.name);
                    ready.push(resource);
                }
                Err(plugin) => self.begin(plugin),
            }
        }
        if ready.is_empty() && batch.removed.is_empty() && total > 0 {
            return None;
        }
        Some(Batch { resources: ready, ..batch_of(batch.envelope, batch.removed) }.write(self.wire))
    }

    /// What comes of the fetches; pending while there are none.
    pub(super) async fn next(&mut self) -> News {
        loop {
            match self.fetching.next().await {
                Some(Ok(fetched)) => return self.fetched(fetched),
                Some(Err(Aborted)) => {}
                None => std::future::pending().await,
            }
        }
    }

    fn forget(&mut self, name: &str) {
        if let Some(handle) = self.handles.remove(name) {
            handle.abort();
        }
        self.ledger.renewed(name);
    }

    fn begin(&mut self, plugin: Plugin) {
        let modules = self.modules;
        self.fetch(plugin.name().to_owned(), async move {
            let mut left = TRIES;
            let result = loop {
                left -= 1;
                match modules.file(plugin.remote()).await {
                    Err(error @ Error::Fetch(..)) if left > 0 => {
                        tracing::warn!(%error, plugin = plugin.name(), "trying again");
                    }
                    result => break result,
                }
                tokio::time::sleep(PAUSE).await;
            };
            Fetched { plugin, again: Backoff::new(AGAIN_FIRST, AGAIN_MAX), result }
        });
    }

    fn begin_again(&mut self, plugin: Plugin, mut again: Backoff) {
        let modules = self.modules;
        self.fetch(plugin.name().to_owned(), async move {
            let pause = again.next_delay(&mut rand::rng());
            tokio::time::sleep(pause).await;
            let result = modules.file(plugin.remote()).await;
            Fetched { plugin, again, result }
        });
    }

    fn fetch(&mut self, name: String, work: impl Future<Output = Fetched> + Send + 'a) {
        let (work, handle) = abortable(work);
        self.handles.insert(name, handle);
        self.fetching.push(Box::pin(work));
    }

    fn fetched(&mut self, Fetched { plugin, again, result }: Fetched) -> News {
        let error = match result {
            Ok(path) => {
                self.handles.remove(plugin.name());
                self.ledger.given(plugin.name());
                return News { for_proxy: Some(self.only(plugin.of_file(&path))), for_control_plane: None };
            }
            Err(error) => error,
        };
        let failure = self.ledger.failed(plugin.name(), error.to_string());
        let mut news = News::default();
        if failure != Failure::Again {
            let held = failure == Failure::Held;
            tracing::error!(%error, plugin = plugin.name(), held, "a wasm plugin cannot be given to the proxy");
            let complaint = self.ledger.complaint().unwrap_or_default();
            news.for_control_plane = Some(self.wire.refusal(self.envelope.nonce.clone(), &complaint));
            news.for_proxy = (!held).then(|| self.only(plugin.stand_in()));
        }
        self.begin_again(plugin, again);
        news
    }

    /// A response of one resource.
    fn only(&self, resource: Resource) -> Bytes {
        let batch = batch_of(self.envelope.clone(), Vec::new());
        Batch { resources: vec![resource], ..batch }.write(self.wire)
    }
}

/// The resource as the proxy can have it at once, or the plugin that needs its module.
async fn prepare(modules: &Modules, resource: &Resource) -> Result<Resource, Plugin> {
    let Some(plugin) = Plugin::of(resource) else { return Ok(resource.clone()) };
    match modules.kept(plugin.remote()).await {
        Some(path) => Ok(plugin.of_file(&path)),
        None => Err(plugin),
    }
}

fn batch_of(envelope: Envelope, removed: Vec<String>) -> Batch {
    Batch { envelope, removed, resources: Vec::new() }
}

#[cfg(test)]
mod tests;
