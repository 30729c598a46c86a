//! A container's environment: literals with `$(VAR)`, and what it takes from the pod, config maps, secrets and resources.

use std::collections::BTreeMap;

use anyhow::{Context, anyhow, bail};
use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, Pod, ResourceFieldSelector, Secret};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::store::Store;
use crate::local::kind::Key;

/// Resolves a container's variables, in their order.
pub(crate) fn resolve(
    store: &Store,
    pod: &Pod,
    container: &Container,
) -> anyhow::Result<Vec<(String, String)>> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let mut env: BTreeMap<String, String> = BTreeMap::new();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let mut add = |data: BTreeMap<String, String>| {
            env.extend(data.into_iter().map(|(key, value)| (format!("{prefix}{key}"), value)));
        };
        if let Some(from) = &source.config_map_ref {
            add(keep_optional(config_map(store, namespace, &from.name), from.optional)?.unwrap_or_default());
        }
        if let Some(from) = &source.secret_ref {
            let data =
                keep_optional(secret(store, namespace, &from.name), from.optional)?.unwrap_or_default();
            add(data
                .into_iter()
                .map(|(key, value)| (key, String::from_utf8_lossy(&value).into_owned()))
                .collect());
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) => Some(expand(value, &env)),
            (None, Some(source)) => from_source(store, pod, container, source)
                .with_context(|| format!("container {}: env {}", container.name, variable.name))?,
            (None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            env.insert(variable.name.clone(), value);
        }
    }
    Ok(env.into_iter().collect())
}

fn keep_optional<T>(result: anyhow::Result<T>, optional: Option<bool>) -> anyhow::Result<Option<T>> {
    match result {
        Err(_) if optional == Some(true) => Ok(None),
        other => other.map(Some),
    }
}

/// A config map's entries.
pub(crate) fn config_map(
    store: &Store,
    namespace: &str,
    name: &str,
) -> anyhow::Result<BTreeMap<String, String>> {
    let object: Option<ConfigMap> = store.typed(&Key::core("ConfigMap", namespace, name));
    Ok(object.with_context(|| format!("configmap {name:?} not found"))?.data.unwrap_or_default())
}

/// A config map's entries, and the binary ones that only files can show.
pub(crate) fn config_map_files(
    store: &Store,
    namespace: &str,
    name: &str,
) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let object: Option<ConfigMap> = store.typed(&Key::core("ConfigMap", namespace, name));
    let object = object.with_context(|| format!("configmap {name:?} not found"))?;
    let text = object.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.into_bytes()));
    let binary = object.binary_data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0));
    Ok(text.chain(binary).collect())
}

/// A secret's entries, decoded.
pub(crate) fn secret(
    store: &Store,
    namespace: &str,
    name: &str,
) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let object: Option<Secret> = store.typed(&Key::core("Secret", namespace, name));
    let object = object.with_context(|| format!("secret {name:?} not found"))?;
    let mut data: BTreeMap<String, Vec<u8>> =
        object.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect();
    data.extend(
        object.string_data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.into_bytes())),
    );
    Ok(data)
}

fn from_source(
    store: &Store,
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
) -> anyhow::Result<Option<String>> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    if let Some(field) = &source.field_ref {
        return field_value(pod, &field.field_path).map(Some);
    }
    if let Some(resource) = &source.resource_field_ref {
        return resource_value(pod, container, resource).map(Some);
    }
    if let Some(from) = &source.config_map_key_ref {
        let found = config_map(store, namespace, &from.name).and_then(|data| {
            data.get(&from.key)
                .cloned()
                .with_context(|| format!("configmap {:?} has no key {:?}", from.name, from.key))
        });
        return keep_optional(found, from.optional);
    }
    if let Some(from) = &source.secret_key_ref {
        let found = secret(store, namespace, &from.name).and_then(|data| {
            let value = data
                .get(&from.key)
                .with_context(|| format!("secret {:?} has no key {:?}", from.name, from.key))?;
            Ok(String::from_utf8_lossy(value).into_owned())
        });
        return keep_optional(found, from.optional);
    }
    bail!("valueFrom: none of fieldRef, resourceFieldRef, configMapKeyRef, secretKeyRef")
}

