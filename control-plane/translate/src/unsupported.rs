//! Configuration that has no effect yet: said, not passed over.

use mesh_api::ObjectMeta;
use mesh_api::service_entry::Resolution;
use saild_model::mesh::{Attachment, is_gateway};
use saild_model::{ExportTo, Mesh, ProxyView};

use crate::warning::Warning;

/// What of the configuration for a proxy is not supported.
pub(crate) fn warnings(mesh: &Mesh, proxy: &ProxyView) -> Vec<Warning> {
    let config = mesh.config();
    let mut out = crate::provider::problems(mesh);
    out.extend(crate::telemetry::problems(mesh, proxy));
    out.extend(crate::authn::problems(mesh, proxy));
    out.extend(waypoints_only(mesh, proxy));
    let visible = |entry: &[String], owner: &str| {
        let entries: Vec<ExportTo> = entry.iter().map(|e| ExportTo::parse(e)).collect();
        ExportTo::visible(&entries, owner, &proxy.namespace)
    };
    for object in config.service_entries.all() {
        let dynamic = object.spec.resolution == Resolution::DynamicDns;
        if dynamic && visible(&object.spec.export_to, &object.meta.namespace) {
            let message = "resolution DYNAMIC_DNS acts as NONE in this release: connections go to the address that \
                 the client resolved";
            out.push(Warning::of("ServiceEntry", &object.meta, message));
        }
    }
    out.extend(crate::wasm::problems(mesh, proxy));
    for object in config.destination_rules.all() {
        let policies = object
            .spec
            .subsets
            .iter()
            .map(|subset| &subset.traffic_policy)
            .chain([&object.spec.traffic_policy]);
        for policy in policies.flatten() {
            let lb = policy.load_balancer.as_ref();
            if lb.is_some_and(|lb| lb.zone_aware_lb_setting.is_some()) {
                out.push(Warning::of(
                    "DestinationRule",
                    &object.meta,
                    "zoneAwareLbSetting has no effect yet",
                ));
            }
            if lb.is_some_and(|lb| lb.backend_utilization.is_some()) {
                out.push(Warning::of(
                    "DestinationRule",
                    &object.meta,
                    "backendUtilization has no effect yet",
                ));
            }
            let codes = policy.outlier_detection.as_ref().map(|o| &o.outlier_detection_http_error_codes);
            if codes.is_some_and(|codes| !codes.is_empty()) {
                out.push(Warning::of(
                    "DestinationRule",
                    &object.meta,
                    "outlierDetectionHttpErrorCodes has no effect yet",
                ));
            }
        }
    }
    out
}

/// Policies of a proxy's namespace that are attached to what only waypoints serve.
fn waypoints_only(mesh: &Mesh, proxy: &ProxyView) -> Vec<Warning> {
    let (config, namespace) = (mesh.config(), proxy.namespace.as_str());
    let mut out = Vec::new();
    let mut look = |kind: &str, meta: &ObjectMeta, attachment: Attachment<'_>| {
        for target in attachment.targets().filter(|target| !is_gateway(target)) {
            let message = format!(
                "targetRefs: {} {:?}: policies of such targets are applied by waypoints, which this release does not \
                 run: it has no effect",
                target.kind, target.name
            );
            out.push(Warning::of(kind, meta, message));
        }
    };
    config.authorization_policies.in_namespace(namespace).for_each(|o| {
        look("AuthorizationPolicy", &o.meta, (&o.spec).into());
    });
    config.request_authentications.in_namespace(namespace).for_each(|o| {
        look("RequestAuthentication", &o.meta, (&o.spec).into());
    });
    config.telemetries.in_namespace(namespace).for_each(|o| look("Telemetry", &o.meta, (&o.spec).into()));
    out
}
