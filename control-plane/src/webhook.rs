//! Admission webhooks: the injector and the validation of the mesh's kinds.

use std::sync::atomic::{AtomicU64, Ordering};

use saild_serve::metrics::Text;

pub(crate) mod inject;
pub(crate) mod review;
pub(crate) mod validate;

/// What the webhooks did, under Istio's names.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) injection_requests: AtomicU64,
    pub(crate) injected: AtomicU64,
    pub(crate) skipped: AtomicU64,
    pub(crate) injection_failures: AtomicU64,
    pub(crate) validated: AtomicU64,
    pub(crate) invalid: AtomicU64,
}

impl Counters {
    pub(crate) fn write(&self, text: &mut Text) {
        for (name, help, counter) in [
            ("sidecar_injection_requests_total", "Pods seen by the injector.", &self.injection_requests),
            ("sidecar_injection_success_total", "Pods injected.", &self.injected),
            ("sidecar_injection_skip_total", "Pods left as they are.", &self.skipped),
            ("sidecar_injection_failure_total", "Pods that could not be injected.", &self.injection_failures),
            ("galley_validation_passed", "Objects that are valid.", &self.validated),
            ("galley_validation_failed", "Objects that are not valid.", &self.invalid),
        ] {
            text.counter(name, help, counter.load(Ordering::Relaxed));
        }
    }
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
