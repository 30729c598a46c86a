//! What is counted of gRPC requests.

use super::grpc;
use super::setup::{APP, HTTP2, cluster, filter, proxy};
use super::support::{Proxy, call};

fn with(config: &str) -> Proxy {
    let upstream = grpc::serve(|| |_: String| vec![String::new()]);
    proxy(
        &filter("stats", &format!("grpc_stats.v3.FilterConfig, {config}")),
        APP,
        &cluster("app", &[upstream], HTTP2),
    )
}

fn ask(proxy: &Proxy, path: &str) {
    let headers = [("content-type", "application/grpc"), ("te", "trailers")];
    assert_eq!(call(proxy.listener("l"), "POST", path, &headers).unwrap().status, 200);
}

#[test]
fn methods_that_are_listed_are_counted_by_name() {
    let proxy =
        with("individual_method_stats_allowlist: {services: [{name: shop.Cart, method_names: [Add]}]}");
    ask(&proxy, "/shop.Cart/Add");
    ask(&proxy, "/shop.Cart/Empty");
    ask(&proxy, "/shop.Cart/Empty");
    for name in ["success", "total", "0"] {
        assert_eq!(proxy.stat(&format!("cluster.app.grpc.shop.Cart.Add.{name}")), Some(1), "{name}");
        assert_eq!(proxy.stat(&format!("cluster.app.grpc.{name}")), Some(2), "{name}");
    }
    assert_eq!(proxy.stat("cluster.app.grpc.failure"), None, "none has failed");
}

#[test]
fn all_methods_are_counted_where_that_is_asked() {
    let proxy = with("stats_for_all_methods: true, replace_dots_in_grpc_service_name: true");
    ask(&proxy, "/shop.Cart/Add");
    assert_eq!(proxy.stat("cluster.app.grpc.shop_Cart.Add.success"), Some(1));
    ask(&proxy, "/no-method");
    assert_eq!(proxy.stat("cluster.app.grpc.success"), Some(1));
}
