//! Looking at all files, and reading those that changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::file::{self, Content};
use super::{FileStatus, SETTLE};
use crate::object::{Key, Object};

/// How deep directories may nest: symbolic links may make circles.
const MAX_DEPTH: usize = 16;
/// How long a file that never rests is waited for.
const PATIENCE: Duration = Duration::from_millis(500);

/// What tells one content of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fingerprint {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Fingerprint {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

#[derive(Debug)]
struct FileState {
    fingerprint: Fingerprint,
    content: Content,
    error: Option<String>,
}

/// Remembers every file between scans.
#[derive(Debug)]
pub(super) struct Scanner {
    root: PathBuf,
    files: BTreeMap<PathBuf, FileState>,
    /// Files that were being written, since when.
    restless: HashMap<PathBuf, Instant>,
    root_error: Option<String>,
}

/// What a scan found.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Some file was added, changed or removed.
    pub(super) changed: bool,
    /// Some file was being written: look again soon.
    pub(super) unsettled: bool,
    /// All objects.
    pub(super) objects: Vec<Object>,
    /// All files.
    pub(super) statuses: Vec<FileStatus>,
}

impl Outcome {
    /// Nothing was found out.
    pub(super) fn nothing() -> Self {
        Self { changed: false, unsettled: true, objects: Vec::new(), statuses: Vec::new() }
    }
}

impl Scanner {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, files: BTreeMap::new(), restless: HashMap::new(), root_error: None }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Looks at every file and reads the changed ones.
    pub(super) fn scan(&mut self) -> Outcome {
        let mut found = BTreeMap::new();
        let listed = list(&self.root, 0, &mut found);
        let (mut changed, mut unsettled) = (false, false);
        match listed {
            Ok(()) => {
                self.root_error = None;
                let before = self.files.len();
                self.files.retain(|path, _| found.contains_key(path));
                changed |= self.files.len() != before;
            }
            // A directory that cannot be listed tells nothing about its files: all stay.
            Err(e) => {
                let message = format!("cannot be listed: {e}");
                if self.root_error.as_ref() != Some(&message) {
                    tracing::error!(directory = %self.root.display(), "{message}; what was read stays");
                }
                self.root_error = Some(message);
            }
        }
        let now = SystemTime::now();
        let mut restless = HashMap::new();
        for (path, metadata) in found {
            let fingerprint = Fingerprint::of(&metadata);
            if self.files.get(&path).is_some_and(|f| f.fingerprint == fingerprint) {
                continue;
            }
            let since = self.restless.get(&path).copied();
            if is_fresh(&metadata, now) && since.is_none_or(|since| since.elapsed() < PATIENCE) {
                unsettled = true;
                restless.insert(path, since.unwrap_or_else(Instant::now));
            } else {
                changed |= self.read(path, fingerprint);
            }
        }
        self.restless = restless;
        let (objects, conflicts) = self.merge();
        Outcome { changed, unsettled, objects, statuses: self.statuses(&conflicts) }
    }

    /// Reads a file; whether its objects may have changed.
    fn read(&mut self, path: PathBuf, fingerprint: Fingerprint) -> bool {
        let read =
            std::fs::read_to_string(&path).map_err(|e| e.to_string()).and_then(|text| file::read(&text));
        let known = self.files.remove(&path);
        let (state, changed) = match read {
            Ok(content) => {
                for warning in &content.warnings {
                    tracing::warn!(file = %path.display(), "{warning}");
                }
                if known.is_some_and(|f| f.error.is_some()) {
                    tracing::info!(file = %path.display(), "is good again");
                }
                (FileState { fingerprint, content, error: None }, true)
            }
            Err(error) => {
                let content = known.map(|f| f.content).unwrap_or_default();
                let kept = content.objects.len();
                tracing::error!(file = %path.display(), "{error}; {kept} objects of its last good content stay");
                (FileState { fingerprint, content, error: Some(error) }, false)
            }
        };
        self.files.insert(path, state);
        changed
    }

    /// All objects; of those defined twice the one of the first file, and a message for the other file.
    fn merge(&self) -> (Vec<Object>, HashMap<PathBuf, Vec<String>>) {
        let mut owners: HashMap<Key, &Path> = HashMap::new();
        let mut objects = Vec::new();
        let mut conflicts: HashMap<PathBuf, Vec<String>> = HashMap::new();
        for (path, state) in &self.files {
            for object in &state.content.objects {
                let key = object.key();
                if let Some(owner) = owners.get(&key) {
                    let message =
                        format!("{key} is defined in {} already: this one is not used", owner.display());
                    conflicts.entry(path.clone()).or_default().push(message);
                } else {
                    owners.insert(key, path);
                    objects.push(object.clone());
                }
            }
        }
        (objects, conflicts)
    }

    fn statuses(&self, conflicts: &HashMap<PathBuf, Vec<String>>) -> Vec<FileStatus> {
        let root = self.root_error.iter().map(|error| FileStatus {
            path: self.root.clone(),
            objects: 0,
            error: Some(error.clone()),
            warnings: Vec::new(),
        });
        let files = self.files.iter().map(|(path, state)| {
            let doubled = conflicts.get(path).into_iter().flatten();
            FileStatus {
                path: path.clone(),
                objects: state.content.objects.len(),
                error: state.error.clone(),
                warnings: state.content.warnings.iter().chain(doubled).cloned().collect(),
            }
        });
        root.chain(files).collect()
    }
}

/// Whether a file was written only just now. One from the future is not: clocks differ.
fn is_fresh(metadata: &std::fs::Metadata, now: SystemTime) -> bool {
    let age = metadata.modified().ok().and_then(|modified| now.duration_since(modified).ok());
    age.is_some_and(|age: Duration| age < SETTLE)
}

/// All manifests below a directory, symbolic links followed.
fn list(
    directory: &Path,
    depth: usize,
    found: &mut BTreeMap<PathBuf, std::fs::Metadata>,
) -> std::io::Result<()> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(directory)? {
        names.insert(entry?.path());
    }
    for path in names {
        // What vanishes between listing and looking is gone; a link may lead nowhere.
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        let hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
        if metadata.is_dir() && !hidden && depth < MAX_DEPTH {
            match list(&path, depth + 1, found) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        } else if metadata.is_file() && file::is_manifest(&path) {
            found.insert(path, metadata);
        }
    }
    Ok(())
}
