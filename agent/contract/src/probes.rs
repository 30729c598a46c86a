//! The application's own probes, as injection hands them to the agent (ISTIO_KUBE_APP_PROBERS).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::paths;

/// Probes and lifecycle hooks by the path at which the agent answers for them.
pub type AppProbers = BTreeMap<String, Prober>;

/// One probe. Exactly one of the actions is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Prober {
    /// An HTTP request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_get: Option<HttpGet>,
    /// A TCP connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_socket: Option<TcpSocket>,
    /// A gRPC health check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<Grpc>,
    /// Seconds; 0 stands for Kubernetes' default, which is 1.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub timeout_seconds: u32,
}

/// An HTTP request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpGet {
    /// Path and query; empty means `/`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// A number: injection resolves names.
    pub port: u16,
    /// The `Host` header; not the address that is dialled, which is always the pod.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// `HTTP` (or empty) or `HTTPS`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub scheme: String,
    /// Header fields.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub http_headers: Vec<HttpHeader>,
}

/// A header field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpHeader {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A TCP connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpSocket {
    /// A number: injection resolves names.
    pub port: u16,
    /// Not dialled; the pod always is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub host: String,
}

/// A gRPC health check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grpc {
    /// The port.
    pub port: u16,
    /// The service that is asked about; none asks for the server as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

/// Which of Kubernetes' probes or hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProbeKind {
    /// `readinessProbe`
    Readiness,
    /// `livenessProbe`
    Liveness,
    /// `startupProbe`
    Startup,
    /// `lifecycle.preStop`
    PreStop,
    /// `lifecycle.postStart`
    PostStart,
}

impl ProbeKind {
    /// The path at which the agent answers for a container.
    pub fn path(self, container: &str) -> String {
        let (prefix, suffix) = match self {
            Self::Readiness => (paths::APP_HEALTH, "readyz"),
            Self::Liveness => (paths::APP_HEALTH, "livez"),
            Self::Startup => (paths::APP_HEALTH, "startupz"),
            Self::PreStop => (paths::APP_LIFECYCLE, "prestopz"),
            Self::PostStart => (paths::APP_LIFECYCLE, "poststartz"),
        };
        format!("{prefix}{container}/{suffix}")
    }
}

/// Probers that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not JSON of the expected form.
    #[error("ISTIO_KUBE_APP_PROBERS is not a map of probes")]
    Json(#[from] serde_json::Error),
    /// Not one action.
    #[error("ISTIO_KUBE_APP_PROBERS: {path}: exactly one of httpGet, tcpSocket and grpc must be set")]
    Actions {
        /// Where.
        path: String,
    },
    /// A path that the agent cannot serve.
    #[error("ISTIO_KUBE_APP_PROBERS: {path:?} is no path below /app-health/ or /app-lifecycle/")]
    Path {
        /// As given.
        path: String,
    },
}

/// Reads the variable; empty holds no probes.
pub fn parse(json: &str) -> Result<AppProbers, Error> {
    if json.trim().is_empty() {
        return Ok(AppProbers::new());
    }
    let probers: AppProbers = serde_json::from_str(json)?;
    for (path, prober) in &probers {
        if !path.starts_with(paths::APP_HEALTH) && !path.starts_with(paths::APP_LIFECYCLE) {
            return Err(Error::Path { path: path.clone() });
        }
        let actions = [prober.http_get.is_some(), prober.tcp_socket.is_some(), prober.grpc.is_some()];
        if actions.iter().filter(|set| **set).count() != 1 {
            return Err(Error::Actions { path: path.clone() });
        }
    }
    Ok(probers)
}

/// The variable's form.
pub fn to_json(probers: &AppProbers) -> String {
    serde_json::to_string(probers).unwrap_or_default()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let json = concat!(
            r#"{"/app-health/reviews/livez":{"httpGet":{"path":"/health","port":9080,"scheme":"HTTP"},"timeoutSeconds":1},"#,
            r#""/app-health/reviews/readyz":{"grpc":{"port":9090,"service":"a"}},"#,
            r#""/app-lifecycle/reviews/prestopz":{"tcpSocket":{"port":9080}}}"#,
        );
        let probers = parse(json).unwrap();
        assert_eq!(to_json(&probers), json);
        assert!(probers.contains_key(&ProbeKind::Readiness.path("reviews")));
    }

    #[test]
    fn says_what_is_wrong() {
        let check = |json: &str, part: &str| {
            let error = parse(json).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        };
        check(r#"{"/app-health/a/livez":{}}"#, "/app-health/a/livez: exactly one");
        check(r#"{"/other":{"tcpSocket":{"port":1}}}"#, "/other");
        check("[]", "map of probes");
        assert!(parse("").unwrap().is_empty());
    }
}
