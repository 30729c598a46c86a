//! What a reader relies on: short files that say what they own, links that lead somewhere, pages that are tested.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

/// Product lines in a file. Tests may be longer; what generates nothing but data has its own folder.
const LONGEST_FILE: usize = 700;
/// Marks of something unfinished.
const LEFTOVERS: [&str; 4] = ["FIXME", "XXX", "todo!(", "unimplemented!("];

/// What is untidy, one line each.
pub(crate) fn check(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut findings = Vec::new();
    for name in tracked(root)? {
        let path = root.join(&name);
        // A file that is tracked and gone is about to be removed.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        if name.ends_with(".rs") {
            findings.extend(rust(&name, &text));
        } else if name.ends_with(".md") {
            findings.extend(links(root, &name, &text));
            if name.starts_with("docs/tasks/") {
                findings.extend(task(root, &name, &text));
            }
        }
    }
    Ok(findings)
}

fn tracked(root: &Path) -> anyhow::Result<Vec<String>> {
    let output = Command::new("git")
        .current_dir(root)
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .output()
        .context("cannot run git")?;
    if !output.status.success() {
        bail!("git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

fn rust(name: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    if !text.starts_with("//!") {
        findings.push(format!("{name}: does not open with a //! sentence on what it owns"));
    }
    if name.ends_with("/mod.rs") {
        findings.push(format!("{name}: a module's index is named after the module, not mod.rs"));
    }
    let product = product_lines(name, text);
    if product > LONGEST_FILE {
        findings
            .push(format!("{name}: {product} product lines, {LONGEST_FILE} at most: split it by subject"));
    }
    if name != "xtask/src/tidy.rs" {
        for (index, line) in text.lines().enumerate() {
            if let Some(mark) = LEFTOVERS.iter().find(|mark| line.contains(*mark)) {
                findings.push(format!("{name}:{}: {mark} is left over", index + 1));
            }
        }
    }
    findings
}

/// The lines before the tests: those of a test file count as none.
fn product_lines(name: &str, text: &str) -> usize {
    let is_test = name
        .split('/')
        .any(|step| step == "tests" || step == "benches" || step.trim_end_matches(".rs") == "tests");
    if is_test || name.starts_with("e2e/") {
        return 0;
    }
    text.lines().take_while(|line| line.trim_end() != "#[cfg(test)]").count()
}

/// Relative links in a Markdown file must lead to something.
fn links(root: &Path, name: &str, text: &str) -> Vec<String> {
    let folder = root.join(name).parent().map(Path::to_path_buf).unwrap_or_default();
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#', ' ']).next());
    targets
        .filter(|target| !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:"))
        .filter(|target| !folder.join(target).exists())
        .map(|target| format!("{name}: the link to {target} leads nowhere"))
        .collect()
}

/// A task's page names the tests that do what it says, and manifests that are there.
fn task(root: &Path, name: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    for word in
        text.split([' ', '`', '\n']).filter(|word| word.starts_with("examples/") && word.ends_with(".yaml"))
    {
        if !root.join(word).exists() {
            findings.push(format!("{name}: there is no {word}"));
        }
    }
    let Some((_, proof)) = text.split_once("Tested by `") else {
        findings.push(format!("{name}: does not say which test does what it describes"));
        return findings;
    };
    let mut quoted = proof.split('`').step_by(2);
    let file = quoted.next().unwrap_or_default();
    let tests = fs::read_to_string(root.join(file)).unwrap_or_default();
    for test in quoted.filter(|test| !test.trim().is_empty()) {
        if !tests.contains(&format!("#[test]\nfn {test}()")) {
            findings.push(format!("{name}: {file} has no test {test}"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_what_it_owns_and_leaves_nothing_undone() {
        assert!(rust("a/src/x.rs", "//! Owns x.\nfn x() {}\n").is_empty());
        assert_eq!(rust("a/src/x.rs", "fn x() { todo!() }\n").len(), 2);
        assert_eq!(rust("a/src/x/mod.rs", "//! Owns x.\n").len(), 1);
    }

    #[test]
    fn tests_do_not_count_towards_the_length() {
        let long = "//! x\n".to_owned() + &"// line\n".repeat(LONGEST_FILE + 1);
        assert_eq!(rust("a/src/x.rs", &long).len(), 1);
        assert!(rust("a/tests/x.rs", &long).is_empty());
        let tested = "//! x\n#[cfg(test)]\n".to_owned() + &"// line\n".repeat(LONGEST_FILE + 1);
        assert!(rust("a/src/x.rs", &tested).is_empty());
    }
}
