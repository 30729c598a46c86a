//! Image names to programs of this machine: built in for the mesh's own and the examples', and a mapping file for others.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;

/// What an image runs when its container names no command. An empty list means: the container must name one.
pub(crate) type Entrypoint = Vec<String>;

/// Repository name (without registry and tag), then the command.
const BUILT_IN: &[(&str, &[&str])] = &[
    ("ironsail/proxyv2", &["sail-agent"]),
    ("istio/proxyv2", &["sail-agent"]),
    ("ironsail/pilot", &["saild"]),
    ("istio/pilot", &["saild"]),
    ("istio/examples-bookinfo-productpage-v1", &["bookinfo", "productpage"]),
    ("istio/examples-bookinfo-details-v1", &["bookinfo", "details"]),
    ("istio/examples-bookinfo-ratings-v1", &["bookinfo", "ratings"]),
    ("istio/examples-bookinfo-reviews-v1", &["bookinfo", "reviews"]),
    ("istio/examples-bookinfo-reviews-v2", &["bookinfo", "reviews", "--stars", "black"]),
    ("istio/examples-bookinfo-reviews-v3", &["bookinfo", "reviews", "--stars", "red"]),
    ("ironsail/examples-echo", &["mesh-echo"]),
    ("curlimages/curl", &["curl"]),
    ("curl/curl", &["curl"]),
    ("busybox", &["sh"]),
    ("library/busybox", &["sh"]),
    ("alpine", &["sh"]),
    ("library/alpine", &["sh"]),
    ("debian", &["sh"]),
    ("ubuntu", &["sh"]),
    ("python", &["python3"]),
    ("library/python", &["python3"]),
];

/// The mapping.
pub(crate) struct Images(BTreeMap<String, Entrypoint>);

impl Images {
    /// The built-in mapping, and that of a file (image name → list of words) if there is one.
    pub(crate) fn load(file: &Path) -> anyhow::Result<Self> {
        let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect();
        let mut map: BTreeMap<String, Entrypoint> =
            BUILT_IN.iter().map(|(name, command)| ((*name).to_owned(), words(command))).collect();
        match fs::read_to_string(file) {
            Ok(text) => {
                let own: BTreeMap<String, Entrypoint> = serde_norway::from_str(&text).with_context(|| {
                    format!("{}: want image names, each with a list of words", file.display())
                })?;
                map.extend(own);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
        }
        Ok(Self(map))
    }

    /// What an image runs. The whole name is looked for first, then without tag, then without registry.
    pub(crate) fn entrypoint(&self, image: &str) -> Option<&Entrypoint> {
        let name = repository(image);
        let short =
            name.split_once('/').filter(|(host, _)| host.contains(['.', ':']) || *host == "localhost");
        let short = short.map_or(name, |(_, rest)| rest);
        [image, name, short].iter().find_map(|name| self.0.get(*name))
    }
}

/// An image name without tag and digest.
fn repository(image: &str) -> &str {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_with_and_without_registry_and_tag() {
        let images = Images::load(Path::new("/nowhere/images.yaml")).unwrap();
        let check = |image: &str, expect: Option<&str>| {
            assert_eq!(images.entrypoint(image).map(|words| words.join(" ")).as_deref(), expect, "{image}");
        };
        check("docker.io/istio/examples-bookinfo-reviews-v3:1.20.3", Some("bookinfo reviews --stars red"));
        check("curlimages/curl", Some("curl"));
        check("localhost:5000/ironsail/proxyv2@sha256:00", Some("sail-agent"));
        check("nginx:1.27", None);
    }
}
