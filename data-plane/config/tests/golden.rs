//! Resources in YAML against what becomes of them: `testdata/<case>/in.yaml` and `out.txt`.
//! `UPDATE_GOLDENS=1` rewrites the outputs.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use sail_proxy_config::cluster::{Cluster, Discovery};
use sail_proxy_config::decide::host::Endpoints;
use sail_proxy_config::decide::route::{Action, RouteTable};
use sail_proxy_config::hcm::{Hcm, RouteSource};
use sail_proxy_config::listener::FilterChain;
use sail_proxy_config::network_filter::NetworkFilter;
use sail_proxy_config::tls::UpstreamSocket;
use sail_proxy_config::{Sources, State};
use xds_api::codec::Codec;
use xds_api::envoy::service::discovery::v3::DiscoveryResponse;

/// Certificates that are made up on the spot.
struct Files;

impl Sources for Files {
    fn file(&self, path: &str) -> Result<Vec<u8>, String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(path.trim_start_matches('/'));
        fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn environment(&self, _: &str) -> Option<String> {
        None
    }
}

#[test]
fn resources_become_snapshots() {
    let codec = Codec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut failed = Vec::new();
    for case in cases(&root) {
        let input = fs::read_to_string(case.join("in.yaml")).unwrap();
        let response: DiscoveryResponse =
            codec.from_yaml(&input).unwrap_or_else(|error| panic!("{}: {error}", case.display()));
        let found = run(&response);
        let expected = case.join("out.txt");
        #[expect(clippy::disallowed_methods, reason = "the switch of golden tests")]
        let update = std::env::var_os("UPDATE_GOLDENS").is_some();
        if update {
            fs::write(&expected, &found).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != found {
            println!("=== {}\n{found}", case.display());
            failed.push(case);
        }
    }
    assert!(failed.is_empty(), "these differ; UPDATE_GOLDENS=1 rewrites them: {failed:?}");
}

fn cases(root: &Path) -> Vec<PathBuf> {
    let mut cases: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.join("in.yaml").exists());
    cases.sort();
    cases
}

fn run(response: &DiscoveryResponse) -> String {
    let mut state = State::new(Box::new(Files));
    let mut out = String::new();
    for resource in &response.resources {
        match state.put(resource) {
            Ok(accepted) => {
                for warning in accepted.warnings {
                    writeln!(out, "warning: {}: {warning}", accepted.name).unwrap();
                }
            }
            Err(diagnostics) => {
                writeln!(out, "refused: {}", diagnostics.resource).unwrap();
                for finding in diagnostics.findings {
                    writeln!(out, "  {:?} {finding}", finding.severity).unwrap();
                }
            }
        }
        // What is put again changes nothing.
        if let Ok(again) = state.put(resource) {
            assert!(!again.changed, "{} changed though it is the same", again.name);
        }
    }
    let snapshot = state.snapshot();
    for listener in &snapshot.listeners {
        writeln!(out, "listener {} {:?} {:?}", listener.name, listener.traffic_direction, listener.addresses)
            .unwrap();
        let filters: Vec<_> = listener.listener_filters.iter().map(|filter| &*filter.name).collect();
        writeln!(
            out,
            "  bind {} original_dst {} filters {filters:?}",
            listener.bind_to_port, listener.use_original_dst
        )
        .unwrap();
        for (chain, matching) in listener.filter_chains.iter().zip(listener.index.matches()) {
            writeln!(
                out,
                "  chain {:?} port {:?} transport {:?} alpn {:?}",
                chain.name,
                matching.destination_port,
                matching.transport_protocol,
                matching.application_protocols
            )
            .unwrap();
            self::chain(&mut out, chain);
        }
        if let Some(chain) = &listener.default_filter_chain {
            writeln!(out, "  default chain {:?}", chain.name).unwrap();
            self::chain(&mut out, chain);
        }
    }
    let mut tables: Vec<_> = snapshot.route_tables.values().collect();
    tables.sort_by(|left, right| left.name.cmp(&right.name));
    tables.into_iter().for_each(|table| routes(&mut out, "", table));
    let mut clusters: Vec<_> = snapshot.clusters.values().collect();
    clusters.sort_by(|left, right| left.name.cmp(&right.name));
    for cluster in clusters {
        self::cluster(&mut out, cluster);
        if let Some(endpoints) = snapshot.endpoints(cluster) {
            hosts(&mut out, endpoints);
        }
    }
    let mut secrets: Vec<_> = snapshot.secrets.keys().collect();
    secrets.sort();
    writeln!(out, "secrets {secrets:?}").unwrap();
    let wanted = state.wanted();
    let names = |set: &std::collections::BTreeSet<sail_proxy_config::source::ResourceRef>| {
        set.iter().map(|reference| reference.name.to_string()).collect::<Vec<_>>()
    };
    writeln!(out, "wanted EDS {:?}", names(&wanted.assignments)).unwrap();
    writeln!(out, "wanted RDS {:?}", names(&wanted.route_tables)).unwrap();
    writeln!(out, "wanted SDS {:?}", names(&wanted.secrets)).unwrap();
    out
}

