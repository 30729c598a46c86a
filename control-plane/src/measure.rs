//! `/metrics`: the server's counters, the authority's and the webhooks', under Istio's names.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use saild_ca::Ca;
use saild_ca::service::Counters;
use saild_serve::metrics::{Metrics, Text};

use crate::host::State;
use crate::settings::VERSION;
use crate::webhook;

/// Everything that is counted.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) ads: Arc<Metrics>,
    pub(crate) authority: Arc<Counters>,
    pub(crate) webhooks: Arc<webhook::Counters>,
    pub(crate) ca: Arc<Ca>,
    pub(crate) state: Arc<State>,
    pub(crate) started: Instant,
}

impl Measured {
    /// The page.
    pub(crate) fn page(&self) -> String {
        let mut text = Text::new();
        self.ads.write(&mut text);
        let snapshot = self.state.snapshot();
        let mesh = &snapshot.mesh;
        text.gauge("pilot_services", "Services known.", count(mesh.services().len()));
        let kind = |kind| mesh.objects().iter().filter(|object| object.kind() == kind).count();
        text.gauge(
            "pilot_virt_services",
            "VirtualServices known.",
            count(kind(mesh_api::Kind::VirtualService)),
        );
        text.labelled("pilot_info", "The version of the control plane.", &[("version", VERSION)], 1.0);
        text.gauge("istiod_uptime_seconds", "Time since the start.", self.started.elapsed().as_secs_f64());
        self.authority(&mut text);
        self.webhooks.write(&mut text);
        text.into_string()
    }

    fn authority(&self, text: &mut Text) {
        let counters = &self.authority;
        for (name, help, counter) in [
            ("citadel_server_csr_count", "Certificate requests.", &counters.requests),
            ("citadel_server_success_cert_issuance_count", "Certificates issued.", &counters.issued),
            ("citadel_server_authentication_failure_count", "Callers not recognized.", &counters.refused),
            (
                "citadel_server_csr_parsing_err_count",
                "Requests that could not be read.",
                &counters.unreadable,
            ),
            (
                "citadel_server_csr_sign_err_count",
                "Certificates that could not be signed.",
                &counters.unsigned,
            ),
        ] {
            text.counter(name, help, counter.load(Ordering::Relaxed));
        }
        let end = self.ca.authority().info().not_after;
        let left = end.duration_since(jiff::Timestamp::now()).as_secs_f64();
        text.gauge(
            "citadel_server_root_cert_expiry_timestamp",
            "When the root ends.",
            end.as_second() as f64,
        );
        text.gauge("citadel_server_root_cert_expiry_seconds", "Until the root ends.", left);
    }
}

fn count(count: usize) -> f64 {
    count as f64
}
