//! Calls between the documented applications, and who decides about them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]
#[path = "../../../control-plane/translate/tests/common/world.rs"]
mod world;

use std::net::{IpAddr, SocketAddr};

use e2e_sim::{Call, Outcome, Protocol, Proxy, Route, Server, call};
use saild_model::Mesh;
use saild_translate::Cache;

/// What sail-proxy announces of Istio's.
const OWN: [&str; 3] = ["istio.metadata_exchange", "istio.stats", "istio.alpn"];

struct Sim {
    mesh: Mesh,
    cache: Cache,
}

impl Sim {
    fn new(files: &[&str], inline: &str) -> Self {
        let read = |path: &&str| std::fs::read_to_string(world::root().join("examples").join(path)).unwrap();
        let mut texts: Vec<String> = files.iter().map(read).collect();
        texts.push(inline.to_owned());
        Self { mesh: world::mesh(&texts), cache: Cache::new() }
    }

    fn bookinfo(more: &[&str]) -> Self {
        let base = ["bookinfo/platform/bookinfo.yaml", "bookinfo/networking/destination-rule-all.yaml"];
        Self::new(&[&base, more].concat(), "")
    }

    fn proxy(&self, workload: &str, kind: &str) -> Proxy {
        let view = world::proxy(world::pod(&self.mesh, workload), kind, &OWN.map(str::to_owned));
        Proxy::load(&self.mesh, view, &self.cache).unwrap_or_else(|error| panic!("{error}"))
    }

    fn address(&self, service: &str, port: u16) -> SocketAddr {
        let host = format!("{service}.default.svc.cluster.local");
        let service = self.mesh.services_of_host(&host).next().unwrap();
        SocketAddr::new(service.addresses[0].addr(), port)
    }

    fn get(&self, service: &str, port: u16, path: &str) -> Call {
        Call::get(self.address(service, port), service, path)
    }

    /// The workload at an address.
    fn workload(&self, outcome: &Outcome) -> String {
        let Outcome::Endpoint { address, .. } = outcome else { panic!("{outcome:?}") };
        self.mesh.workload_at(address.ip()).unwrap().workload_name.clone()
    }

    /// The call of one workload that arrives at another.
    fn arrives(&self, from: &str, at: &str, mut arriving: Call, mutual: bool) -> (Route, Server) {
        let (from, server) = (world::pod(&self.mesh, from), self.proxy(at, "sidecar"));
        let ip: IpAddr = world::pod(&self.mesh, at).addresses[0];
        arriving.to.set_ip(ip);
        let id = format!("spiffe://cluster.local/ns/{}/sa/{}", from.namespace, from.service_account);
        Server::receive(&server, &arriving, from.addresses[0], mutual.then_some(id.as_str()))
    }
}

fn cluster(route: &Route) -> &str {
    route.cluster.as_deref().unwrap_or_default()
}

#[test]
fn jason_gets_version_2() {
    let sim = Sim::bookinfo(&["bookinfo/networking/virtual-service-reviews-test-v2.yaml"]);
    let proxy = sim.proxy("productpage-v1", "sidecar");
    let mut request = sim.get("reviews", 9080, "/reviews/0");
    let (route, outcome) = call(&proxy, &request);
    assert_eq!(cluster(&route), "outbound|9080|v1|reviews.default.svc.cluster.local");
    assert_eq!(sim.workload(&outcome), "reviews-v1");
    request.headers.insert("end-user", "jason".parse().unwrap());
    let (route, outcome) = call(&proxy, &request);
    assert_eq!(route.listener, "0.0.0.0_9080");
    assert_eq!(route.virtual_host.as_deref(), Some("reviews.default.svc.cluster.local:9080"));
    assert_eq!(sim.workload(&outcome), "reviews-v2");
    assert!(matches!(outcome, Outcome::Endpoint { tls: true, .. }));
}

#[test]
fn weights_are_kept() {
    let sim = Sim::bookinfo(&["bookinfo/networking/virtual-service-reviews-50-v3.yaml"]);
    let proxy = sim.proxy("productpage-v1", "sidecar");
    let mut third = 0;
    for random in 0..1000 {
        let request = Call { random, ..sim.get("reviews", 9080, "/") };
        third += u32::from(sim.workload(&call(&proxy, &request).1) == "reviews-v3");
    }
    assert_eq!(third, 500);
}

