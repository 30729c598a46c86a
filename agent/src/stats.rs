//! The agent's own counters, as Prometheus reads them.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct AgentStats {
    /// Certificate requests sent.
    pub certificate_requests: Counter,
    /// Of these, without success.
    pub certificate_failures: Counter,
    /// xDS streams opened to the control plane.
    pub xds_streams: Counter,
    /// xDS streams or connections to the control plane that failed.
    pub xds_failures: Counter,
    /// Starts of the proxy.
    pub proxy_starts: Counter,
    /// DNS queries.
    pub dns_requests: Counter,
    /// DNS queries that were sent on.
    pub dns_upstream_requests: Counter,
    /// Of these, without an answer.
    pub dns_upstream_failures: Counter,
    /// Scrapes of the application without success.
    pub scrape_failures: Counter,
}

impl AgentStats {
    /// The text format. `cert_expiry` is the certificate's remaining life in seconds.
    pub fn render(&self, cert_expiry: Option<f64>) -> String {
        let mut out = String::new();
        let mut counter = |name: &str, help: &str, counter: &Counter| {
            let value = counter.get();
            let _ = write!(out, "# HELP istio_agent_{name} {help}\n# TYPE istio_agent_{name} counter\n");
            let _ = writeln!(out, "istio_agent_{name} {value}");
        };
        counter("num_outgoing_csr_requests", "Certificate requests sent.", &self.certificate_requests);
        counter("num_failed_csr_requests", "Certificate requests that failed.", &self.certificate_failures);
        counter("xds_proxy_streams", "xDS streams opened to the control plane.", &self.xds_streams);
        counter("pilot_xds_failures", "xDS streams to the control plane that failed.", &self.xds_failures);
        counter("proxy_starts", "Starts of the proxy.", &self.proxy_starts);
        counter("dns_requests_total", "DNS queries.", &self.dns_requests);
        counter("dns_upstream_requests_total", "DNS queries sent on.", &self.dns_upstream_requests);
        counter("dns_upstream_failures_total", "DNS queries sent on in vain.", &self.dns_upstream_failures);
        counter("scrape_failures_total", "Failed scrapes of the application.", &self.scrape_failures);
        if let Some(seconds) = cert_expiry {
            let name = "istio_agent_cert_expiry_seconds";
            let _ = write!(out, "# HELP {name} Remaining life of the certificate.\n# TYPE {name} gauge\n");
            let _ = writeln!(out, "{name}{{resource_name=\"default\"}} {seconds}");
        }
        out
    }
}
