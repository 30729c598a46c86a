//! Debug pages about the model: what the registry found, and what it could not use.

use std::sync::Arc;

use mesh_api::Encode as _;
use saild_registry::directory::Statuses;
use saild_serve::debug::Page;
use saild_serve::http::Response;
use serde_json::{Value, json};

use crate::dump;
use crate::host::State;

/// Pages of the model.
pub(crate) fn pages(
    state: &Arc<State>,
    files: Statuses,
    injection: impl Fn() -> Value + Send + Sync + 'static,
) -> Vec<Page> {
    let of_mesh = |name, help, render: fn(&saild_model::Mesh) -> Value| {
        let state = Arc::clone(state);
        Page::new(name, help, move |_| Response::json(&render(&state.snapshot().mesh)))
    };
    let warnings = Arc::clone(state);
    let cache = Arc::clone(state);
    let version = Arc::clone(state);
    vec![
        of_mesh("registryz", "Services.", |mesh| {
            mesh.services().iter().map(|service| dump::service(service)).collect()
        }),
        of_mesh("endpointz", "Endpoints by service and port.", dump::endpoints),
        of_mesh("endpointShardz", "Endpoints by service, namespace and cluster.", dump::shards),
        of_mesh("instancesz", "Workloads and what they serve.", dump::instances),
        of_mesh("configz", "The mesh's objects.", |mesh| {
            mesh.objects().iter().map(mesh_api::MeshObject::to_manifest).collect()
        }),
        of_mesh("authorizationz", "Authorization policies by namespace.", dump::authorization),
        of_mesh("mesh", "The mesh's settings.", |mesh| mesh.settings().encode()),
        Page::new("filez", "Files of the registry: which are used, which are not and why.", move |_| {
            Response::json(&json!(*files.get()))
        }),
        Page::new("warningz", "Configuration without effect, or with another than it seems.", move |_| {
            let all = warnings.known_warnings();
            Response::json(&all.iter().map(dump::warning).collect())
        }),
        Page::new("cachez", "Use of the caches of resources.", move |_| {
            Response::json(&dump::cache(&cache.cache))
        }),
        Page::new("pushcontext", "The version that is pushed.", move |_| {
            Response::json(&json!({"version": version.snapshot().version}))
        }),
        Page::new("inject", "The values of injection.", move |_| Response::json(&injection())),
    ]
}
