//! ProxyConfig: merged as values, then read into a type. Fields that only the control plane acts upon stay in the raw
//! value, which travels with the node's metadata.

use std::collections::BTreeMap;
use std::time::Duration;

use agent_contract::agent_env::parse_duration;
use agent_contract::{paths, ports};
use serde_json::{Map, Value};

use super::Error;

const WHAT: &str = "ProxyConfig";
/// Where Istio's image has Envoy.
const ISTIO_BINARY: &str = "/usr/local/bin/envoy";

/// Fields that the control plane or the injector reads.
const READ_ELSEWHERE: &[&str] = &[
    "availabilityZone",
    "caCertificatesPem",
    "connectionSettings",
    "customConfigFile",
    "envoyAccessLogService",
    "envoyMetricsService",
    "fileFlushInterval",
    "fileFlushMinSizeKb",
    "gatewayTopology",
    "holdApplicationUntilProxyStarts",
    "image",
    "interceptionMode",
    "meshId",
    "privateKeyProvider",
    "proxyHeaders",
    "readinessProbe",
    "serviceCluster",
    "statsCompression",
    "tracingServiceName",
    "zipkinAddress",
];

/// Fields that are read here.
const READ_HERE: &[&str] = &[
    "binaryPath",
    "concurrency",
    "configPath",
    "controlPlaneAuthPolicy",
    "discoveryAddress",
    "drainDuration",
    "extraStatTags",
    "parentShutdownDuration",
    "proxyAdminPort",
    "proxyMetadata",
    "proxyStatsMatcher",
    "runtimeValues",
    "statNameLength",
    "statsdUdpAddress",
    "statusPort",
    "terminationDrainDuration",
    "tracing",
];

/// Fields that have no effect in any part of the mesh here.
const WITHOUT_EFFECT: &[&str] =
    &["proxyBootstrapTemplatePath", "envoyMetricsServiceAddress", "connectTimeout"];

/// Which program is the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binary {
    /// `sail-proxy`, beside the agent or else on PATH.
    Default,
    /// This one: a path, or a name that is looked up on PATH.
    Named(String),
}

/// Which stats the proxy keeps beyond those that it always keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatsMatcher {
    /// By prefix.
    pub prefixes: Vec<String>,
    /// By suffix.
    pub suffixes: Vec<String>,
    /// By regular expression.
    pub regexps: Vec<String>,
}

/// The part of ProxyConfig that the agent acts upon.
#[derive(Clone, Debug, PartialEq)]
pub struct ProxyConfig {
    /// configPath
    pub config_path: String,
    /// binaryPath
    pub binary: Binary,
    /// drainDuration
    pub drain: Duration,
    /// terminationDrainDuration
    pub termination_drain: Duration,
    /// discoveryAddress
    pub discovery_address: String,
    /// controlPlaneAuthPolicy: false for NONE.
    pub control_plane_tls: bool,
    /// proxyAdminPort
    pub admin_port: u16,
    /// statusPort
    pub status_port: u16,
    /// statsdUdpAddress
    pub statsd_udp_address: String,
    /// statNameLength
    pub stat_name_length: u32,
    /// concurrency
    pub concurrency: Option<u32>,
    /// tracing.zipkin.address
    pub zipkin_address: String,
    /// proxyMetadata
    pub proxy_metadata: BTreeMap<String, String>,
    /// runtimeValues
    pub runtime_values: BTreeMap<String, String>,
    /// extraStatTags
    pub extra_stat_tags: Vec<String>,
    /// proxyStatsMatcher
    pub stats_matcher: StatsMatcher,
    /// All of it, for the node's metadata.
    pub raw: Value,
}

/// Reads YAML (or JSON) into a value.
pub fn parse_yaml(what: &str, text: &str) -> Result<Value, Error> {
    let value: Value =
        serde_norway::from_str(text).map_err(|source| Error::Yaml { what: what.to_owned(), source })?;
    match value {
        Value::Null => Ok(Value::Object(Map::new())),
        Value::Object(_) => Ok(value),
        _ => {
            let reason = "is not a map of fields".to_owned();
            Err(Error::Field { what: what.to_owned(), field: "(all)".to_owned(), reason })
        }
    }
}

