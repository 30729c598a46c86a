//! A container's root: an empty file system in which the machine's files are linked, except where the container has its own.
//!
//! A directory that holds something of the container (a mount, a file) is made anew, and each other entry of the machine's
//! directory of that name becomes a link to it. So the container may write anywhere above, and the machine sees none of it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use anyhow::Context;
use nix::mount::{MsFlags, mount};
use nix::unistd::{chdir, pivot_root};

use super::{ALIAS_DIR, BIN_DIR, Layout, Mount};

/// Where the machine's root is.
const HOST: &str = ".host";
/// Made anew without the machine's entries.
const FRESH: [&str; 2] = ["/run", "/tmp"];
/// The programs' other names: alias, program.
const ALIASES: [(&str, &str); 2] = [("pilot-agent", "sail-agent"), ("pilot-discovery", "saild")];

pub(super) fn build(layout: &Layout) -> anyhow::Result<()> {
    let nothing: Option<&str> = None;
    mount(nothing, "/", nothing, MsFlags::MS_PRIVATE | MsFlags::MS_REC, nothing)
        .context("cannot make mounts private")?;
    let new = &layout.root;
    mount(Some("tmpfs"), new, Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))
        .context("cannot mount a root")?;
    let mut mounts: Vec<Mount> = layout.mounts.clone();
    mounts.push(Mount { source: layout.bin_dir.clone(), path: BIN_DIR.into(), read_only: false });
    for mount in &mut mounts {
        mount.path = resolve(&mount.path);
    }
    mounts.sort_by_key(|mount| mount.path.components().count());
    for dir in own_directories(&mounts, layout) {
        imitate(new, &dir)?;
    }
    for mount in &mounts {
        bind(new, mount).with_context(|| format!("cannot mount {}", mount.path.display()))?;
    }
    for (path, content) in &layout.files {
        let path = inside(new, &resolve(path));
        // The machine's entry of that name is a link, which must not be written through.
        let _ = fs::remove_file(&path);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    }
    for (alias, program) in ALIASES {
        symlink(Path::new(BIN_DIR).join(program), inside(new, Path::new(ALIAS_DIR)).join(alias))?;
    }
    process_files(new)?;
    pivot_root(new, &new.join(HOST)).context("cannot change the root")?;
    chdir("/").context("cannot change to the root")
}

/// The container's own view of its processes; the mesh's where the kernel refuses.
fn process_files(new: &Path) -> anyhow::Result<()> {
    let proc = new.join("proc");
    let _ = fs::remove_file(&proc);
    fs::create_dir_all(&proc)?;
    if mount(Some("proc"), &proc, Some("proc"), MsFlags::empty(), None::<&str>).is_err() {
        fs::remove_dir(&proc)?;
        symlink(format!("{HOST}/proc"), &proc)?;
    }
    Ok(())
}

fn inside(new: &Path, path: &Path) -> PathBuf {
    new.join(path.strip_prefix("/").unwrap_or(path))
}

/// Directories that are made anew, parents first.
fn own_directories(mounts: &[Mount], layout: &Layout) -> BTreeSet<PathBuf> {
    let mut dirs: BTreeSet<PathBuf> =
        ["/", "/etc", "/run", "/tmp", "/var", ALIAS_DIR].map(PathBuf::from).into();
    let files = layout.files.iter().map(|(path, _)| resolve(path));
    let paths = mounts.iter().map(|mount| mount.path.clone()).chain(files).chain([PathBuf::from(ALIAS_DIR)]);
    for path in paths {
        let mounted = |dir: &Path| mounts.iter().any(|mount| dir.starts_with(&mount.path));
        dirs.extend(path.ancestors().skip(1).filter(|dir| !mounted(dir)).map(Path::to_path_buf));
    }
    dirs
}

fn imitate(new: &Path, dir: &Path) -> anyhow::Result<()> {
    let target = inside(new, dir);
    // A link made by the parent's imitation gives way.
    if target.is_symlink() {
        fs::remove_file(&target)?;
    }
    fs::create_dir_all(&target).with_context(|| format!("cannot make {}", dir.display()))?;
    if dir == Path::new("/") {
        fs::create_dir_all(new.join(HOST))?;
    }
    if FRESH.iter().any(|fresh| dir == Path::new(fresh)) {
        return Ok(fs::set_permissions(&target, fs::Permissions::from_mode(0o1777))?);
    }
    // What cannot be listed has no entries here.
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let link = target.join(entry.file_name());
        if link.is_symlink() || link.exists() {
            continue;
        }
        let path = entry.path();
        let points_to = match fs::read_link(&path) {
            Ok(target) => target,
            Err(_) => Path::new("/").join(HOST).join(path.strip_prefix("/").unwrap_or(&path)),
        };
        symlink(points_to, link)?;
    }
    Ok(())
}

fn bind(new: &Path, wanted: &Mount) -> anyhow::Result<()> {
    let target = inside(new, &wanted.path);
    if target.is_symlink() {
        fs::remove_file(&target)?;
    }
    if fs::metadata(&wanted.source)?.is_dir() {
        fs::create_dir_all(&target)?;
    } else if !target.exists() {
        fs::write(&target, "")?;
    }
    let nothing: Option<&str> = None;
    mount(Some(&wanted.source), &target, nothing, MsFlags::MS_BIND | MsFlags::MS_REC, nothing)?;
    if wanted.read_only {
        let flags = MsFlags::MS_BIND
            | MsFlags::MS_REMOUNT
            | MsFlags::MS_RDONLY
            | MsFlags::MS_NOSUID
            | MsFlags::MS_NODEV;
        mount(nothing, &target, nothing, flags, nothing)?;
    }
    Ok(())
}

/// Follows the machine's links in a path, so that `/var/run` is `/run` where the machine says so.
fn resolve(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    let mut rest: Vec<PathBuf> = components(path);
    let mut budget = 40;
    while let Some(next) = rest.pop() {
        if next == Path::new("..") {
            out.pop();
            continue;
        }
        let here = out.join(&next);
        match fs::read_link(&here) {
            Ok(target) if budget > 0 => {
                budget -= 1;
                if target.is_absolute() {
                    out = PathBuf::from("/");
                }
                rest.extend(components(&target));
            }
            _ => out = here,
        }
    }
    out
}

/// Last component first.
fn components(path: &Path) -> Vec<PathBuf> {
    let part = |component| match component {
        Component::Normal(name) => Some(PathBuf::from(name)),
        Component::ParentDir => Some(PathBuf::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().rev().filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        symlink("a/b", dir.path().join("rel")).unwrap();
        symlink(dir.path().join("a"), dir.path().join("abs")).unwrap();
        assert_eq!(resolve(&dir.path().join("rel/x")), dir.path().join("a/b/x"));
        assert_eq!(resolve(&dir.path().join("abs/../rel/y")), dir.path().join("a/b/y"));
    }

    #[test]
    fn parents_of_mounts_are_made_anew() {
        let mount = |path: &str| Mount { source: "/x".into(), path: path.into(), read_only: false };
        let layout = Layout {
            hostname: String::new(),
            root: "/r".into(),
            bin_dir: "/b".into(),
            mounts: vec![],
            files: vec![],
        };
        let dirs = own_directories(&[mount("/data"), mount("/data/deep/er"), mount("/srv/a/b")], &layout);
        assert!(dirs.contains(Path::new("/srv/a")));
        assert!(!dirs.contains(Path::new("/data/deep")));
    }
}
