//! Looks at resources, and switches actions on and off.

use std::rc::Rc;
use std::sync::Arc;

use super::config::{ACTIONS, MONITORS};
use super::{Action, Flags, Overload};
use crate::server::{Main, memory};
use crate::stats::sets::single_gauge;

/// Watches until it is dropped.
pub async fn run(main: Rc<Main>, overload: Overload, flags: Arc<Flags>) {
    if !overload.is_active() {
        return std::future::pending().await;
    }
    let mut clock = tokio::time::interval(overload.refresh);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        let pressures = pressures(&main, &overload);
        for (resource, pressure) in &pressures {
            #[expect(clippy::cast_possible_truncation, reason = "a share, in per cent")]
            gauge(&main, &format!("overload.{resource}.pressure"), (pressure * 100.0).min(1e6) as i64);
        }
        for (action, triggers) in &overload.actions {
            let on = triggers.iter().any(|trigger| {
                pressures.iter().any(|(name, now)| *name == trigger.resource && *now >= trigger.threshold)
            });
            flags.set(*action, on);
            if on && *action == Action::ShrinkHeap {
                shrink_heap();
            }
            let name = ACTIONS.iter().find(|(_, known)| known == action).map_or("", |(name, _)| *name);
            gauge(&main, &format!("overload.{name}.active"), i64::from(on));
        }
    }
}

fn gauge(main: &Main, name: &str, value: i64) {
    let scope: single_gauge::Scope = main.stats.pinned(name);
    scope.set(single_gauge::value, value);
}

#[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
fn pressures(main: &Main, overload: &Overload) -> Vec<(&'static str, f64)> {
    let [heap, connections] = MONITORS else { return Vec::new() };
    let mut all = Vec::new();
    if let Some(max) = overload.max_heap {
        all.push((*heap, memory().resident as f64 / max as f64));
    }
    if let Some(max) = overload.max_connections {
        let open = main.discovery.get().map_or(0, |discovery| discovery.parts().workers().connections());
        all.push((*connections, open as f64 / max as f64));
    }
    all
}

/// Gives back what the allocator holds and nobody uses.
#[expect(unsafe_code, reason = "the allocator's crate has no safe name for this")]
fn shrink_heap() {
    // So that the allocator is linked wherever this is.
    use mimalloc as _;
    unsafe extern "C" {
        fn mi_collect(force: bool);
    }
    // SAFETY: the function takes no pointers, may be called at any time from any thread, and only frees what is unused.
    unsafe { mi_collect(true) }
}
