//! The layered runtime: named values from the bootstrap, changeable in the admin layer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use hashbrown::HashMap;
use sail_proxy_decide::fraction::{self, Fraction};
use xds_api::envoy::config::bootstrap::v3::{LayeredRuntime, runtime_layer::LayerSpecifier};
use xds_api::google::protobuf::{Struct, Value, value::Kind};

/// Layers, later ones over earlier ones.
#[derive(Clone, Debug, Default)]
pub struct Runtime {
    layers: Vec<Layer>,
    configured: usize,
    values: Arc<Values>,
}

/// The values in force, as every thread reads them while the main thread changes them.
#[derive(Debug, Default)]
pub struct Values(ArcSwap<HashMap<String, Entry>>);

/// A value, read as each of the kinds that somebody may ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Entry {
    number: Option<f64>,
    boolean: Option<bool>,
    fraction: Option<Fraction>,
}

impl Entry {
    fn read(text: &str) -> Self {
        let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
        let boolean = match text {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        };
        // As in Envoy, a number is so many per cent.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in range")]
        let percent = number
            .filter(|number| number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(number))
            .map(|number| Fraction::percent(number as u32));
        Self { number, boolean, fraction: percent.or_else(|| read_fraction(text)) }
    }
}

/// `5/HUNDRED`, which is how fractional percents are kept here, or the object that Envoy takes.
fn read_fraction(text: &str) -> Option<Fraction> {
    let denominator = |name: &str| match name {
        "" | "HUNDRED" | "0" => Some(100),
        "TEN_THOUSAND" | "1" => Some(10_000),
        "MILLION" | "2" => Some(1_000_000),
        _ => None,
    };
    if let Some((numerator, name)) = text.split_once('/') {
        return Some(Fraction { numerator: numerator.parse().ok()?, denominator: denominator(name)? });
    }
    let object: serde_json::Value = serde_json::from_str(text).ok()?;
    let numerator = object.get("numerator")?.as_u64()?.try_into().ok()?;
    let name = object.get("denominator").and_then(serde_json::Value::as_str).unwrap_or_default();
    Some(Fraction { numerator, denominator: denominator(name)? })
}

impl fraction::Runtime for Values {
    fn fraction(&self, key: &str) -> Option<Fraction> {
        self.0.load().get(key)?.fraction
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.0.load().get(key)?.number
    }

    fn boolean(&self, key: &str) -> Option<bool> {
        self.0.load().get(key)?.boolean
    }
}

#[derive(Clone, Debug)]
struct Layer {
    name: String,
    admin: bool,
    /// By which discovery knows it.
    resource: Option<String>,
    values: BTreeMap<String, String>,
}

impl Runtime {
    /// From the bootstrap; an error names the field.
    pub fn new(config: Option<&LayeredRuntime>) -> Result<Self, String> {
        let mut runtime = Self::default();
        for (place, layer) in config.iter().flat_map(|config| &config.layers).enumerate() {
            let field = |field: &str| format!("layered_runtime.layers[{place}].{field}");
            let mut values = BTreeMap::new();
            let (mut admin, mut resource) = (false, None);
            match &layer.layer_specifier {
                Some(LayerSpecifier::StaticLayer(layer)) => flatten("", layer, &mut values),
                Some(LayerSpecifier::AdminLayer(_)) => admin = true,
                Some(LayerSpecifier::DiskLayer(_)) => return Err(field("disk_layer: not supported")),
                Some(LayerSpecifier::RtdsLayer(layer)) => resource = Some(layer.name.clone()),
                None => return Err(field("layer_specifier: required")),
            }
            runtime.layers.push(Layer { name: layer.name.clone(), admin, resource, values });
        }
        runtime.configured = runtime.layers.len();
        if config.is_none_or(|config| config.layers.is_empty()) {
            let name = "admin".to_owned();
            runtime.layers.push(Layer { name, admin: true, resource: None, values: BTreeMap::new() });
        }
        runtime.publish();
        Ok(runtime)
    }

    /// How many layers the bootstrap has.
    pub fn configured(&self) -> usize {
        self.configured
    }

    /// How many values of the admin layer are in force.
    pub fn overrides(&self) -> usize {
        self.layers.iter().filter(|layer| layer.admin).map(|layer| layer.values.len()).sum()
    }

    /// The values in force, for other threads.
    pub fn values(&self) -> &Arc<Values> {
        &self.values
    }

    fn publish(&self) {
        let entry = |key: String| {
            let entry = Entry::read(self.get(&key).unwrap_or_default());
            (key, entry)
        };
        self.values.0.store(Arc::new(self.keys().into_iter().map(entry).collect()));
    }

