//! The agent's environment, read once and typed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::env::{self, EnvVar};
use crate::metrics::{self, PrometheusScrape};
use crate::probes::{self, AppProbers};

/// A variable whose value cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its own form is wrong.
    #[error("environment variable {name}={value:?} is not {expected}")]
    Value {
        /// Which variable.
        name: &'static str,
        /// As given.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// The probes are wrong.
    #[error(transparent)]
    Probes(#[from] probes::Error),
    /// The scrape annotations are wrong.
    #[error(transparent)]
    Metrics(#[from] metrics::Error),
}

/// The agent's environment.
#[derive(Clone, Debug)]
pub struct AgentEnv {
    /// POD_NAME
    pub pod_name: String,
    /// POD_NAMESPACE
    pub pod_namespace: String,
    /// INSTANCE_IP
    pub instance_ip: Option<IpAddr>,
    /// HOST_IP
    pub host_ip: String,
    /// SERVICE_ACCOUNT
    pub service_account: String,
    /// TRUST_DOMAIN
    pub trust_domain: String,
    /// PROXY_CONFIG, unread.
    pub proxy_config: String,
    /// CA_ADDR; empty stands for the discovery address.
    pub ca_addr: String,
    /// CA_PROVIDER
    pub ca_provider: String,
    /// CA_ROOT_CA
    pub ca_root_ca: String,
    /// XDS_ROOT_CA
    pub xds_root_ca: String,
    /// ISTIOD_SAN
    pub istiod_san: String,
    /// PROV_CERT
    pub prov_cert: String,
    /// OUTPUT_CERTS
    pub output_certs: String,
    /// FILE_MOUNTED_CERTS
    pub file_mounted_certs: bool,
    /// SECRET_TTL
    pub secret_ttl: Duration,
    /// SECRET_GRACE_PERIOD_RATIO
    pub secret_grace_ratio: f64,
    /// SECRET_GRACE_PERIOD_RATIO_JITTER
    pub secret_grace_jitter: f64,
    /// The key algorithm, as `identity` reads it: RSA2048, P256, P384 …
    pub key_algorithm: String,
    /// WORKLOAD_IDENTITY_SOCKET_FILE
    pub workload_socket_file: String,
    /// ISTIO_KUBE_APP_PROBERS
    pub app_probers: AppProbers,
    /// ISTIO_PROMETHEUS_ANNOTATIONS
    pub prometheus: PrometheusScrape,
    /// ISTIO_BOOTSTRAP_OVERRIDE
    pub bootstrap_override: String,
    /// ISTIO_CPU_LIMIT
    pub cpu_limit: Option<u32>,
    /// ENVOY_STATUS_PORT
    pub health_port: u16,
    /// ENVOY_PROMETHEUS_PORT
    pub prometheus_port: u16,
    /// DISABLE_ENVOY
    pub disable_proxy: bool,
    /// ISTIO_DELTA_XDS
    pub delta_xds: bool,
    /// ISTIO_META_DNS_CAPTURE
    pub dns_capture: bool,
    /// DNS_PROXY_ADDR
    pub dns_addr: String,
    /// DNS_FORWARD_PARALLEL
    pub dns_forward_parallel: bool,
    /// EXIT_ON_ZERO_ACTIVE_CONNECTIONS
    pub exit_on_zero_connections: bool,
    /// MINIMUM_DRAIN_DURATION
    pub minimum_drain: Duration,
    /// CREDENTIAL_FETCHER_TYPE
    pub credential_fetcher: String,
    /// ISTIO_META_*, without the prefix.
    pub metadata: BTreeMap<String, String>,
    /// ISTIO_METAJSON_*, without the prefix.
    pub metadata_json: BTreeMap<String, serde_json::Value>,
    /// XDS_HEADER_*, without the prefix.
    pub xds_headers: BTreeMap<String, String>,
    /// CA_HEADER_*, without the prefix.
    pub ca_headers: BTreeMap<String, String>,
}

impl AgentEnv {
    /// Reads the process's environment.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_vars(&process_vars())
    }

    /// Reads given variables.
    pub fn from_vars(vars: &BTreeMap<String, String>) -> Result<Self, Error> {
        let vars = Vars(vars);
        Ok(Self {
            pod_name: vars.text(&env::POD_NAME),
            pod_namespace: vars.text(&env::POD_NAMESPACE),
            instance_ip: vars.optional(&env::INSTANCE_IP, "an IP address")?,
            host_ip: vars.text(&env::HOST_IP),
            service_account: vars.text(&env::SERVICE_ACCOUNT),
            trust_domain: vars.text(&env::TRUST_DOMAIN),
            proxy_config: vars.text(&env::PROXY_CONFIG),
            ca_addr: vars.text(&env::CA_ADDR),
            ca_provider: vars.text(&env::CA_PROVIDER),
            ca_root_ca: vars.text(&env::CA_ROOT_CA),
            xds_root_ca: vars.text(&env::XDS_ROOT_CA),
            istiod_san: vars.text(&env::ISTIOD_SAN),
            prov_cert: vars.text(&env::PROV_CERT),
            output_certs: vars.text(&env::OUTPUT_CERTS),
            file_mounted_certs: vars.flag(&env::FILE_MOUNTED_CERTS)?,
            secret_ttl: vars.duration(&env::SECRET_TTL)?,
            secret_grace_ratio: vars.ratio(&env::SECRET_GRACE_PERIOD_RATIO)?,
            secret_grace_jitter: vars.ratio(&env::SECRET_GRACE_PERIOD_RATIO_JITTER)?,
            key_algorithm: vars.key_algorithm()?,
            workload_socket_file: vars.text(&env::WORKLOAD_IDENTITY_SOCKET_FILE),
            app_probers: probes::parse(&vars.text(&env::ISTIO_KUBE_APP_PROBERS))?,
            prometheus: PrometheusScrape::parse(&vars.text(&env::ISTIO_PROMETHEUS_ANNOTATIONS))?,
            bootstrap_override: vars.text(&env::ISTIO_BOOTSTRAP_OVERRIDE),
            cpu_limit: vars.optional(&env::ISTIO_CPU_LIMIT, "a number of CPUs")?,
            health_port: vars.parse(&env::ENVOY_STATUS_PORT, "a port")?,
            prometheus_port: vars.parse(&env::ENVOY_PROMETHEUS_PORT, "a port")?,
            disable_proxy: vars.flag(&env::DISABLE_ENVOY)?,
            delta_xds: vars.flag(&env::ISTIO_DELTA_XDS)?,
            dns_capture: vars.flag(&env::ISTIO_META_DNS_CAPTURE)?,
            dns_addr: vars.text(&env::DNS_PROXY_ADDR),
            dns_forward_parallel: vars.flag(&env::DNS_FORWARD_PARALLEL)?,
            exit_on_zero_connections: vars.flag(&env::EXIT_ON_ZERO_ACTIVE_CONNECTIONS)?,
            minimum_drain: vars.duration(&env::MINIMUM_DRAIN_DURATION)?,
            credential_fetcher: vars.text(&env::CREDENTIAL_FETCHER_TYPE),
            metadata: vars.with_prefix(env::META_PREFIX),
            metadata_json: vars.json_with_prefix(),
            xds_headers: vars.with_prefix(env::XDS_HEADER_PREFIX),
            ca_headers: vars.with_prefix(env::CA_HEADER_PREFIX),
        })
    }
}

/// The process's environment; variables that are not UTF-8 are passed over.
pub fn process_vars() -> BTreeMap<String, String> {
    let utf8 = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(utf8).collect()
}

struct Vars<'a>(&'a BTreeMap<String, String>);

