//! What holds for one pod: its annotations over the installation's values, read and checked once.

use std::collections::BTreeMap;

use agent_contract::annotations as names;
use k8s_openapi::api::core::v1::{Pod, Volume, VolumeMount};
use mesh_api::Object;
use mesh_api::mesh_config::{InterceptionMode, ProxyConfig};
use mesh_api::proxy_config::ProxyConfigResource;

use crate::config::{InjectConfig, Resources, Values};
use crate::error::Error;
use crate::workload::Workload;

/// What is injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Template {
    /// A proxy beside an application.
    Sidecar,
    /// A proxy that is the application.
    Gateway,
}

/// The settings of one pod.
#[derive(Debug)]
pub struct Settings<'a> {
    pub(crate) config: &'a InjectConfig,
    pub(crate) values: &'a Values,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) template: Template,
    pub(crate) proxy: ProxyConfig,
    pub(crate) workload: Workload,
    pub(crate) namespace: String,
    pub(crate) image: String,
    pub(crate) resources: Resources,
    pub(crate) interception: InterceptionMode,
    pub(crate) capture: Capture,
    /// 0: no status server is asked.
    pub(crate) status_port: u16,
    pub(crate) readiness: Readiness,
    pub(crate) rewrite_probes: bool,
    pub(crate) hold_application: bool,
    pub(crate) native_sidecar: bool,
    pub(crate) bind_low_ports: bool,
    pub(crate) user_volumes: Vec<Volume>,
    pub(crate) user_mounts: Vec<VolumeMount>,
}

/// What of the pod's traffic is captured, as `istio-iptables` takes it.
#[derive(Debug)]
pub(crate) struct Capture {
    pub(crate) include_inbound_ports: String,
    pub(crate) exclude_inbound_ports: String,
    pub(crate) include_outbound_ports: String,
    pub(crate) exclude_outbound_ports: String,
    pub(crate) include_outbound_ranges: String,
    pub(crate) exclude_outbound_ranges: String,
    pub(crate) exclude_interfaces: String,
    pub(crate) reroute_interfaces: String,
}

/// Numbers of the readiness probe.
#[derive(Debug)]
pub(crate) struct Readiness {
    pub(crate) initial_delay: i32,
    pub(crate) period: i32,
    pub(crate) failure_threshold: i32,
}

impl<'a> Settings<'a> {
    /// Reads a pod's annotations.
    pub(crate) fn resolve(pod: &Pod, config: &'a InjectConfig) -> Result<Self, Error> {
        let annotations = pod.metadata.annotations.clone().unwrap_or_default();
        let read = Annotations(&annotations);
        let values = &config.values;
        let template = template(&read)?;
        let base = with_objects(pod, config);
        let proxy = match read.get(names::PROXY_CONFIG) {
            Some(overlay) => base.overlaid(overlay)?,
            None => base,
        };
        let interception = match read.get(names::INTERCEPTION_MODE) {
            Some("REDIRECT") => InterceptionMode::Redirect,
            Some("TPROXY") => InterceptionMode::Tproxy,
            Some("NONE") => InterceptionMode::None,
            Some(other) => return Err(bad(names::INTERCEPTION_MODE, other, "REDIRECT, TPROXY or NONE")),
            None => proxy.interception_mode,
        };
        let numbers = &values.global.proxy;
        let changed_in_mesh = proxy.status_port != agent_contract::ports::STATUS;
        let default_status_port = if changed_in_mesh { proxy.status_port } else { numbers.status_port };
        Ok(Self {
            template,
            workload: Workload::of(pod),
            namespace: pod.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned()),
            image: image(&read, &proxy, values),
            resources: resources(&read, values)?,
            capture: capture(&read, values)?,
            interception,
            status_port: read.number(names::STATUS_PORT, default_status_port)?,
            readiness: Readiness {
                initial_delay: read
                    .number(names::READINESS_INITIAL_DELAY, numbers.readiness_initial_delay_seconds)?,
                period: read.number(names::READINESS_PERIOD, numbers.readiness_period_seconds)?,
                failure_threshold: read
                    .number(names::READINESS_FAILURE_THRESHOLD, numbers.readiness_failure_threshold)?,
            },
            rewrite_probes: read.flag(
                names::REWRITE_APP_HTTP_PROBERS,
                values.sidecar_injector_webhook.rewrite_app_http_probe,
            )?,
            hold_application: proxy.hold_application_until_proxy_starts
                || numbers.hold_application_until_proxy_starts,
            native_sidecar: template == Template::Sidecar && read.flag(names::NATIVE_SIDECAR, false)?,
            bind_low_ports: read.flag(names::CAP_NET_BIND_SERVICE, false)?,
            user_volumes: read.named(names::USER_VOLUME)?,
            user_mounts: read.named(names::USER_VOLUME_MOUNT)?,
            proxy,
            config,
            values,
            annotations: annotations.clone(),
        })
    }

    /// An annotation that is not empty.
    pub(crate) fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }
}

