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
    // As Envoy 1.40: hosts on their way out are no part of the whole, so this is one of two.
    let counts = spread(&mut round_robin(), &endpoints(&[&[H, U, (1, HealthStatus::Draining)]]), 100);
    assert_eq!(counts, [(1, 100)].into());
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
    let policy = LbPolicy::LeastRequest {
        choice_count: 2,
        active_request_bias: 1.0,
        full_scan: false,
        slow_start: None,
    };
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
    for policy in [
        LbPolicy::RingHash {
            minimum_ring_size: 1024,
            maximum_ring_size: 4096,
            function: HashFunction::XxHash,
        },
        LbPolicy::Maglev { table_size: 65537 },
    ] {
        let mut balancer = Balancer::new(policy, CommonLb::default());
        for hash in (0..u64::MAX).step_by(1 << 58) {
            let context = Context { hash: Some(hash), attempts: 20, ..context };
            assert_ne!(last(&balancer.choose(&all, &context, || 0).unwrap()), 1);
        }
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
            1 => LbPolicy::LeastRequest { choice_count: 2, active_request_bias: 1.0, full_scan: false, slow_start: None },
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

fn zoned(zones: &[(&str, u8)]) -> Arc<Endpoints> {
    let mut next = 0;
    let groups = zones.iter().map(|(zone, count)| Group {
        locality: Arc::new(crate::host::Locality { zone: (*zone).into(), ..Default::default() }),
        priority: 0,
        weight: None,
        hosts: (0..*count)
            .map(|_| {
                next += 1;
                host(next, 1, HealthStatus::Healthy)
            })
            .collect(),
    });
    Arc::new(Endpoints::build(groups.collect(), AssignmentPolicy::default(), 0, None))
}

fn zone_aware() -> Balancer {
    let locality = LocalityLb::ZoneAware {
        routing_enabled: 100.0,
        min_cluster_size: 1,
        fail_traffic_on_panic: false,
        force_local_zone: None,
        by_weight: false,
    };
    let policy = LbPolicy::RoundRobin { slow_start: None };
    Balancer::new(policy, CommonLb { locality, ..CommonLb::default() })
}

#[test]
fn the_own_zone_comes_first() {
    let locality = Arc::new(crate::host::Locality { zone: "a".into(), ..Default::default() });
    let spread = |upstream: &[(&str, u8)], local: &[(&str, u8)]| {
        let (upstream, zone) =
            (zoned(upstream), super::LocalZone { endpoints: zoned(local), locality: Arc::clone(&locality) });
        let (mut balancer, mut random) = (zone_aware(), numbers());
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        for _ in 0..10_000 {
            let context = Context { zone: Some(&zone), ..Context::default() };
            let host = balancer.choose(&upstream, &context, &mut random).unwrap();
            *counts.entry(host.locality.zone.to_string()).or_default() += 1;
        }
        counts
    };
    assert_eq!(spread(&[("a", 2), ("b", 2)], &[("a", 1), ("b", 1)]), [("a".to_owned(), 10_000)].into());
    // Half of the callers are here, a quarter of the hosts: half of our requests stay.
    let counts = spread(&[("a", 1), ("b", 3)], &[("a", 1), ("b", 1)]);
    assert!(counts["a"].abs_diff(5000) < 300, "{counts:?}");
    // Nobody knows of us: zones do not matter.
    assert_eq!(spread(&[("a", 2), ("b", 2)], &[("b", 1), ("c", 1)]).len(), 2);
}

#[test]
fn requests_go_where_they_say() {
    let all = endpoints(&[&[H, H, U]]);
    let mut balancer = round_robin();
    let mut to = |address: &str, strict| {
        let wanted = super::Override { address, strict };
        let context = Context { override_host: Some(wanted), ..Context::default() };
        (0..8).map(|_| balancer.choose(&all, &context, || 0).map(|host| last(&host))).collect::<Vec<_>>()
    };
    assert_eq!(to("10.0.0.2:80", false), [Some(2); 8]);
    assert!(to("10.0.0.3:80", false).contains(&Some(1)), "an unhealthy host is not used");
    assert_eq!(to("10.0.0.9:80", true), [None; 8]);

    let policy = LbPolicy::OverrideHost(Arc::new(super::OverrideHost {
        sources: [
            super::OverrideSource::Metadata("envoy.lb".into(), ["to".into()].into()),
            super::OverrideSource::Header(http::HeaderName::from_static("x-to")),
        ]
        .into(),
        selected: None,
        fallback: LbPolicy::RoundRobin { slow_start: None },
    }));
    let mut balancer = Balancer::new(policy, CommonLb::default());
    let mut headers = http::HeaderMap::new();
    headers.insert("x-to", http::HeaderValue::from_static("10.0.0.7:80, 10.0.0.2:80,10.0.0.1:80"));
    let mut nth = |tried| {
        let context = Context { headers: Some(&headers), tried, ..Context::default() };
        balancer.choose(&all, &context, || 0).map(|host| last(&host))
    };
    assert_eq!([nth(0), nth(1)], [Some(2), Some(1)]);
    assert!(nth(2).is_some(), "named no more: by the fallback");
}

mod subsets {
    use serde_json::{Map, Value, json};

    use super::super::{Criteria, Fallback, Selector, SelectorFallback, Subset};
    use super::*;

    const NONE: [u8; 0] = [];

    fn metadata(lb: Value) -> Map<String, Value> {
        json!({ "envoy.lb": lb }).as_object().unwrap().clone()
    }

    /// Three hosts: v1 on prod, v1 on test, v2 on prod.
    fn all() -> Arc<Endpoints> {
        let with = |last, lb: Value| Host {
            metadata: Some(Arc::new(metadata(lb))),
            ..host(last, 1, HealthStatus::Healthy)
        };
        let hosts = vec![
            with(1, json!({"version": "v1", "stage": "prod", "region": "eu"})),
            with(2, json!({"version": "v1", "stage": "test", "region": "eu"})),
            with(3, json!({"version": "v2", "stage": ["prod", "canary"]})),
        ];
        let group = Group { locality: Arc::default(), priority: 0, weight: None, hosts };
        Arc::new(Endpoints::build(vec![group], AssignmentPolicy::default(), 0, None))
    }

    fn selector(keys: &[&str], fallback: Option<SelectorFallback>) -> Selector {
        Selector { keys: keys.iter().map(|key| Box::from(*key)).collect(), fallback, single_host: false }
    }

    fn config() -> Subset {
        Subset {
            selectors: [selector(&["version"], None), selector(&["stage", "version"], None)].into(),
            fallback: Fallback::None,
            default_subset: Map::new(),
            locality_weight_aware: false,
            scale_locality_weight: false,
            panic_mode_any: false,
            list_as_any: false,
            fallback_list: false,
            child: LbPolicy::RoundRobin { slow_start: None },
        }
    }

    /// Which hosts a route with these metadata reaches.
    fn reached(config: Subset, lb: Value) -> Vec<u8> {
        let mut balancer = Balancer::new(LbPolicy::Subset(Arc::new(config)), CommonLb::default());
        let (all, route) = (all(), metadata(lb));
        let criteria = Criteria { route: Some(&route), weighted: None };
        let context = Context { criteria, ..Context::default() };
        let mut random = numbers();
        let mut found: Vec<u8> = (0..30)
            .filter_map(|_| balancer.choose(&all, &context, &mut random).map(|host| last(&host)))
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    #[test]
    fn hosts_hold_what_the_route_asks() {
        assert_eq!(reached(config(), json!({"version": "v1"})), [1, 2]);
        assert_eq!(reached(config(), json!({"version": "v1", "stage": "test"})), [2]);
        assert_eq!(reached(config(), json!({"version": "v2", "stage": "prod"})), NONE, "a list is no string");
        let any = Subset { list_as_any: true, ..config() };
        assert_eq!(reached(any, json!({"version": "v2", "stage": "prod"})), [3]);
        assert_eq!(reached(config(), json!({"stage": "test"})), NONE, "no selector has this key alone");
        assert_eq!(reached(config(), json!({})), NONE);
    }

    /// As in Envoy, whatever the number of keys.
    #[test]
    fn one_host_of_a_subset_is_enough() {
        for (keys, lb) in [
            (&["version"][..], json!({"version": "v1"})),
            (&["region", "version"], json!({"region": "eu", "version": "v1"})),
        ] {
            let selector = Selector { single_host: true, ..selector(keys, None) };
            assert_eq!(reached(Subset { selectors: [selector].into(), ..config() }, lb), [1], "{keys:?}");
        }
    }

    #[test]
    fn what_matches_nothing_falls_back() {
        let with = |fallback| Subset { fallback, ..config() };
        assert_eq!(reached(with(Fallback::AnyEndpoint), json!({"version": "v9"})), [1, 2, 3]);
        let v2 = json!({"version": "v2"}).as_object().unwrap().clone();
        let default = Subset { default_subset: v2, ..with(Fallback::DefaultSubset) };
        assert_eq!(reached(default.clone(), json!({"version": "v9"})), [3]);
        assert_eq!(reached(default, json!({})), [3]);
        let nothing = json!({"version": "v0"}).as_object().unwrap().clone();
        let panic = Subset { default_subset: nothing, panic_mode_any: true, ..with(Fallback::DefaultSubset) };
        assert_eq!(reached(panic, json!({"version": "v9"})), [1, 2, 3]);
        let fewer = SelectorFallback::Keys(["version".into()].into());
        let keys = Subset {
            selectors: [selector(&["stage", "version"], Some(fewer)), selector(&["version"], None)].into(),
            ..config()
        };
        assert_eq!(reached(keys, json!({"version": "v1", "stage": "nowhere"})), [1, 2]);
        let list = Subset { fallback_list: true, ..config() };
        let variants = json!([{"version": "v8"}, {"version": "v2"}]);
        assert_eq!(reached(list, json!({"version": "v1", "fallback_list": variants})), [3]);
    }

    #[test]
    fn subsets_follow_health() {
        let mut balancer = Balancer::new(LbPolicy::Subset(Arc::new(config())), CommonLb::default());
        let (all, route) = (all(), metadata(json!({"version": "v1"})));
        let criteria = Criteria { route: Some(&route), weighted: None };
        let context = Context { criteria, ..Context::default() };
        let mut random = numbers();
        let mut reaches =
            |wanted| (0..20).any(|_| last(&balancer.choose(&all, &context, &mut random).unwrap()) == wanted);
        assert!(reaches(1));
        all.hosts().next().unwrap().state.set(HealthFlag::FailedOutlierCheck);
        assert!(!reaches(1));
        assert!(reaches(2));
    }
}

/// The hosts that a balancer foresees, up to so many.
fn foreseen(balancer: &mut Balancer, endpoints: &Arc<Endpoints>, most: usize) -> Vec<u8> {
    let mut random = numbers();
    let peek = || balancer.peek(endpoints, &Context::default(), &mut random).map(|host| last(&host));
    std::iter::from_fn(peek).take(most).collect()
}

/// The hosts that so many choices yield.
fn chosen(balancer: &mut Balancer, endpoints: &Arc<Endpoints>, tries: usize) -> Vec<u8> {
    let mut random = numbers();
    let mut choose = || balancer.choose(endpoints, &Context::default(), &mut random);
    (0..tries).filter_map(|_| choose()).map(|host| last(&host)).collect()
}

#[test]
fn what_is_foreseen_comes_in_its_order() {
    let weights = endpoints(&[&[(1, HealthStatus::Unknown), (3, HealthStatus::Unknown), H, H]]);
    let least = |slow_start| LbPolicy::LeastRequest {
        choice_count: 2,
        active_request_bias: 1.0,
        full_scan: false,
        slow_start,
    };
    for (policy, of) in [
        (LbPolicy::RoundRobin { slow_start: None }, &endpoints(&[&[H, H, H]])),
        (LbPolicy::RoundRobin { slow_start: None }, &weights),
        (LbPolicy::Random, &weights),
        (least(None), &weights),
    ] {
        let mut balancer = Balancer::new(policy.clone(), CommonLb::default());
        chosen(&mut balancer, of, 3);
        let ahead = foreseen(&mut balancer, of, 2);
        assert_eq!(ahead.len(), 2, "{policy:?}");
        assert_eq!(chosen(&mut balancer, of, 2), ahead, "{policy:?}");
    }
}

#[test]
fn turns_go_on_behind_what_was_foreseen() {
    let all = endpoints(&[&[H, H, H]]);
    let (mut plain, mut balancer) = (round_robin(), round_robin());
    let wanted = chosen(&mut plain, &all, 7);
    let mut found = chosen(&mut balancer, &all, 1);
    for _ in 0..6 {
        foreseen(&mut balancer, &all, 1);
        found.extend(chosen(&mut balancer, &all, 1));
    }
    assert_eq!(found, wanted, "a prediction takes nobody's turn");
}

#[test]
fn no_more_is_foreseen_than_there_are_healthy_hosts() {
    let mut balancer = round_robin();
    let all = endpoints(&[&[H, H, H, U]]);
    assert_eq!(foreseen(&mut balancer, &all, 9).len(), 3);
    assert_eq!(chosen(&mut balancer, &all, 1).len(), 1);
    assert_eq!(foreseen(&mut balancer, &all, 9).len(), 1, "there is room for one again");
    assert_eq!(foreseen(&mut balancer, &endpoints(&[&[U, U]]), 9).len(), 0, "nor in panic");
}

#[test]
fn other_hosts_and_other_health_are_foreseen_anew() {
    let mut balancer = round_robin();
    let all = endpoints(&[&[H, H, H]]);
    assert_eq!(foreseen(&mut balancer, &all, 9).len(), 3);
    let victim = all.hosts().next().unwrap();
    victim.state.set(HealthFlag::FailedOutlierCheck);
    assert!(!chosen(&mut balancer, &all, 6).contains(&last(victim)));
    foreseen(&mut balancer, &all, 2);
    let others = endpoints(&[&[U, U, U, H]]);
    assert_eq!(foreseen(&mut balancer, &others, 9).len(), 1);
}

#[test]
fn hashes_loads_and_subsets_are_not_foreseen() {
    let all = endpoints(&[&[H, H, H]]);
    let least = LbPolicy::LeastRequest {
        choice_count: 2,
        active_request_bias: 1.0,
        full_scan: false,
        slow_start: None,
    };
    let ring =
        LbPolicy::RingHash { minimum_ring_size: 16, maximum_ring_size: 64, function: HashFunction::XxHash };
    for policy in [least, ring, LbPolicy::Maglev { table_size: 7 }, LbPolicy::ClusterProvided] {
        let mut balancer = Balancer::new(policy.clone(), CommonLb::default());
        assert_eq!(foreseen(&mut balancer, &all, 9), Vec::<u8>::new(), "{policy:?}");
    }
}

#[test]
fn hosts_that_are_avoided_are_passed_over_among_the_foreseen() {
    let all = endpoints(&[&[H, H, H]]);
    let mut balancer = round_robin();
    let ahead = foreseen(&mut balancer, &all, 2);
    let avoid = |host: &Host| Some(&last(host)) == ahead.first();
    let context = Context { avoid: Some(&avoid), attempts: 3, ..Context::default() };
    let host = balancer.choose(&all, &context, numbers()).unwrap();
    assert_eq!(Some(&last(&host)), ahead.get(1));
}
