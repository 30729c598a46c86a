//! The host names by which a service is asked for.

use saild_model::Service;

/// Every name of a service for a client with this DNS domain (`default.svc.cluster.local`).
pub(super) fn of_service(service: &Service, dns_domain: &str, auto_address: bool) -> Vec<String> {
    let host = &*service.hostname;
    let mut domains = of_host(host, dns_domain);
    if service.is_headless() {
        let pods: Vec<String> = domains.iter().map(|domain| format!("*.{domain}")).collect();
        domains.extend(pods);
    }
    for net in service.addresses.iter().filter(|net| net.prefix_len() == net.max_prefix_len()) {
        domains.push(match net.addr() {
            std::net::IpAddr::V4(ip) => ip.to_string(),
            std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        });
    }
    if auto_address {
        domains.extend(service.auto_address.map(|ip| ip.to_string()));
    }
    domains
}

/// The full name, the same with the root's dot, and what of it a resolver with this search domain completes.
pub(super) fn of_host(host: &str, dns_domain: &str) -> Vec<String> {
    if host == "*" || dns_domain.is_empty() {
        return vec![host.to_owned()];
    }
    let mut domains = vec![host.to_owned()];
    if !host.starts_with('*') {
        domains.push(format!("{host}."));
    }
    let Some((own_namespace, rest)) = dns_domain.split_once('.') else { return domains };
    // "svc.cluster.local" is what every service's name ends in.
    let Some(short) = host.strip_suffix(rest).and_then(|s| s.strip_suffix('.')) else { return domains };
    let Some((name, namespace)) = short.rsplit_once('.') else { return domains };
    if namespace == own_namespace {
        domains.push(name.to_owned());
    }
    domains.push(short.to_owned());
    let middle = rest.split('.').next().unwrap_or_default();
    domains.push(format!("{short}.{middle}"));
    domains
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_own_namespace_are_shorter() {
        let own = of_host("reviews.default.svc.cluster.local", "default.svc.cluster.local");
        assert_eq!(
            own,
            [
                "reviews.default.svc.cluster.local",
                "reviews.default.svc.cluster.local.",
                "reviews",
                "reviews.default",
                "reviews.default.svc"
            ]
        );
        let other = of_host("reviews.other.svc.cluster.local", "default.svc.cluster.local");
        assert_eq!(other[2..], ["reviews.other", "reviews.other.svc"]);
        assert_eq!(of_host("example.com", "default.svc.cluster.local"), ["example.com", "example.com."]);
    }
}