/// What the author of a pod should know: annotations of ours that nobody reads.
pub fn warnings(pod: &Pod) -> Vec<String> {
    let ours = |name: &str| {
        [names::SIDECAR_PREFIX, names::TRAFFIC_PREFIX].iter().any(|prefix| name.starts_with(prefix))
    };
    let names_used = pod.metadata.annotations.iter().flatten().map(|(name, _)| name);
    names_used
        .filter(|name| ours(name) && !names::ALL.contains(&name.as_str()))
        .map(|name| format!("annotation {name} is unknown and has no effect"))
        .collect()
}

/// A reader of annotations.
struct Annotations<'a>(&'a BTreeMap<String, String>);

impl Annotations<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }

    fn flag(&self, name: &str, default: bool) -> Result<bool, Error> {
        match self.get(name).map(str::to_ascii_lowercase).as_deref() {
            None => Ok(default),
            Some("true" | "1" | "t") => Ok(true),
            Some("false" | "0" | "f") => Ok(false),
            Some(_) => Err(bad(name, self.get(name).unwrap_or_default(), "true or false")),
        }
    }

    fn number<N: std::str::FromStr>(&self, name: &str, default: N) -> Result<N, Error> {
        let Some(text) = self.get(name) else { return Ok(default) };
        text.parse().map_err(|_| bad(name, text, "a number in range"))
    }

    /// A JSON object from name to volume or mount.
    fn named<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Vec<T>, Error> {
        let Some(text) = self.get(name) else { return Ok(Vec::new()) };
        let wrong = || bad(name, text, "a JSON object of names to volumes or mounts");
        let map: BTreeMap<String, serde_json::Value> = serde_json::from_str(text).map_err(|_| wrong())?;
        let mut out = Vec::new();
        for (key, mut value) in map {
            value.as_object_mut().ok_or_else(wrong)?.insert("name".to_owned(), key.into());
            out.push(serde_json::from_value(value).map_err(|_| wrong())?);
        }
        Ok(out)
    }

    /// A list of ports, `*` where that is allowed.
    fn ports(&self, name: &str, default: &str, star: bool) -> Result<String, Error> {
        let Some(text) = self.0.get(name) else { return Ok(default.to_owned()) };
        let fits = star && text == "*" || list(text).all(|port| port.parse::<u16>().is_ok());
        if fits { Ok(text.clone()) } else { Err(bad(name, text, "a list of ports, separated by commas")) }
    }

    /// A list of address ranges, `*` where that is allowed.
    fn ranges(&self, name: &str, default: &str, star: bool) -> Result<String, Error> {
        let Some(text) = self.0.get(name) else { return Ok(default.to_owned()) };
        let is_range = |range: &str| {
            let (address, bits) = range.split_once('/').unwrap_or((range, "32"));
            let max = if address.contains(':') { 128 } else { 32 };
            address.parse::<std::net::IpAddr>().is_ok() && bits.parse::<u8>().is_ok_and(|b| b <= max)
        };
        let fits = star && text == "*" || list(text).all(is_range);
        if fits {
            Ok(text.clone())
        } else {
            Err(bad(name, text, "a list of CIDR ranges, separated by commas"))
        }
    }
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn bad(name: &str, value: &str, expected: &'static str) -> Error {
    Error::Annotation { name: name.to_owned(), value: value.to_owned(), expected }
}

/// The mesh's proxy settings with the ProxyConfig objects for this pod: the root namespace's, its namespace's, then
/// those that select it; of several equally wide ones the oldest has the last word.
fn with_objects(pod: &Pod, config: &InjectConfig) -> ProxyConfig {
    let empty = BTreeMap::new();
    let labels = pod.metadata.labels.as_ref().unwrap_or(&empty);
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let width = |object: &Object<ProxyConfigResource>| {
        let selector = object.spec.selector.as_ref().filter(|s| !s.match_labels.is_empty());
        match selector {
            None if object.meta.namespace == config.mesh.root_namespace => Some(0),
            None if object.meta.namespace == namespace => Some(1),
            Some(selector) if object.meta.namespace == namespace && selector.matches(labels) => Some(2),
            _ => None,
        }
    };
    let mut chosen: Vec<_> =
        config.proxy_configs.iter().filter_map(|object| Some((width(object)?, object))).collect();
    chosen.sort_by(|(a, x), (b, y)| {
        a.cmp(b).then_with(|| y.meta.creation_timestamp.cmp(&x.meta.creation_timestamp))
    });
    let mut proxy = config.mesh.default_config.clone();
    for (_, object) in chosen {
        let spec = &object.spec;
        proxy.concurrency = spec.concurrency.or(proxy.concurrency);
        proxy.image = spec.image.clone().or(proxy.image);
        proxy.proxy_metadata.extend(spec.environment_variables.clone());
    }
    proxy
}

