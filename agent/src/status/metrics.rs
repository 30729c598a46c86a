//! One page of metrics from three sources: the proxy, the application, the agent.

use std::time::Duration;

use agent_contract::metrics::ScrapeTarget;
use http::{HeaderMap, HeaderValue, header};

use crate::admin::Admin;
use crate::http_client::Fetch;
use crate::stats::AgentStats;

/// The format of the page.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(10);

/// What is merged.
#[derive(Clone, Debug, Default)]
pub struct Merge {
    /// The application's page, if it has one.
    pub application: Option<ScrapeTarget>,
    /// Whether there is a proxy.
    pub proxy: bool,
}

impl Merge {
    /// A source that fails is left out: the others are still of use.
    pub(super) async fn collect(&self, admin: &Admin, stats: &AgentStats, own: String) -> String {
        let proxy = async {
            if !self.proxy {
                return String::new();
            }
            admin.prometheus().await.unwrap_or_else(|error| {
                tracing::warn!(%error, "the proxy's metrics are missing");
                String::new()
            })
        };
        let application = async {
            let Some(target) = &self.application else { return String::new() };
            scrape(target).await.unwrap_or_else(|error| {
                stats.scrape_failures.inc();
                tracing::warn!(
                    port = target.port,
                    path = target.path,
                    error,
                    "the application's metrics are missing"
                );
                String::new()
            })
        };
        let (proxy, application) = tokio::join!(proxy, application);
        join([own, proxy, application])
    }
}

async fn scrape(target: &ScrapeTarget) -> Result<String, String> {
    let mut fetch = Fetch::get("localhost", target.port, &target.path, SCRAPE_TIMEOUT);
    fetch.headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(CONTENT_TYPE))]);
    let fetched = fetch.send().await.map_err(|error| format!("{:#}", anyhow::Error::from(error)))?;
    if !fetched.status.is_success() {
        return Err(format!("it answered {}", fetched.status));
    }
    String::from_utf8(fetched.body.to_vec()).map_err(|_| "the page is not UTF-8".to_owned())
}

/// Pages one after the other. The end mark of the newer format would end the page too early.
fn join(pages: impl IntoIterator<Item = String>) -> String {
    let mut out = String::new();
    for page in pages {
        for line in page.lines().filter(|line| !line.trim().is_empty() && line.trim() != "# EOF") {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_joined_line_by_line() {
        let pages = ["a 1\n# EOF\n".to_owned(), String::new(), "b 2".to_owned()];
        assert_eq!(join(pages), "a 1\nb 2\n");
    }
}
