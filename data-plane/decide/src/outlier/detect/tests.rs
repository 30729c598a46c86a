//! Who is ejected, for how long, and who is let back in.

use std::sync::Arc;

use super::*;
use crate::host::{AssignmentPolicy, Endpoints, Group, HealthStatus};
use crate::outlier::{Enforcing, FailurePercentage, SuccessRate};

fn config() -> OutlierDetection {
    OutlierDetection {
        consecutive_5xx: 3,
        consecutive_gateway_failure: 0,
        consecutive_local_origin_failure: 2,
        interval: Duration::from_secs(10),
        base_ejection_time: Duration::from_secs(30),
        max_ejection_time: Duration::from_secs(300),
        max_ejection_time_jitter: Duration::ZERO,
        max_ejection_percent: 50,
        always_eject_one_host: false,
        split_external_local_origin_errors: false,
        enforcing: Enforcing {
            consecutive_5xx: 100,
            consecutive_gateway_failure: 100,
            consecutive_local_origin_failure: 100,
            success_rate: 100,
            local_origin_success_rate: 100,
            failure_percentage: 0,
            failure_percentage_local_origin: 0,
        },
        success_rate: SuccessRate { minimum_hosts: 3, request_volume: 10, stdev_factor: 1000 },
        failure_percentage: FailurePercentage { threshold: 85, minimum_hosts: 5, request_volume: 50 },
        successful_active_health_check_uneject_host: true,
    }
}

fn endpoints(count: u8) -> Endpoints {
    let host = |n: u8| Host {
        address: std::net::SocketAddr::from(([10, 0, 0, n], 80)).into(),
        additional_addresses: Box::default(),
        hostname: "".into(),
        weight: 1,
        priority: 0,
        locality: Arc::default(),
        metadata: None,
        health_status: HealthStatus::Unknown,
        health_check: None,
        state: Arc::default(),
    };
    let hosts = (0..count).map(host).collect();
    let group = Group { locality: Arc::default(), priority: 0, weight: None, hosts };
    Endpoints::build(vec![group], AssignmentPolicy::default(), 0, None)
}

/// Counts, and ejects where a count runs full.
fn note(
    config: &OutlierDetection,
    endpoints: &Endpoints,
    host: &Host,
    outcome: Outcome,
    chance: Chance,
) -> Option<Ejection> {
    let cause = super::note(config, host, outcome)?;
    eject(config, endpoints.hosts(), host, cause, chance)
}

fn sweep(config: &OutlierDetection, endpoints: &Endpoints, chance: Chance) -> Swept {
    super::sweep(config, endpoints.hosts(), chance)
}

fn at(now_ms: u64) -> Chance {
    Chance { now_ms, random: 0 }
}

/// The last finding of so many outcomes.
fn many(times: usize, note: impl Fn() -> Option<Ejection>) -> Option<Ejection> {
    (0..times).fold(None, |last, _| note().or(last))
}

fn fail(config: &OutlierDetection, endpoints: &Endpoints, host: usize, times: usize) -> Option<Ejection> {
    let host = endpoints.hosts().nth(host).unwrap();
    many(times, || note(config, endpoints, host, Outcome::Status(500), at(0)))
}

#[test]
fn failures_in_a_row_eject_and_time_lets_back_in() {
    let (config, endpoints) = (config(), endpoints(2));
    let host = endpoints.hosts().next().unwrap();
    assert_eq!(fail(&config, &endpoints, 0, 2), None);
    assert_eq!(note(&config, &endpoints, host, Outcome::Status(200), at(0)), None, "a success starts over");
    assert_eq!(fail(&config, &endpoints, 0, 3), Some(Ejection::Enforced(Cause::Consecutive5xx)));
    assert!(host.state.has(HealthFlag::FailedOutlierCheck));
    assert_eq!(sweep(&config, &endpoints, at(29_999)).unejected, 0);
    assert_eq!(sweep(&config, &endpoints, at(30_000)).unejected, 1);
    assert!(!host.state.has(HealthFlag::FailedOutlierCheck));

    assert_eq!(fail(&config, &endpoints, 0, 3), Some(Ejection::Enforced(Cause::Consecutive5xx)));
    assert_eq!(sweep(&config, &endpoints, at(59_999)).unejected, 0, "the second time is twice as long");
    assert_eq!(sweep(&config, &endpoints, at(60_000)).unejected, 1);
}

#[test]
fn rates_of_the_last_interval_are_shown() {
    let (config, endpoints) = (config(), endpoints(3));
    let shown = || -> Vec<[f64; 2]> { endpoints.hosts().map(|host| success_rates(host)).collect() };
    assert_eq!(shown(), [[-1.0; 2]; 3]);
    for (place, host) in endpoints.hosts().enumerate() {
        for request in 0..[10, 20, 9][place] {
            note(&config, &endpoints, host, Outcome::Status(if request % 4 == 0 { 500 } else { 200 }), at(0));
        }
    }
    sweep(&config, &endpoints, at(1));
    assert_eq!(shown(), [[70.0, -1.0], [75.0, -1.0], [-1.0, -1.0]], "the third had too few");
    sweep(&config, &endpoints, at(2));
    assert_eq!(shown(), [[-1.0; 2]; 3]);
    let few = self::endpoints(2);
    let host = few.hosts().next().unwrap();
    (0..10).for_each(|_| assert_eq!(note(&config, &few, host, Outcome::Status(200), at(0)), None));
    sweep(&config, &few, at(1));
    assert_eq!(success_rates(host), [-1.0; 2], "two are too few to compare");
}

