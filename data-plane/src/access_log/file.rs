//! `FILE_CONTENT`: files that lines quote. Each worker keeps what it read, and looks once a second whether the file is
//! another by now.

use std::cell::RefCell;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

/// How long what was read is believed.
const BELIEVED: Duration = Duration::from_secs(1);

/// What tells a file's versions apart: device, inode, size and when it was written.
type Version = (u64, u64, u64, i64, i64);

struct Kept {
    looked: Instant,
    version: Option<Version>,
    text: Option<Box<str>>,
}

thread_local! {
    static FILES: RefCell<HashMap<Box<str>, Kept>> = RefCell::default();
}

/// The file's content; what was read last if it is gone.
pub(super) fn content(path: &str) -> Option<String> {
    let now = Instant::now();
    FILES.with_borrow_mut(|files| {
        if let Some(kept) = files.get_mut(path) {
            if now.saturating_duration_since(kept.looked) >= BELIEVED {
                kept.look(path, now);
            }
            return kept.text.as_deref().map(str::to_owned);
        }
        let mut kept = Kept { looked: now, version: None, text: None };
        kept.look(path, now);
        let text = kept.text.as_deref().map(str::to_owned);
        files.insert(path.into(), kept);
        text
    })
}

impl Kept {
    fn look(&mut self, path: &str, now: Instant) {
        self.looked = now;
        let version = std::fs::metadata(path).ok().as_ref().map(version);
        if version.is_some()
            && version != self.version
            && let Ok(text) = std::fs::read_to_string(path)
        {
            self.version = version;
            self.text = Some(text.into());
        }
    }
}

fn version(metadata: &Metadata) -> Version {
    (metadata.dev(), metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_said_last_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "one").unwrap();
        let path = path.to_str().unwrap();
        let mut kept = Kept { looked: Instant::now(), version: None, text: None };
        kept.look(path, Instant::now());
        assert_eq!(kept.text.as_deref(), Some("one"));
        std::fs::write(path, "another").unwrap();
        kept.look(path, Instant::now());
        assert_eq!(kept.text.as_deref(), Some("another"));
        std::fs::remove_file(path).unwrap();
        kept.look(path, Instant::now());
        assert_eq!(kept.text.as_deref(), Some("another"));
        assert_eq!(content("/nowhere/at/all"), None);
    }
}
