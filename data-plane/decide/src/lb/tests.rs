//! Shares, policies and their statistics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::{any, prop_assert, proptest};

use super::{Balancer, CommonLb, Context, HashFunction, LbPolicy, LocalityLb, SlowStart};
use crate::address::Address;
use crate::host::{AssignmentPolicy, Endpoints, Group, HealthFlag, HealthStatus, Host, HostState};

fn host(last: u8, weight: u32, health_status: HealthStatus) -> Host {
    Host {
        address: Address::Ip(([10, 0, 0, last], 80).into()),
        additional_addresses: Box::default(),
        hostname: "".into(),
        weight,
        priority: 0,
        locality: Arc::default(),
        metadata: None,
        health_status,
        health_check: None,
        state: Arc::new(HostState::default()),
    }
}

/// Priorities of hosts: weight and health.
fn endpoints(priorities: &[&[(u32, HealthStatus)]]) -> Arc<Endpoints> {
    let mut last = 0;
    let groups = priorities.iter().zip(0..).map(|(hosts, priority)| Group {
        locality: Arc::default(),
        priority,
        weight: None,
        hosts: hosts
            .iter()
            .map(|(weight, health)| {
                last += 1;
                host(last, *weight, *health)
            })
            .collect(),
    });
    Arc::new(Endpoints::build(groups.collect(), AssignmentPolicy::default(), 0, None))
}

