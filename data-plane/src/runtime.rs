//! The layered runtime: named values from the bootstrap, changeable in the admin layer.

use std::collections::{BTreeMap, BTreeSet};

use xds_api::envoy::config::bootstrap::v3::{LayeredRuntime, runtime_layer::LayerSpecifier};
use xds_api::google::protobuf::{Struct, Value, value::Kind};

/// Layers, later ones over earlier ones.
#[derive(Clone, Debug, Default)]
pub struct Runtime {
    layers: Vec<Layer>,
}

#[derive(Clone, Debug)]
struct Layer {
    name: String,
    admin: bool,
    values: BTreeMap<String, String>,
}

impl Runtime {
    /// From the bootstrap; an error names the field.
    pub fn new(config: Option<&LayeredRuntime>) -> Result<Self, String> {
        let mut runtime = Self::default();
        for (place, layer) in config.iter().flat_map(|config| &config.layers).enumerate() {
            let field = |field: &str| format!("layered_runtime.layers[{place}].{field}");
            let mut values = BTreeMap::new();
            let mut admin = false;
            match &layer.layer_specifier {
                Some(LayerSpecifier::StaticLayer(layer)) => flatten("", layer, &mut values),
                Some(LayerSpecifier::AdminLayer(_)) => admin = true,
                Some(LayerSpecifier::DiskLayer(_)) => return Err(field("disk_layer: not supported")),
                Some(LayerSpecifier::RtdsLayer(_)) => return Err(field("rtds_layer: not supported")),
                None => return Err(field("layer_specifier: required")),
            }
            runtime.layers.push(Layer { name: layer.name.clone(), admin, values });
        }
        if config.is_none_or(|config| config.layers.is_empty()) {
            runtime.layers.push(Layer { name: "admin".to_owned(), admin: true, values: BTreeMap::new() });
        }
        Ok(runtime)
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
        true
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
