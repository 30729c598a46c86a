//! `overload_manager` of the bootstrap; what cannot be run is refused by its field.

use std::time::Duration;

use prost::{Message, Name};
use xds_api::any;
use xds_api::envoy::config::overload::v3::{
    OverloadAction, OverloadManager, ResourceMonitor, resource_monitor, trigger::TriggerOneof,
};
use xds_api::envoy::extensions::resource_monitors::downstream_connections::v3::DownstreamConnectionsConfig;
use xds_api::envoy::extensions::resource_monitors::fixed_heap::v3::FixedHeapConfig;
use xds_api::google::protobuf::Any;

use crate::dial::duration;

/// Resource monitors that there are.
pub(super) const MONITORS: &[&str] =
    &["envoy.resource_monitors.fixed_heap", "envoy.resource_monitors.global_downstream_max_connections"];

const DOWNSTREAM_CONNECTIONS: &str = "envoy.resource_monitors.global_downstream_max_connections";
const FIXED_HEAP: &str = "envoy.resource_monitors.fixed_heap";

/// What is done on overload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Requests are answered 503.
    StopAcceptingRequests,
    /// HTTP/1 connections close after their response.
    DisableHttpKeepalive,
    /// Connections wait in the kernel's queue.
    StopAcceptingConnections,
    /// Connections are closed at once.
    RejectIncomingConnections,
    /// Memory that is free goes back to the system.
    ShrinkHeap,
}

/// Names of actions.
pub(super) const ACTIONS: &[(&str, Action)] = &[
    ("envoy.overload_actions.stop_accepting_requests", Action::StopAcceptingRequests),
    ("envoy.overload_actions.disable_http_keepalive", Action::DisableHttpKeepalive),
    ("envoy.overload_actions.stop_accepting_connections", Action::StopAcceptingConnections),
    ("envoy.overload_actions.reject_incoming_connections", Action::RejectIncomingConnections),
    ("envoy.overload_actions.shrink_heap", Action::ShrinkHeap),
];

/// An action begins at this share of a resource.
#[derive(Clone, Debug, PartialEq)]
pub struct Trigger {
    /// The resource's name.
    pub resource: &'static str,
    /// Between 0 and 1.
    pub threshold: f64,
}

/// `OverloadManager`
#[derive(Clone, Debug, PartialEq)]
pub struct Overload {
    /// How often resources are looked at.
    pub refresh: Duration,
    /// The heap that counts as full.
    pub max_heap: Option<u64>,
    /// How many downstream connections there may be.
    pub max_connections: Option<u64>,
    /// What is done, and when: at the first of the triggers.
    pub actions: Vec<(Action, Vec<Trigger>)>,
}

impl Default for Overload {
    fn default() -> Self {
        Self { refresh: Duration::from_secs(1), max_heap: None, max_connections: None, actions: Vec::new() }
    }
}

impl Overload {
    /// Whether there is anything to measure.
    pub fn is_active(&self) -> bool {
        self.max_heap.is_some() || !self.actions.is_empty()
    }
}

/// The configuration, or the field that is wrong and why.
pub fn read(config: Option<&OverloadManager>) -> Result<Overload, String> {
    let mut overload = Overload::default();
    let Some(config) = config else { return Ok(overload) };
    let field = |name: String, reason: &str| format!("overload_manager.{name}: {reason}");
    if let Some(refresh) = config.refresh_interval.as_ref().and_then(duration) {
        overload.refresh = refresh.max(Duration::from_millis(10));
    }
    if !config.loadshed_points.is_empty() {
        return Err(field("loadshed_points".to_owned(), "it is not supported"));
    }
    if config.buffer_factory_config.is_some() {
        return Err(field("buffer_factory_config".to_owned(), "it is not supported"));
    }
    for (place, monitor) in config.resource_monitors.iter().enumerate() {
        self::monitor(&mut overload, monitor)
            .map_err(|reason| field(format!("resource_monitors[{place}]"), &reason))?;
    }
    for (place, action) in config.actions.iter().enumerate() {
        let action =
            self::action(&overload, action).map_err(|reason| field(format!("actions[{place}]"), &reason))?;
        overload.actions.push(action);
    }
    Ok(overload)
}

