//! Certificates and validation contexts that were read from files: where from, and how to read them again.
//!
//! What a resource holds stays as it was first read; a snapshot has the last good version beside it, by the id of the
//! source. So a file that changes touches neither listener nor cluster, and one that cannot be used changes nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use hashbrown::HashMap;

use super::{Certificate, ValidationContext, certificate, validation};
use crate::convert::{Cx, Sources};
use crate::diagnostics::Diagnostics;
use crate::pb;

/// Files that something was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSource {
    /// The same for sources that read the same files in the same way.
    pub id: u64,
    files: Vec<PathBuf>,
    directories: Vec<PathBuf>,
}

impl FileSource {
    /// `None`: nothing was read from a file.
    pub(super) fn new(id: u64, files: Vec<PathBuf>, directories: Vec<PathBuf>) -> Option<Self> {
        (!files.is_empty()).then_some(Self { id, files, directories })
    }

    /// The files.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Directories in which a change means that the files may have changed: their own, and those that are named.
    pub fn directories(&self) -> impl Iterator<Item = &Path> {
        let own = self.files.iter().map(|file| match file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        });
        own.chain(self.directories.iter().map(PathBuf::as_path))
    }
}

#[derive(Clone, Debug)]
enum Read {
    Certificate {
        message: pb::tls::TlsCertificate,
        users: Vec<Weak<Certificate>>,
        current: Arc<Certificate>,
    },
    Validation {
        message: pb::tls::CertificateValidationContext,
        users: Vec<Weak<ValidationContext>>,
        current: Arc<ValidationContext>,
    },
}

/// Something that was read from files.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    id: u64,
    files: FileSource,
    read: Read,
}

impl Source {
    pub(super) fn certificate(
        files: &FileSource,
        message: pb::tls::TlsCertificate,
        read: &Arc<Certificate>,
    ) -> Self {
        // A copy: its own users are counted apart from those of what was read first.
        let (users, current) = (vec![Arc::downgrade(read)], Arc::new((**read).clone()));
        Self { id: files.id, files: files.clone(), read: Read::Certificate { message, users, current } }
    }

    pub(super) fn validation(
        files: &FileSource,
        message: pb::tls::CertificateValidationContext,
        read: &Arc<ValidationContext>,
    ) -> Self {
        // A copy: its own users are counted apart from those of what was read first.
        let (users, current) = (vec![Arc::downgrade(read)], Arc::new((**read).clone()));
        Self { id: files.id, files: files.clone(), read: Read::Validation { message, users, current } }
    }
}

/// The current versions, by the ids of their sources.
#[derive(Clone, Debug, Default)]
pub struct FileBacked {
    certificates: HashMap<u64, Arc<Certificate>>,
    validations: HashMap<u64, Arc<ValidationContext>>,
}

impl FileBacked {
    /// The last good version of a certificate.
    pub fn certificate<'a>(&'a self, first: &'a Arc<Certificate>) -> &'a Arc<Certificate> {
        let files = first.files.as_ref();
        files.and_then(|files| self.certificates.get(&files.id)).unwrap_or(first)
    }

    /// The last good version of a validation context.
    pub fn validation<'a>(&'a self, first: &'a Arc<ValidationContext>) -> &'a Arc<ValidationContext> {
        let files = first.files.as_ref();
        files.and_then(|files| self.validations.get(&files.id)).unwrap_or(first)
    }
}

/// What reading again brought.
#[derive(Clone, Debug, Default)]
pub struct Refreshed {
    /// Whether anything is another than before.
    pub changed: bool,
    /// What could not be used; the last good version stays.
    pub problems: Vec<Diagnostics>,
}

/// All that was read from files and is in use.
#[derive(Debug, Default)]
pub(crate) struct Rereads {
    sources: BTreeMap<u64, Source>,
    current: Arc<FileBacked>,
}

impl Rereads {
    /// Takes what a conversion read: it is the current version from now on.
    pub(crate) fn register(&mut self, sources: Vec<Source>) {
        if sources.is_empty() {
            return;
        }
        for mut source in sources {
            match (&mut source.read, self.sources.get(&source.id).map(|before| &before.read)) {
                (Read::Certificate { users, .. }, Some(Read::Certificate { users: before, .. })) => {
                    users.extend(before.iter().filter(|user| user.strong_count() > 0).cloned());
                }
                (Read::Validation { users, .. }, Some(Read::Validation { users: before, .. })) => {
                    users.extend(before.iter().filter(|user| user.strong_count() > 0).cloned());
                }
                _ => {}
            }
            self.sources.insert(source.id, source);
        }
        self.publish();
    }

    /// Reads all files again.
    pub(crate) fn refresh(&mut self, sources: &dyn Sources) -> Refreshed {
        let mut result = Refreshed::default();
        self.sources.retain(|_, source| source.is_used());
        for source in self.sources.values_mut() {
            let mut cx = Cx::new(sources);
            let changed = source.refresh(&mut cx);
            let findings = cx.into_findings();
            let name = source.files.files.first().map(|file| file.display().to_string()).unwrap_or_default();
            let diagnostics = Diagnostics { resource: format!("certificate file {name}"), findings };
            match changed {
                Some(changed) if !diagnostics.has_errors() => result.changed |= changed,
                _ => result.problems.push(diagnostics),
            }
        }
        self.publish();
        result
    }

    /// The current versions.
    pub(crate) fn current(&self) -> &Arc<FileBacked> {
        &self.current
    }

    /// Directories in which a change asks for a new read.
    pub(crate) fn directories(&self) -> impl Iterator<Item = &Path> {
        self.sources.values().flat_map(|source| source.files.directories())
    }

    fn publish(&mut self) {
        let mut current = FileBacked::default();
        for (id, source) in &self.sources {
            match &source.read {
                Read::Certificate { current: read, .. } => {
                    current.certificates.insert(*id, Arc::clone(read));
                }
                Read::Validation { current: read, .. } => {
                    current.validations.insert(*id, Arc::clone(read));
                }
            }
        }
        self.current = Arc::new(current);
    }
}

impl Source {
    fn is_used(&self) -> bool {
        match &self.read {
            Read::Certificate { users, .. } => users.iter().any(|user| user.strong_count() > 0),
            Read::Validation { users, .. } => users.iter().any(|user| user.strong_count() > 0),
        }
    }

    /// Whether it is another than before; `None`: it cannot be used.
    fn refresh(&mut self, cx: &mut Cx<'_>) -> Option<bool> {
        match &mut self.read {
            Read::Certificate { message, users, current } => {
                let read = certificate(cx, message.clone())?;
                let changed = read.version != current.version;
                if changed {
                    users.retain(|user| user.strong_count() > 0);
                    *current = read;
                }
                Some(changed)
            }
            Read::Validation { message, users, current } => {
                let read = validation(cx, message.clone())?;
                let changed = read.version != current.version;
                if changed {
                    users.retain(|user| user.strong_count() > 0);
                    *current = read;
                }
                Some(changed)
            }
        }
    }
}