fn template(read: &Annotations<'_>) -> Result<Template, Error> {
    match read.get(names::TEMPLATES) {
        None | Some("sidecar") => Ok(Template::Sidecar),
        Some("gateway") => Ok(Template::Gateway),
        Some(other) => Err(Error::Template(other.to_owned())),
    }
}

fn image(read: &Annotations<'_>, proxy: &ProxyConfig, values: &Values) -> String {
    if let Some(image) = read.get(names::PROXY_IMAGE) {
        return image.to_owned();
    }
    let global = &values.global;
    if global.proxy.image.contains('/') {
        return global.proxy.image.clone();
    }
    let of_config = proxy.image.as_ref().map(|i| i.image_type.as_str());
    let kind =
        read.get(names::PROXY_IMAGE_TYPE).or(of_config).filter(|kind| !matches!(*kind, "" | "default"));
    let suffix = kind.map(|kind| format!("-{kind}")).unwrap_or_default();
    format!("{}/{}:{}{suffix}", global.hub, global.proxy.image, global.tag)
}

/// Annotations replace the installation's resources as a whole: naming one means that only the named ones hold.
fn resources(read: &Annotations<'_>, values: &Values) -> Result<Resources, Error> {
    const REQUESTS: [(&str, &str); 2] = [(names::PROXY_CPU, "cpu"), (names::PROXY_MEMORY, "memory")];
    const LIMITS: [(&str, &str); 2] =
        [(names::PROXY_CPU_LIMIT, "cpu"), (names::PROXY_MEMORY_LIMIT, "memory")];
    let collect = |table: [(&str, &str); 2]| -> Result<BTreeMap<String, String>, Error> {
        let mut out = BTreeMap::new();
        for (annotation, resource) in table {
            let Some(text) = read.get(annotation) else { continue };
            if !is_quantity(text) {
                return Err(bad(annotation, text, "a quantity like 100m or 128Mi"));
            }
            out.insert(resource.to_owned(), text.to_owned());
        }
        Ok(out)
    };
    let named = Resources { requests: collect(REQUESTS)?, limits: collect(LIMITS)? };
    let none = named == Resources::default();
    Ok(if none { values.global.proxy.resources.clone() } else { named })
}

fn is_quantity(text: &str) -> bool {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let units = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    number.parse::<f64>().is_ok() && units.contains(&unit)
}

fn capture(read: &Annotations<'_>, values: &Values) -> Result<Capture, Error> {
    let proxy = &values.global.proxy;
    let text = |name: &str| read.get(name).unwrap_or_default().to_owned();
    let reroute =
        read.get(names::REROUTE_VIRTUAL_INTERFACES).or_else(|| read.get(names::KUBEVIRT_INTERFACES));
    Ok(Capture {
        include_inbound_ports: read.ports(
            names::INCLUDE_INBOUND_PORTS,
            &proxy.include_inbound_ports,
            true,
        )?,
        exclude_inbound_ports: read.ports(
            names::EXCLUDE_INBOUND_PORTS,
            &proxy.exclude_inbound_ports,
            false,
        )?,
        include_outbound_ports: read.ports(
            names::INCLUDE_OUTBOUND_PORTS,
            &proxy.include_outbound_ports,
            true,
        )?,
        exclude_outbound_ports: read.ports(
            names::EXCLUDE_OUTBOUND_PORTS,
            &proxy.exclude_outbound_ports,
            false,
        )?,
        include_outbound_ranges: read.ranges(
            names::INCLUDE_OUTBOUND_IP_RANGES,
            &proxy.include_ip_ranges,
            true,
        )?,
        exclude_outbound_ranges: read.ranges(
            names::EXCLUDE_OUTBOUND_IP_RANGES,
            &proxy.exclude_ip_ranges,
            false,
        )?,
        exclude_interfaces: text(names::EXCLUDE_INTERFACES),
        reroute_interfaces: reroute.unwrap_or_default().to_owned(),
    })
}
