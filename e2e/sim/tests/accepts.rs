//! sail-proxy accepts what saild gives it in every case of the translation's golden tests, with all of Istio's filters.

#[path = "../../../control-plane/translate/tests/common/common.rs"]
mod common;

use e2e_sim::Proxy;
use saild_translate::Cache;

/// Filters of stock Envoys that users may patch in and sail-proxy may lack: it refuses them by name.
const REFUSED: [&str; 3] = ["ext_authz", "local_ratelimit", "http.buffer"];

#[test]
fn every_golden_case_is_accepted() {
    for dir in common::cases() {
        let (_, mesh, mut view) = common::Case::load(&dir);
        view.extensions = ["istio.metadata_exchange", "istio.stats", "istio.alpn"].map(str::to_owned).into();
        if let Err(error) = Proxy::load(&mesh, view, &Cache::new()) {
            let said = error.to_string();
            let known = REFUSED.iter().any(|name| said.contains(name));
            assert!(known, "{}: {said}", dir.display());
        }
    }
}