#[test]
fn every_name_of_a_service_is_known() {
    let sim = Sim::bookinfo(&[]);
    let proxy = sim.proxy("productpage-v1", "sidecar");
    let long = "details.default.svc.cluster.local";
    for name in ["details", "details.default", "details.default.svc", long, "details:9080", "DETAILS"] {
        let (route, _) = call(&proxy, &Call { authority: name.to_owned(), ..sim.get("details", 9080, "/") });
        assert_eq!(cluster(&route), "outbound|9080||details.default.svc.cluster.local", "{name}");
    }
}

#[test]
fn a_call_reaches_the_workload() {
    let sim = Sim::bookinfo(&[]);
    for mutual in [true, false] {
        let (route, server) =
            sim.arrives("productpage-v1", "reviews-v1", sim.get("reviews", 9080, "/"), mutual);
        assert_eq!((cluster(&route), server), ("inbound|9080||", Server::Served));
    }
    // Ports that no service leads to are passed on.
    let mut other = sim.get("reviews", 9080, "/");
    other.to.set_port(1234);
    let (route, server) = sim.arrives("productpage-v1", "reviews-v1", other, false);
    assert_eq!((cluster(&route), server), ("InboundPassthroughCluster", Server::Served));
}

#[test]
fn the_gateway_knows_the_product_page() {
    let gateway =
        std::fs::read_to_string(world::root().join("control-plane/translate/testdata/ingress/in.yaml"));
    let base = ["bookinfo/platform/bookinfo.yaml", "bookinfo/networking/bookinfo-gateway.yaml"];
    let sim = Sim::new(&base, &gateway.unwrap());
    let proxy = sim.proxy("istio-ingressgateway", "router");
    let request = |path: &str| {
        let to = SocketAddr::new(proxy.view.addresses[0], 8080);
        call(&proxy, &Call::get(to, "anything.example.com", path))
    };
    assert_eq!(sim.workload(&request("/productpage").1), "productpage-v1");
    assert_eq!(request("/nothing").1, Outcome::Answer(404));
}

#[test]
fn unknown_hosts_pass_or_are_refused() {
    let to: SocketAddr = "203.0.113.1:80".parse().unwrap();
    let open = Sim::new(&["tasks/echo.yaml", "tasks/service-entry.yaml"], "");
    let (_, outcome) = call(&open.proxy("echo-v1", "sidecar"), &Call::get(to, "other.example.com", "/"));
    assert_eq!(outcome, Outcome::Passthrough { address: to, tls: false });
    let shut = Sim::new(&["tasks/echo.yaml", "tasks/service-entry.yaml", "tasks/registry-only.yaml"], "");
    let proxy = shut.proxy("echo-v1", "sidecar");
    assert_eq!(call(&proxy, &Call::get(to, "other.example.com", "/")).1, Outcome::Answer(502));
    let known: SocketAddr = "240.0.0.10:80".parse().unwrap();
    let (_, outcome) = call(&proxy, &Call::get(known, "api.example.com", "/"));
    assert_eq!(outcome, Outcome::Endpoint { address: "192.0.2.10:8080".parse().unwrap(), tls: false });
}

#[test]
fn strict_refuses_plain_text() {
    let sim = Sim::new(&["tasks/echo.yaml", "tasks/strict.yaml"], "");
    let request = || sim.get("echo", 8080, "/");
    let tcp = || Call { protocol: Protocol::Tcp, ..sim.get("echo", 9000, "/") };
    assert_eq!(sim.arrives("echo-v2", "echo-v1", request(), true).1, Server::Served);
    assert_eq!(sim.arrives("echo-v2", "echo-v1", tcp(), true).1, Server::Served);
    assert_eq!(sim.arrives("echo-v2", "echo-v1", request(), false).1, Server::Closed("no filter chain"));
    assert_eq!(sim.arrives("echo-v2", "echo-v1", tcp(), false).1, Server::Closed("no filter chain"));
}

