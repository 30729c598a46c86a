//! Configuration that has no effect yet: said, not passed over.

use saild_model::mesh::selects;
use saild_model::{Mesh, ProxyView};

use crate::generate::Warning;

/// What of the configuration for a proxy is not supported.
pub(crate) fn unsupported(mesh: &Mesh, proxy: &ProxyView) -> Vec<Warning> {
    let config = mesh.config();
    let mut out = crate::provider::problems(mesh);
    out.extend(crate::telemetry::problems(mesh, proxy));
    let of = Warning::of;
    let for_proxy = |namespace: &str| namespace == proxy.namespace || namespace == mesh.root_namespace();
    for object in config.envoy_filters.all().iter().filter(|o| for_proxy(&o.meta.namespace)) {
        if selects(object.spec.workload_selector.as_ref(), &proxy.labels) {
            out.push(of("EnvoyFilter", &object.meta, "EnvoyFilter has no effect yet"));
        }
    }
    for object in config.wasm_plugins.all().iter().filter(|o| for_proxy(&o.meta.namespace)) {
        if selects(object.spec.selector.as_ref(), &proxy.labels) {
            out.push(of("WasmPlugin", &object.meta, "WasmPlugin has no effect yet"));
        }
    }
    for object in config.destination_rules.all() {
        let policies = object
            .spec
            .subsets
            .iter()
            .map(|subset| &subset.traffic_policy)
            .chain([&object.spec.traffic_policy]);
        for policy in policies.flatten() {
            if policy.tunnel.is_some() {
                out.push(of("DestinationRule", &object.meta, "trafficPolicy.tunnel has no effect yet"));
            }
            let lb = policy.load_balancer.as_ref();
            if lb.is_some_and(|lb| lb.zone_aware_lb_setting.is_some()) {
                out.push(of("DestinationRule", &object.meta, "zoneAwareLbSetting has no effect yet"));
            }
            if lb.is_some_and(|lb| lb.backend_utilization.is_some()) {
                out.push(of("DestinationRule", &object.meta, "backendUtilization has no effect yet"));
            }
            let codes = policy.outlier_detection.as_ref().map(|o| &o.outlier_detection_http_error_codes);
            if codes.is_some_and(|codes| !codes.is_empty()) {
                out.push(of(
                    "DestinationRule",
                    &object.meta,
                    "outlierDetectionHttpErrorCodes has no effect yet",
                ));
            }
        }
    }
    out
}