/// A fixed sequence of numbers.
fn numbers() -> impl FnMut() -> u64 {
    let mut state = 1_u64;
    move || {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// How often each host (by the last part of its address) is chosen in so many tries.
fn spread(balancer: &mut Balancer, endpoints: &Arc<Endpoints>, tries: u32) -> BTreeMap<u8, u32> {
    let mut random = numbers();
    let mut counts = BTreeMap::new();
    for _ in 0..tries {
        if let Some(host) = balancer.choose(endpoints, &Context::default(), &mut random) {
            *counts.entry(last(&host)).or_default() += 1;
        }
    }
    counts
}

fn last(host: &Host) -> u8 {
    match host.address.ip() {
        Some(std::net::IpAddr::V4(ip)) => ip.octets()[3],
        other => panic!("{other:?}"),
    }
}

fn near(counts: &BTreeMap<u8, u32>, host: u8, expected: u32, slack: u32) {
    let found = counts.get(&host).copied().unwrap_or_default();
    assert!(found.abs_diff(expected) <= slack, "host {host}: {found}, not about {expected}: {counts:?}");
}

const H: (u32, HealthStatus) = (1, HealthStatus::Healthy);
const U: (u32, HealthStatus) = (1, HealthStatus::Unhealthy);
const D: (u32, HealthStatus) = (1, HealthStatus::Degraded);

fn round_robin() -> Balancer {
    Balancer::new(LbPolicy::RoundRobin { slow_start: None }, CommonLb::default())
}

#[test]
fn round_robin_is_exact() {
    assert_eq!(
        spread(&mut round_robin(), &endpoints(&[&[H, H, H]]), 300),
        [(1, 100), (2, 100), (3, 100)].into()
    );
    let weighted = endpoints(&[&[(1, HealthStatus::Unknown), (3, HealthStatus::Unknown)]]);
    assert_eq!(spread(&mut round_robin(), &weighted, 400), [(1, 100), (2, 300)].into());
}

#[test]
fn unhealthy_hosts_are_left_out_until_panic() {
    let counts = spread(&mut round_robin(), &endpoints(&[&[H, H, H, U]]), 300);
    assert!(!counts.contains_key(&4) && counts.len() == 3, "{counts:?}");
    // A quarter healthy is below the threshold of half.
    assert_eq!(spread(&mut round_robin(), &endpoints(&[&[H, U, U, U]]), 400).len(), 4);
    let calm = CommonLb { panic_threshold: 0.0, ..CommonLb::default() };
    let mut balancer = Balancer::new(LbPolicy::Random, calm);
    assert_eq!(spread(&mut balancer, &endpoints(&[&[H, U, U, U]]), 100), [(1, 100)].into());
    assert_eq!(spread(&mut balancer, &endpoints(&[&[U, U]]), 100), BTreeMap::new());
    assert_eq!(spread(&mut balancer, &endpoints(&[]), 100), BTreeMap::new());
}

#[test]
fn ejected_hosts_come_back() {
    let all = endpoints(&[&[H, H, H]]);
    let mut balancer = round_robin();
    assert_eq!(spread(&mut balancer, &all, 30).len(), 3);
    let victim = all.hosts().next().unwrap();
    victim.state.set(HealthFlag::FailedOutlierCheck);
    assert_eq!(spread(&mut balancer, &all, 30).len(), 2);
    victim.state.clear(HealthFlag::FailedOutlierCheck);
    assert_eq!(spread(&mut balancer, &all, 30).len(), 3);
}

#[test]
fn priorities_spill_over() {
    // Three of four healthy, times 1.4, still covers everything.
    assert!(
        spread(&mut round_robin(), &endpoints(&[&[H, H, H, U], &[H]]), 1000).keys().all(|host| *host <= 3)
    );
    // Half healthy covers 70 per cent.
    let counts = spread(&mut round_robin(), &endpoints(&[&[H, U], &[H]]), 10_000);
    near(&counts, 1, 7000, 300);
    near(&counts, 3, 3000, 300);
    assert_eq!(spread(&mut round_robin(), &endpoints(&[&[U, U], &[H]]), 100), [(3, 100)].into());
    let degraded = spread(&mut round_robin(), &endpoints(&[&[H, D]]), 10_000);
    near(&degraded, 1, 7000, 300);
    near(&degraded, 2, 3000, 300);
}

#[test]
fn least_request_prefers_the_idle() {
    let policy = LbPolicy::LeastRequest { choice_count: 2, active_request_bias: 1.0, slow_start: None };
    let mut balancer = Balancer::new(policy, CommonLb::default());
    let all = endpoints(&[&[H, H]]);
    all.hosts().next().unwrap().state.active_requests.store(10, std::sync::atomic::Ordering::Relaxed);
    // The busy one is chosen only when both picks hit it.
    near(&spread(&mut balancer, &all, 10_000), 1, 2500, 250);
}

#[test]
fn localities_share_by_weight() {
    let group = |last, weight| Group {
        locality: Arc::new(crate::host::Locality { zone: format!("z{last}").into(), ..Default::default() }),
        priority: 0,
        weight: Some(weight),
        hosts: vec![host(last, 1, HealthStatus::Healthy)],
    };
    let all =
        Arc::new(Endpoints::build(vec![group(1, 1), group(2, 4)], AssignmentPolicy::default(), 0, None));
    let common = CommonLb { locality: LocalityLb::Weighted, ..CommonLb::default() };
    let mut balancer = Balancer::new(LbPolicy::RoundRobin { slow_start: None }, common);
    let counts = spread(&mut balancer, &all, 10_000);
    near(&counts, 1, 2000, 250);
    near(&counts, 2, 8000, 250);
}

#[test]
fn hashing_is_consistent() {
    let ring = LbPolicy::RingHash {
        minimum_ring_size: 1024,
        maximum_ring_size: 1 << 23,
        function: HashFunction::XxHash,
    };
    for policy in [ring, LbPolicy::Maglev { table_size: 65537 }] {
        let mut balancer = Balancer::new(policy.clone(), CommonLb::default());
        let (four, three) = (endpoints(&[&[H, H, H, H]]), endpoints(&[&[H, H, H]]));
        let mut random = numbers();
        let keys: Vec<u64> = (0..4000).map(|_| random()).collect();
        let mut place = |all: &Arc<Endpoints>| -> Vec<u8> {
            let choose = |hash: &u64| {
                let context = Context { hash: Some(*hash), ..Context::default() };
                last(&balancer.choose(all, &context, || 0).unwrap())
            };
            keys.iter().map(choose).collect()
        };
        let (before, again, after) = (place(&four), place(&four), place(&three));
        assert_eq!(before, again);
        // A host that goes moves its own keys, and few others (a ring of fixed size has more points for each then).
        let moved =
            before.iter().zip(&after).filter(|(before, after)| **before != 4 && before != after).count();
        assert!(moved < 600, "{policy:?} moved {moved}");
        for host in 1..=4 {
            let count = before.iter().filter(|found| **found == host).count();
            assert!((600..1400).contains(&count), "{policy:?} host {host}: {count}");
        }
    }
}

#[test]
fn retries_avoid_what_was_tried() {
    let all = endpoints(&[&[H, H, H]]);
    let tried = Address::Ip(([10, 0, 0, 1], 80).into());
    let avoid = |host: &Host| host.address == tried;
    let context = Context { avoid: Some(&avoid), attempts: 5, ..Context::default() };
    let mut balancer = round_robin();
    for _ in 0..30 {
        assert_ne!(last(&balancer.choose(&all, &context, || 0).unwrap()), 1);
    }
    // Better one that was tried than none.
    let one = endpoints(&[&[H]]);
    assert_eq!(last(&balancer.choose(&one, &context, || 0).unwrap()), 1);
}

#[test]
fn new_hosts_warm_up() {
    let slow_start = SlowStart { window: Duration::from_secs(10), aggression: 1.0, min_weight_percent: 10.0 };
    let mut balancer =
        Balancer::new(LbPolicy::RoundRobin { slow_start: Some(slow_start) }, CommonLb::default());
    let all = endpoints(&[&[H, H]]);
    let states: Vec<_> = all.hosts().map(|host| Arc::clone(&host.state)).collect();
    states[0].added_at_ms.store(1, std::sync::atomic::Ordering::Relaxed);
    states[1].added_at_ms.store(100_000, std::sync::atomic::Ordering::Relaxed);
    let mut young = |now_ms: u64| {
        let context = Context { now_ms, ..Context::default() };
        (0..1000).filter(|_| last(&balancer.choose(&all, &context, || 0).unwrap()) == 2).count()
    };
    let (early, late) = (young(100_500), young(200_000));
    assert!((50..150).contains(&early), "{early}");
    assert!((480..520).contains(&late), "{late}");
}

proptest! {
    #[test]
    fn any_hosts_any_policy(hosts in proptest::collection::vec((1_u32..5, 0_u8..4, 0_u32..3), 0..12), policy in 0_u8..5, random in any::<u64>()) {
        let health = [HealthStatus::Healthy, HealthStatus::Unhealthy, HealthStatus::Degraded, HealthStatus::Draining];
        let groups = hosts.iter().zip(1..).map(|((weight, status, priority), last)| Group {
            locality: Arc::default(), priority: *priority, weight: Some(*weight),
            hosts: vec![host(last, *weight, health[usize::from(*status)])],
        });
        let all = Arc::new(Endpoints::build(groups.collect(), AssignmentPolicy::default(), 0, None));
        let policy = match policy {
            0 => LbPolicy::RoundRobin { slow_start: None },
            1 => LbPolicy::LeastRequest { choice_count: 2, active_request_bias: 1.0, slow_start: None },
            2 => LbPolicy::Random,
            3 => LbPolicy::RingHash { minimum_ring_size: 16, maximum_ring_size: 64, function: HashFunction::MurmurHash2 },
            _ => LbPolicy::Maglev { table_size: 251 },
        };
        let mut balancer = Balancer::new(policy, CommonLb::default());
        let found = balancer.choose(&all, &Context::default(), || random);
        // With panic on, there is a host whenever there are any.
        prop_assert!(found.is_some() != all.is_empty());
    }
}
