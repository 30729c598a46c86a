//! Spare maps of a worker: a head's allocation serves the next head.

use std::cell::RefCell;

use http::HeaderMap;

/// So many are kept.
const SPARE: usize = 64;

thread_local! {
    static MAPS: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
}

/// An empty map.
pub(super) fn take() -> HeaderMap {
    MAPS.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Gives a map back.
pub(super) fn give(mut map: HeaderMap) {
    // Others have none to give, or are not worth keeping.
    if !(1..=128).contains(&map.capacity()) {
        return;
    }
    map.clear();
    MAPS.with_borrow_mut(|maps| {
        if maps.len() < SPARE {
            maps.push(map);
        }
    });
}