/// A field of the pod, as the downward API names it.
pub(crate) fn field_value(pod: &Pod, path: &str) -> anyhow::Result<String> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let status = pod.status.as_ref();
    let text = |value: Option<&String>| value.cloned().unwrap_or_default();
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        let map = match map {
            "metadata.labels" => meta.labels.as_ref(),
            "metadata.annotations" => meta.annotations.as_ref(),
            _ => bail!("fieldPath {path:?} is not known"),
        };
        return Ok(text(map.and_then(|map| map.get(key))));
    }
    Ok(match path {
        "metadata.name" => text(meta.name.as_ref()),
        "metadata.namespace" => text(meta.namespace.as_ref()),
        "metadata.uid" => text(meta.uid.as_ref()),
        "metadata.labels" => key_values(meta.labels.as_ref()),
        "metadata.annotations" => key_values(meta.annotations.as_ref()),
        "spec.nodeName" => text(spec.and_then(|spec| spec.node_name.as_ref())),
        "spec.serviceAccountName" => {
            spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_else(|| "default".into())
        }
        "status.podIP" | "status.podIPs" => text(status.and_then(|status| status.pod_ip.as_ref())),
        "status.hostIP" | "status.hostIPs" => text(status.and_then(|status| status.host_ip.as_ref())),
        _ => bail!("fieldPath {path:?} is not known"),
    })
}

/// Labels or annotations as the downward API writes them into a file.
fn key_values(map: Option<&BTreeMap<String, String>>) -> String {
    let line = |(key, value): (&String, &String)| format!("{key}={value:?}");
    map.into_iter().flatten().map(line).collect::<Vec<_>>().join("\n")
}

/// A request or limit of a container, in units of the divisor, rounded up; the machine's own size when there is no limit.
pub(crate) fn resource_value(
    pod: &Pod,
    container: &Container,
    wanted: &ResourceFieldSelector,
) -> anyhow::Result<String> {
    let named = wanted.container_name.as_deref().filter(|name| *name != container.name);
    let container = match named {
        None => container,
        Some(name) => pod
            .spec
            .iter()
            .flat_map(|spec| &spec.containers)
            .find(|one| one.name == name)
            .with_context(|| format!("resourceFieldRef: no container {name:?}"))?,
    };
    let (what, resource) =
        wanted.resource.split_once('.').context("resourceFieldRef: want limits.cpu or the like")?;
    let resources = container.resources.as_ref();
    let limits = resources.and_then(|resources| resources.limits.as_ref());
    let requests = resources.and_then(|resources| resources.requests.as_ref());
    let found = match what {
        "limits" => limits.and_then(|map| map.get(resource)),
        "requests" => {
            requests.and_then(|map| map.get(resource)).or_else(|| limits.and_then(|map| map.get(resource)))
        }
        _ => bail!("resourceFieldRef: {:?} is neither limits nor requests", wanted.resource),
    };
    let amount = match (found, resource) {
        (Some(quantity), _) => milli(quantity)?,
        (None, "cpu") => std::thread::available_parallelism().map_or(1, |count| count.get() as i128) * 1000,
        (None, "memory") => machine_memory() * 1000,
        (None, _) => 0,
    };
    let divisor = match &wanted.divisor {
        Some(divisor) => milli(divisor)?,
        None => 1000,
    };
    let divisor = if divisor <= 0 { 1000 } else { divisor };
    Ok(((amount + divisor - 1) / divisor).to_string())
}

fn machine_memory() -> i128 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    total.unwrap_or(1 << 20) * 1024_i128
}

/// A quantity in thousandths.
fn milli(quantity: &Quantity) -> anyhow::Result<i128> {
    const UNITS: [(&str, i128); 13] = [
        ("Ki", 1000 << 10),
        ("Mi", 1000 << 20),
        ("Gi", 1000 << 30),
        ("Ti", 1000 << 40),
        ("Pi", 1000 << 50),
        ("m", 1),
        ("k", 1_000_000),
        ("M", 1_000_000_000),
        ("G", 1_000_000_000_000),
        ("T", 1_000_000_000_000_000),
        ("P", 1_000_000_000_000_000_000),
        ("E", 1_000_000_000_000_000_000_000),
        ("", 1000),
    ];
    let text = quantity.0.trim();
    let wrong = || anyhow!("{text:?} is not a quantity");
    let (number, unit) = UNITS
        .iter()
        .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit)))
        .ok_or_else(wrong)?;
    let number: f64 = number.parse().map_err(|_| wrong())?;
    // Amounts that people write are far below what a double holds exactly.
    Ok((number * unit as f64).ceil() as i128)
}

/// Replaces `$(NAME)`; `$$` stands for one dollar, and names that nobody set stay as they are.
pub(crate) fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match env.get(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_expanded() {
        let env = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        let check = |text: &str, expect: &str| assert_eq!(expand(text, &env), expect);
        check("$(A).svc", "1.svc");
        check("$$(A) $(B) $ $(", "$(A) $(B) $ $(");
    }

    #[test]
    fn quantities_are_read() {
        let check = |text: &str, expect: i128| assert_eq!(milli(&Quantity(text.into())).unwrap(), expect);
        check("100m", 100);
        check("2", 2000);
        check("0.5", 500);
        check("128Mi", 128 * 1024 * 1024 * 1000);
        check("1G", 1_000_000_000_000);
        assert!(milli(&Quantity("many".into())).is_err());
    }
}