#[test]
fn tcp_goes_by_weight() {
    let sim = Sim::new(&["tasks/echo.yaml", "tasks/tcp-weights.yaml"], "");
    let proxy = sim.proxy("echo-v1", "sidecar");
    let mut first = 0;
    for random in 0..100 {
        let connection = Call { protocol: Protocol::Tcp, random, ..sim.get("echo", 9000, "") };
        first += u32::from(sim.workload(&call(&proxy, &connection).1) == "echo-v1");
    }
    assert_eq!(first, 80);
}

const POLICY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: viewer}
spec:
  selector: {matchLabels: {app: details}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/default/sa/bookinfo-productpage]}}]
    to: [{operation: {methods: [GET], paths: ['/details/*']}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-secrets}
spec:
  selector: {matchLabels: {app: details}}
  action: DENY
  rules:
  - to: [{operation: {paths: ['/details/secret']}}]
";

#[test]
fn policies_decide() {
    let sim = Sim::new(&["bookinfo/platform/bookinfo.yaml"], POLICY);
    let ask = |from: &str, method: &str, path: &str, mutual: bool| {
        let request = Call { method: method.to_owned(), ..sim.get("details", 9080, path) };
        sim.arrives(from, "details-v1", request, mutual).1
    };
    assert_eq!(ask("productpage-v1", "GET", "/details/0", true), Server::Served);
    let none = Server::Denied { policy: None };
    assert_eq!(ask("productpage-v1", "POST", "/details/0", true), none);
    assert_eq!(ask("reviews-v1", "GET", "/details/0", true), none);
    assert_eq!(ask("productpage-v1", "GET", "/details/0", false), none);
    let policy = Some("ns[default]-policy[no-secrets]-rule[0]".to_owned());
    assert_eq!(ask("productpage-v1", "GET", "/details/secret", true), Server::Denied { policy });
}

#[test]
fn who_cannot_be_asked_refuses() {
    let policy = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: asked}
spec:
  selector: {matchLabels: {app: details}}
  action: CUSTOM
  provider: {name: nobody}
  rules:
  - to: [{operation: {paths: ['/admin']}}]
";
    let sim = Sim::new(&["bookinfo/platform/bookinfo.yaml"], policy);
    let (_, server) = sim.arrives("productpage-v1", "details-v1", sim.get("details", 9080, "/"), true);
    let policy = Some("default-deny-all-due-to-bad-CUSTOM-action".to_owned());
    assert_eq!(server, Server::Denied { policy });
}

#[test]
fn policies_that_only_report_refuse_nobody() {
    let policy = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: tried, annotations: {istio.io/dry-run: 'true'}}
spec:
  selector: {matchLabels: {app: details}}
  action: DENY
  rules: [{}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: of-a-waypoint}
spec:
  targetRefs: [{group: '', kind: Service, name: details}]
  action: DENY
  rules: [{}]
";
    let sim = Sim::new(&["bookinfo/platform/bookinfo.yaml"], policy);
    let (_, server) = sim.arrives("productpage-v1", "details-v1", sim.get("details", 9080, "/"), true);
    assert_eq!(server, Server::Served);
}

#[test]
fn patches_of_users_decide() {
    let patches = "
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: teapot}
spec:
  workloadSelector: {labels: {app: productpage}}
  configPatches:
  - applyTo: HTTP_ROUTE
    match: {context: SIDECAR_OUTBOUND, routeConfiguration: {vhost: {name: 'details.default.svc.cluster.local:9080'}}}
    patch: {operation: INSERT_FIRST, value: {match: {path: /teapot}, direct_response: {status: 418}}}
";
    let sim = Sim::new(&["bookinfo/platform/bookinfo.yaml"], patches);
    let ask = |from: &str, path: &str| call(&sim.proxy(from, "sidecar"), &sim.get("details", 9080, path)).1;
    assert_eq!(ask("productpage-v1", "/teapot"), Outcome::Answer(418));
    assert!(matches!(ask("productpage-v1", "/other"), Outcome::Endpoint { .. }));
    assert!(matches!(ask("reviews-v1", "/teapot"), Outcome::Endpoint { .. }));
}
