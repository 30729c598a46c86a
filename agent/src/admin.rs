//! The proxy's admin interface, as far as the agent uses it.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;

use crate::cli::Role;
use crate::http_client::{self, Fetch};

const TIMEOUT: Duration = Duration::from_secs(2);
/// A scrape of many stats takes longer than a question.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the proxy's admin interface said nothing of use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No response.
    #[error("the proxy's admin interface cannot be reached")]
    Http(#[from] http_client::Error),
    /// Another status than 200.
    #[error("the proxy's admin interface answered {status} to {path}")]
    Status {
        /// What it answered.
        status: http::StatusCode,
        /// To what.
        path: String,
    },
}

/// A proxy's admin interface.
#[derive(Clone, Debug)]
pub struct Admin {
    host: &'static str,
    port: u16,
}

impl Admin {
    /// On the loopback address.
    pub fn new(host: &'static str, port: u16) -> Self {
        Self { host, port }
    }

    /// Stats whose name matches, by name. Histograms and texts are passed over.
    pub async fn stats(&self, filter: &str) -> Result<BTreeMap<String, u64>, Error> {
        let text = self.ask(Method::GET, &format!("/stats?usedonly&filter={filter}"), TIMEOUT).await?;
        let line = |line: &str| {
            let (name, value) = line.split_once(": ")?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        };
        Ok(text.lines().filter_map(line).collect())
    }

    /// All stats as Prometheus reads them.
    pub async fn prometheus(&self) -> Result<String, Error> {
        self.ask(Method::GET, "/stats/prometheus", SCRAPE_TIMEOUT).await
    }

    /// Begins to drain listeners. A sidecar's outbound listeners stay: its application may still have to speak.
    pub async fn drain(&self, role: Role) -> Result<(), Error> {
        let path = match role {
            Role::Sidecar => "/drain_listeners?inboundonly&graceful&skip_exit",
            Role::Router | Role::Waypoint => "/drain_listeners?graceful&skip_exit",
        };
        self.ask(Method::POST, path, TIMEOUT).await.map(|_| ())
    }

    /// Connections from clients, without those to the proxy's own pages.
    pub async fn active_connections(&self) -> Result<u64, Error> {
        let stats = self.stats("downstream_cx_active$").await?;
        let own = |name: &str| {
            name.starts_with("listener.admin.")
                || name.contains(".worker_")
                || name.contains("_15090.")
                || name.contains("_15021.")
                || name.starts_with("http.")
        };
        Ok(stats.iter().filter(|(name, _)| !own(name)).map(|(_, value)| value).sum())
    }

    async fn ask(&self, method: Method, path: &str, timeout: Duration) -> Result<String, Error> {
        let fetched = Fetch::get(self.host, self.port, path, timeout).method(method).send().await?;
        if fetched.status != http::StatusCode::OK {
            return Err(Error::Status { status: fetched.status, path: path.to_owned() });
        }
        Ok(String::from_utf8_lossy(&fetched.body).into_owned())
    }
}
