//! Injected faults: what clients see, what is counted, and what the runtime has to say.

use std::time::{Duration, Instant};

use super::setup::{APP, FILTERS, bootstrap, cluster, filter};
use super::support::{Backend, Proxy, call};

const ALWAYS: &str = "percentage: {numerator: 100}";
const NEVER: &str = "percentage: {numerator: 0}";

fn route(path: &str, fault: &str) -> String {
    format!(
        "{{match: {{path: {path}}}, route: {{cluster: app}}, typed_per_filter_config: {{fault: {{\"@type\": \
         {FILTERS}.fault.v3.HTTPFault, {fault}}}}}}}, "
    )
}

/// A proxy whose routes have these faults, and whose runtime has these values.
fn proxy(routes: &[(&str, String)], runtime: &str, backend: &Backend) -> Proxy {
    let routes: String = routes.iter().map(|(path, fault)| route(path, fault)).collect();
    let config = bootstrap(
        &filter("fault", "fault.v3.HTTPFault"),
        &format!("{routes}{APP}"),
        &cluster("app", &[backend.address], ""),
    );
    let layers = "{name: values, static_layer: {RUNTIME}}, {name: admin, admin_layer: {}}";
    let layers = layers.replace("RUNTIME", runtime);
    Proxy::ready(&format!("{config}layered_runtime: {{layers: [{layers}]}}\n"), &[])
}

#[test]
fn responses_are_slowed() {
    let backend = Backend::start(Box::leak("x".repeat(3 * 1024).into_boxed_str()));
    let limit =
        |percentage: &str| format!("response_rate_limit: {{fixed_limit: {{limit_kbps: 2}}, {percentage}}}");
    let proxy = proxy(&[("/slow", limit(ALWAYS)), ("/never", limit(NEVER))], "", &backend);
    let at = proxy.listener("l");
    let time = |path: &str| {
        let began = Instant::now();
        assert_eq!(call(at, "GET", path, &[]).unwrap().body.len(), 3 * 1024);
        began.elapsed()
    };
    assert!(time("/slow") >= Duration::from_millis(400), "the third KiB takes half a second");
    assert_eq!(proxy.stat("http.in.fault.response_rl_injected"), Some(1));
    time("/never");
    assert_eq!(proxy.stat("http.in.fault.response_rl_injected"), Some(1));
    assert_eq!(proxy.stat("http.in.fault.active_faults"), Some(0));
}

#[test]
fn aborts_say_what_they_are_told_to() {
    let backend = Backend::start("here");
    let abort = |more: &str| format!("abort: {{http_status: 418, {more}{ALWAYS}}}");
    let routes = [
        ("/plain", abort("")),
        ("/told", abort("response_body: enough, ")),
        ("/full", format!("{}, max_active_faults: 0", abort(""))),
    ];
    let proxy = proxy(&routes, "", &backend);
    let get = |path: &str| {
        let client = ("x-envoy-downstream-service-cluster", "shop");
        let answer = call(proxy.listener("l"), "GET", path, &[client]).unwrap();
        (answer.status, answer.body)
    };
    assert_eq!(get("/plain"), (418, "fault filter abort".into()));
    assert_eq!(get("/told"), (418, "enough".into()));
    assert_eq!(get("/full"), (200, "here".into()));
    assert_eq!(proxy.stat("http.in.fault.aborts_injected"), Some(2));
    assert_eq!(proxy.stat("http.in.fault.faults_overflow"), Some(1));
    assert_eq!(proxy.stat("http.in.fault.shop.aborts_injected"), Some(2));
}

#[test]
fn the_runtime_has_the_last_word() {
    let backend = Backend::start("here");
    let routes = [
        ("/usual", format!("abort: {{http_status: 503, {NEVER}}}")),
        ("/named", format!("abort: {{http_status: 503, {NEVER}}}, abort_percent_runtime: mine")),
    ];
    let runtime = "fault.http.abort.abort_percent: 100, fault.http.abort.http_status: 429";
    let proxy = proxy(&routes, runtime, &backend);
    let status = |path: &str| call(proxy.listener("l"), "GET", path, &[]).unwrap().status;
    assert_eq!((status("/usual"), status("/named")), (429, 200));
    proxy.admin("POST", "/runtime_modify?mine=100&fault.http.abort.abort_percent=0");
    assert_eq!((status("/usual"), status("/named")), (200, 429));
}
