//! Wasm VMs and plugins.

use crate::stats::schema::stat_set;

stat_set! {
    /// `wasm.<runtime>.`
    wasm { root: "wasm", tag: Tag::None }
    counters { created = "created" }
    gauges { active = "active" }
    histograms {}
}

stat_set! {
    /// `wasm.<plugin>.`
    wasm_plugin { root: "wasm", tag: Tag::None }
    counters {
        vm_reload = "vm_reload",
        vm_reload_success = "vm_reload_success",
        vm_reload_backoff = "vm_reload_backoff",
        vm_reload_failure = "vm_reload_failure",
    }
    gauges {}
    histograms {}
}

stat_set! {
    /// `wasm.`: all VMs, and modules that are fetched.
    wasm_all { root: "wasm", tag: Tag::None }
    counters {
        remote_load_cache_hits = "remote_load_cache_hits",
        remote_load_cache_misses = "remote_load_cache_misses",
        remote_load_cache_negative_hits = "remote_load_cache_negative_hits",
        remote_load_fetch_failures = "remote_load_fetch_failures",
        remote_load_fetch_successes = "remote_load_fetch_successes",
    }
    gauges {
        remote_load_cache_entries = "remote_load_cache_entries",
        wasm_vm_count = "wasm_vm_count",
    }
    histograms {}
}