    /// A value: the last layer that has it.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.layers.iter().rev().find_map(|layer| layer.values.get(key)).map(String::as_str)
    }

    /// Sets a value in the admin layer, or removes it there with an empty one. False if there is no such layer.
    pub fn set(&mut self, key: &str, value: &str) -> bool {
        let Some(layer) = self.layers.iter_mut().rev().find(|layer| layer.admin) else { return false };
        if value.is_empty() {
            layer.values.remove(key);
        } else {
            layer.values.insert(key.to_owned(), value.to_owned());
        }
        self.publish();
        true
    }

    /// A layer's values, as they came by discovery.
    pub fn discovered(&mut self, resource: &str, values: &Struct) {
        for layer in self.layers.iter_mut().filter(|layer| layer.resource.as_deref() == Some(resource)) {
            layer.values.clear();
            flatten("", values, &mut layer.values);
        }
        self.publish();
    }

    /// The layers' names.
    pub fn names(&self) -> Vec<&str> {
        self.layers.iter().map(|layer| layer.name.as_str()).collect()
    }

    /// All keys.
    pub fn keys(&self) -> BTreeSet<String> {
        self.layers.iter().flat_map(|layer| layer.values.keys().cloned()).collect()
    }

    /// A key's value in each layer; empty where it has none.
    pub fn layers(&self, key: &str) -> impl Iterator<Item = &str> {
        self.layers.iter().map(move |layer| layer.values.get(key).map(String::as_str).unwrap_or_default())
    }
}

/// Nested objects are keys with dots, except fractional percents, which are values.
fn flatten(prefix: &str, from: &Struct, into: &mut BTreeMap<String, String>) {
    for (key, value) in &from.fields {
        let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match &value.kind {
            Some(Kind::StructValue(inner)) if !inner.fields.contains_key("numerator") => {
                flatten(&key, inner, into)
            }
            Some(Kind::StructValue(inner)) => {
                into.insert(key, percent(inner));
            }
            _ => {
                into.insert(key, plain(value));
            }
        }
    }
}

fn percent(value: &Struct) -> String {
    let part = |name: &str| value.fields.get(name).map(plain).unwrap_or_default();
    format!("{}/{}", part("numerator"), part("denominator"))
}

fn plain(value: &Value) -> String {
    match &value.kind {
        Some(Kind::StringValue(text)) => text.clone(),
        Some(Kind::NumberValue(number)) => number.to_string(),
        Some(Kind::BoolValue(on)) => on.to_string(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xds_api::envoy::config::bootstrap::v3::{RuntimeLayer, runtime_layer::AdminLayer};

    #[test]
    fn values_are_read_as_what_is_asked_for() {
        use fraction::Runtime as _;
        let mut runtime = Runtime::new(None).unwrap();
        let values = runtime.values().clone();
        let key = fraction::RuntimeFraction { default: Fraction::NEVER, runtime_key: "share".into() };
        assert_eq!(key.now(&*values), Fraction::NEVER);
        let ten = Fraction { numerator: 1000, denominator: 10_000 };
        for (text, expect) in [
            ("25", Fraction::percent(25)),
            ("1000/TEN_THOUSAND", ten),
            (r#"{"numerator": 1000, "denominator": "TEN_THOUSAND"}"#, ten),
            ("nonsense", Fraction::NEVER),
        ] {
            assert!(runtime.set("share", text));
            assert_eq!(key.now(&*values), expect, "{text}");
        }
        runtime.set("share", "");
        runtime.set("on", "true");
        assert_eq!((values.number("share"), values.boolean("on")), (None, Some(true)));
        runtime.set("limit", "7");
        assert_eq!((values.integer_or("limit", 1), values.integer_or("", 1)), (7, 1));
    }

    #[test]
    fn later_layers_win() {
        let number = Value { kind: Some(Kind::NumberValue(2_147_483_647.0)) };
        let inner = Struct { fields: [("max".to_owned(), number)].into_iter().collect() };
        let inner = Value { kind: Some(Kind::StructValue(inner)) };
        let values = Struct { fields: [("overload".to_owned(), inner)].into_iter().collect() };
        let layer =
            |name: &str, specifier| RuntimeLayer { name: name.to_owned(), layer_specifier: Some(specifier) };
        let config = LayeredRuntime {
            layers: vec![
                layer("static", LayerSpecifier::StaticLayer(values)),
                layer("admin", LayerSpecifier::AdminLayer(AdminLayer {})),
            ],
        };
        let mut runtime = Runtime::new(Some(&config)).unwrap();
        assert_eq!(runtime.get("overload.max"), Some("2147483647"));
        assert!(runtime.set("overload.max", "1"));
        assert_eq!(runtime.get("overload.max"), Some("1"));
        assert!(runtime.set("overload.max", ""));
        assert_eq!(runtime.get("overload.max"), Some("2147483647"));
    }
}
