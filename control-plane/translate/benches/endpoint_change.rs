//! What one endpoint change costs the control plane: 1,000 services of 10 endpoints each, 100 connected proxies.
//!
//! `cargo bench -p saild-translate --bench endpoint_change` prints, for each step, its time with what did not change
//! shared between snapshots, and with everything made anew.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on fails")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use saild_model::proxy::RawNode;
use saild_model::{ChangeSet, Mesh, ProxyView};
use saild_registry::adapt::Adapter;
use saild_registry::{Change, Object, Options, Store};
use saild_translate::{Cache, Names, affected, generate};
use serde_json::{Value, json};
use xds_api::type_url;

const SERVICES: usize = 1000;
const ENDPOINTS: usize = 10;
const PROXIES: usize = 100;
const ROUNDS: usize = 20;
/// Rounds in which everything is made anew, too: that takes long.
const ANEW: usize = 2;
const TYPES: [&str; 5] =
    [type_url::CLUSTER, type_url::ENDPOINT, type_url::LISTENER, type_url::ROUTE, type_url::NAME_TABLE];

fn main() {
    let mut store = Store::default();
    let mut adapter = Adapter::new(Options::default());
    let touched = store.apply(vec![Change::Replace(objects())]);
    adapter.update(&store, &touched);
    let mut mesh = adapter.build();
    let cache = Cache::new();
    let proxies: Vec<ProxyView> = (0..PROXIES).map(proxy).collect();
    println!(
        "{SERVICES} services x {ENDPOINTS} endpoints, {PROXIES} proxies; mean of {ROUNDS} changes of one endpoint"
    );

    let start = Instant::now();
    let names = names(&mesh);
    for proxy in &proxies {
        everything(&mesh, proxy, &names, &cache);
    }
    println!("first push to all proxies:            {:>9.1} ms", ms(start.elapsed(), 1));

    let (mut build, mut push, mut resources) = (Duration::ZERO, Duration::ZERO, 0);
    let (mut build_anew, mut push_anew) = (Duration::ZERO, Duration::ZERO);
    for round in 0..ROUNDS {
        let pod = pod(round % SERVICES, ENDPOINTS + round / SERVICES, true);
        let start = Instant::now();
        let touched = store.apply(vec![Change::Upsert(pod)]);
        let mut change = adapter.update(&store, &touched);
        let next = adapter.build_from(&mesh, &change);
        change.set_endpoints(next.endpoint_changes(&mesh));
        build += start.elapsed();

        let start = Instant::now();
        for proxy in &proxies {
            resources += changed(&next, proxy, &change, &names, &cache);
        }
        push += start.elapsed();

        mesh = next;
        if round >= ANEW {
            continue;
        }
        let start = Instant::now();
        let anew = adapter.build();
        build_anew += start.elapsed();
        let start = Instant::now();
        for proxy in &proxies {
            everything(&anew, proxy, &names, &cache);
        }
        push_anew += start.elapsed();
    }
    let row = |what: &str, shared: Duration, anew: Duration| {
        let (shared, anew) = (ms(shared, ROUNDS), ms(anew, ANEW));
        println!("{what:<37} {shared:>9.2} ms, anew {anew:>9.1} ms, {:>6.0} x", anew / shared);
    };
    row("the model after one change:", build, build_anew);
    row("what all proxies are sent:", push, push_anew);
    println!("resources sent for one change:        {:>9.1}", resources as f64 / ROUNDS as f64);
}

fn ms(time: Duration, rounds: usize) -> f64 {
    time.as_secs_f64() * 1000.0 / rounds as f64
}

fn names(mesh: &Mesh) -> BTreeSet<String> {
    let of = |service: &std::sync::Arc<saild_model::Service>| {
        saild_translate::naming::outbound(service.ports[0].number, "", &service.hostname)
    };
    mesh.services().iter().map(of).collect()
}

fn everything(mesh: &Mesh, proxy: &ProxyView, endpoints: &BTreeSet<String>, cache: &Cache) {
    for url in TYPES {
        let names = match url {
            type_url::ENDPOINT => Names::Set(endpoints.clone()),
            type_url::ROUTE => Names::Set(["80".to_owned()].into()),
            _ => Names::Wildcard,
        };
        generate(mesh, proxy, url, &names, cache);
    }
}

/// What the server generates for a change; how many resources that are.
fn changed(
    mesh: &Mesh,
    proxy: &ProxyView,
    change: &ChangeSet,
    endpoints: &BTreeSet<String>,
    cache: &Cache,
) -> usize {
    let mut count = 0;
    for url in TYPES.into_iter().filter(|url| affected(change, proxy, url)) {
        let concerned =
            |name: &&String| name.rsplit_once('|').is_some_and(|(_, host)| change.endpoints.contains(host));
        let names = match url {
            type_url::ENDPOINT => Names::Set(endpoints.iter().filter(concerned).cloned().collect()),
            type_url::ROUTE => Names::Set(["80".to_owned()].into()),
            _ => Names::Wildcard,
        };
        count += generate(mesh, proxy, url, &names, cache).resources.len();
    }
    count
}

fn proxy(index: usize) -> ProxyView {
    let (service, instance) = (index % SERVICES, index / SERVICES);
    let address = address(service, instance);
    let id = format!("sidecar~{address}~s{service}-{instance}.default~default.svc.cluster.local");
    let metadata = json!({"NAMESPACE": "default", "LABELS": {"app": format!("s{service}")}});
    ProxyView::parse(RawNode { id: &id, metadata, ..RawNode::default() }).unwrap()
}

fn objects() -> Vec<Object> {
    let mut out = Vec::new();
    for service in 0..SERVICES {
        let name = format!("s{service}");
        out.push(object(&json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
            "spec": {"clusterIP": format!("10.96.{}.{}", service / 250, service % 250 + 1),
                "selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
        })));
        out.extend((0..ENDPOINTS).map(|instance| pod(service, instance, true)));
    }
    out
}

fn pod(service: usize, instance: usize, ready: bool) -> Object {
    let status = if ready { "True" } else { "False" };
    object(&json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("s{service}-{instance}"), "namespace": "default", "labels":
            {"app": format!("s{service}"), "security.istio.io/tlsMode": "istio"}},
        "spec": {"serviceAccountName": format!("s{service}"), "containers": [{"name": "a", "image": "a"}]},
        "status": {"phase": "Running", "podIP": address(service, instance),
            "conditions": [{"type": "Ready", "status": status}]},
    }))
}

fn address(service: usize, instance: usize) -> String {
    format!("10.{}.{}.{}", 100 + instance, service / 250, service % 250 + 1)
}

fn object(manifest: &Value) -> Object {
    Object::decode(manifest).unwrap().objects.remove(0)
}