fn monitor(overload: &mut Overload, monitor: &ResourceMonitor) -> Result<(), String> {
    let Some(resource_monitor::ConfigType::TypedConfig(any)) = &monitor.config_type else {
        return Err("typed_config: required".to_owned());
    };
    if any.type_url.ends_with(&FixedHeapConfig::full_name()) {
        let config: FixedHeapConfig = unpack(any)?;
        if config.max_heap_size_bytes_runtime.is_some() {
            return Err("typed_config.max_heap_size_bytes_runtime: it is not supported".to_owned());
        }
        if config.max_heap_size_bytes == 0 {
            return Err("typed_config.max_heap_size_bytes: it must be above 0".to_owned());
        }
        overload.max_heap = Some(config.max_heap_size_bytes);
    } else if any.type_url.ends_with(&DownstreamConnectionsConfig::full_name()) {
        let config: DownstreamConnectionsConfig = unpack(any)?;
        let max = u64::try_from(config.max_active_downstream_connections).ok().filter(|max| *max > 0);
        let max = max.ok_or("typed_config.max_active_downstream_connections: it must be above 0")?;
        overload.max_connections = Some(max);
    } else {
        return Err(format!("typed_config: there is no resource monitor {:?}", any.type_url));
    }
    Ok(())
}

fn unpack<M: Message + Name + Default>(any: &Any) -> Result<M, String> {
    any::unpack(any).map_err(|error| format!("typed_config: {error}"))
}

fn action(overload: &Overload, action: &OverloadAction) -> Result<(Action, Vec<Trigger>), String> {
    let OverloadAction { name, triggers, typed_config } = action;
    let known = ACTIONS.iter().find(|(known, _)| known == name);
    let Some((_, kind)) = known else { return Err(format!("name: there is no action {name:?}")) };
    if typed_config.is_some() {
        return Err("typed_config: it is not supported".to_owned());
    }
    let mut all = Vec::new();
    for (place, trigger) in triggers.iter().enumerate() {
        let wrong = |reason: String| format!("triggers[{place}].{reason}");
        let threshold = match &trigger.trigger_oneof {
            Some(TriggerOneof::Threshold(threshold)) => threshold.value,
            Some(TriggerOneof::Scaled(_)) => return Err(wrong("scaled: it is not supported".to_owned())),
            None => return Err(wrong("trigger_oneof: required".to_owned())),
        };
        if !(0.0..=1.0).contains(&threshold) {
            return Err(wrong(format!("threshold.value: {threshold} is not between 0 and 1")));
        }
        let resource = match trigger.name.as_str() {
            FIXED_HEAP if overload.max_heap.is_some() => FIXED_HEAP,
            DOWNSTREAM_CONNECTIONS if overload.max_connections.is_some() => DOWNSTREAM_CONNECTIONS,
            other => return Err(wrong(format!("name: no resource monitor {other:?} is configured"))),
        };
        all.push(Trigger { resource, threshold });
    }
    Ok((*kind, all))
}

#[cfg(test)]
mod tests {
    use super::*;
    use xds_api::envoy::config::overload::v3::{ScaledTrigger, ThresholdTrigger, Trigger as PbTrigger};

    fn config(action: &str, trigger: TriggerOneof) -> OverloadManager {
        let heap = FixedHeapConfig { max_heap_size_bytes: 1 << 30, ..Default::default() };
        let monitor = ResourceMonitor {
            name: FIXED_HEAP.to_owned(),
            config_type: Some(resource_monitor::ConfigType::TypedConfig(any::pack(&heap))),
        };
        let trigger = PbTrigger { name: FIXED_HEAP.to_owned(), trigger_oneof: Some(trigger) };
        let action = OverloadAction { name: action.to_owned(), triggers: vec![trigger], typed_config: None };
        OverloadManager { resource_monitors: vec![monitor], actions: vec![action], ..Default::default() }
    }

    #[test]
    fn what_cannot_be_run_is_refused_by_its_field() {
        let at = |value| TriggerOneof::Threshold(ThresholdTrigger { value });
        let good = read(Some(&config("envoy.overload_actions.shrink_heap", at(0.9)))).unwrap();
        assert_eq!(
            good.actions,
            [(Action::ShrinkHeap, vec![Trigger { resource: FIXED_HEAP, threshold: 0.9 }])]
        );
        let refused = |config| read(Some(&config)).unwrap_err();
        assert!(
            refused(config("envoy.overload_actions.reduce_timeouts", at(0.9)))
                .starts_with("overload_manager.actions[0]: name: there is no action")
        );
        let scaled = TriggerOneof::Scaled(ScaledTrigger::default());
        assert!(refused(config("envoy.overload_actions.shrink_heap", scaled)).contains("triggers[0].scaled"));
        assert!(refused(config("envoy.overload_actions.shrink_heap", at(1.5))).contains("threshold.value"));
    }
}
