//! Which crate may know which. Each rule is an invariant of ARCHITECTURE.md, checked on `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use serde::Deserialize;

/// Crates that do no I/O, and what they must not name.
const PURE: [&str; 8] = [
    "saild-model",
    "saild-translate",
    "sail-proxy-config",
    "sail-proxy-decide",
    "sail-proxy-http2",
    "sail-proxy-wasm",
    "xds-stream",
    "capture",
];
const IMPURE: [&str; 8] =
    ["tokio", "tokio-util", "tokio-stream", "hyper", "hyper-util", "tonic", "kube", "notify"];
/// Crates that may hold a Kubernetes client.
const KUBE: [&str; 5] = ["saild-registry", "saild", "sail-cni", "sailctl", "e2e"];
/// Crates that may see both planes.
const BOTH: [&str; 4] = ["sailctl", "e2e", "e2e-sim", "xtask"];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Control,
    Data,
    Other,
}

/// What breaks a rule, one line each.
pub(crate) fn check(root: &Path) -> anyhow::Result<Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .current_dir(root)
        .args(["metadata", "--format-version=1", "--no-deps"])
        .output()
        .context("cannot run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: Metadata = serde_json::from_slice(&output.stdout).context("cannot read cargo metadata")?;
    let graph = Graph::new(&metadata, root);
    let mut findings = graph.planes();
    findings.extend(graph.purity());
    findings.extend(graph.kubernetes());
    findings.extend(graph.single(
        "saild-serve",
        "saild-translate",
        "it knows the trait Generate, not what implements it",
    ));
    Ok(findings)
}

struct Graph {
    /// What a package depends on in its product code.
    uses: BTreeMap<String, BTreeSet<String>>,
    families: BTreeMap<String, Family>,
}

impl Graph {
    fn new(metadata: &Metadata, root: &Path) -> Self {
        let uses = metadata.packages.iter().map(|package| {
            let product = package.dependencies.iter().filter(|dependency| dependency.kind.is_none());
            (package.name.clone(), product.map(|dependency| dependency.name.clone()).collect())
        });
        let families = metadata.packages.iter().map(|package| {
            let path = Path::new(&package.manifest_path).strip_prefix(root).unwrap_or(Path::new(""));
            let family = match path.iter().next().and_then(|folder| folder.to_str()) {
                Some("control-plane") => Family::Control,
                Some("data-plane") => Family::Data,
                _ => Family::Other,
            };
            (package.name.clone(), family)
        });
        Self { uses: uses.collect(), families: families.collect() }
    }

    /// Every workspace package that a package reaches.
    fn reach<'a>(&'a self, package: &'a str) -> BTreeSet<&'a str> {
        let mut reached = BTreeSet::new();
        let mut open = vec![package];
        while let Some(next) = open.pop() {
            for used in self.uses.get(next).into_iter().flatten() {
                if self.uses.contains_key(used) && reached.insert(used.as_str()) {
                    open.push(used);
                }
            }
        }
        reached
    }

    fn planes(&self) -> Vec<String> {
        let mut findings = Vec::new();
        for (package, family) in &self.families {
            let reached = self.reach(package);
            let reaches =
                |wanted: Family| reached.iter().any(|used| self.families.get(*used) == Some(&wanted));
            match family {
                Family::Control if reaches(Family::Data) => {
                    findings.push(format!("{package} is control plane and reaches the data plane"));
                }
                Family::Data if reaches(Family::Control) => {
                    findings.push(format!("{package} is data plane and reaches the control plane"));
                }
                Family::Data if reached.contains("mesh-api") => {
                    findings.push(format!(
                        "{package} is data plane and reaches mesh-api: a proxy knows no Istio kind"
                    ));
                }
                Family::Other
                    if reaches(Family::Data)
                        && reaches(Family::Control)
                        && !BOTH.contains(&package.as_str()) =>
                {
                    findings.push(format!("{package} reaches both planes; only {} may", BOTH.join(", ")));
                }
                _ => {}
            }
        }
        findings
    }

    fn purity(&self) -> Vec<String> {
        let pairs = PURE.iter().flat_map(|package| IMPURE.iter().map(move |used| (*package, *used)));
        pairs.flat_map(|(package, used)| self.single(package, used, "the crate does no I/O")).collect()
    }

    fn kubernetes(&self) -> Vec<String> {
        let holders = self
            .uses
            .iter()
            .filter(|(package, used)| used.contains("kube") && !KUBE.contains(&package.as_str()));
        holders
            .map(|(package, _)| format!("{package} holds a Kubernetes client; only {} may", KUBE.join(", ")))
            .collect()
    }

    fn single(&self, package: &str, used: &str, why: &str) -> Option<String> {
        let found = self.uses.get(package)?.contains(used);
        found.then(|| format!("{package} depends on {used}: {why}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(packages: &[(&str, &str, &[&str])]) -> Graph {
        let metadata = Metadata {
            packages: packages
                .iter()
                .map(|(name, folder, uses)| Package {
                    name: (*name).to_owned(),
                    manifest_path: format!("/repo/{folder}/Cargo.toml"),
                    dependencies: uses
                        .iter()
                        .map(|used| Dependency { name: (*used).to_owned(), kind: None })
                        .collect(),
                })
                .collect(),
        };
        Graph::new(&metadata, Path::new("/repo"))
    }

    #[test]
    fn planes_do_not_meet_even_through_a_third_crate() {
        let graph = graph(&[
            ("sail-proxy", "data-plane", &["glue"]),
            ("glue", "glue", &["saild-model"]),
            ("saild-model", "control-plane/model", &["mesh-api"]),
            ("mesh-api", "mesh-api", &[]),
        ]);
        assert_eq!(graph.planes(), ["sail-proxy is data plane and reaches the control plane"]);
    }

    #[test]
    fn pure_crates_name_no_runtime_and_few_name_kubernetes() {
        let graph = graph(&[("capture", "cni/capture", &["tokio"]), ("injector", "injector", &["kube"])]);
        assert_eq!(graph.purity(), ["capture depends on tokio: the crate does no I/O"]);
        assert_eq!(graph.kubernetes().len(), 1);
    }
}
