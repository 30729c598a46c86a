//! `/validate`: objects of the mesh's kinds are refused where a field is wrong, with every wrong field named.

use mesh_api::MeshObject;
use saild_serve::http::{Request, Response};
use saild_translate::{envoy_filter, wasm};
use serde_json::Value;
use xds_api::codec::Codec;

use super::review::{self, Admission, Verdict};
use super::{Counters, count};

/// Answers a review.
pub(crate) fn answer(request: &Request, counters: &Counters) -> Response {
    review::answer(request, |admission| {
        let verdict = judge(admission);
        count(if verdict.refused.is_some() { &counters.invalid } else { &counters.validated });
        verdict
    })
}

fn judge(admission: &Admission) -> Verdict {
    if admission.operation == "DELETE" || admission.object.is_null() {
        return Verdict::default();
    }
    let mut manifest = admission.object.clone();
    set_namespace(&mut manifest, &admission.namespace);
    let api_version = manifest.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    if !mesh_api::object::is_mesh_api(api_version) {
        return Verdict::default();
    }
    match mesh_api::check(&manifest) {
        Ok((object, findings)) => {
            let mut warnings: Vec<String> = findings.iter().map(ToString::to_string).collect();
            let mut refused = None;
            if let MeshObject::EnvoyFilter(filter) = &object {
                let problems = envoy_filter::check(&filter.spec, &Codec::new());
                let (fatal, idle): (Vec<_>, Vec<_>) = problems.into_iter().partition(|p| p.fatal);
                warnings.extend(idle.iter().map(|problem| format!("spec.{problem}")));
                let reasons: Vec<String> =
                    fatal.iter().map(|p| format!("spec.{}: {}", p.field, p.message)).collect();
                let name = format!("{}/{}", filter.meta.namespace, filter.meta.name);
                refused = (!fatal.is_empty()).then(|| format!("EnvoyFilter {name}: {}", reasons.join("; ")));
            }
            if let MeshObject::WasmPlugin(plugin) = &object {
                let idle = wasm::why_not(&plugin.spec);
                warnings.extend(idle.map(|why| format!("WasmPlugin does not run: {why}")));
            }
            Verdict { warnings, refused, ..Verdict::default() }
        }
        Err(error) => Verdict { refused: Some(error.to_string()), ..Verdict::default() },
    }
}

/// The namespace of an admission request counts where the object has none.
pub(crate) fn set_namespace(manifest: &mut Value, namespace: &str) {
    if namespace.is_empty() {
        return;
    }
    let metadata = manifest.get_mut("metadata").and_then(Value::as_object_mut);
    if let Some(metadata) = metadata
        && metadata.get("namespace").and_then(Value::as_str).is_none_or(str::is_empty)
    {
        metadata.insert("namespace".to_owned(), namespace.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn verdict(object: Value) -> Verdict {
        let admission = json!({"uid": "1", "operation": "CREATE", "namespace": "default", "object": object});
        judge(&serde_json::from_value(admission).unwrap())
    }

    #[test]
    fn a_wrong_field_is_refused_by_name() {
        let refused = verdict(json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "reviews"},
            "spec": {"hosts": ["reviews"], "http": [{"rout": []}]},
        }))
        .refused
        .unwrap();
        assert!(refused.contains("VirtualService default/reviews") && refused.contains("rout"), "{refused}");
    }

    #[test]
    fn patches_are_read_as_what_they_are_applied_to() {
        let filter = |patch: Value| {
            verdict(json!({
                "apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter", "metadata": {"name": "f"},
                "spec": {"configPatches": [patch]},
            }))
        };
        let wrong = json!({"applyTo": "CLUSTER", "patch": {"operation": "ADD", "value": {"nam": "a"}}});
        let refused = filter(wrong).refused.unwrap();
        assert!(
            refused.contains("EnvoyFilter default/f: spec.configPatches[0].patch.value: nam"),
            "{refused}"
        );
        let bootstrap = json!({"applyTo": "BOOTSTRAP", "patch": {"operation": "MERGE", "value": {}}});
        let passed = filter(bootstrap);
        assert!(passed.refused.is_none());
        assert!(passed.warnings[0].contains("BOOTSTRAP is not supported"), "{:?}", passed.warnings);
    }

    #[test]
    fn other_kinds_and_deletions_pass() {
        assert!(
            verdict(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}})).refused.is_none()
        );
        assert!(verdict(Value::Null).refused.is_none());
    }
}