#[test]
fn no_more_than_a_share_is_ejected() {
    let (config, endpoints) = (config(), endpoints(3));
    assert_eq!(fail(&config, &endpoints, 0, 3), Some(Ejection::Enforced(Cause::Consecutive5xx)));
    assert_eq!(fail(&config, &endpoints, 1, 3), Some(Ejection::Overflow(Cause::Consecutive5xx)));
    let strict = OutlierDetection { max_ejection_percent: 10, ..config.clone() };
    let others = self::endpoints(3);
    assert_eq!(fail(&strict, &others, 0, 3), Some(Ejection::Overflow(Cause::Consecutive5xx)));
    let one = OutlierDetection { always_eject_one_host: true, ..strict };
    assert_eq!(fail(&one, &others, 0, 3), Some(Ejection::Enforced(Cause::Consecutive5xx)));
}

#[test]
fn our_own_failures_count_apart_when_asked() {
    let endpoints = endpoints(2);
    let host = endpoints.hosts().next().unwrap();
    let split = OutlierDetection { split_external_local_origin_errors: true, ..config() };
    assert_eq!(note(&split, &endpoints, host, Outcome::LocalFailure, at(0)), None);
    let found = note(&split, &endpoints, host, Outcome::LocalFailure, at(0));
    assert_eq!(found, Some(Ejection::Enforced(Cause::ConsecutiveLocalOriginFailure)));
    let host = endpoints.hosts().nth(1).unwrap();
    let joined = OutlierDetection { max_ejection_percent: 100, ..config() };
    let found = many(3, || note(&joined, &endpoints, host, Outcome::LocalFailure, at(0)));
    assert_eq!(found, Some(Ejection::Enforced(Cause::Consecutive5xx)));
}

#[test]
fn a_rate_far_below_the_others_ejects() {
    let config = OutlierDetection { consecutive_5xx: 0, ..config() };
    let endpoints = endpoints(4);
    for (place, host) in endpoints.hosts().enumerate() {
        for n in 0..20 {
            let status = if place == 0 && n < 15 { 500 } else { 200 };
            assert_eq!(note(&config, &endpoints, host, Outcome::Status(status), at(0)), None);
        }
    }
    assert_eq!(sweep(&config, &endpoints, at(0)).findings, [Ejection::Enforced(Cause::SuccessRate)]);
    assert_eq!(sweep(&config, &endpoints, at(0)).findings, [], "every interval counts for itself");
}

#[test]
fn rates_of_our_own_failures_eject_where_they_count_apart() {
    let config = OutlierDetection {
        consecutive_local_origin_failure: 0,
        split_external_local_origin_errors: true,
        ..config()
    };
    let endpoints = endpoints(4);
    for (place, host) in endpoints.hosts().enumerate() {
        for n in 0..20 {
            let outcome = if place == 0 && n < 15 { Outcome::LocalTimeout } else { Outcome::Connected };
            assert_eq!(note(&config, &endpoints, host, outcome, at(0)), None);
        }
    }
    let found = sweep(&config, &endpoints, at(0)).findings;
    assert_eq!(found, [Ejection::Enforced(Cause::LocalOriginSuccessRate)]);
}

#[test]
fn a_share_of_failures_ejects() {
    let config = OutlierDetection {
        consecutive_5xx: 0,
        enforcing: Enforcing { success_rate: 0, failure_percentage: 100, ..config().enforcing },
        failure_percentage: FailurePercentage { threshold: 60, minimum_hosts: 2, request_volume: 10 },
        ..config()
    };
    let endpoints = endpoints(2);
    for (place, host) in endpoints.hosts().enumerate() {
        for n in 0..10 {
            let status = if place == 1 && n < 6 { 500 } else { 200 };
            assert_eq!(note(&config, &endpoints, host, Outcome::Status(status), at(0)), None);
        }
    }
    let found = sweep(&config, &endpoints, at(0)).findings;
    assert_eq!(found, [Ejection::Enforced(Cause::FailurePercentage)]);
}

#[test]
fn a_host_found_well_is_let_back_in_at_once() {
    let (config, endpoints) = (config(), endpoints(2));
    let host = endpoints.hosts().next().unwrap();
    assert_eq!(fail(&config, &endpoints, 0, 3), Some(Ejection::Enforced(Cause::Consecutive5xx)));
    assert!(uneject(host));
    assert!(!uneject(host));
    assert_eq!(fail(&config, &endpoints, 0, 2), None, "it starts over");
}
