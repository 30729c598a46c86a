//! Retries.

use mesh_api::virtual_service::Retry;
use xds_api::any::pack;
use xds_api::envoy::config::route::v3 as rds;
use xds_api::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use xds_api::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;

use crate::pb;

/// When a request is sent again, unless it is said otherwise: it had no effect, or says that it may be repeated.
const CONDITIONS: &str = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";

/// The policy of a route: its own, else the mesh's, else Istio's. Nothing where retries are turned off.
pub(super) fn policy(
    own: Option<&Retry>,
    mesh: Option<&Retry>,
    consistent_hash: bool,
) -> Option<rds::RetryPolicy> {
    let settings = own.or(mesh);
    let attempts = settings.map_or(2, |s| s.attempts.max(0));
    if attempts == 0 {
        return None;
    }
    let conditions =
        settings.map(|s| s.retry_on.as_str()).filter(|text| !text.is_empty()).unwrap_or(CONDITIONS);
    let mut retry_on = Vec::new();
    let mut codes = Vec::new();
    for condition in conditions.split(',').map(str::trim).filter(|c| !c.is_empty()) {
        match condition.parse::<u32>() {
            Ok(code) => codes.push(code),
            Err(_) => retry_on.push(condition),
        }
    }
    if !codes.is_empty() && !retry_on.contains(&"retriable-status-codes") {
        retry_on.push("retriable-status-codes");
    }
    let elsewhere = settings.and_then(|s| s.retry_ignore_previous_hosts).unwrap_or(true) && !consistent_hash;
    let mut out = rds::RetryPolicy {
        retry_on: retry_on.join(","),
        num_retries: pb::u32v(attempts.unsigned_abs()),
        per_try_timeout: settings.and_then(|s| s.per_try_timeout).and_then(pb::duration),
        retriable_status_codes: codes,
        retry_back_off: settings.and_then(|s| s.backoff).map(|base| rds::retry_policy::RetryBackOff {
            base_interval: pb::duration(base),
            ..Default::default()
        }),
        ..Default::default()
    };
    if elsewhere {
        out.host_selection_retry_max_attempts = 5;
        out.retry_host_predicate.push(rds::retry_policy::RetryHostPredicate {
            name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
            config_type: Some(rds::retry_policy::retry_host_predicate::ConfigType::TypedConfig(pack(
                &PreviousHostsPredicate {},
            ))),
        });
    }
    if settings.and_then(|s| s.retry_remote_localities).unwrap_or(false) {
        out.retry_priority = Some(rds::retry_policy::RetryPriority {
            name: "envoy.retry_priorities.previous_priorities".to_owned(),
            config_type: Some(rds::retry_policy::retry_priority::ConfigType::TypedConfig(pack(
                &PreviousPrioritiesConfig { update_frequency: 2 },
            ))),
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_status_codes() {
        let own = Retry { attempts: 3, retry_on: "5xx, 418".to_owned(), ..Retry::default() };
        let policy = policy(Some(&own), None, false).unwrap();
        assert_eq!(policy.retry_on, "5xx,retriable-status-codes");
        assert_eq!(policy.retriable_status_codes, [418]);
    }

    #[test]
    fn no_attempts_means_no_retries() {
        let own = Retry { attempts: 0, ..Retry::default() };
        assert!(policy(Some(&own), None, false).is_none());
        assert_eq!(policy(None, None, false).unwrap().num_retries, pb::u32v(2));
    }
}
