//! `/inject`: pods that ask for a proxy get one.

use std::collections::BTreeMap;
use std::sync::Arc;

use injector::{Decision, InjectConfig, Selection, Values};
use k8s_openapi::api::core::v1::Pod;
use mesh_api::MeshObject;
use saild_registry::{Object, Store};
use saild_serve::http::{Request, Response};
use serde_json::Value;
use tracing::{debug, info, warn};

use super::review::{self, Admission, Verdict};
use super::{Counters, count, validate};
use crate::host::State;

/// The ConfigMap with the installation's values.
const CONFIG_MAP: &str = "istio-sidecar-injector";

/// What injection needs to know of the installation.
#[derive(Debug)]
pub(crate) struct Injection {
    pub(crate) state: Arc<State>,
    pub(crate) revision: String,
    pub(crate) system_namespace: String,
}

impl Injection {
    /// Answers a review, with the objects that the registry has now.
    pub(crate) fn answer(&self, request: &Request, store: &Store, counters: &Counters) -> Response {
        review::answer(request, |admission| {
            count(&counters.injection_requests);
            match self.judge(admission, store) {
                Ok(Some(verdict)) => {
                    count(&counters.injected);
                    verdict
                }
                Ok(None) => {
                    count(&counters.skipped);
                    Verdict::default()
                }
                Err(error) => {
                    count(&counters.injection_failures);
                    warn!(namespace = admission.namespace, "a pod could not be injected: {error}");
                    Verdict { refused: Some(error), ..Verdict::default() }
                }
            }
        })
    }

    fn judge(&self, admission: &Admission, store: &Store) -> Result<Option<Verdict>, String> {
        let mut manifest = admission.object.clone();
        validate::set_namespace(&mut manifest, &admission.namespace);
        let pod: Pod =
            serde_json::from_value(manifest).map_err(|error| format!("the object is no pod: {error}"))?;
        let namespace = pod.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let config = self.config(store)?;
        let name =
            pod.metadata.name.as_ref().or(pod.metadata.generate_name.as_ref()).cloned().unwrap_or_default();
        match injector::inject(&pod, &BTreeMap::new(), &config).map_err(|error| describe(&error))? {
            Decision::Skip(reason) => {
                info!(namespace, pod = name, "not injected: {reason}");
                Ok(None)
            }
            Decision::Inject(injected) => {
                info!(namespace, pod = name, "injected");
                // The patch is for the object as it was sent: a namespace that only we filled in must not be in it.
                let sent: Pod = serde_json::from_value(admission.object.clone())
                    .map_err(|error| format!("the object is no pod: {error}"))?;
                let mut after = *injected;
                after.metadata.namespace.clone_from(&sent.metadata.namespace);
                let patch = injector::json_patch(&sent, &after).map_err(|error| describe(&error))?;
                Ok(Some(Verdict { patch: Some(patch), warnings: injector::warnings(&pod), refused: None }))
            }
        }
    }

    /// The mesh's settings, and what the installation's ConfigMap says.
    fn config(&self, store: &Store) -> Result<InjectConfig, String> {
        let mesh = Arc::clone(&self.state.snapshot().mesh);
        let proxy_configs = mesh.objects().iter().filter_map(|object| match object {
            MeshObject::ProxyConfig(config) => Some(Arc::clone(config)),
            _ => None,
        });
        let mut config = InjectConfig {
            mesh: Arc::clone(mesh.settings()),
            revision: if self.revision.is_empty() { "default".to_owned() } else { self.revision.clone() },
            proxy_configs: proxy_configs.collect(),
            // The API server knows the namespace's labels of this very moment and asks only for what the webhook's
            // selectors chose; the registry may not have heard of a label that was set just before.
            selection: Selection::Always,
            ..InjectConfig::default()
        };
        let name = self.config_map();
        let Some(Object::ConfigMap(map)) = store.get("ConfigMap", &self.system_namespace, &name) else {
            return Ok(config);
        };
        let wrong = |key: &str, error: &injector::Error| {
            format!("ConfigMap {}/{name} {key}: {}", self.system_namespace, describe(error))
        };
        let text = |key: &str| map.data.as_ref().and_then(|data| data.get(key));
        if let Some(values) = text("values") {
            config.values = Values::from_yaml(values).map_err(|error| wrong("values", &error))?;
        }
        if let Some(settings) = text("config") {
            let unused = config.apply_injector_config(settings).map_err(|error| wrong("config", &error))?;
            for unused in unused {
                debug!("ConfigMap {}/{name} config: {unused}", self.system_namespace);
            }
        }
        Ok(config)
    }

    fn config_map(&self) -> String {
        match self.revision.as_str() {
            "" | "default" => CONFIG_MAP.to_owned(),
            revision => format!("{CONFIG_MAP}-{revision}"),
        }
    }

    /// For the debug page: what the ConfigMap says.
    pub(crate) fn shown(&self, store: &Store) -> Value {
        match store.get("ConfigMap", &self.system_namespace, &self.config_map()) {
            Some(Object::ConfigMap(map)) => serde_json::json!(map.data),
            _ => Value::Null,
        }
    }
}

fn describe(error: &injector::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
