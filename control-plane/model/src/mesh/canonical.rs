//! Configuration in the form that translation reads: full host names, full gateway names, delegates merged in.

use std::sync::Arc;

use mesh_api::Object;
use mesh_api::destination_rule::DestinationRule;
use mesh_api::string_match::StringMatch;
use mesh_api::virtual_service::{Destination, HttpMatch, HttpRoute, VirtualService};

use crate::hostname;

/// The rule with its host completed.
pub(super) fn destination_rule(
    object: Arc<Object<DestinationRule>>,
    domain: &str,
) -> Arc<Object<DestinationRule>> {
    let host = hostname::resolve(&object.spec.host, &object.meta.namespace, domain);
    if host == object.spec.host {
        return object;
    }
    let mut object = (*object).clone();
    object.spec.host = host;
    Arc::new(object)
}

/// The VirtualServices that apply by themselves, complete. Those without hosts are delegates: they live on in the ones
/// that name them.
pub(super) fn virtual_services(
    objects: Vec<Arc<Object<VirtualService>>>,
    domain: &str,
) -> Vec<Arc<Object<VirtualService>>> {
    let complete: Vec<Object<VirtualService>> =
        objects.iter().map(|object| completed(object, domain)).collect();
    complete
        .iter()
        .filter(|object| !object.spec.hosts.is_empty())
        .map(|root| Arc::new(with_delegates(root, &complete)))
        .collect()
}

fn completed(object: &Object<VirtualService>, domain: &str) -> Object<VirtualService> {
    let mut object = object.clone();
    let namespace = object.meta.namespace.clone();
    let host = |host: &mut String| *host = hostname::resolve(host, &namespace, domain);
    let gateways =
        |names: &mut Vec<String>| names.iter_mut().for_each(|name| *name = gateway(name, &namespace));
    let spec = &mut object.spec;
    spec.hosts.iter_mut().for_each(host);
    gateways(&mut spec.gateways);
    for route in &mut spec.http {
        destinations(route).for_each(|destination| host(&mut destination.host));
        route.r#match.iter_mut().for_each(|m| gateways(&mut m.gateways));
    }
    for route in &mut spec.tls {
        route.route.iter_mut().for_each(|r| host(&mut r.destination.host));
        route.r#match.iter_mut().for_each(|m| gateways(&mut m.gateways));
    }
    for route in &mut spec.tcp {
        route.route.iter_mut().for_each(|r| host(&mut r.destination.host));
        route.r#match.iter_mut().for_each(|m| gateways(&mut m.gateways));
    }
    object
}

fn destinations(route: &mut HttpRoute) -> impl Iterator<Item = &mut Destination> {
    let routes = route.route.iter_mut().map(|r| &mut r.destination);
    let mirrors = route.mirrors.iter_mut().map(|m| &mut m.destination);
    routes.chain(route.mirror.iter_mut()).chain(mirrors)
}

/// `mesh`, or `namespace/name`.
fn gateway(name: &str, namespace: &str) -> String {
    if name == mesh_api::virtual_service::MESH_GATEWAY || name.contains('/') && !name.starts_with("./") {
        return name.to_owned();
    }
    format!("{namespace}/{}", name.trim_start_matches("./"))
}

fn with_delegates(root: &Object<VirtualService>, all: &[Object<VirtualService>]) -> Object<VirtualService> {
    let mut out = root.clone();
    if root.spec.http.iter().all(|route| route.delegate.is_none()) {
        return out;
    }
    out.spec.http = Vec::new();
    for route in &root.spec.http {
        let Some(delegate) = &route.delegate else {
            out.spec.http.push(route.clone());
            continue;
        };
        let namespace =
            if delegate.namespace.is_empty() { &root.meta.namespace } else { &delegate.namespace };
        let target = all.iter().find(|object| {
            object.spec.hosts.is_empty()
                && object.meta.name == delegate.name
                && object.meta.namespace == *namespace
                && exported(object, &root.meta.namespace)
        });
        for inner in target.into_iter().flat_map(|target| &target.spec.http) {
            // A delegate that delegates again is refused by validation: depth one.
            if inner.delegate.is_none() {
                out.spec.http.extend(merged(route, inner));
            }
        }
    }
    out
}

