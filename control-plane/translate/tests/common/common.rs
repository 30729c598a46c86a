//! What the tests of this crate share.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "each test uses a part of it"
)]

pub mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use saild_model::mesh::JwksSource;
use saild_model::{Mesh, ProxyView};
use saild_translate::{Cache, Generated, Names, generate};
use serde::Deserialize;
use serde_json::{Map, Value};
use xds_api::codec::Codec;
use xds_api::type_url;

/// A case: `testdata/<case>/proxy.yaml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Manifests, from the root of the repository. `in.yaml` of the case is read after them.
    #[serde(default)]
    include: Vec<String>,
    /// The Deployment whose proxy is asked for.
    workload: String,
    #[serde(default = "sidecar")]
    kind: String,
    /// The extensions that it announces.
    #[serde(default)]
    extensions: Vec<String>,
    /// Key sets of issuers, by the URI that they were fetched from.
    #[serde(default)]
    jwks: BTreeMap<String, String>,
    /// Further labels of the pod.
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// Which resources the golden file holds, by type; a type that is not named is left out.
    #[serde(default)]
    show: BTreeMap<String, Vec<String>>,
}

fn sidecar() -> String {
    "sidecar".to_owned()
}

/// The directories of all cases.
pub fn cases() -> Vec<PathBuf> {
    let dir = world::root().join("control-plane/translate/testdata");
    let mut cases: Vec<PathBuf> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases
}

impl Case {
    /// Reads a case and builds its world.
    pub fn load(dir: &Path) -> (Self, Mesh, ProxyView) {
        let text = std::fs::read_to_string(dir.join("proxy.yaml")).unwrap();
        let case: Self =
            serde_norway::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        let paths = case.include.iter().map(|path| world::root().join(path)).chain([dir.join("in.yaml")]);
        let texts: Vec<String> =
            paths.filter(|path| path.exists()).map(|path| std::fs::read_to_string(path).unwrap()).collect();
        let jwks = case.jwks.iter().map(|(uri, keys)| (JwksSource::Uri(uri.clone()), keys.clone()));
        let mesh = world::mesh(&texts).with_jwks(Arc::new(jwks.collect()));
        let mut proxy = world::proxy(world::pod(&mesh, &case.workload), &case.kind, &case.extensions);
        proxy.labels.extend(case.labels.clone());
        (case, mesh, proxy)
    }

    /// Whether the golden file is to hold a resource.
    pub fn shows(&self, kind: &str, name: &str) -> bool {
        self.show.get(kind).is_some_and(|names| names.is_empty() || names.iter().any(|wanted| wanted == name))
    }
}

/// Everything that a proxy gets, in the order in which it would ask.
pub struct Everything {
    /// By type and name.
    pub resources: BTreeMap<&'static str, Vec<(String, Value)>>,
    /// What users are warned of.
    pub warnings: Vec<String>,
}

/// Asks for everything.
pub fn everything(mesh: &Mesh, proxy: &ProxyView, codec: &Codec) -> Everything {
    let cache = Cache::new();
    let mut warnings = Vec::new();
    let mut ask = |url: &str, names: &Names| -> Vec<(String, Value)> {
        let Generated { resources, removed, warnings: more } = generate(mesh, proxy, url, names, &cache);
        assert!(removed.is_empty(), "{url}: {removed:?} {more:?}");
        warnings.extend(
            more.into_iter().map(|w| format!("{} {}/{}: {}", w.kind, w.namespace, w.name, w.message)),
        );
        resources.iter().map(|r| (r.name.to_string(), sorted(codec.any_to_json(&r.any).unwrap()))).collect()
    };
    let listeners = ask(type_url::LISTENER, &Names::Wildcard);
    let clusters = ask(type_url::CLUSTER, &Names::Wildcard);
    let routes = named(&listeners, "route_config_name");
    let routes = ask(type_url::ROUTE, &Names::Set(routes));
    let endpoints = ask(type_url::ENDPOINT, &Names::Set(named(&clusters, "service_name")));
    let secrets: BTreeSet<String> =
        named(&listeners, "name").into_iter().filter(|name| name.starts_with("kubernetes://")).collect();
    let secrets = ask(type_url::SECRET, &Names::Set(secrets));
    let extensions = ask(type_url::EXTENSION_CONFIG, &Names::Set(discovered(&listeners)));
    let resources = [
        ("extensions", extensions),
        ("listeners", listeners),
        ("clusters", clusters),
        ("routes", routes),
        ("endpoints", endpoints),
        ("secrets", secrets),
    ];
    Everything { resources: resources.into_iter().collect(), warnings }
}

/// The values of a key, anywhere in resources.
fn named(resources: &[(String, Value)], key: &str) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    each(resources, &mut |map| out.extend(map.get(key).and_then(Value::as_str).map(str::to_owned)));
    out
}

/// The names of filters whose configuration is to be asked for.
fn discovered(resources: &[(String, Value)]) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    each(resources, &mut |map| {
        let name = map.get("config_discovery").and_then(|_| map.get("name"));
        out.extend(name.and_then(Value::as_str).map(str::to_owned));
    });
    out
}

/// Shows every object in resources.
fn each(resources: &[(String, Value)], look: &mut impl FnMut(&Map<String, Value>)) {
    fn walk(value: &Value, look: &mut impl FnMut(&Map<String, Value>)) {
        match value {
            Value::Object(map) => {
                look(map);
                map.values().for_each(|value| walk(value, look));
            }
            Value::Array(items) => items.iter().for_each(|value| walk(value, look)),
            _ => {}
        }
    }
    resources.iter().for_each(|(_, value)| walk(value, look));
}

/// The same value with its keys in order, the name first.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(String, Value)> = map.into_iter().map(|(k, v)| (k, sorted(v))).collect();
            entries.sort_by(|(a, _), (b, _)| (a != "name", a).cmp(&(b != "name", b)));
            Value::Object(Map::from_iter(entries))
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}