fn chain(out: &mut String, chain: &FilterChain) {
    if let Some(tls) = chain.socket.tls() {
        let tls_line =
            (tls.require_client_certificate, &tls.common.alpn_protocols, tls.common.certificates.len());
        writeln!(out, "    tls {tls_line:?} {:?}", tls.common.validation).unwrap();
    }
    for filter in &chain.filters {
        match filter {
            NetworkFilter::HttpConnectionManager(hcm) => manager(out, hcm),
            NetworkFilter::TcpProxy(tcp) => {
                writeln!(out, "    tcp {:?} idle {:?}", tcp.cluster, tcp.idle_timeout).unwrap();
            }
            other => writeln!(out, "    {other:?}").unwrap(),
        }
    }
}

fn manager(out: &mut String, hcm: &Hcm) {
    let filters: Vec<_> = hcm.http_filters.iter().map(|filter| &*filter.name).collect();
    writeln!(out, "    http {} {:?} {filters:?}", hcm.stat_prefix, hcm.codec).unwrap();
    writeln!(out, "      {:?}", hcm.timeouts).unwrap();
    writeln!(out, "      {:?} {:?} logs {}", hcm.path, hcm.forward_client_cert, hcm.access_logs.len())
        .unwrap();
    match &hcm.routes {
        RouteSource::Inline(table) => routes(out, "      ", table),
        RouteSource::Scoped(scopes) => writeln!(out, "      scopes {:?}", scopes.fragments).unwrap(),
        RouteSource::Rds(reference) => writeln!(out, "      rds {reference:?}").unwrap(),
    }
}

fn routes(out: &mut String, indent: &str, table: &RouteTable) {
    writeln!(out, "{indent}routes {:?}", table.name).unwrap();
    for host in &table.virtual_hosts {
        writeln!(out, "{indent}  host {}", host.name).unwrap();
        for route in &host.routes {
            writeln!(
                out,
                "{indent}    route {:?} {:?} {:?}",
                route.name, route.matching.path, route.matching.headers
            )
            .unwrap();
            match &route.action {
                Action::Route(action) => {
                    let names: Vec<_> = action.cluster.names().collect();
                    let retry = action.retry.as_ref().map(|policy| (policy.on, policy.num_retries));
                    writeln!(out, "{indent}      to {names:?} timeout {:?} retry {retry:?}", action.timeout)
                        .unwrap();
                }
                other => writeln!(out, "{indent}      {other:?}").unwrap(),
            }
            for ops in [&route.request_headers, &route.response_headers] {
                if !ops.is_empty() {
                    writeln!(out, "{indent}      {ops:?}").unwrap();
                }
            }
            for (filter, config) in route.per_filter.iter() {
                writeln!(out, "{indent}      {filter}: {config:?}").unwrap();
            }
        }
    }
}

fn cluster(out: &mut String, cluster: &Cluster) {
    let kind = match &cluster.discovery {
        Discovery::Static(_) => "static".to_owned(),
        Discovery::Eds { service_name, source } => format!("eds {service_name} {source:?}"),
        Discovery::StrictDns(dns) => format!("strict dns {:?} {:?}", dns.refresh_rate, dns.groups),
        Discovery::LogicalDns(dns) => format!("logical dns {:?}", dns.groups),
        Discovery::OriginalDst(config) => format!("{config:?}"),
        Discovery::DynamicForwardProxy(cache) => format!("forward proxy {}", cache.name),
        Discovery::Aggregate(clusters) => format!("aggregate {clusters:?}"),
    };
    writeln!(out, "cluster {} {kind}", cluster.name).unwrap();
    writeln!(out, "  {:?} {:?}", cluster.lb, cluster.common_lb).unwrap();
    let outlier = cluster.outlier_detection.as_ref().map(|outlier| outlier.consecutive_5xx);
    writeln!(
        out,
        "  http {:?} connect {:?} outlier {outlier:?} bind {:?} max_requests {}",
        cluster.http.protocol,
        cluster.connect_timeout,
        cluster.bind.as_ref().map(|bind| bind.source),
        cluster.circuit_breakers.default.max_requests
    )
    .unwrap();
    for (name, socket) in cluster
        .socket_matches
        .iter()
        .map(|entry| (&*entry.name, &entry.socket))
        .chain([("socket", &cluster.socket)])
    {
        let text = match socket {
            UpstreamSocket::Raw => "raw".into(),
            UpstreamSocket::Tls(tls) => format!("tls {} {:?}", tls.sni, tls.common.alpn_protocols),
            other => format!("{other:?}"),
        };
        writeln!(out, "  {name}: {text}").unwrap();
    }
}

fn hosts(out: &mut String, endpoints: &Endpoints) {
    for host in endpoints.hosts() {
        writeln!(
            out,
            "  host {} priority {} weight {} {:?} {:?} {:?}",
            host.address,
            host.priority,
            host.weight,
            host.health(),
            host.locality,
            host.metadata
        )
        .unwrap();
    }
}
