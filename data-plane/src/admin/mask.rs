//! `/config_dump` in JSON: what `resource=` and `mask=` pick out of it, and what nobody gets to see.

use serde_json::{Map, Value, json};

/// Lists of the dump's parts: field, and the message of its items.
const LISTS: [(&str, &str); 15] = [
    ("static_clusters", "ClustersConfigDump.StaticCluster"),
    ("dynamic_active_clusters", "ClustersConfigDump.DynamicCluster"),
    ("dynamic_warming_clusters", "ClustersConfigDump.DynamicCluster"),
    ("static_listeners", "ListenersConfigDump.StaticListener"),
    ("dynamic_listeners", "ListenersConfigDump.DynamicListener"),
    ("static_route_configs", "RoutesConfigDump.StaticRouteConfig"),
    ("dynamic_route_configs", "RoutesConfigDump.DynamicRouteConfig"),
    ("static_endpoint_configs", "EndpointsConfigDump.StaticEndpointConfig"),
    ("dynamic_endpoint_configs", "EndpointsConfigDump.DynamicEndpointConfig"),
    ("static_secrets", "SecretsConfigDump.StaticSecret"),
    ("dynamic_active_secrets", "SecretsConfigDump.DynamicSecret"),
    ("dynamic_warming_secrets", "SecretsConfigDump.DynamicSecret"),
    ("ecds_filters", "EcdsConfigDump.EcdsFilterConfig"),
    ("inline_scoped_route_configs", "ScopedRoutesConfigDump.InlineScopedRouteConfigs"),
    ("dynamic_scoped_route_configs", "ScopedRoutesConfigDump.DynamicScopedRouteConfigs"),
];

/// Fields that hold secrets, where they hold them inline.
const SECRET: [&str; 8] =
    ["private_key", "password", "pkcs12", "secret", "hmac_secret", "keys", "token_secret", "inline_secret"];

/// The dump with only what is asked for; an error says what is wrong with the question.
pub(super) fn pick(mut dump: Value, resource: Option<&str>, mask: Option<&str>) -> Result<Value, String> {
    redact(&mut dump);
    let mut configs = match dump.get_mut("configs").map(Value::take) {
        Some(Value::Array(configs)) => configs,
        _ => Vec::new(),
    };
    if let Some(resource) = resource {
        configs = items(configs, resource)?;
    }
    if let Some(mask) = mask {
        let paths: Vec<Vec<&str>> = mask.split(',').map(|path| path.split('.').collect()).collect();
        for config in &mut configs {
            apply(config, &paths);
        }
        // What has nothing of the mask is left out.
        configs.retain(|config| {
            config.as_object().is_some_and(|fields| fields.keys().any(|key| key != "@type"))
        });
        if configs.is_empty() {
            return Err(format!("FieldMask {mask} could not be successfully applied to any configs.\n"));
        }
    }
    Ok(json!({ "configs": configs }))
}

/// The items of one list.
fn items(configs: Vec<Value>, resource: &str) -> Result<Vec<Value>, String> {
    let Some((_, message)) = LISTS.iter().find(|(name, _)| *name == resource) else {
        return Err(match resource {
            "bootstrap" => {
                format!("{resource} is not a repeated field. Use ?mask={resource} to get only this field\n")
            }
            _ => format!("{resource} not found in config dump\n"),
        });
    };
    let lists = configs.into_iter().filter_map(|mut config| match config.get_mut(resource)?.take() {
        Value::Array(items) => Some(items),
        _ => None,
    });
    let kind = format!("type.googleapis.com/envoy.admin.v3.{message}");
    let typed = lists.flatten().map(|item| {
        let mut fields = Map::from_iter([("@type".to_owned(), kind.as_str().into())]);
        if let Value::Object(item) = item {
            fields.extend(item);
        }
        Value::Object(fields)
    });
    Ok(typed.collect())
}

/// Leaves only the fields under the paths. A path does not lead into a list.
fn apply(value: &mut Value, paths: &[Vec<&str>]) {
    let Value::Object(fields) = value else { return };
    fields.retain(|key, _| key == "@type" || paths.iter().any(|path| path.first() == Some(&key.as_str())));
    for (key, inner) in fields.iter_mut() {
        let under = paths.iter().filter(|path| path.first() == Some(&key.as_str()));
        let deeper: Vec<Vec<&str>> = under.map(|path| path[1..].to_vec()).collect();
        if !deeper.is_empty() && deeper.iter().all(|path| !path.is_empty()) {
            apply(inner, &deeper);
        }
    }
}

/// Turns keys and the like into the word `[redacted]`, wherever they stand.
fn redact(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::Object(fields) => {
            for (key, inner) in fields {
                if SECRET.contains(&key.as_str()) {
                    hide(inner);
                }
                redact(inner);
            }
        }
        _ => {}
    }
}

/// Hides what a data source, or a list of them, holds inline; a name of a file is no secret.
fn hide(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(hide),
        Value::Object(fields) => {
            for (key, inner) in fields {
                match key.as_str() {
                    "inline_string" => *inner = "[redacted]".into(),
                    // In base64, as bytes are.
                    "inline_bytes" => *inner = "W3JlZGFjdGVkXQ==".into(),
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump() -> Value {
        json!({ "configs": [
            { "@type": "b", "bootstrap": { "node": { "id": "n" }, "x": { "private_key": { "inline_string": "KEY" } } } },
            { "@type": "c", "dynamic_active_clusters": [{ "version_info": "1", "cluster": { "name": "a", "type": "EDS" } }] },
        ] })
    }

    #[test]
    fn keys_are_hidden_wherever_they_stand() {
        let shown = pick(dump(), None, None).unwrap().to_string();
        assert!(!shown.contains("KEY") && shown.contains("[redacted]"), "{shown}");
    }

    #[test]
    fn a_resource_and_a_mask_pick() {
        let shown = pick(dump(), Some("dynamic_active_clusters"), Some("cluster.name")).unwrap();
        let kind = "type.googleapis.com/envoy.admin.v3.ClustersConfigDump.DynamicCluster";
        assert_eq!(shown, json!({ "configs": [{ "@type": kind, "cluster": { "name": "a" } }] }));
        let shown = pick(dump(), None, Some("bootstrap.node")).unwrap();
        assert_eq!(shown, json!({ "configs": [{ "@type": "b", "bootstrap": { "node": { "id": "n" } } }] }));
        assert!(pick(dump(), Some("bootstrap"), None).unwrap_err().contains("not a repeated field"));
    }
}
