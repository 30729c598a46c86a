//! Outlier detection: which hosts fail so often that they are left alone for a while.
//!
//! Workers count outcomes on the hosts ([`note`]), and eject a host whose count runs full ([`eject`]); the main thread
//! calls [`sweep`] once an interval, which ends ejections and looks at success rates.

mod detect;

pub use detect::{
    Cause, Chance, Ejection, HostCounters, Outcome, Swept, eject, note, success_rates, sweep, uneject,
};

use std::time::Duration;

/// `OutlierDetection`
#[derive(Clone, Debug, PartialEq)]
pub struct OutlierDetection {
    /// So many 5xx in a row eject; 0 never.
    pub consecutive_5xx: u32,
    /// So many 502, 503, 504 in a row eject; 0 never.
    pub consecutive_gateway_failure: u32,
    /// So many failures of our own side in a row eject, where they are counted apart; 0 never.
    pub consecutive_local_origin_failure: u32,
    /// How often hosts are swept.
    pub interval: Duration,
    /// How long an ejection lasts, times how often it was ejected.
    pub base_ejection_time: Duration,
    /// The longest.
    pub max_ejection_time: Duration,
    /// Up to so much is added at random.
    pub max_ejection_time_jitter: Duration,
    /// The largest share of hosts that may be ejected.
    pub max_ejection_percent: u32,
    /// Whether one host may be ejected whatever the share.
    pub always_eject_one_host: bool,
    /// Whether failures to connect and the like are counted apart from responses.
    pub split_external_local_origin_errors: bool,
    /// How often (in percent) each detector's finding is carried out.
    pub enforcing: Enforcing,
    /// Success rates.
    pub success_rate: SuccessRate,
    /// Failure percentages.
    pub failure_percentage: FailurePercentage,
    /// Whether a successful active health check ends an ejection.
    pub successful_active_health_check_uneject_host: bool,
}

/// How often, in percent, a detector's finding is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enforcing {
    /// Consecutive 5xx.
    pub consecutive_5xx: u32,
    /// Consecutive gateway failures.
    pub consecutive_gateway_failure: u32,
    /// Consecutive failures of our own side.
    pub consecutive_local_origin_failure: u32,
    /// Success rate.
    pub success_rate: u32,
    /// Success rate of our own side.
    pub local_origin_success_rate: u32,
    /// Failure percentage.
    pub failure_percentage: u32,
    /// Failure percentage of our own side.
    pub failure_percentage_local_origin: u32,
}

/// Hosts whose success rate is far below the mean are ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuccessRate {
    /// So many hosts with enough requests there must be.
    pub minimum_hosts: u32,
    /// So many requests in an interval are enough.
    pub request_volume: u32,
    /// So many thousandths of a standard deviation below the mean is far.
    pub stdev_factor: u32,
}

/// Hosts that fail more than a share of requests are ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailurePercentage {
    /// The share, in percent.
    pub threshold: u32,
    /// So many hosts with enough requests there must be.
    pub minimum_hosts: u32,
    /// So many requests in an interval are enough.
    pub request_volume: u32,
}
