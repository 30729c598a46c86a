//! The ADS server: subscriptions, debounce, push queue, cache, debug pages.