/// Lays `over` on top of `base`: maps are merged, all else is replaced.
pub fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (base, over) => base.clone_from(over),
    }
}

impl ProxyConfig {
    /// Reads a merged value; what is missing has Istio's default.
    pub fn from_value(mut raw: Value) -> Result<Self, Error> {
        let fields = Fields(&raw);
        fields.warn_of_unknown();
        let binary = match fields.text("binaryPath", "")?.as_str() {
            "" | "sail-proxy" => Binary::Default,
            // What manifests for Istio's image say; here it means "the usual proxy" unless there is such a file.
            ISTIO_BINARY if !std::path::Path::new(ISTIO_BINARY).exists() => Binary::Default,
            path => Binary::Named(path.to_owned()),
        };
        let policy = fields.text("controlPlaneAuthPolicy", "MUTUAL_TLS")?;
        let config = Self {
            config_path: fields.text("configPath", paths::CONFIG)?,
            binary,
            drain: fields.duration("drainDuration", 45)?,
            termination_drain: fields.duration("terminationDrainDuration", 5)?,
            discovery_address: fields.text("discoveryAddress", "istiod.istio-system.svc:15012")?,
            control_plane_tls: policy != "NONE",
            admin_port: fields.number("proxyAdminPort")?.unwrap_or(ports::PROXY_ADMIN),
            status_port: fields.number("statusPort")?.unwrap_or(ports::STATUS),
            statsd_udp_address: fields.text("statsdUdpAddress", "")?,
            stat_name_length: fields.number("statNameLength")?.unwrap_or(189),
            concurrency: fields.number("concurrency")?,
            zipkin_address: fields.zipkin()?,
            proxy_metadata: fields.texts("proxyMetadata")?,
            runtime_values: fields.texts("runtimeValues")?,
            extra_stat_tags: list(&raw, "extraStatTags", "extraStatTags")?,
            stats_matcher: StatsMatcher {
                prefixes: fields.matcher("inclusionPrefixes")?,
                suffixes: fields.matcher("inclusionSuffixes")?,
                regexps: fields.matcher("inclusionRegexps")?,
            },
            raw: Value::Null,
        };
        config.fill(&mut raw);
        Ok(Self { raw, ..config })
    }

    /// Defaults that the control plane wants to see in the node's metadata.
    fn fill(&self, raw: &mut Value) {
        let Value::Object(raw) = raw else { return };
        let mut set = |key: &str, value: Value| {
            raw.entry(key.to_owned()).or_insert(value);
        };
        set("configPath", self.config_path.clone().into());
        set("discoveryAddress", self.discovery_address.clone().into());
        set("proxyAdminPort", self.admin_port.into());
        set("statusPort", self.status_port.into());
        set("drainDuration", format!("{}s", self.drain.as_secs_f64()).into());
        set("terminationDrainDuration", format!("{}s", self.termination_drain.as_secs_f64()).into());
        set("controlPlaneAuthPolicy", "MUTUAL_TLS".into());
        set("statNameLength", self.stat_name_length.into());
    }
}

struct Fields<'a>(&'a Value);

