//! What of an application is scraped for the merged metrics (ISTIO_PROMETHEUS_ANNOTATIONS).

use serde::{Deserialize, Serialize};

/// The application's Prometheus annotations, which injection moved here when it pointed Prometheus at the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PrometheusScrape {
    /// `"true"` where the application is scraped.
    pub scrape: String,
    /// The path; empty means `/metrics`.
    pub path: String,
    /// The port; empty means 80.
    pub port: String,
}

/// A scrape configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not JSON of the expected form.
    #[error("ISTIO_PROMETHEUS_ANNOTATIONS is not of the form {{\"scrape\",\"path\",\"port\"}}")]
    Json(#[from] serde_json::Error),
    /// The port is no port.
    #[error("ISTIO_PROMETHEUS_ANNOTATIONS: port {0:?} is no port")]
    Port(String),
}

/// Where to scrape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrapeTarget {
    /// On localhost.
    pub port: u16,
    /// Begins with a slash.
    pub path: String,
}

impl PrometheusScrape {
    /// Reads the variable; empty says that nothing is scraped.
    pub fn parse(json: &str) -> Result<Self, Error> {
        if json.trim().is_empty() {
            return Ok(Self::default());
        }
        Ok(serde_json::from_str(json)?)
    }

    /// The variable's form.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Where to scrape, if anywhere.
    pub fn target(&self) -> Result<Option<ScrapeTarget>, Error> {
        if self.scrape != "true" {
            return Ok(None);
        }
        let port = match self.port.as_str() {
            "" => 80,
            text => text.parse().map_err(|_| Error::Port(text.to_owned()))?,
        };
        let path = match self.path.trim_start_matches('/') {
            "" if self.path.is_empty() => "/metrics".to_owned(),
            path => format!("/{path}"),
        };
        Ok(Some(ScrapeTarget { port, path }))
    }
}
