//! No input makes the reader panic: any JSON as spec, and good manifests with any value in any place.

use mesh_api::{Kind, MeshConfig, check};
use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};
use serde_json::{Value, json};

/// Texts that come close to what fields expect.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z*./{}\\[\\]é0-9:-]{0,12}",
        Just("*".to_owned()),
        Just("5s".to_owned()),
        Just("10.0.0.0/8".to_owned()),
        Just("/a/{*}/é*".to_owned()),
        any::<String>(),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name(), inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Names of fields, so that values reach the types behind them.
fn name() -> impl Strategy<Value = String> {
    let known = [
        "hosts",
        "http",
        "match",
        "route",
        "destination",
        "host",
        "weight",
        "uri",
        "headers",
        "fault",
        "delay",
        "percent",
        "fixedDelay",
        "percentage",
        "value",
        "servers",
        "port",
        "number",
        "tls",
        "mode",
        "rules",
        "from",
        "source",
        "to",
        "operation",
        "paths",
        "ports",
        "when",
        "key",
        "values",
        "selector",
        "matchLabels",
        "trafficPolicy",
        "endpoints",
        "address",
        "resolution",
        "exact",
        "prefix",
        "regex",
        "ipBlocks",
        "egress",
        "timeout",
        "appendHeaders",
    ];
    prop_oneof![prop::sample::select(known.to_vec()).prop_map(str::to_owned), text()]
}

proptest! {
    #[test]
    fn any_spec_is_read_or_refused(spec in value(), kind in prop::sample::select(Kind::ALL.to_vec())) {
        let info = kind.info();
        let manifest = json!({
            "apiVersion": format!("{}/{}", info.group, info.versions[0]),
            "kind": info.name,
            "metadata": {"name": "x"},
            "spec": spec,
        });
        if let Ok((object, _)) = check(&manifest) {
            let written = object.to_manifest();
            let again = check(&written).map(|(again, _)| again);
            assert_eq!(again.as_ref().ok(), Some(&object), "{written}");
        }
    }

    #[test]
    fn any_manifest_is_read_or_refused(manifest in value()) {
        let _ = check(&manifest);
    }

    #[test]
    fn any_mesh_config_is_read_or_refused(config in value()) {
        let _ = MeshConfig::from_yaml(&config.to_string());
    }

    #[test]
    fn any_path_and_host_is_read_or_refused(one in text(), other in text()) {
        let policy = json!({"rules": [{
            "to": [{"operation": {"paths": [one], "hosts": [other], "ports": [one]}}],
            "from": [{"source": {"ipBlocks": [other], "serviceAccounts": [one]}}],
            "when": [{"key": one, "values": [other]}],
        }]});
        let service = json!({
            "hosts": [one, other],
            "http": [{"match": [{"uri": {"regex": one}}], "route": [{"destination": {"host": other}}], "timeout": one}],
        });
        for (group, kind, spec) in [
            ("security.istio.io", "AuthorizationPolicy", policy),
            ("networking.istio.io", "VirtualService", service),
        ] {
            let _ = check(&json!({
                "apiVersion": format!("{group}/v1"), "kind": kind, "metadata": {"name": "x"}, "spec": spec,
            }));
        }
    }
}