impl Vars<'_> {
    /// Manifests set variables to "" to say "as usual": empty means the default.
    fn text(&self, var: &EnvVar) -> String {
        match self.0.get(var.name) {
            Some(value) if !value.is_empty() => value.clone(),
            _ => var.default.to_owned(),
        }
    }

    fn parse<T: std::str::FromStr>(&self, var: &EnvVar, expected: &'static str) -> Result<T, Error> {
        let value = self.text(var);
        value.trim().parse().map_err(|_| Error::Value { name: var.name, value, expected })
    }

    fn optional<T: std::str::FromStr>(
        &self,
        var: &EnvVar,
        expected: &'static str,
    ) -> Result<Option<T>, Error> {
        if self.text(var).trim().is_empty() { Ok(None) } else { self.parse(var, expected).map(Some) }
    }

    fn flag(&self, var: &EnvVar) -> Result<bool, Error> {
        let value = self.text(var);
        match value.trim() {
            "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            _ => Err(Error::Value { name: var.name, value, expected: "true or false" }),
        }
    }

    fn ratio(&self, var: &EnvVar) -> Result<f64, Error> {
        let expected = "a share between 0 and 1";
        let ratio: f64 = self.parse(var, expected)?;
        if (0.0..=1.0).contains(&ratio) {
            return Ok(ratio);
        }
        Err(Error::Value { name: var.name, value: self.text(var), expected })
    }

    fn duration(&self, var: &EnvVar) -> Result<Duration, Error> {
        let value = self.text(var);
        parse_duration(&value).ok_or(Error::Value {
            name: var.name,
            value,
            expected: "a duration, as 1h30m or 5s",
        })
    }

    /// As Istio: an explicitly empty ECC_SIGNATURE_ALGORITHM asks for RSA.
    fn key_algorithm(&self) -> Result<String, Error> {
        let name = env::ECC_SIGNATURE_ALGORITHM.name;
        match self.0.get(name).map_or("ECDSA", String::as_str) {
            "" => Ok(format!("RSA{}", self.text(&env::WORKLOAD_RSA_KEY_SIZE))),
            "ECDSA" => Ok(self.text(&env::ECC_CURVE)),
            other => Err(Error::Value { name, value: other.to_owned(), expected: "ECDSA or empty" }),
        }
    }

    fn with_prefix(&self, prefix: &str) -> BTreeMap<String, String> {
        let strip = |(name, value): (&String, &String)| {
            name.strip_prefix(prefix).map(|name| (name.to_owned(), value.clone()))
        };
        self.0.iter().filter_map(strip).collect()
    }

    fn json_with_prefix(&self) -> BTreeMap<String, serde_json::Value> {
        let read = |(name, text): (String, String)| {
            let value = serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text));
            (name, value)
        };
        self.with_prefix(env::META_JSON_PREFIX).into_iter().map(read).collect()
    }
}

