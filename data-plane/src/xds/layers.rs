//! Layers of the runtime that come by discovery (RTDS). They are asked for once the bootstrap's clusters are there, and
//! other discovery waits for them, as in Envoy.

use std::cell::Cell;
use std::time::Instant;

use xds_api::envoy::config::bootstrap::v3::{LayeredRuntime, runtime_layer::LayerSpecifier};
use xds_api::type_url;

use super::manager::Error;
use super::needs::{self, Need, Source};

/// What is asked for, and since when.
#[derive(Debug, Default)]
pub(super) struct Layers {
    needs: Vec<Need>,
    since: Cell<Option<Instant>>,
}

impl Layers {
    /// From the bootstrap.
    pub(super) fn new(config: Option<&LayeredRuntime>) -> Result<Self, Error> {
        let mut all = Self::default();
        for (place, layer) in config.iter().flat_map(|config| &config.layers).enumerate() {
            let Some(LayerSpecifier::RtdsLayer(layer)) = &layer.layer_specifier else { continue };
            let (source, timeout) =
                needs::source(layer.rtds_config.as_ref(), &Source::Ads).map_err(|reason| {
                    Error::new(format!("layered_runtime.layers[{place}].rtds_layer.rtds_config"), reason)
                })?;
            all.needs.push(Need::new(type_url::RUNTIME, &layer.name, source, timeout));
        }
        Ok(all)
    }

    /// What is asked for.
    pub(super) fn needs(&self) -> &[Need] {
        &self.needs
    }

    /// Those that are waited for.
    pub(super) fn missing<'a>(
        &'a self,
        now: Instant,
        has: impl Fn(&Need) -> bool + 'a,
    ) -> impl Iterator<Item = &'a Need> {
        let waited = now.saturating_duration_since(self.since.get().unwrap_or(now));
        let over = move |need: &Need| need.timeout.is_some_and(|timeout| waited >= timeout);
        self.needs.iter().filter(move |need| !has(need) && !over(need))
    }

    /// Waiting begins.
    pub(super) fn begin(&self, now: Instant) {
        self.since.set(Some(now));
    }

    /// When the next wait ends.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let since = self.since.get()?;
        let all = self.needs.iter().filter_map(|need| Some(since + need.timeout?));
        all.filter(|deadline| *deadline > now).min()
    }
}
