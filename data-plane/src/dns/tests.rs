//! Which hosts come of which answers.

use super::*;
use sail_proxy_config::cluster::{DnsFamily, DnsGroup};
use sail_proxy_decide::host::HealthStatus;

fn config(names: &[&str]) -> DnsCluster {
    let target = |name: &&str| DnsTarget {
        address: Arc::from(*name),
        port: 80,
        hostname: "".into(),
        weight: 1,
        metadata: None,
        health_status: HealthStatus::Unknown,
        health_check: None,
    };
    DnsCluster {
        groups: Box::new([DnsGroup {
            locality: Arc::default(),
            priority: 0,
            weight: None,
            targets: names.iter().map(target).collect(),
        }]),
        policy: Default::default(),
        refresh_rate: Duration::from_secs(5),
        jitter: Duration::ZERO,
        failure_refresh: None,
        respect_ttl: false,
        min_refresh_rate: Duration::ZERO,
        family: DnsFamily::V4Only,
        resolvers: Box::default(),
        use_tcp: false,
    }
}

fn answer(addresses: &[&str]) -> Result<Answer, resolver::Error> {
    Ok(Answer { addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(), ttl: None })
}

fn build(
    config: &DnsCluster,
    answers: Vec<Result<Answer, resolver::Error>>,
    one: bool,
    previous: Option<&Endpoints>,
) -> Endpoints {
    Endpoints::build(groups(config, &[answers], one, previous), config.policy.clone(), 1, previous)
}

fn addresses(endpoints: &Endpoints) -> Vec<String> {
    endpoints.hosts().map(|host| host.address.to_string()).collect()
}

#[test]
fn strict_takes_all_addresses_and_logical_the_first() {
    let config = config(&["a.example"]);
    let all = build(&config, vec![answer(&["10.0.0.1", "10.0.0.2"])], false, None);
    assert_eq!(addresses(&all), ["10.0.0.1:80", "10.0.0.2:80"]);
    let one = build(&config, vec![answer(&["10.0.0.1", "10.0.0.2"])], true, None);
    assert_eq!(addresses(&one), ["10.0.0.1:80"]);
    assert_eq!(&*one.hosts().next().unwrap().hostname, "a.example");
}

#[test]
fn a_name_that_fails_keeps_its_hosts_and_their_state() {
    let config = config(&["a.example", "b.example"]);
    let first = build(&config, vec![answer(&["10.0.0.1"]), answer(&["10.0.0.2"])], false, None);
    let next = build(&config, vec![Err(resolver::Error::Empty), answer(&["10.0.0.3"])], false, Some(&first));
    assert_eq!(addresses(&next), ["10.0.0.1:80", "10.0.0.3:80"]);
    let state = |endpoints: &Endpoints| endpoints.hosts().next().unwrap().state.clone();
    assert!(Arc::ptr_eq(&state(&first), &state(&next)));
}