fn exported(object: &Object<VirtualService>, viewer: &str) -> bool {
    let entries: Vec<_> = object.spec.export_to.iter().map(|entry| crate::ExportTo::parse(entry)).collect();
    crate::ExportTo::visible(&entries, &object.meta.namespace, viewer)
}

/// The delegate's route where both match; nothing if that can never be. What the delegate leaves open, the root says.
fn merged(root: &HttpRoute, inner: &HttpRoute) -> Option<HttpRoute> {
    let mut out = inner.clone();
    out.r#match = match (root.r#match.is_empty(), inner.r#match.is_empty()) {
        (true, _) => inner.r#match.clone(),
        (_, true) => root.r#match.clone(),
        _ => {
            let pairs = root.r#match.iter().flat_map(|a| inner.r#match.iter().map(move |b| (a, b)));
            let both: Vec<HttpMatch> = pairs.filter_map(|(a, b)| both_match(a, b)).collect();
            if both.is_empty() {
                return None;
            }
            both
        }
    };
    if out.name.is_empty() {
        out.name.clone_from(&root.name);
    }
    out.rewrite = inner.rewrite.clone().or_else(|| root.rewrite.clone());
    out.timeout = inner.timeout.or(root.timeout);
    out.retries = inner.retries.clone().or_else(|| root.retries.clone());
    out.fault = inner.fault.clone().or_else(|| root.fault.clone());
    out.cors_policy = inner.cors_policy.clone().or_else(|| root.cors_policy.clone());
    out.headers = inner.headers.clone().or_else(|| root.headers.clone());
    if inner.mirror.is_none() && inner.mirrors.is_empty() {
        out.mirror = root.mirror.clone();
        out.mirror_percentage = root.mirror_percentage;
        out.mirrors.clone_from(&root.mirrors);
    }
    Some(out)
}

fn both_match(root: &HttpMatch, inner: &HttpMatch) -> Option<HttpMatch> {
    let mut out = inner.clone();
    out.uri = narrowed(root.uri.as_ref(), inner.uri.as_ref())?;
    out.scheme = narrowed(root.scheme.as_ref(), inner.scheme.as_ref())?;
    out.method = narrowed(root.method.as_ref(), inner.method.as_ref())?;
    out.authority = narrowed(root.authority.as_ref(), inner.authority.as_ref())?;
    out.ignore_uri_case = root.ignore_uri_case || inner.ignore_uri_case;
    out.headers.extend(root.headers.clone());
    out.without_headers.extend(root.without_headers.clone());
    out.query_params.extend(root.query_params.clone());
    out.source_labels.extend(root.source_labels.clone());
    out.port = match (root.port, inner.port) {
        (Some(a), Some(b)) if a != b => return None,
        (a, b) => a.or(b),
    };
    if out.source_namespace.is_empty() {
        out.source_namespace.clone_from(&root.source_namespace);
    }
    if out.gateways.is_empty() {
        out.gateways.clone_from(&root.gateways);
    }
    if out.name.is_empty() {
        out.name.clone_from(&root.name);
    }
    Some(out)
}

/// The narrower of two conditions, if one contains the other.
fn narrowed(root: Option<&StringMatch>, inner: Option<&StringMatch>) -> Option<Option<StringMatch>> {
    use StringMatch::{Exact, Prefix};
    let (Some(root), Some(inner)) = (root, inner) else { return Some(root.or(inner).cloned()) };
    let contains = match (root, inner) {
        (Prefix(outer), Exact(text) | Prefix(text)) => text.starts_with(outer.as_str()),
        (a, b) => a == b,
    };
    contains.then(|| Some(inner.clone()))
}
