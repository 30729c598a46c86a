//! `testdata/<case>/in.yaml` is a pod, `out.yaml` what becomes of it. `config.yaml` may hold `namespaceLabels`, `values`
//! and `mesh`. `UPDATE_GOLDENS=1` writes `out.yaml` anew.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use injector::{Decision, InjectConfig, Values, inject, json_patch};
use k8s_openapi::api::core::v1::Pod;
use mesh_api::MeshConfig;
use serde_json::{Value, json};

fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut cases: Vec<_> =
        std::fs::read_dir(root).expect("testdata").map(|e| e.expect("entry").path()).collect();
    cases.sort();
    cases
}

fn yaml(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_norway::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The labels of the namespace and the configuration of a case.
fn config(case: &Path) -> (BTreeMap<String, String>, InjectConfig) {
    let path = case.join("config.yaml");
    let value = if path.exists() { yaml(&path) } else { json!({}) };
    let labels = match value.get("namespaceLabels") {
        Some(labels) => serde_json::from_value(labels.clone()).expect("namespaceLabels"),
        None => BTreeMap::from([("istio-injection".to_owned(), "enabled".to_owned())]),
    };
    let section = |name: &str| value.get(name).map_or_else(|| "{}".to_owned(), Value::to_string);
    let mut values = Values::from_yaml(&section("values")).expect("values");
    // Goldens should not change with every release.
    values.global.tag = "test".to_owned();
    let mesh = MeshConfig::from_yaml(&section("mesh")).expect("mesh");
    (labels, InjectConfig { mesh: Arc::new(mesh), values, ..InjectConfig::default() })
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |e| e.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn check(case: &Path) {
    let before: Pod = serde_json::from_value(yaml(&case.join("in.yaml"))).expect("pod");
    let (labels, config) = config(case);
    let out = match inject(&before, &labels, &config) {
        Err(error) => json!({"error": chain(&error)}),
        Ok(Decision::Skip(reason)) => json!({"skip": reason.to_string()}),
        Ok(Decision::Inject(after)) => {
            let mut patched = serde_json::to_value(&before).expect("pod");
            for operation in json_patch(&before, &after).expect("patch").as_array().expect("operations") {
                apply(&mut patched, operation);
            }
            let after_value = serde_json::to_value(&after).expect("pod");
            assert_eq!(patched, after_value, "{}: the patch does not lead there", case.display());
            let again = inject(&after, &labels, &config).expect("injection");
            assert!(matches!(again, Decision::Skip(_)), "{}: injected twice", case.display());
            after_value
        }
    };
    let text = serde_norway::to_string(&out).expect("yaml");
    let golden = case.join("out.yaml");
    #[expect(clippy::disallowed_methods, reason = "the switch of all golden tests")]
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        std::fs::write(&golden, &text).expect("write");
    }
    let expect = std::fs::read_to_string(&golden).unwrap_or_default();
    assert!(expect == text, "{} differs:\n{text}", golden.display());
}

/// One operation of a JSON Patch.
fn apply(document: &mut Value, operation: &Value) {
    let text = |key: &str| operation[key].as_str().expect("text");
    let (parent, last) = text("path").rsplit_once('/').expect("path");
    let last = last.replace("~1", "/").replace("~0", "~");
    let target = document.pointer_mut(parent).expect("parent");
    match (target, text("op")) {
        (Value::Object(map), "remove") => {
            map.shift_remove(&last).expect("key");
        }
        (Value::Object(map), _) => {
            map.insert(last, operation["value"].clone());
        }
        (Value::Array(list), "add") => list.insert(last.parse().expect("index"), operation["value"].clone()),
        (Value::Array(list), "remove") => {
            list.remove(last.parse().expect("index"));
        }
        (Value::Array(list), _) => list[last.parse::<usize>().expect("index")] = operation["value"].clone(),
        _ => panic!("{operation}"),
    }
}

#[test]
fn pods_become_what_the_goldens_say() {
    for case in cases() {
        check(&case);
    }
}

#[test]
fn proxy_config_objects_reach_the_pods_they_select() {
    let object = |namespace: &str, labels: &str, concurrency: i32| {
        let text = format!(
            "{{apiVersion: networking.istio.io/v1beta1, kind: ProxyConfig, metadata: {{name: x, namespace: {namespace}}}, \
             spec: {{selector: {{matchLabels: {{{labels}}}}}, concurrency: {concurrency}, environmentVariables: {{N{concurrency}: x}}}}}}"
        );
        match mesh_api::parse(&serde_norway::from_str(&text).expect("yaml")).expect("ProxyConfig") {
            mesh_api::MeshObject::ProxyConfig(object) => object,
            other => panic!("{other:?}"),
        }
    };
    let config = InjectConfig {
        selection: injector::Selection::Always,
        proxy_configs: vec![
            object("default", "app: web", 3),
            object("istio-system", "", 1),
            object("default", "", 2),
            object("default", "app: other", 4),
        ],
        ..InjectConfig::default()
    };
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "a", "namespace": "default", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": "web"}]},
    }))
    .expect("pod");
    let Decision::Inject(pod) = inject(&pod, &BTreeMap::new(), &config).expect("injection") else {
        panic!("skipped")
    };
    let containers = pod.spec.expect("spec").containers;
    let env = containers[1].env.as_ref().expect("env");
    let value = |name: &str| env.iter().find(|e| e.name == name).and_then(|e| e.value.clone());
    assert_eq!(
        value("PROXY_CONFIG").as_deref(),
        Some(r#"{"concurrency":3,"proxyMetadata":{"N1":"x","N2":"x","N3":"x"}}"#)
    );
    assert_eq!(value("N2").as_deref(), Some("x"));
    assert_eq!(value("N4"), None);
}

#[test]
fn the_injectors_own_configuration_is_read() {
    let mut config = InjectConfig::default();
    let text = "{policy: disabled, neverInjectSelector: [{matchExpressions: [{key: job, operator: Exists}]}], \
                injectedAnnotations: {a: b}, templates: {x: y}}";
    let warnings = config.apply_injector_config(text).expect("configuration");
    assert_eq!(warnings, ["templates has no effect: templates are built in"]);
    assert_eq!(config.policy, injector::Policy::Disabled);
    assert_eq!(config.never_inject.len(), 1);
    let error = config.apply_injector_config("policy: maybe").expect_err("must be refused");
    assert!(chain(&error).ends_with("policy: must be enabled or disabled"), "{error}");
}

#[test]
fn unknown_annotations_are_told() {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "a", "annotations": {"sidecar.istio.io/proxyCpu": "1", "other": "x"}},
    }))
    .expect("pod");
    assert_eq!(
        injector::warnings(&pod),
        ["annotation sidecar.istio.io/proxyCpu is unknown and has no effect"]
    );
}
