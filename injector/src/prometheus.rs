//! Prometheus is pointed at the agent, which merges the application's metrics with the proxy's.

use agent_contract::metrics::PrometheusScrape;
use agent_contract::{annotations, env, paths};
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::env::plain;
use crate::error::Error;
use crate::settings::Settings;

/// Rewrites the pod's annotations, and tells the agent what they were.
pub(crate) fn merge(settings: &Settings<'_>, pod: &mut Pod, proxy: &mut Container) -> Result<(), Error> {
    if !settings.config.mesh.enable_prometheus_merge || settings.status_port == 0 {
        return Ok(());
    }
    let is = |name: &str, value: &str| settings.annotation(name) == Some(value);
    if is(annotations::MERGE_METRICS, "false") || is(annotations::PROMETHEUS_SCRAPE, "false") {
        return Ok(());
    }
    let port = settings.status_port.to_string();
    if is(annotations::PROMETHEUS_PORT, &port) {
        return Ok(());
    }
    let text = |name: &str| settings.annotation(name).unwrap_or_default().to_owned();
    let scrape = PrometheusScrape {
        scrape: text(annotations::PROMETHEUS_SCRAPE),
        path: text(annotations::PROMETHEUS_PATH),
        port: text(annotations::PROMETHEUS_PORT),
    };
    if scrape != PrometheusScrape::default() {
        scrape.target().map_err(|_| Error::Annotation {
            name: annotations::PROMETHEUS_PORT.to_owned(),
            value: scrape.port.clone(),
            expected: "a port",
        })?;
        proxy
            .env
            .get_or_insert_default()
            .push(plain(env::ISTIO_PROMETHEUS_ANNOTATIONS.name, scrape.to_json()));
    }
    let all = pod.metadata.annotations.get_or_insert_default();
    for (name, value) in [
        (annotations::PROMETHEUS_SCRAPE, "true"),
        (annotations::PROMETHEUS_PORT, port.as_str()),
        (annotations::PROMETHEUS_PATH, paths::STATS_PROMETHEUS),
    ] {
        all.insert(name.to_owned(), value.to_owned());
    }
    Ok(())
}
