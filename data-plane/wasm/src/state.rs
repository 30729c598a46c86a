//! What a VM knows while its module runs.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use wasmtime::{Memory, StoreLimits, TypedFunc};

use crate::abi::{BufferKind, LogLevel, MapKind, Status};
use crate::engine::Abi;
use crate::host::{Host, HttpCallResponse, Pairs, Stream};
use crate::module::Capabilities;
use crate::shared::Shared;

/// A plugin: what a root context stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plugin {
    /// `name`
    pub name: String,
    /// `root_id`
    pub root_id: String,
    /// `configuration`, as the module reads it.
    pub configuration: Bytes,
    /// `allow_on_headers_stop_iteration`
    pub allow_stop_iteration: bool,
}

/// A context of the module's.
pub(crate) struct Entry {
    /// Itself, for a root.
    pub(crate) root: u32,
    pub(crate) plugin: Arc<Plugin>,
    pub(crate) stream: Option<Rc<dyn Stream>>,
    /// It is over, but the module wants to keep it until it says that it is done.
    pub(crate) lingers: bool,
}

/// What a callback brings.
#[derive(Default)]
pub(crate) struct Brought {
    pub(crate) response: Option<HttpCallResponse>,
    pub(crate) initial_metadata: Option<Pairs>,
    pub(crate) message: Option<Bytes>,
    pub(crate) trailing_metadata: Option<Pairs>,
    /// `proxy_get_status`
    pub(crate) status: (u32, String),
}

/// See the module's documentation.
pub(crate) struct State {
    pub(crate) host: Box<dyn Host>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) vm_id: Box<str>,
    /// `KEY=VALUE`
    pub(crate) environment: Vec<String>,
    pub(crate) vm_configuration: Bytes,
    pub(crate) abi: Abi,
    pub(crate) capabilities: Arc<Capabilities>,
    pub(crate) limits: StoreLimits,
    pub(crate) memory: Option<Memory>,
    pub(crate) allocate: Option<TypedFunc<i32, i32>>,
    pub(crate) contexts: HashMap<u32, Entry>,
    pub(crate) last_context: u32,
    /// The context that is called.
    pub(crate) current: u32,
    /// The context that the module says it acts for.
    pub(crate) effective: u32,
    pub(crate) last_token: u32,
    pub(crate) brought: Brought,
    /// Contexts that were kept and are done now.
    pub(crate) done: Vec<u32>,
    /// What standard output and error got of a line that is not over.
    pub(crate) lines: [Vec<u8>; 2],
}

impl State {
    /// The context that host functions act on.
    pub(crate) fn acting(&self) -> Option<&Entry> {
        let number = if self.effective != 0 { self.effective } else { self.current };
        self.contexts.get(&number)
    }

    /// Its root's number.
    pub(crate) fn root(&self) -> u32 {
        self.acting().map_or(0, |entry| entry.root)
    }

    /// Writes a message of the context's.
    pub(crate) fn log(&self, level: LogLevel, message: &str) {
        if level < self.host.log_level() {
            return;
        }
        let mut source = String::new();
        if let Some(entry) = self.acting() {
            let name = entry.stream.as_ref().map_or("", |_| &*entry.plugin.name);
            for part in [name, &entry.plugin.root_id, &self.vm_id].into_iter().filter(|part| !part.is_empty())
            {
                source.push(' ');
                source.push_str(part);
            }
        }
        self.host.log(&source, level, message);
    }

    /// The stream that the context stands for.
    pub(crate) fn stream(&self) -> Result<Rc<dyn Stream>, Status> {
        self.acting().and_then(|entry| entry.stream.clone()).ok_or(Status::BadArgument)
    }

    /// A number that no call has.
    pub(crate) fn next_token(&mut self) -> u32 {
        self.last_token = self.last_token.checked_add(1).unwrap_or(1);
        self.last_token
    }

    /// A map that a callback brought; `None` if this is a stream's.
    pub(crate) fn brought_map(&self, map: MapKind) -> Option<Result<&Pairs, Status>> {
        let brought = &self.brought;
        let found = match map {
            MapKind::GrpcInitialMetadata => brought.initial_metadata.as_ref(),
            MapKind::GrpcTrailingMetadata => brought.trailing_metadata.as_ref(),
            MapKind::CallResponseHeaders => brought.response.as_ref().map(|response| &response.headers),
            MapKind::CallResponseTrailers => brought.response.as_ref().map(|response| &response.trailers),
            _ => return None,
        };
        Some(found.ok_or(Status::BadArgument))
    }

    /// Bytes of a buffer.
    pub(crate) fn buffer(&self, kind: BufferKind) -> Result<Bytes, Status> {
        let brought = &self.brought;
        match kind {
            BufferKind::CallResponseBody => {
                brought.response.as_ref().map(|response| response.body.clone()).ok_or(Status::NotFound)
            }
            BufferKind::GrpcReceive => brought.message.clone().ok_or(Status::NotFound),
            BufferKind::VmConfiguration => Ok(self.vm_configuration.clone()),
            BufferKind::PluginConfiguration => {
                Ok(self.acting().map(|entry| entry.plugin.configuration.clone()).unwrap_or_default())
            }
            BufferKind::CallData => Err(Status::NotFound),
            _ => self.stream().map_err(|_| Status::NotFound)?.buffer(kind),
        }
    }

    /// What is known under a path.
    pub(crate) fn property(&self, path: &[&str]) -> Option<Vec<u8>> {
        let entry = self.acting()?;
        match path {
            ["plugin_name"] => Some(entry.plugin.name.clone().into()),
            ["plugin_root_id"] => Some(entry.plugin.root_id.clone().into()),
            ["plugin_vm_id"] => Some(self.vm_id.as_bytes().to_vec()),
            _ => match &entry.stream {
                Some(stream) => stream.property(path),
                None => self.host.property(path),
            },
        }
    }
}