impl Fields<'_> {
    fn get(&self, field: &str) -> Option<&Value> {
        self.0.get(field).filter(|value| !value.is_null())
    }

    fn text(&self, field: &str, default: &str) -> Result<String, Error> {
        match self.get(field) {
            None => Ok(default.to_owned()),
            Some(Value::String(text)) if text.is_empty() => Ok(default.to_owned()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(_) => Err(wrong(field, "is not a text")),
        }
    }

    fn number<T: TryFrom<u64>>(&self, field: &str) -> Result<Option<T>, Error> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let number = value.as_u64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
        let number = number.and_then(|number| T::try_from(number).ok());
        number.map(Some).ok_or_else(|| wrong(field, "is not a number in range"))
    }

    fn duration(&self, field: &str, default: u64) -> Result<Duration, Error> {
        match self.text(field, "")?.as_str() {
            "" => Ok(Duration::from_secs(default)),
            text => parse_duration(text).ok_or_else(|| wrong(field, "is not a duration, as 5s")),
        }
    }

    fn texts(&self, field: &str) -> Result<BTreeMap<String, String>, Error> {
        let Some(value) = self.get(field) else { return Ok(BTreeMap::new()) };
        let map = value.as_object().ok_or_else(|| wrong(field, "is not a map"))?;
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        Ok(map.iter().map(|(key, value)| (key.clone(), text(value))).collect())
    }

    fn matcher(&self, field: &str) -> Result<Vec<String>, Error> {
        match self.get("proxyStatsMatcher") {
            None => Ok(Vec::new()),
            Some(matcher) => list(matcher, field, &format!("proxyStatsMatcher.{field}")),
        }
    }

    /// Only Zipkin is set up in the bootstrap; other tracers come with the listeners.
    fn zipkin(&self) -> Result<String, Error> {
        let Some(tracing) = self.get("tracing") else { return Ok(String::new()) };
        for field in ["lightstep", "datadog", "stackdriver", "openCensusAgent"] {
            if tracing.get(field).is_some_and(|value| !value.is_null()) {
                return Err(wrong(&format!("tracing.{field}"), "is not offered; use an extension provider"));
            }
        }
        match tracing.get("zipkin").and_then(|zipkin| zipkin.get("address")) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(address)) => Ok(address.clone()),
            Some(_) => Err(wrong("tracing.zipkin.address", "is not a text")),
        }
    }

    fn warn_of_unknown(&self) {
        for field in self.0.as_object().into_iter().flat_map(Map::keys) {
            let field = field.as_str();
            if WITHOUT_EFFECT.contains(&field) {
                tracing::warn!(field, "this field of ProxyConfig has no effect here");
            } else if !READ_HERE.contains(&field) && !READ_ELSEWHERE.contains(&field) {
                tracing::warn!(field, "ProxyConfig has no such field; it is ignored");
            }
        }
    }
}

fn list(value: &Value, field: &str, path: &str) -> Result<Vec<String>, Error> {
    match value.get(field) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => {
            let text = |item: &Value| item.as_str().map(str::to_owned);
            items.iter().map(text).collect::<Option<_>>().ok_or_else(|| wrong(path, "is not a list of texts"))
        }
        Some(_) => Err(wrong(path, "is not a list of texts")),
    }
}

fn wrong(field: &str, reason: &str) -> Error {
    Error::Field { what: WHAT.to_owned(), field: field.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> Result<ProxyConfig, Error> {
        ProxyConfig::from_value(parse_yaml("test", yaml)?)
    }

    #[test]
    fn defaults_are_istios() {
        let config = read("").unwrap();
        assert_eq!(config.discovery_address, "istiod.istio-system.svc:15012");
        assert_eq!((config.admin_port, config.status_port), (15000, 15020));
        assert_eq!(config.termination_drain, Duration::from_secs(5));
        assert_eq!(config.binary, Binary::Default);
        assert_eq!(config.raw["drainDuration"], "45s");
    }

    #[test]
    fn later_sources_win_and_maps_are_merged() {
        let mut base = parse_yaml("a", "concurrency: 2\nproxyMetadata: {A: x, B: y}").unwrap();
        merge(&mut base, &parse_yaml("b", "concurrency: 0\nproxyMetadata: {B: z}").unwrap());
        let config = ProxyConfig::from_value(base).unwrap();
        assert_eq!(config.concurrency, Some(0));
        assert_eq!(config.proxy_metadata["A"], "x");
        assert_eq!(config.proxy_metadata["B"], "z");
    }

    #[test]
    fn a_wrong_field_is_named() {
        let check = |yaml: &str, field: &str| {
            let error = read(yaml).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        };
        check("drainDuration: soon", "drainDuration");
        check("statusPort: 70000", "statusPort");
        check("proxyStatsMatcher: {inclusionPrefixes: x}", "proxyStatsMatcher.inclusionPrefixes");
        check("tracing: {datadog: {address: x}}", "tracing.datadog");
        check("[]", "not a map");
    }

    #[test]
    fn istios_own_path_means_the_usual_proxy() {
        assert_eq!(read("binaryPath: envoy").unwrap().binary, Binary::Named("envoy".to_owned()));
        if !std::path::Path::new(ISTIO_BINARY).exists() {
            assert_eq!(read("binaryPath: /usr/local/bin/envoy").unwrap().binary, Binary::Default);
        }
    }
}
