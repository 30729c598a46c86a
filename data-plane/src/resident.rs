//! How much of the program stays in memory.

use std::fs;
use std::sync::OnceLock;
use std::time::Duration;

static TRIM: OnceLock<fn()> = OnceLock::new();

/// Tells how the allocator gives memory back that was freed: reading a large configuration takes several times what
/// running it does.
pub fn trim_with(trim: fn()) {
    // Only the first says.
    let _ = TRIM.set(trim);
}

/// How long workers take, at most and most often, to run the first configuration.
const SETTLING: Duration = Duration::from_secs(1);

/// Lets go of what starting needed, now and once more when workers have taken the first configuration, which is much
/// code of its own that serving does not need.
pub(crate) async fn settle() {
    forget_startup();
    tokio::time::sleep(SETTLING).await;
    forget_startup();
}

/// Lets go of the pages of the program's own file and of its libraries, so that code which only starting needed is not
/// held. What is still needed is mapped again when it is touched, from the kernel's cache. Any failure merely costs the
/// memory. Each step of the start ends with it, for the largest of them is what counts as the process' peak.
pub(crate) fn forget_startup() {
    if let Some(trim) = TRIM.get() {
        trim();
    }
    let Ok(maps) = fs::read_to_string("/proc/self/smaps") else { return };
    for (start, length) in clean_mappings(&maps) {
        drop_pages(start, length);
    }
}

/// Where a file is mapped read-only and no page differs from it: start and length.
fn clean_mappings(smaps: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut current = None;
    for line in smaps.lines() {
        if let Some(range) = mapping(line) {
            current = range;
        } else if line.starts_with("Anonymous:")
            && line.split_ascii_whitespace().nth(1) == Some("0")
            && let Some(range) = current.take()
        {
            found.push(range);
        }
    }
    found
}

/// `None` for a line that begins no mapping; `Some(None)` for a mapping that is to be left alone.
fn mapping(line: &str) -> Option<Option<(usize, usize)>> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    let readable = matches!(fields.next()?, "r-xp" | "r--p");
    // What is no file has no name, or one in brackets.
    let file = fields.nth(3).is_some_and(|path| path.starts_with('/'));
    Some((readable && file).then(|| (start, end.saturating_sub(start))))
}

#[expect(unsafe_code, reason = "there is no safe wrapper, since other mappings would lose their content")]
fn drop_pages(start: usize, length: usize) {
    // SAFETY: the range is a private mapping of a file, not writable and without a page of its own, as the kernel said
    // a moment ago; nothing can have changed a page since. A dropped page is read from the same file again.
    unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED) };
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
5600000000-5600001000 r--p 00000000 fe:00 7   /usr/bin/sail-proxy
Rss:                   4 kB
Anonymous:             0 kB
5600001000-5600003000 r-xp 00001000 fe:00 7   /usr/bin/sail-proxy
Anonymous:             0 kB
5600003000-5600004000 r--p 00003000 fe:00 7   /usr/bin/sail-proxy
Anonymous:             4 kB
5600004000-5600005000 rw-p 00004000 fe:00 7   /usr/bin/sail-proxy
Anonymous:             0 kB
7f00000000-7f00001000 r-xp 00000000 fe:00 8   /usr/lib/libc.so.6
Anonymous:             0 kB
7f00001000-7f00002000 r--s 00000000 fe:00 9   /run/shared
Anonymous:             0 kB
7f00002000-7f00003000 r--p 00000000 00:00 0
Anonymous:             0 kB
7f00004000-7f00005000 r-xp 00000000 00:00 0   [vdso]
Anonymous:             0 kB
";

    #[test]
    fn only_unchanged_pages_of_files_are_let_go() {
        let found = clean_mappings(SMAPS);
        assert_eq!(found, [(0x56_0000_0000, 0x1000), (0x56_0000_1000, 0x2000), (0x7f_0000_0000, 0x1000)]);
    }

    #[test]
    fn the_program_runs_on() {
        forget_startup();
        assert_eq!(clean_mappings(""), []);
    }
}