/// A duration in Go's form: `24h0m0s`, `1.5h`, `300ms`. `None` where it is not one.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let scale = match &rest[..unit] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        rest = &rest[unit..];
        total = total.checked_add(Duration::try_from_secs_f64(number * scale).ok()?)?;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vars: &[(&str, &str)]) -> Result<AgentEnv, Error> {
        AgentEnv::from_vars(&vars.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn defaults_are_istios() {
        let env = read(&[]).unwrap();
        assert_eq!(env.secret_ttl, Duration::from_secs(86_400));
        assert_eq!((env.health_port, env.prometheus_port), (15021, 15090));
        assert_eq!(env.trust_domain, "cluster.local");
        assert_eq!(env.key_algorithm, "P256");
        assert!(env.delta_xds && !env.dns_capture && env.app_probers.is_empty());
    }

    #[test]
    fn an_empty_algorithm_asks_for_rsa() {
        assert_eq!(read(&[("ECC_SIGNATURE_ALGORITHM", "")]).unwrap().key_algorithm, "RSA2048");
    }

    #[test]
    fn metadata_and_headers_lose_their_prefix() {
        let env = read(&[
            ("ISTIO_META_CLUSTER_ID", "c1"),
            ("ISTIO_METAJSON_LABELS", r#"{"app":"x"}"#),
            ("XDS_HEADER_X-A", "1"),
        ])
        .unwrap();
        assert_eq!(env.metadata["CLUSTER_ID"], "c1");
        assert_eq!(env.metadata_json["LABELS"]["app"], "x");
        assert_eq!(env.xds_headers["X-A"], "1");
    }

    #[test]
    fn a_wrong_value_is_named() {
        let check = |name: &str, value: &str| {
            let error = read(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        };
        check("INSTANCE_IP", "10.0.0");
        check("SECRET_TTL", "1 day");
        check("SECRET_GRACE_PERIOD_RATIO", "2");
        check("DISABLE_ENVOY", "maybe");
        check("ISTIO_KUBE_APP_PROBERS", "{");
    }

    #[test]
    fn durations_in_gos_form() {
        let check = |text: &str, expect: Option<u64>| {
            assert_eq!(parse_duration(text).map(|d| d.as_millis() as u64), expect, "{text}");
        };
        check("24h0m0s", Some(86_400_000));
        check("1.5h", Some(5_400_000));
        check("300ms", Some(300));
        check("0", Some(0));
        check("5", None);
        check("", None);
        check("-5s", None);
        check("5x", None);
    }
}
